"""What happens to pods on a node, told to an enforcer or not; and an enforcer in a process of its own, to be killed.

The world is the runtime, the kubelet and the API server together: it knows what runs and what is asked for. An enforcer
that has heard everything, or the list of everything, must hold what the world says.
"""

import asyncio
import os
import pickle
import resource
import signal
import socket
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

from enforcerlab import DATA_DISK, ROOT_DISK, Lab, asks, container, disk, limits, network

from noisegate.enforcement.actions import UNLIMITED, Device, IoLimits, Rates
from noisegate.enforcement.enforcer import Enforcer
from noisegate.enforcement.ledger import Record, decode
from noisegate.enforcement.nri.events import Container, Sandbox, State
from noisegate.enforcement.refusal import Refusal
from noisegate.isolation import keys

MI: Final = 1 << 20
PATHS: Final = '{"data": {"app": "/data"}, "more": {"app": "/more", "side": "/more"}}'
SPEC: Final = {
    "containers": [
        {
            "name": "app",
            "volumeMounts": [{"name": "data", "mountPath": "/data"}, {"name": "more", "mountPath": "/more"}],
        },
        {"name": "side", "volumeMounts": [{"name": "more", "mountPath": "/more"}]},
    ],
    "volumes": [{"name": "data", "emptyDir": {}}, {"name": "more", "emptyDir": {}}],
}
PLACES: Final = {"data": DATA_DISK, "more": ROOT_DISK, "layers": ROOT_DISK}
HAVE: Final = {"app": {"data", "more", "layers"}, "side": {"more", "layers"}}
ASKED: Final[tuple[tuple[dict[str, int], Rates], ...]] = (
    ({"data": 4, "more": 2}, Rates(40_000_000, 20_000_000)),
    ({"data": 8, "layers": 1}, Rates(40_000_000, None)),
    ({"more": 3}, Rates(None, 8_000_000)),
    ({}, Rates(None, 2_000_000)),
    ({"data": 1, "more": 1, "layers": 1}, Rates()),
)
"""MiB per second by volume, and rates: what a pod asks for, and is changed to."""
FOREIGN: Final = {ROOT_DISK: IoLimits(rbps=77777), DATA_DISK: IoLimits(riops=333)}
"""What others have set on the pods' cgroups."""


def annotations(choice: int) -> dict[str, str]:
    """Return what a pod says that asks for an entry of `ASKED`."""
    volumes, rates = ASKED[choice]
    bits = {key: f"{rate // 1_000_000}M" for key, rate in rates._asdict().items() if rate is not None}
    said = asks(
        disk(**{name: f"{size}Mi" for name, size in volumes.items()}) if volumes else "",
        network(**bits) if bits else "",
    )
    return {**said, **({keys.VOLUME_PATHS: PATHS} if volumes else {})}


@contextmanager
def folder() -> Iterator[Path]:
    """Make a folder in memory where there is such a file system: the ledger's is one, and a write is one there."""
    memory = "/dev/shm"  # noqa: S108  (tmpfs(5) says so)
    with TemporaryDirectory(dir=memory if os.access(memory, os.W_OK) else None) as made:
        yield Path(made)


@dataclass
class Life:
    """A pod."""

    uid: str
    choice: int
    sandbox: Sandbox | None = None
    stopped: bool = False
    containers: dict[str, Container] = field(default_factory=dict)
    made: int = 0


class World:
    """A node's pods.

    Args:
        root: The node's folder.
        number: Of pods.
    """

    def __init__(self, root: Path, number: int) -> None:
        self.lab: Final = Lab(root)
        self.pods: Final = [Life(f"p{index}", index % len(ASKED)) for index in range(number)]
        for pod in self.pods:
            self._cgroup(pod)
        self.before: Final = self.lab.picture()

    def _cgroup(self, pod: Life) -> None:
        self.lab.cgroups.make(f"/kubepods/burstable/pod{pod.uid}")
        for device, line in FOREIGN.items():
            self.lab.cgroups.foreign(f"/kubepods/burstable/pod{pod.uid}", device, line)

    # What happens. Each returns the call that tells of it; None: it cannot happen now.

    def run(self, pod: Life) -> tuple[Any, ...] | None:
        """A sandbox starts: the first, or another one where the pause process died."""
        if pod.sandbox is not None and not pod.stopped:
            return None
        pod.made += 1
        pod.sandbox, pod.stopped, pod.containers = self.lab.pod(pod.uid, annotations(pod.choice), pod.made), False, {}
        return "run_pod_sandbox", pod.sandbox

    def create(self, pod: Life, name: str) -> tuple[Any, ...] | None:
        """A container is created, or created again."""
        if pod.sandbox is None or pod.stopped:
            return None
        pod.made += 1
        mounts = {"more": f"/srv/{pod.uid}", **({"data": f"/data/{pod.uid}"} if name == "app" else {})}
        made = container(pod.sandbox, name, pod.made, State.RUNNING, **mounts)
        pod.containers[name] = made
        return "create_container", pod.sandbox, made

    def change(self, pod: Life, choice: int) -> tuple[Any, ...]:
        """The API server is told to ask for something else."""
        pod.choice = choice
        return "say", pod.uid, choice

    def stop(self, pod: Life) -> tuple[Any, ...] | None:
        """A sandbox stops; its network may have gone before that is told."""
        if pod.sandbox is None or pod.stopped:
            return None
        pod.stopped, pod.containers = True, {}
        self.lab.end(pod.sandbox)
        return "stop_pod_sandbox", pod.sandbox

    def remove(self, pod: Life) -> tuple[Any, ...] | None:
        """A pod goes."""
        if pod.sandbox is None:
            return None
        self.stop(pod)
        gone, pod.sandbox = pod.sandbox, None
        return "remove_pod_sandbox", replace(gone, netns="", pid=0)

    def stray(self, pod: Life) -> tuple[Any, ...] | None:
        """A stranger changes what was written."""
        record = self.record(pod)
        for one in record.io if record is not None else ():
            self.lab.cgroups.foreign(f"/kubepods/burstable/pod{pod.uid}", one.device, UNLIMITED)
        if record is not None and record.network is not None:
            with suppress(Exception):
                self.lab.network.unlimit(record.network.interface)
        return ("look", pod.uid) if record is not None else None

    def renew_cgroup(self, pod: Life) -> tuple[Any, ...] | None:
        """A cgroup is removed and made again at the same path, and what others had in it set again."""
        if pod.containers:
            return None
        self.lab.cgroups.remove(f"/kubepods/burstable/pod{pod.uid}")
        self._cgroup(pod)
        return "look", pod.uid

    def listed(self) -> tuple[Any, ...]:
        """Return the call that tells of everything there is."""
        sandboxes = [
            replace(pod.sandbox, netns="", pid=0) if pod.stopped else pod.sandbox
            for pod in self.pods
            if pod.sandbox is not None
        ]
        return "synchronize", sandboxes, [one for pod in self.pods for one in pod.containers.values()]

    # What must be.

    def record(self, pod: Life) -> Record | None:
        """Return what the ledger has of a pod."""
        try:
            return decode((self.lab.folder / f"state/pods/{pod.uid}.json").read_bytes())[0]
        except FileNotFoundError:
            return None

    def check_held(self) -> None:
        """Check that every pod that runs is held to what it asks for now."""
        for pod in self.pods:
            if pod.sandbox is None or pod.stopped:
                continue
            record = self.record(pod)
            assert record is not None, pod
            names = {one.name for one in record.containers}
            assert pod.containers.keys() <= names, pod
            volumes, rates = ASKED[pod.choice]
            # A container that was not made again keeps what it had; entries that came later are its next one's.
            kept = {volume.replace("*", "layers") for one in record.containers for volume in one.places}
            has = kept.union(*(HAVE[name] for name in pod.containers))
            wanted = self._wanted({name: size for name, size in volumes.items() if name in has})
            found = self.lab.io(pod.sandbox)
            assert found == {**FOREIGN, **wanted}, (pod, found)
            assert self.lab.rates(pod.sandbox) == rates, pod
        held = {record.network.ifb for pod in self.pods if (record := self.record(pod)) and record.network}
        assert set(self.lab.network.ifbs()) <= held

    def check_gone(self) -> None:
        """Check that nothing of ours is left, and everything of others is as it was."""
        assert [pod for pod in self.pods if pod.sandbox is not None] == []
        assert list((self.lab.folder / "state/pods").iterdir()) == []
        assert self.lab.picture() == self.before

    @staticmethod
    def _wanted(volumes: dict[str, int]) -> dict[Device, IoLimits]:
        sums: dict[Device, int] = {}
        for volume, size in volumes.items():
            sums[PLACES[volume]] = sums.get(PLACES[volume], 0) + size
        return {device: limits(size * MI) for device, size in sums.items()}


def named(call: Sequence[Any]) -> dict[str, Sandbox]:
    """Return the sandboxes that a call names, by the pod's uid."""
    values = call[1] if call[0] == "synchronize" else call[1:2]
    return {one.uid: one for one in values if isinstance(one, Sandbox)}


async def tell(lab: Lab, enforcer: Enforcer, pods: Sequence[tuple[str, Sandbox]], call: Sequence[Any]) -> str:
    """Make a call of an enforcer; return `ok` or why it is refused.

    Args:
        lab: That it was made by.
        enforcer: Is told.
        pods: uid and last sandbox of each, for what the API server says.
        call: By `World`.
    """
    name, *values = call
    try:
        if name == "say":
            uid, choice = values
            for known, sandbox in pods:
                if known == uid:
                    lab.watch.say(sandbox, annotations(choice), SPEC, lab.watch.version())
            await asyncio.gather(*enforcer.turns.tasks)
        else:
            if name == "synchronize":
                enforcer.disconnected()
            await getattr(enforcer, name)(*values)
            if name in {"stop_pod_sandbox", "remove_pod_sandbox"}:
                await asyncio.gather(*enforcer.turns.tasks)
    except Refusal as refusal:
        return str(refusal)
    return "ok"


class Process:
    """An enforcer in a process of its own: started, told, killed.

    Args:
        world: Of its node.
        fatal: It gets SIGKILL before its so manieth operation on a file that is counted; 0: it does not.
        largest: Bytes that a file of it may have (RLIMIT_FSIZE); 0: as many as it likes.

    Attributes:
        answers: To the last calls, by their number: `ok`, or why it is refused.
    """

    def __init__(self, world: World, fatal: int = 0, largest: int = 0) -> None:
        self.answers: Final[dict[int, str]] = {}
        ours, theirs = socket.socketpair()
        self._pid = os.fork()
        if self._pid == 0:
            code = 1
            try:
                ours.close()
                if largest:
                    resource.setrlimit(resource.RLIMIT_FSIZE, (largest, largest))
                asyncio.run(_serve(world, theirs, fatal))
                code = 0
            except BaseException as error:  # noqa: BLE001  (it must not come back into pytest)
                os.write(2, f"enforcer: {type(error).__name__}: {error}\n".encode())
            finally:
                os._exit(code)
        theirs.close()
        self._socket: Final = ours
        self._heard: Final = ours.makefile("rb")

    def say(self, calls: Sequence[tuple[Any, ...]], *, counted: bool = False) -> None:
        """Send calls that come at once.

        Args:
            calls: By `World`.
            counted: Operations count from now on.
        """
        self.answers.clear()
        with suppress(BrokenPipeError):
            self._socket.sendall(pickle.dumps((counted, calls)))

    def hear(self, number: int) -> None:
        """Wait for so many answers, or its death."""
        with suppress(EOFError, ConnectionResetError, pickle.UnpicklingError):
            while len(self.answers) < number:
                index, answer = pickle.load(self._heard)  # noqa: S301  (our own child)
                self.answers[index] = answer

    def do(self, *calls: tuple[Any, ...]) -> None:
        """Make calls one after another, each of which must be answered well."""
        for call in calls:
            self.say([call])
            self.hear(1)
            assert self.answers == {0: "ok"}, (call, self.answers)

    def kill(self) -> int:
        """Kill it, if it is not dead yet; return how it ended."""
        with suppress(ProcessLookupError):
            os.kill(self._pid, signal.SIGKILL)
        ended = os.waitstatus_to_exitcode(os.waitpid(self._pid, 0)[1])
        self.hear(sys.maxsize)
        self._heard.close()
        self._socket.close()
        return ended


_COUNTED: Final = frozenset({"open", "os.rename", "os.remove", "fcntl.flock"})
"""Audit events of the operations on files that change something or come before one; write(2) and fsync(2) have none."""


async def _serve(world: World, link: socket.socket, fatal: int) -> None:
    count, counting = 0, False

    def heard(event: str, _arguments: object) -> None:
        nonlocal count
        if counting and event in _COUNTED:
            count += 1
            if count == fatal:
                os.kill(os.getpid(), signal.SIGKILL)

    if fatal:
        sys.addaudithook(heard)
    enforcer = world.lab.enforcer()
    pods = {pod.uid: pod.sandbox for pod in world.pods if pod.sandbox is not None}
    for pod in world.pods:
        if pod.sandbox is not None:
            world.lab.watch.say(pod.sandbox, annotations(pod.choice), SPEC, world.lab.watch.version())
    requests = link.makefile("rb")

    async def answer(index: int, call: Sequence[Any]) -> None:
        told = await tell(world.lab, enforcer, list(pods.items()), call)
        link.sendall(pickle.dumps((index, told)))

    while True:
        try:
            counting_now, calls = await asyncio.to_thread(pickle.load, requests)
        except EOFError:
            return
        for call in calls:
            pods |= named(call)
        counting = counting or counting_now
        await asyncio.gather(*(answer(index, call) for index, call in enumerate(calls)))
