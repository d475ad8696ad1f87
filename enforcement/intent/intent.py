"""What a pod asks of this node, from whoever knows it best: the watch, else the ledger, else the container runtime.

The runtime's annotations are those of the sandbox when it was made and never change (containerd's
internal/cri/nri/nri_api_linux.go), so what the API server said later counts more, also when it is remembered only.
"""

from collections.abc import Mapping
from functools import partial
from typing import Final, Literal, NamedTuple

import msgspec

from noisegate.enforcement.intent.spec import Spec
from noisegate.isolation import asked, disk, keys, network, rdt
from noisegate.isolation.asked import Asked, Kind
from noisegate.isolation.disk import DiskRequest
from noisegate.isolation.payload import Payload
from noisegate.isolation.problems import Findings, Problem, in_annotation

Source = Literal["watch", "ledger", "runtime"]
Volumes = Mapping[str, Mapping[str, str]]
"""Volume -> container -> where the container has it, as `disk.in_container` says it: a mountPath or a devicePath."""

_KEPT: Final = frozenset(
    {
        keys.DISK,
        keys.NETWORK,
        keys.RDT_OWN_POD,
        keys.RDT_RUNTIME_POD,
        keys.VOLUME_PATHS,
        # Beside ours they are an error: two shapers.
        keys.CNI_INGRESS,
        keys.CNI_EGRESS,
    }
)
_KEPT_PREFIXES: Final = (keys.RDT_OWN_CONTAINER, keys.RDT_RUNTIME_CONTAINER)
_ASKING: Final = frozenset({keys.DISK, keys.NETWORK, keys.RDT_OWN_POD})


class Sandbox(NamedTuple):
    """A pod as the container runtime knows it.

    Attributes:
        uid: Of a static pod: the kubelet's own, which no object of the API server has.
        namespace: Its namespace.
        name: Its name.
        annotations: All of them, as they were when the sandbox was made.
        host_network: It is known to have no network namespace of its own.
    """

    uid: str
    namespace: str
    name: str
    annotations: Mapping[str, str]
    host_network: bool = False


class Watched(NamedTuple):
    """A pod as the API server knows it now.

    Attributes:
        uid: As the runtime knows it, which for a mirror pod is not its own.
        namespace: Its namespace.
        name: Its name.
        annotations: `kept` of them; none where it asks for nothing.
        resource_version: Of the object when it was first seen to ask for this; empty where it asks for nothing.
        terminating: It is being deleted.
        mirror: It is the kubelet's image of a static pod. The pod's file says what it asks for, the image nothing.
        spec: None where it asks for nothing.
    """

    uid: str
    namespace: str
    name: str
    annotations: Mapping[str, str] = {}
    resource_version: str = ""
    terminating: bool = False
    mirror: bool = False
    spec: Spec | None = None


class Remembered(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What was in force, as the ledger keeps it.

    Attributes:
        source: Who said it.
        resource_version: Of the object that said it; empty where the runtime did.
        annotations: `kept` of those in force.
        volumes: Of those that ask, where each container has them.
    """

    source: Literal["watch", "runtime"]
    resource_version: str
    annotations: dict[str, str]
    volumes: dict[str, dict[str, str]]


class Intent(NamedTuple):
    """What a pod asks of this node.

    Attributes:
        uid: Of the pod, as the runtime knows it.
        namespace: Its namespace.
        name: Its name.
        source: Who says it.
        resource_version: Of the object that says it; empty where the runtime does.
        annotations: Those in force: of each kind what was said last and could be meant.
        asked: What they mean. `bad` names the kinds of which the last word could not be meant: what was in force of them
            stays so, and where nothing was, they are absent.
        volumes: Of those that ask, where each container has them; one that is absent is mounted nowhere, or is not known.
        problems: Why not, for an Event.
    """

    uid: str
    namespace: str
    name: str
    source: Source
    resource_version: str = ""
    annotations: Mapping[str, str] = {}
    asked: Asked = Asked()
    volumes: Mapping[str, Mapping[str, str]] = {}
    problems: tuple[Problem, ...] = ()

    @property
    def kinds(self) -> tuple[Kind, ...]:
        """What there is to enforce, of `disk`, `network` and `rdt`."""
        return asked.enforced(self.asked, frozenset())

    def remembered(self) -> Remembered:
        """Return what the ledger is to keep of it."""
        volumes = {name: dict(paths) for name, paths in self.volumes.items()}
        source: Literal["watch", "runtime"] = "runtime" if self.source == "runtime" else "watch"
        return Remembered(source, self.resource_version, dict(self.annotations), volumes)


def asks_node(annotations: Mapping[str, str]) -> bool:
    """Tell whether any annotation asks for what only the node can do; the runtime's own RDT keys do not."""
    for key in annotations:  # noqa: SIM110  (a generator would cost as much as the rest)
        if key in _ASKING or key.startswith(keys.RDT_OWN_CONTAINER):
            return True
    return False


def kept(annotations: Mapping[str, str]) -> dict[str, str]:
    """Return the annotations that the node reads."""
    return {key: text for key, text in annotations.items() if key in _KEPT or key.startswith(_KEPT_PREFIXES)}


def choose(sandbox: Sandbox, watched: Watched | None = None, remembered: Remembered | None = None) -> Intent:
    """Return what a pod asks for.

    Args:
        sandbox: The pod, as the runtime knows it.
        watched: The API server's object of this uid, if the watch has brought it. Another uid is another pod.
        remembered: What the ledger has of this uid.
    """
    if watched is not None and watched.uid != sandbox.uid:
        watched = None
    source, version, annotations = _last_word(sandbox, watched, remembered)
    if not asks_node(annotations):
        return Intent(sandbox.uid, sandbox.namespace, sandbox.name, source, version)
    found = Findings()
    spec = None if watched is None else watched.spec
    known = {} if remembered is None else remembered.volumes
    said, volumes, bad = _read(annotations, spec, known, sandbox.host_network, found)
    if bad:
        before = {} if remembered is None else remembered.annotations
        annotations = {key: text for key, text in annotations.items() if asked.kind_of(key) not in bad}
        annotations |= {key: text for key, text in before.items() if asked.kind_of(key) in bad}
        if not asks_node(annotations):
            annotations = {}
        said = asked.read(annotations, Findings())._replace(bad=frozenset(bad))
        if "disk" in bad:
            volumes = known
    return Intent(
        sandbox.uid, sandbox.namespace, sandbox.name, source, version, annotations, said, volumes, tuple(found.problems)
    )


def _last_word(
    sandbox: Sandbox, watched: Watched | None, remembered: Remembered | None
) -> tuple[Source, str, dict[str, str]]:
    # Admission does not judge changes of a pod that is being deleted (pod-api.md 7), so they change nothing.
    if watched is not None and not watched.mirror and not (watched.terminating and remembered is not None):
        return "watch", watched.resource_version, dict(watched.annotations)
    # Where the runtime said it then, it says it now: a sandbox that was made anew has newer annotations.
    if remembered is not None and remembered.source == "watch":
        return "ledger", remembered.resource_version, remembered.annotations
    return "runtime", "", kept(sandbox.annotations)


def _read(
    annotations: Mapping[str, str], spec: Spec | None, known: Volumes, host_network: bool, found: Findings
) -> tuple[Asked, Volumes, set[Kind]]:
    """Read annotations as admission does; return what they mean, where the volumes are, and what cannot be meant."""
    said = asked.read(annotations, found)
    bad = set(said.bad)
    volumes: Volumes = {}
    before = len(found.problems)
    if said.disk is not None:
        if spec is not None:
            disk.fit(said.disk, spec, found)
            volumes = disk.mounts_of(said.disk, spec)
        else:
            # A pod's volumes and mounts never change.
            volumes = known or _paths(said.disk, annotations, found)
        before = _blame("disk", bad, before, found)
    if said.network is not None:
        network.fit(said.network, spec or Spec(host_network=host_network), annotations, found)
        before = _blame("network", bad, before, found)
    if said.rdt is not None and spec is not None:
        rdt.fit(said.rdt, [container.name for container in (*spec.init_containers, *spec.containers)], found)
        _blame("rdt", bad, before, found)
    return said, volumes, bad


def _blame(kind: Kind, bad: set[Kind], before: int, found: Findings) -> int:
    if len(found.problems) > before:
        bad.add(kind)
    return len(found.problems)


def _paths(request: DiskRequest, annotations: Mapping[str, str], found: Findings) -> Volumes:
    """Read `noisegate.io/volume-paths`, where there is a volume that asks."""
    named = {entry.volume for entry in request.volumes if entry.volume != disk.WRITABLE_LAYERS}
    text = annotations.get(keys.VOLUME_PATHS)
    if text is None or not named:
        return {}
    payload = Payload(partial(in_annotation, keys.VOLUME_PATHS), found)
    volumes: dict[str, dict[str, str]] = {}
    for volume, containers in (payload.decode_object(text) or {}).items():
        if not isinstance(containers, dict):
            payload.wrong_type(containers, "an object", volume)
            continue
        paths = {name: payload.string(path, volume, name) for name, path in containers.items()}
        if volume in named:
            volumes[volume] = {name: disk.in_container(path) for name, path in paths.items() if path is not None}
    return volumes
