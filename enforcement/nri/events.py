"""What the runtime tells and what it is answered, as plain values: only `nri/` knows protobuf.

A `Handler` is called with them. Nothing here is more than the runtime said: an id that is empty was empty there.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Final, NamedTuple, Protocol

from noisegate.enforcement.actions import Device


class State(Enum):
    """Where a container is in its life, by NRI's numbers."""

    UNKNOWN = 0
    CREATED = 1
    PAUSED = 2
    RUNNING = 3
    STOPPED = 4


@dataclass(frozen=True, slots=True)
class Sandbox:
    """A pod as the runtime knows it.

    Attributes:
        id: The runtime's; a pod whose pause process died gets another sandbox.
        uid: The pod's.
        name: The pod's.
        namespace: The pod's.
        annotations: As they were when the sandbox was created: later changes of the pod are never in them.
        cgroup_parent: The pod's cgroup, from the root of the hierarchy:
            `/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod<uid>.slice`, or `/kubepods/burstable/pod<uid>`.
        netns: Path of its network namespace; empty: the host's, or the sandbox is down, or that is not told.
        pid: Of the pause process; 0: there is none.
        runtime_handler: Of its RuntimeClass; empty: the runtime's default.
        namespaces_told: Any namespace was told of; every pod has some of its own. False: the runtime has no OCI spec of the
            sandbox, or could not read it (containerd 2.4.2, internal/cri/nri/nri_api_linux.go).
    """

    id: str
    uid: str
    name: str
    namespace: str
    annotations: Mapping[str, str] = field(default_factory=dict)
    cgroup_parent: str = ""
    netns: str = ""
    pid: int = 0
    runtime_handler: str = ""
    namespaces_told: bool = True

    @property
    def host_network(self) -> bool:
        """Tell whether the runtime says that it has no network namespace of its own; one that is down has none either."""
        return self.namespaces_told and not self.netns

    @property
    def stopped(self) -> bool:
        """Tell whether it is down for good: its processes have ended and its network is gone."""
        return not self.pid and not self.netns


class Mount(NamedTuple):
    """A mount of a container; no flag tells a volume from what the runtime adds.

    Attributes:
        destination: Path in the container.
        source: Path on the host, or a word such as `proc`.
    """

    destination: str
    source: str


class ContainerDevice(NamedTuple):
    """A device node of a container, such as a block volume.

    Attributes:
        path: In the container.
        kind: As mknod(1) names it: `b`, `c`, `u` or `p`.
        device: Its numbers.
    """

    path: str
    kind: str
    device: Device


@dataclass(frozen=True, slots=True)
class Container:
    """A container as the runtime knows it.

    Attributes:
        id: The runtime's.
        sandbox: The id of its sandbox.
        name: As the pod calls it.
        state: In its life.
        mounts: In the order of mounting.
        devices: Device nodes.
        cgroups_path: Of the runtime's driver: a path from the root, or `<slice>:cri-containerd:<id>` with systemd.
        pid: Of its first process; 0 until it is started.
        rdt_class: The runtime's class of cache and memory bandwidth; None: none was given.
        clos_id: The resctrl group it starts in; None: none was given.
    """

    id: str
    sandbox: str
    name: str
    state: State = State.UNKNOWN
    mounts: tuple[Mount, ...] = ()
    devices: tuple[ContainerDevice, ...] = ()
    cgroups_path: str = ""
    pid: int = 0
    rdt_class: str | None = None
    clos_id: str | None = None


@dataclass(frozen=True, slots=True)
class Adjustment:
    """What a container is created with beyond what was asked of the runtime.

    Attributes:
        rdt_class: Class of the runtime's RDT configuration; None: left as it is.
        clos_id: An existing resctrl group; None: left as it is.
        unified: Files of the container's cgroup v2 folder and what is written into them.
    """

    rdt_class: str | None = None
    clos_id: str | None = None
    unified: Mapping[str, str] = field(default_factory=dict)


UNADJUSTED: Final = Adjustment()


@dataclass(frozen=True, slots=True)
class Owners:
    """Which plugin set what, as `10-noisegate`; empty: none did. A `-` before it: it took the value away.

    Attributes:
        rdt_class: Of the RDT class.
        clos_id: Of the resctrl group.
        schemata: Of a schemata for that group: who sets it changes what the group means.
        unified: Of files of the cgroup, by file.
        cgroups_path: Of the path of its cgroup.
        namespaces: Of namespaces, by type.
        mounts: Of mounts, by path in the container.
        devices: Of devices, by path in the container.
    """

    rdt_class: str = ""
    clos_id: str = ""
    schemata: str = ""
    unified: Mapping[str, str] = field(default_factory=dict)
    cgroups_path: str = ""
    namespaces: Mapping[str, str] = field(default_factory=dict)
    mounts: Mapping[str, str] = field(default_factory=dict)
    devices: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Validation:
    """What all plugins together are about to do to a container, to be agreed to or refused.

    Attributes:
        sandbox: Its pod.
        container: As it was before any adjustment.
        adjustment: Of all plugins together.
        owners: Who set what.
        plugins: Who was asked, as `10-noisegate`.
    """

    sandbox: Sandbox
    container: Container
    adjustment: Adjustment
    owners: Owners
    plugins: tuple[str, ...] = ()


class Handler(Protocol):
    """Who is told.

    Each call may raise `Refusal`: the runtime refuses what it was about to do and says the text. Any other exception
    does the same as a fault of ours. A call that takes longer than 75 % of the runtime's patience is answered for with
    an error and cancelled. Calls come concurrently, also while `synchronize` still works.
    """

    async def synchronize(self, sandboxes: Sequence[Sandbox], containers: Sequence[Container]) -> None:
        """Take over everything there is; the runtime does not wait for it.

        It is called after each connection, and cancelled when the connection ends before it is done.
        """

    async def run_pod_sandbox(self, sandbox: Sandbox) -> None:
        """Prepare a pod: its cgroup and network are there, none of its containers is."""

    async def create_container(self, sandbox: Sandbox, container: Container) -> Adjustment:
        """Prepare a container: it has no cgroup and no process yet. Whatever must hold at its start is done here."""

    async def update_container(self, sandbox: Sandbox, container: Container) -> None:
        """Learn that a container's resources are about to be changed (VPA, in-place resize, CPU manager)."""

    async def stop_pod_sandbox(self, sandbox: Sandbox) -> None:
        """Learn that a pod is stopped; its network namespace may be gone already."""

    async def remove_pod_sandbox(self, sandbox: Sandbox) -> None:
        """Learn that a pod is gone."""

    async def validate(self, validation: Validation) -> None:
        """Agree to an adjustment, or raise `Refusal`."""
