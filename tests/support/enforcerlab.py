"""A node of a test's own, in a folder: fake cgroups, network and sysfs, a real ledger, and enforcers that come and go."""

import json
from collections.abc import Iterable, Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any, Final

import msgspec
from fakecgroup import FakeCgroupTree
from fakenetwork import FakeLinks, FakeNetwork, FakeShaper

from noisegate.cluster.connection import Connection
from noisegate.enforcement.actions import UNLIMITED, UNSHAPED, Device, Interface, IoLimits, Rates
from noisegate.enforcement.enforcer import Enforcer
from noisegate.enforcement.holder import Holder
from noisegate.enforcement.intent.intent import Watched, kept
from noisegate.enforcement.intent.pods import Pods
from noisegate.enforcement.intent.spec import Spec
from noisegate.enforcement.kernel.blocks import Blocks
from noisegate.enforcement.kernel.mountinfo import Mount as Mounted
from noisegate.enforcement.kernel.resctrl import Resctrl
from noisegate.enforcement.ledger import Ledger
from noisegate.enforcement.metrics import KINDS, Metrics
from noisegate.enforcement.nri.events import Container, Mount, Sandbox, State
from noisegate.enforcement.places import Places
from noisegate.enforcement.rdt import NodeRdt
from noisegate.enforcement.report.events import Events
from noisegate.isolation import keys
from noisegate.service.log import Log

BOOT: Final = "boot"
PLUGIN: Final = "10-noisegate"
ROOT_DISK: Final = Device(8, 0)
"""Has the root file system and the container store."""
DATA_DISK: Final = Device(8, 16)
"""Has the volumes below /data."""
KUBELET: Final = "/var/lib/kubelet/pods"


def disk(**limits: str) -> str:
    """Return the disk annotation: volume (`layers` for `*`) = bytes written per second."""
    return json.dumps(
        {("*" if name == "layers" else name): {"limits": {"wbps": wbps}} for name, wbps in limits.items()}
    )


def network(**limits: str) -> str:
    """Return the network annotation."""
    return json.dumps({"limits": limits})


def limits(wbps: int, share: int = 4096) -> IoLimits:
    """Return what `disk` asks for as io.max has it; operations are derived from the default block size."""
    return IoLimits(wbps=wbps, wiops=wbps // share)


class Watch(Pods):
    """The watch of pods, told by the test what the API server says instead of by a connection."""

    versions = 0

    def say(self, sandbox: Sandbox, annotations: Mapping[str, str], spec: Mapping[str, Any], version: int = 1) -> None:
        """Have the API server say what a pod asks for now."""
        asked = kept(annotations)
        built = msgspec.convert(spec, Spec)
        watched = Watched(sandbox.uid, sandbox.namespace, sandbox.name, asked, str(version), spec=built)
        self._reflector.objects[sandbox.uid] = watched
        self._compare()

    def version(self) -> int:
        """Return the next resourceVersion."""
        self.versions += 1
        return self.versions

    def forget(self, uid: str) -> None:
        """Have the API server say that there is no such pod."""
        self._reflector.objects.pop(uid, None)
        self._compare()


class Lab:
    """A node.

    Args:
        folder: Of its own. Another lab in the same folder is the same node, also in another process.
    """

    def __init__(self, folder: Path) -> None:
        self.folder: Final = folder
        self.cgroups: Final = FakeCgroupTree(folder / "cgroup", {ROOT_DISK, DATA_DISK})
        self.network: Final = FakeNetwork(folder / "network")
        self.shaper: Final = FakeShaper(self.network)
        self.resctrl: Final = Resctrl(folder / "resctrl")
        self.mounts: list[Mounted] = [
            Mounted(1, 0, Device(8, 1), "/", "/", "ext4", "/dev/sda1"),
            Mounted(2, 1, DATA_DISK, "/", "/data", "xfs", "/dev/sdb"),
            Mounted(3, 1, Device(0, 60), "/", "/nfs", "nfs4", "server:/export"),
        ]
        self.lines: list[dict[str, Any]] = []
        self.metrics = Metrics()
        self._make_sysfs(folder / "sys")
        self.places: Final = Places(Blocks(folder / "sys"), lambda: self.mounts, folder, "/var/lib/containerd")
        # What lies below the folder that the host's root is seen in is seen there.
        self.mounts = [one._replace(point=f"{folder}{one.point}".rstrip("/")) for one in self.mounts]

    def holder(self, enforced: Iterable[str] = KINDS, ledger: Ledger | None = None) -> Holder:
        """Return a holder as a process that has just started has it: over the ledger's files."""
        records = Ledger.open(self.folder / "state", BOOT) if ledger is None else ledger
        links = FakeLinks(self.network)
        return Holder(self.cgroups, links, self.shaper, self.places, records, tuple(k for k in KINDS if k in enforced))

    def enforcer(
        self, holder: Holder | None = None, rdt: NodeRdt | None = None, excluded: tuple[str, ...] = ()
    ) -> Enforcer:
        """Return an enforcer as a process that has just started has it. To be called in an event loop."""
        self.metrics = Metrics()
        log = Log(lambda line: self.lines.append(msgspec.json.decode(line)))
        # Nobody follows these two: what is to be written waits, what is watched is told by the test.
        connection = Connection("https://127.0.0.1:1", self.folder)
        self.events = Events(connection, "n1", log)
        rdt = rdt or NodeRdt(self.resctrl, runtime_config="", starts_in_group=False)
        made = Enforcer(PLUGIN, holder or self.holder(), rdt, excluded, self.metrics, log, self.events)
        made.pods = self.watch = Watch("n1", connection, made.look_at)
        return made

    def told(self, event: str) -> list[dict[str, Any]]:
        """Return the log's lines of one event."""
        return [line for line in self.lines if line["event"] == event]

    def reasons(self) -> list[str]:
        """Return the reasons of the Events that were told, in their order."""
        return [one.reason for one in self.events._waiting]

    def notes(self) -> list[str]:
        """Return their notes."""
        return [one.note for one in self.events._waiting]

    def counted(self, name: str, **labels: str) -> float:
        """Return a metric's value."""
        return self.metrics.registry.get_sample_value(f"noisegate_node_{name}", labels) or 0.0

    def pod(self, uid: str, annotations: Mapping[str, str], number: int = 1, *, foreign: str = "") -> Sandbox:
        """Start the sandbox of a pod, as kubelet, CNI plugin and runtime do before NRI is told of it."""
        cgroup = f"/kubepods/burstable/pod{uid}"
        self.cgroups.make(cgroup)
        netns = f"/run/netns/{uid}-{number}"
        self.network.pod(netns, foreign)
        sandbox = sha256(netns.encode()).hexdigest()
        return Sandbox(sandbox, uid, f"pod-{uid}", "default", dict(annotations), cgroup, netns, 4711)

    def end(self, sandbox: Sandbox) -> None:
        """Let a pod's sandbox go, as runtime and CNI plugin do after NRI was told that it stops."""
        self.network.end(sandbox.netns)

    def remove(self, sandbox: Sandbox) -> None:
        """Let a pod's cgroup go, as the kubelet does in the end."""
        self.cgroups.remove(sandbox.cgroup_parent)

    def interface(self, sandbox: Sandbox) -> Interface:
        """Return the host's end of a pod's eth0."""
        return FakeLinks(self.network).find(sandbox.netns)

    def io(self, sandbox: Sandbox) -> dict[Device, IoLimits]:
        """Return io.max of a pod's cgroup."""
        return self.cgroups.read_io(sandbox.cgroup_parent)

    def io_of(self, sandbox: Sandbox, device: Device) -> IoLimits:
        """Return one line of it."""
        return self.io(sandbox).get(device, UNLIMITED)

    def rates(self, sandbox: Sandbox) -> Rates:
        """Return what holds a pod's interface."""
        link = self.network.link(self.interface(sandbox))
        ifb = self.network.ifb(link.redirect) if link.redirect else None
        return UNSHAPED._replace(ingress=link.htb, egress=ifb.htb if ifb else None)

    def picture(self) -> dict[str, str]:
        """Return the same, with the lines of each io.max in an order of their own: the kernel's is that of its devices."""
        found = self.snapshot()
        return {file: "".join(sorted(text.splitlines(keepends=True))) for file, text in found.items()}

    def snapshot(self) -> dict[str, str]:
        """Return everything that can be limited, as it is."""
        return {**self.cgroups.snapshot(), **self.network.snapshot()}

    def _make_sysfs(self, sys: Path) -> None:
        for name, device, partition in (
            ("sda", ROOT_DISK, ""),
            ("sda/sda1", Device(8, 1), "1\n"),
            ("sdb", DATA_DISK, ""),
        ):
            folder = sys / "devices/block" / name
            folder.mkdir(parents=True, exist_ok=True)
            (folder / "dev").write_text(f"{device}\n")
            if partition:
                (folder / "partition").write_text(partition)
            link = sys / "dev/block" / str(device)
            link.parent.mkdir(parents=True, exist_ok=True)
            if not link.is_symlink():
                link.symlink_to(folder)


def container(
    sandbox: Sandbox, name: str = "app", number: int = 1, state: State = State.RUNNING, **volumes: str
) -> Container:
    """Return a container; `volumes`: name of a volume = where it lies on the host. It is mounted at /<volume>."""
    mounts = tuple(Mount(f"/{volume}", source) for volume, source in volumes.items())
    return Container(f"{sandbox.uid}-{name}-{number}", sandbox.id, name, state, mounts)


def spec(*containers: str, volumes: Iterable[str] = ("data", "more")) -> dict[str, Any]:
    """Return a pod's spec: each container has each volume, at /<volume>."""
    mounts = [{"name": name, "mountPath": f"/{name}"} for name in volumes]
    return {
        "containers": [{"name": name, "volumeMounts": mounts} for name in containers or ("app",)],
        "volumes": [{"name": name, "emptyDir": {}} for name in volumes],
    }


def paths(*containers: str, volumes: Iterable[str] = ("data", "more")) -> str:
    """Return the annotation `noisegate.io/volume-paths` of such a pod."""
    return json.dumps({name: dict.fromkeys(containers or ("app",), f"/{name}") for name in volumes})


def asks(disk_text: str = "", network_text: str = "", **more: str) -> dict[str, str]:
    """Return annotations."""
    found = dict(more)
    if disk_text:
        found |= {keys.DISK: disk_text, keys.VOLUME_PATHS: paths()}
    if network_text:
        found |= {keys.NETWORK: network_text}
    return found
