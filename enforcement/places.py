"""Which block device each volume of a container lies on: pod-api.md 1, "on the node a volume is found by its mount"."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from noisegate.enforcement.actions import Device
from noisegate.enforcement.intent.intent import Intent
from noisegate.enforcement.kernel.blocks import Blocks
from noisegate.enforcement.kernel.mountinfo import Mount, Tree
from noisegate.enforcement.nri.events import Container
from noisegate.enforcement.refusal import Refusal
from noisegate.isolation import keys
from noisegate.isolation.disk import WRITABLE_LAYERS, in_container


class Places:
    """Looks up where volumes lie.

    Args:
        blocks: The node's block devices.
        mounts: Reads the mounts that this process sees.
        host: Where the host's root is seen.
        store: Folder of the runtime's container store, on the host.
    """

    def __init__(self, blocks: Blocks, mounts: Callable[[], Sequence[Mount]], host: Path, store: str) -> None:
        self._blocks: Final = blocks
        self._host: Final = Tree(mounts, host)
        self._store: Final = store

    def of(self, intent: Intent, container: Container) -> dict[str, Device]:
        """Return the throttled device of each volume that is asked for and that a container has.

        Raises:
            Refusal: A volume cannot be found, or has no device that can be throttled.
        """
        request = intent.asked.disk
        if request is None:
            return {}
        named = [entry.volume for entry in request.volumes if entry.volume != WRITABLE_LAYERS]
        if named and not _paths_known(intent):
            raise Refusal(
                "VolumesUnknown",
                f"where container {container.name} has volume {named[0]} is not known: the API server has not told of the "
                f"pod yet, and it has no annotation {keys.VOLUME_PATHS}",
                "have the pod admitted by noisegate's webhook, or wait for the API server",
            )
        places: dict[str, Device] = {}
        for entry in request.volumes:
            if entry.volume == WRITABLE_LAYERS:
                places[entry.volume] = self._of_path(self._store)
            elif path := intent.volumes.get(entry.volume, {}).get(container.name):
                places[entry.volume] = self._of_volume(container, entry.volume, path)
        return places

    def of_store(self) -> Device:
        """Return the device of the writable layers.

        Raises:
            Refusal: It has none that can be throttled.
        """
        return self._of_path(self._store)

    def _of_volume(self, container: Container, volume: str, path: str) -> Device:
        # A pod's ledger may have paths as they were written.
        where = in_container(path)
        for device in container.devices:
            if in_container(device.path) == where and device.kind == "b":
                return self._blocks.throttled(device.device)
        # What is mounted last at a place is what the container sees there.
        for mount in reversed(container.mounts):
            if in_container(mount.destination) == where:
                return self._of_path(mount.source)
        told = f"container {container.name} has neither a mount nor a block device at {path}, where volume {volume} is said to be"
        raise Refusal("VolumeNotFound", told, "see what changed the container's mounts")

    def _of_path(self, path: str) -> Device:
        if not path.startswith("/"):
            raise Refusal("VolumeNotFound", f"{path} is no path on the host", "see what changed the container's mounts")
        mount = self._host.holding(path)
        if mount is None:
            told = f"{path} is on no mount that the enforcer sees"
            raise Refusal("VolumeNotFound", told, "mount the host's root into its container, with HostToContainer")
        return self._blocks.of_mount(mount, path)


def _paths_known(intent: Intent) -> bool:
    """Tell whether a volume that stands nowhere is mounted nowhere."""
    return intent.source == "watch" or bool(intent.volumes) or keys.VOLUME_PATHS in intent.annotations
