"""A node that is half made up, for bench.node: pods whose cgroups are plain files, a runtime that tells of them, the enforcer."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager, contextmanager
from pathlib import Path
from typing import Final, NamedTuple

ROOT: Final = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT / "tests" / "support")]

import namespaces  # noqa: E402
from fakecgroup import FakeCgroupTree  # noqa: E402
from google.protobuf.message import Message  # noqa: E402
from nriruntime import Peer, Runtime  # noqa: E402

from noisegate.enforcement.actions import Device  # noqa: E402
from noisegate.enforcement.nri import nri_pb2 as pb  # noqa: E402
from noisegate.isolation import keys  # noqa: E402

MOUNTS: Final = 1000
"""A pod has four or so: its root, its volumes, its service account, shm."""

DISK: Final = {
    keys.DISK: json.dumps(
        {"data": {"limits": {"rbps": "50Mi/4k", "wbps": "20Mi/4k"}}, "*": {"limits": {"wbps": "10Mi"}}}
    ),
    keys.VOLUME_PATHS: json.dumps({"data": {"app": "/data"}}),
}
NETWORK: Final = {keys.NETWORK: json.dumps({"limits": {"ingress": "100M", "egress": "50M"}})}
REQUIRED: Final = {keys.REQUIRED_PLUGINS: '["noisegate"]'}


Times = list[float]


class Made(NamedTuple):
    """A pod of the bench, as the runtime tells of it."""

    sandbox: pb.PodSandbox
    container: pb.Container


class Site:
    """A node that is half made up: folders for the enforcer, on a tmpfs as on a node."""

    def __init__(self, folder: Path) -> None:
        self.folder: Final = folder
        self.disk: Final = _disk_of(ROOT)
        self.tree: Final = FakeCgroupTree(folder / "cgroup", {self.disk})
        self.mounts: Final = folder / "mounts"
        self.config: Final = folder / "node.yaml"
        self.state: Final = folder / "state"
        self.socket: Final = folder / "nri.sock"
        for number in range(MOUNTS):
            (self.mounts / str(number)).mkdir(parents=True)
        settings = {
            "cgroup": str(self.tree.root),
            "state": str(self.state),
            "nri": {"socket": str(self.socket)},
            "disk": {"store": str(ROOT)},
            "runtime": {"config": "/nonexistent", "runc": ["true"]},
            "health": {"address": "127.0.0.1", "port": 0},
        }
        self.config.write_text(json.dumps(settings))

    def pod(self, number: int, annotations: Mapping[str, str], netns: str = "") -> Made:
        """Make a pod and its cgroup."""
        uid = f"8beabb62-05ba-42bf-bc52-{number:012d}"
        cgroup = f"/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{uid.replace('-', '_')}.slice"
        self.tree.make(cgroup)
        spaces = [pb.LinuxNamespace(type="network", path=netns)] if netns else []
        sandbox = pb.PodSandbox(
            id=f"{number:012x}{0:052x}",
            name=f"web-{number}",
            uid=uid,
            namespace="shop",
            annotations={**annotations, **(REQUIRED if annotations else {})},
            pid=1000 + number,
            linux=pb.LinuxPodSandbox(cgroup_parent=cgroup, namespaces=spaces),
        )
        kubelet = f"/var/lib/kubelet/pods/{uid}"
        mounts = [pb.Mount(destination="/proc", source="proc")]
        mounts += [
            pb.Mount(destination=f"/etc/{name}", source=f"{kubelet}/etc-{name}") for name in ("hosts", "hostname")
        ]
        mounts += [pb.Mount(destination="/data", source=str(ROOT / "bench"))]
        container = pb.Container(
            id=f"{number:012x}{1:052x}",
            pod_sandbox_id=sandbox.id,
            name="app",
            state=pb.CONTAINER_RUNNING,
            mounts=mounts,
            linux=pb.LinuxContainer(cgroups_path=f"{cgroup.rsplit('/', 1)[1]}:cri-containerd:{number:064x}"),
        )
        return Made(sandbox, container)

    def limited(self, pods: Sequence[Made]) -> int:
        """Return how many pods have their line in io.max."""
        root = self.tree.root
        return sum((root / pod.sandbox.linux.cgroup_parent[1:] / "io.max").stat().st_size > 0 for pod in pods)


def _disk_of(path: Path) -> Device:
    number = path.stat().st_dev
    return Device(os.major(number), os.minor(number))


class Daemon:
    """The enforcer's process."""

    def __init__(self, process: subprocess.Popen[bytes], log: Path) -> None:
        self._process: Final = process
        self.log: Final = log

    def cpu_seconds(self) -> float:
        """Return the CPU time that it has taken, in user and system mode."""
        fields = Path(f"/proc/{self._process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def resident(self) -> float:
        """Return its resident memory in MB (10^6 bytes)."""
        text = Path(f"/proc/{self._process.pid}/status").read_text()
        return int(next(line for line in text.splitlines() if line.startswith("VmRSS:")).split()[1]) * 1024 / 1e6

    def check(self) -> None:
        """See that it runs and that nothing was refused.

        Raises:
            RuntimeError: It has ended, or its log tells of a refusal.
        """
        told = self.log.read_text()
        if self._process.poll() is not None or "not-held" in told or "failed" in told:
            raise RuntimeError(f"the enforcer did not do what it was asked for:\n{told[-4000:]}")


@asynccontextmanager
async def enforcer(site: Site, *options: str) -> AsyncIterator[tuple[Daemon, Peer]]:
    """Run the enforcer; give it and its connection, before anything was told."""
    async with AsyncExitStack() as ends:
        runtime = Runtime(site.socket)
        await runtime.start()
        ends.push_async_callback(runtime.stop)
        log = site.folder / f"enforcer-{time.monotonic_ns()}.log"
        command = [sys.executable, "-m", "bench.noded", str(site.config), "--mounts", str(site.mounts), *options]
        with log.open("wb") as file:
            process = subprocess.Popen(command, cwd=ROOT, stdout=file, stderr=file)  # noqa: ASYNC220
        daemon = Daemon(process, log)
        try:
            async with asyncio.timeout(30):
                peer = await runtime.arrived.get()
            await peer.register()
            await peer.configure()
            yield daemon, peer
            daemon.check()
        finally:
            process.send_signal(signal.SIGKILL)
            process.wait()


async def held(peer: Peer, method: str, message: Message) -> float:
    """Call the enforcer; return the milliseconds until the runtime has the answer.

    Raises:
        RuntimeError: It refused.
    """
    payload = message.SerializeToString()
    began = time.perf_counter()
    said = await peer.send(method, payload)
    ended = time.perf_counter()
    if said.code:
        raise RuntimeError(f"{method}: {said.told}")
    if (
        method == "ValidateContainerAdjustment"
        and pb.ValidateContainerAdjustmentResponse.FromString(said.payload).reject
    ):
        raise RuntimeError(f"{method}: rejected")
    return 1000 * (ended - began)


async def lives(peer: Peer, pods: Sequence[Made]) -> dict[str, Times]:
    """Have pods come and go, one call after another as a runtime makes them; return the milliseconds of each event."""
    times: dict[str, Times] = {}

    async def call(method: str, message: Message) -> None:
        times.setdefault(method, []).append(await held(peer, method, message))

    for pod, container in pods:
        await call("RunPodSandbox", pb.RunPodSandboxRequest(pod=pod))
        await call("CreateContainer", pb.CreateContainerRequest(pod=pod, container=container))
        await call(
            "ValidateContainerAdjustment",
            pb.ValidateContainerAdjustmentRequest(
                pod=pod, container=container, adjust=pb.ContainerAdjustment(), owners=pb.OwningPlugins()
            ),
        )
    for pod, _ in pods:
        await call("StopPodSandbox", pb.StopPodSandboxRequest(pod=pod))
        await call("RemovePodSandbox", pb.RemovePodSandboxRequest(pod=pod))
    return times


class TakenOver(NamedTuple):
    """A node taken over at a start: seconds until the runtime had the answer, and until every pod was held."""

    answered: float
    all_held: float


async def taken_over(site: Site, peer: Peer, pods: Sequence[Made]) -> TakenOver:
    """Tell of everything at once."""
    began = time.perf_counter()
    await peer.synchronize([pod.sandbox for pod in pods], [pod.container for pod in pods], parts=1 + len(pods) // 500)
    answered = time.perf_counter() - began
    while site.limited(pods) < len(pods):
        await asyncio.sleep(0.01)
        if time.perf_counter() - began > 120:
            raise RuntimeError(f"{site.limited(pods)} of {len(pods)} pods are held")
    return TakenOver(answered, time.perf_counter() - began)


@contextmanager
def interfaces(count: int) -> Iterator[list[str]]:
    """Make pods' network namespaces with veth pairs to this one; give their paths."""
    with ExitStack() as ends:
        paths, lines = [], []
        for number in range(count):
            path = f"/proc/{os.getpid()}/fd/{ends.enter_context(namespaces.namespace())}"
            paths.append(path)
            lines += [f"link add veth{number} type veth peer name eth0 netns {path}", f"link set veth{number} up"]
        subprocess.run(["ip", "-batch", "-"], input="\n".join(lines), text=True, check=True)
        yield paths
