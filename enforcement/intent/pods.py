"""The pods of this node as the API server has them, kept up to date by list and watch; of each only what is read.

Nothing waits for it: where it has not brought a pod yet, or the API server is away, the ledger and the runtime's
annotations serve.
"""

from collections.abc import Callable
from typing import Final

import msgspec

from noisegate.cluster.connection import Connection
from noisegate.cluster.reflector import Kind, Meta, Reflector, Result, key_of
from noisegate.enforcement.intent.intent import Sandbox, Watched, asks_node, kept
from noisegate.enforcement.intent.spec import Spec
from noisegate.enforcement.rights import mended
from noisegate.isolation import keys

PATH: Final = "/api/v1/pods"


class _Meta(Meta, rename="camel"):
    uid: str = ""
    deletion_timestamp: str | None = None


class _Pod(msgspec.Struct):
    metadata: _Meta
    # Most pods ask for nothing: their spec is never built.
    spec: msgspec.Raw = msgspec.Raw(b"{}")


_decode_spec: Final = msgspec.json.Decoder(Spec).decode


class Pods:
    """Follows the pods of one node. To be used in one event loop.

    Args:
        node: Its name.
        connection: To the API server.
        changed: Called with the uid of a pod that asks for something else than before, or was not known; with that of a
            pod that begins to be deleted too.
        noted: Called with what came of a list or a watch, and why it failed.
    """

    def __init__(
        self,
        node: str,
        connection: Connection,
        changed: Callable[[str], None],
        noted: Callable[[Result, str], None] = lambda _result, _reason: None,
    ) -> None:
        kind = Kind("pods", PATH, _Pod, _watched, {"fieldSelector": f"spec.nodeName={node}"}, _key)
        self._changed: Final = changed
        self._reflector: Final = Reflector[Watched](
            kind, connection, self._compare, lambda result, reason: noted(result, mended(reason))
        )
        self._known: dict[str, Watched] = {}

    async def follow(self) -> None:
        """Keep them up to date, for ever."""
        await self._reflector.follow()

    def get(self, sandbox: Sandbox) -> Watched | None:
        """Return the API server's object of a pod, or None where it is not known.

        The kubelet's image of a static pod has a uid of its own and names the pod's in an annotation; anybody may write
        that, so a pod of the same uid goes first, and the image must bear the pod's name (as in the kubelet's
        pkg/kubelet/pod/pod_manager.go).
        """
        there = self._known
        found = there.get(sandbox.uid) or there.get(f"{sandbox.namespace}/{sandbox.name}")
        return found if found is not None and found.uid == sandbox.uid else None

    @property
    def filled(self) -> bool:
        """Whether the first list is complete."""
        return self._reflector.filled

    @property
    def trouble(self) -> str:
        """Why it is not up to date, and what to do where that is known; empty when it is."""
        return mended(self._reflector.trouble)

    @property
    def heard(self) -> float:
        """When the API server last told something, in seconds since the epoch."""
        return self._reflector.heard

    def _compare(self) -> None:
        before, self._known = self._known, dict(self._reflector.objects)
        anew = []
        for key, now in self._known.items():
            was = before.get(key)
            if was is not None and was._replace(resource_version=now.resource_version) == now:
                # Its status changes every few seconds, and with it the version.
                self._known[key] = was
            elif now.annotations or (was is not None and was.annotations):
                anew.append(now.uid)
        for uid in anew:
            self._changed(uid)


def _key(metadata: _Meta) -> str:
    # A uid has no slash.
    return key_of(metadata) if keys.MIRROR in metadata.annotations else metadata.uid


def _watched(pod: _Pod) -> Watched:
    meta = pod.metadata
    mirrored = meta.annotations.get(keys.MIRROR)
    uid = meta.uid if mirrored is None else mirrored
    if not asks_node(meta.annotations):
        return Watched(uid, meta.namespace, meta.name)
    return Watched(
        uid,
        meta.namespace,
        meta.name,
        kept(meta.annotations),
        meta.resource_version,
        meta.deletion_timestamp is not None,
        mirrored is not None,
        _decode_spec(pod.spec),
    )
