"""The enforcer as a process: it starts, says so, ends in good order, and lets nobody beside it.

As root it runs in a network namespace of its own: its preflight makes an ifb for a moment, and lists what bears our mark.
Its runtime is the test's, over a real unix socket; a real containerd has it in tests/runtime.
"""

import asyncio
import errno
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import nriruntime
import pytest
from fakeresctrl import FakeResctrl

from noisegate.enforcement import config, survey
from noisegate.enforcement import daemon as daemon_module
from noisegate.enforcement.intent.intent import Remembered
from noisegate.enforcement.kernel import probe
from noisegate.enforcement.kernel.resctrl import Resctrl
from noisegate.enforcement.ledger import Placed, Record
from noisegate.enforcement.nri import nri_pb2 as pb
from noisegate.enforcement.status import SOCKET, NodeStatus, ask
from noisegate.isolation import keys
from noisegate.isolation.rdt import Choice
from noisegate.service.log import Log
from noisegate.service.stop import Stop

SECONDS: Final = 30.0
ROOT: Final = os.geteuid() == 0
SHORT: Final = "import sys; from noisegate.enforcement import daemon; daemon.LOCK_SECONDS = 0.2; from noisegate.__main__ import main; sys.exit(main())"

GET: Final = """
import sys, urllib.error, urllib.request
try:
    answer = urllib.request.urlopen(sys.argv[1])
except urllib.error.HTTPError as error:
    answer = error
print(answer.status, answer.read().decode())
"""


class Daemon:
    """A process of `noisegate node run`, with all that it touches in one folder."""

    def __init__(self, folder: Path, more: str = "") -> None:
        self.folder: Final = folder
        self.state: Final = folder / "state"
        self.config: Final = folder / "node.yaml"
        self.nri: Final = folder / "nri.sock"
        self.log: Final = folder / "log"
        self._process: subprocess.Popen[bytes] | None = None
        (folder / "cgroup").mkdir(exist_ok=True)
        self.config.write_text(
            f"state: {self.state}\ncgroup: {folder}/cgroup\nresctrl: {folder}/resctrl\nnri: {{socket: {self.nri}}}\n"
            f"runtime: {{config: {folder}/config.toml, runc: [{folder}/runc]}}\n"
            f"health: {{address: 127.0.0.1, port: 0}}\nreconcileSeconds: 1\n{more}\n"
        )

    def start(self) -> None:
        """Start it, and wait until it listens for status."""
        self.begin()
        self.until(lambda: "working" in self.told() and (self.state / SOCKET).exists())

    def begin(self) -> subprocess.Popen[bytes]:
        """Start it."""
        script = 'ip link set lo up && exec "$0" "$@"'
        inside = ["unshare", "--net", "--", "sh", "-c", script] if ROOT else []
        command = [*inside, sys.executable, "-c", SHORT, "node", "run", "--config", str(self.config), "--node", "n1", "--log-format", "json"]  # fmt: skip
        environment = {key: value for key, value in os.environ.items() if not key.startswith("KUBERNETES_")}
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment)  # noqa: S603
        return self._process

    def end(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Send a signal, and return how it ended."""
        assert self._process is not None
        self._process.send_signal(number)
        return self._process.wait(SECONDS)

    @property
    def pid(self) -> int:
        """Of the process."""
        assert self._process is not None
        return self._process.pid

    def told(self, event: str = "") -> str:
        """Return its log, or the lines of one event."""
        lines = self.log.read_text().splitlines()
        return "\n".join(line for line in lines if not event or f'"event":"{event}"' in line)

    def until(self, true: Callable[[], bool]) -> None:
        """Wait for what must come."""
        end = time.monotonic() + SECONDS
        while not true():
            assert self._process is not None
            assert self._process.poll() is None, self.told()
            assert time.monotonic() < end, self.told()
            time.sleep(0.02)

    def status(self) -> NodeStatus:
        """Return what it says of itself."""
        return asyncio.run(ask(self.state / SOCKET))

    def get(self, path: str) -> tuple[int, str]:
        """Return the status and text of a page of its health port."""
        port = json.loads(self.told("working"))["health_port"]
        inside = ["nsenter", f"--net=/proc/{self.pid}/ns/net"] if ROOT else []
        command = [*inside, sys.executable, "-c", GET, f"http://127.0.0.1:{port}{path}"]
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=SECONDS)  # noqa: S603
        code, _, text = done.stdout.partition(" ")
        return int(code), text

    def kill(self) -> None:
        """End whatever is left of it."""
        if self._process is not None and self._process.poll() is None:
            self.end(signal.SIGKILL)


@pytest.fixture(name="daemon")
def _daemon(tmp_path: Path) -> Iterator[Daemon]:
    one = Daemon(tmp_path)
    yield one
    one.kill()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_lives_and_ends(daemon: Daemon, number: signal.Signals) -> None:
    """Without a runtime and an API server it says what it lacks, answers on its socket, and ends at a signal with 0."""
    daemon.start()
    assert daemon.state.stat().st_mode & 0o777 == 0o700
    assert (daemon.state / SOCKET).stat().st_mode & 0o777 == 0o600
    daemon.until(lambda: daemon.status().checks != [])
    status = daemon.status()
    assert (status.node, status.connected, status.enforces, status.pods) == ("n1", False, [], [])
    assert {check.name for check in status.checks if not check.passed} >= {
        "cgroup version",
        "NRI socket",
        "NRI validator",
    }
    daemon.until(lambda: daemon.told("nri-not-connected") != "")
    assert "no-api-server" in daemon.told()
    assert daemon.end(number) == 0
    assert json.loads(daemon.told("ended"))["status"] == 0
    assert not (daemon.state / SOCKET).exists()


def test_a_second_one_is_refused(daemon: Daemon) -> None:
    """It names the first one's pid, exits with 2 and disturbs nothing; after a SIGKILL the next one starts."""
    daemon.start()
    second = Daemon(daemon.folder)
    process = second.begin()
    assert process.wait(SECONDS) == 2
    assert re.search(rf"noisegate node run: .*another enforcer runs on this host: pid {daemon.pid} on ", daemon.told())
    assert daemon.status().node == "n1"
    assert daemon.end(signal.SIGKILL) == -signal.SIGKILL
    third = Daemon(daemon.folder)
    third.begin()
    try:
        third.until(lambda: third.told().count('"event":"working"') == 2 and _answers(third))
        assert third.status().node == "n1"
    finally:
        third.kill()


def _answers(daemon: Daemon) -> bool:
    try:
        return daemon.status().node == "n1"
    except OSError:
        return False


@pytest.mark.parametrize("more", ["disk: {enforce: true}", "state: relative"])
def test_a_configuration_that_is_wrong(tmp_path: Path, more: str) -> None:
    """2, with file, line and key; nothing is made."""
    daemon = Daemon(tmp_path)
    text = daemon.config.read_text()
    daemon.config.write_text(re.sub("^state: .*", more, text) if more.startswith("state") else f"{text}{more}\n")
    assert daemon.begin().wait(SECONDS) == 2
    assert f"noisegate node run: {daemon.config}:" in daemon.told()
    assert not daemon.state.exists()


def test_a_state_folder_that_cannot_be_used(tmp_path: Path) -> None:
    """2, with the folder's name."""
    daemon = Daemon(tmp_path)
    daemon.state.write_text("a file")
    assert daemon.begin().wait(SECONDS) == 2
    assert str(daemon.state) in daemon.told()


def test_health(daemon: Daemon) -> None:
    """It lives, is not ready while no runtime knows it, and its numbers can be read."""
    daemon.start()
    assert daemon.get("/healthz")[0] == 200
    daemon.until(lambda: daemon.told("nri-not-connected") != "")
    code, text = daemon.get("/readyz")
    assert (code, str(daemon.nri) in text) == (503, True)
    assert "noisegate_node_runtime_connected 0.0" in daemon.get("/metrics")[1]
    assert daemon.end() == 0


def test_a_damaged_record_is_told(daemon: Daemon) -> None:
    """At the start, once, with the file's name; it stops nothing."""
    (daemon.state / "pods").mkdir(parents=True)
    (daemon.state / "pods/u1.json").write_bytes(b"{")
    daemon.start()
    assert json.loads(daemon.told("ledger-damaged"))["file"] == "u1.json"
    assert daemon.end() == 0


def test_a_class_file_that_cannot_be_used(tmp_path: Path) -> None:
    """It is told, and everything else goes on."""
    daemon = Daemon(tmp_path, f"rdt: {{classes: {tmp_path}/classes.yaml}}")
    (tmp_path / "classes.yaml").write_text("partitions: 5\n")
    daemon.start()
    daemon.until(lambda: bool(daemon.told("class-file-refused")))
    assert "classes.yaml" in json.loads(daemon.told("class-file-refused").splitlines()[0])["told"]
    assert daemon.end() == 0
    daemon.kill()


async def test_with_a_runtime(tmp_path: Path) -> None:
    """Registered, told of everything, asked and answered; gone with the runtime, and back with it; left in good order."""
    daemon = Daemon(tmp_path)
    try:
        async with nriruntime.runtime(daemon.nri) as runtime:
            await asyncio.to_thread(daemon.start)
            peer = await runtime.plugin()
            await peer.ready()
            await asyncio.to_thread(daemon.until, lambda: daemon.told("nri-connected") != "")
            status = await ask(daemon.state / SOCKET)
            assert status.connected
            asking = pb.PodSandbox(id="a" * 64, uid="u1", name="web", namespace="shop", annotations={"networkio.kubernetes.io/resources": '{"limits": {"ingress": "5M"}}'})  # fmt: skip
            asking.linux.namespaces.add(type="network", path=f"{tmp_path}/gone")
            said = await peer.call("RunPodSandbox", pb.RunPodSandboxRequest(pod=asking))
            assert (said.code, "is no network namespace any more" in said.told) == (9, True)
            plain = pb.PodSandbox(id="b" * 64, uid="u2", name="db", namespace="shop")
            assert (await peer.call("RunPodSandbox", pb.RunPodSandboxRequest(pod=plain))).code == 0
            (pod,) = (await ask(daemon.state / SOCKET)).pods
            assert (pod.uid, pod.trouble[0].partition(":")[0]) == ("u1", "network")
            assert (await peer.call("RemovePodSandbox", pb.RemovePodSandboxRequest(pod=asking))).code == 0
            while (await ask(daemon.state / SOCKET)).pods:  # noqa: ASYNC110  (nobody tells)
                await asyncio.sleep(0.01)
            await peer.close()
            again = await runtime.plugin()
            await again.ready()
            assert await asyncio.to_thread(daemon.end) == 0
    finally:
        daemon.kill()


async def test_a_task_that_fails_ends_the_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without it we would hold less than we say: the fault is told, and the exit status lets another process begin."""

    async def fails(_self: object) -> None:
        raise RuntimeError("the watch is broken")

    monkeypatch.setattr(probe, "ifb_facts", lambda: "not looked at: this is the machine's own network")
    monkeypatch.setattr(daemon_module._Daemon, "_follow_pods", fails)
    for name in ("KUBERNETES_SERVICE_HOST", "KUBERNETES_SERVICE_PORT"):
        monkeypatch.delenv(name, raising=False)
    lines: list[dict[str, Any]] = []
    settings = config.load(Daemon(tmp_path).config.read_text(), "node.yaml")
    log = Log(lambda line: lines.append(json.loads(line)))
    async with asyncio.timeout(SECONDS):
        assert await daemon_module.serve(settings, "n1", log, Stop()) == 1
    (fault,) = (line for line in lines if line["event"] == "task-failed")
    assert fault["error"] == "RuntimeError: the watch is broken"


class RdtDaemon:
    """The daemon's parts in this process, without its connections, on a machine with RDT.

    Args:
        folder: For everything that it touches.
        monkeypatch: Keeps it from the machine's own network and API server.
        rdt: More of node.yaml's `rdt` block.
        runc: Whether there is one, which starts containers in groups.
    """

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch, rdt: str = "", *, runc: bool = True) -> None:
        (folder / "resctrl").mkdir()
        self.folder: Final = folder
        self.fake: Final = FakeResctrl(folder / "resctrl")
        self.lines: Final[list[dict[str, Any]]] = []
        (folder / "classes.yaml").write_text("partitions: {p: {classes: {gold: }}}")
        more = f"rdt: {{classes: {folder}/classes.yaml{rdt}}}"
        settings = config.load(Daemon(folder, more).config.read_text(), "node.yaml")
        parts = survey.Parts.of(settings)._replace(resctrl=Resctrl(self.fake.root, self.fake.mountinfo, self.fake))
        monkeypatch.setattr(survey.Parts, "of", lambda _settings: parts)
        monkeypatch.setattr(probe, "ifb_facts", lambda: "not looked at: this is the machine's own network")
        for name in ("KUBERNETES_SERVICE_HOST", "KUBERNETES_SERVICE_PORT"):
            monkeypatch.delenv(name, raising=False)
        if runc:
            self.install_runc()
        log = Log(lambda line: self.lines.append(json.loads(line)))
        self.daemon: Final = daemon_module._Daemon(settings, "n1", log, None)

    def install_runc(self) -> None:
        """Have one that starts containers in groups."""
        runc = self.folder / "runc"
        runc.write_text("""#!/bin/sh\necho '{"linux": {"intelRdt": {"enabled": true}}}'\n""")
        runc.chmod(0o700)

    def container(self, *threads: int) -> None:
        """Have a container of the class gold with these threads, in the root group."""
        cgroup = "/kubepods/burstable/podu1"
        group = self.folder / "cgroup" / cgroup[1:] / ("c" * 64)
        group.mkdir(parents=True)
        (group / "cgroup.threads").write_text("".join(f"{thread}\n" for thread in threads))
        for thread in threads:
            self.fake.fork(1, thread)
        placed = (Placed("c" * 64, "app", {}, "gold"),)
        intent = Remembered("runtime", "", {}, {})
        self.daemon.enforcer.holder.ledger.put(Record("u1", "shop", "web", intent, "s", cgroup, 1, containers=placed))

    def look(self) -> tuple[str, bool]:
        """Look at the node once; return the owner of RDT, and whether something makes this node's rdt label go."""
        checks = self.daemon._examine()
        (found,) = (check.found for check in checks if check.name == "owner of RDT")
        return found, any(not check.passed and check.kinds == ("rdt",) for check in checks)

    def told(self, event: str) -> list[dict[str, Any]]:
        """Return the log's lines of an event, without what all of them have."""
        said = [line for line in self.lines if line["event"] == event]
        return [{key: line[key] for key in ("kind", "rdt_class", "threads", "reason") if key in line} for line in said]

    def repairs(self) -> float:
        """Return how often drift was repaired."""
        registry = self.daemon.metrics.registry
        return registry.get_sample_value("noisegate_node_drift_repairs_total", {"kind": "rdt"}) or 0.0


async def test_who_owns_rdt_is_looked_at_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A runc that answers later, and a runtime that is given an RDT configuration: each look goes by what is so then.

    Groups are made by one owner: before the runtime has its configuration they are ours, and from then on none is touched.
    """
    node = RdtDaemon(tmp_path, monkeypatch, runc=False)
    assert node.look()[0].startswith(
        "none: whether the OCI runtime can start a container in an RDT group is not known: "
    )
    node.install_runc()
    assert node.look()[0].startswith("enforcer: ")
    assert node.fake.calls[0] == "mkdir noisegate-gold"
    (tmp_path / "config.toml").write_text(
        "version = 4\nplugins.'io.containerd.service.v1.tasks-service'.rdt_config_file = '/etc/rdt.yaml'\n"
    )
    # As containerd leaves it when it starts with one.
    node.fake.rmdir(node.fake.root / "noisegate-gold")
    node.fake.calls.clear()
    assert node.look() == ("runtime: the runtime has an RDT configuration (/etc/rdt.yaml)", False)
    assert node.fake.calls == []


async def test_rdt_that_is_switched_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No CLOSID is taken from whoever shares out the caches instead, and what is left of before goes once it is empty."""
    node = RdtDaemon(tmp_path, monkeypatch, ", enforced: false")
    for name in ("noisegate-gold", "noisegate-old", "theirs"):
        node.fake.mkdir(node.fake.root / name)
    node.container(100)
    node.fake.write(node.fake.root / "theirs" / "tasks", b"100\n")
    node.fake.calls.clear()
    assert node.look() == ("none: RDT is switched off on this node", True)
    assert node.fake.calls == ["rmdir noisegate-old"]
    node.daemon.enforcer.holder.release("u1")
    node.look()
    assert node.fake.calls == ["rmdir noisegate-old", "rmdir noisegate-gold"]


async def test_containers_go_back_into_their_group(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where somebody removed it and it was made again, by the look itself or by the next container, or moved a thread."""
    node = RdtDaemon(tmp_path, monkeypatch)
    gold = node.fake.root / "noisegate-gold"
    node.look()
    node.container(100, 101)
    node.fake.fork(1, 102)
    for thread in (b"100\n", b"101\n"):
        node.fake.write(gold / "tasks", thread)
    node.look()
    assert (node.repairs(), node.told("drift-repaired")) == (0, [])

    node.fake.rmdir(gold)
    node.look()
    assert (gold / "tasks").read_text() == "100\n101\n"

    node.fake.rmdir(gold)
    node.daemon.rdt.adjust(Choice("gold", keys.RDT_OWN_POD, own=True))
    assert (gold / "tasks").read_text() == ""
    node.look()
    assert (gold / "tasks").read_text() == "100\n101\n"

    node.fake.write(node.fake.root / "tasks", b"101\n")
    node.look()
    assert (gold / "tasks").read_text() == "100\n101\n"
    assert node.repairs() == 3
    assert node.told("drift-repaired") == [
        {"kind": "rdt", "rdt_class": "gold", "threads": number} for number in (2, 2, 1)
    ]


async def test_a_thread_that_cannot_be_put_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is told, and the look goes on."""
    node = RdtDaemon(tmp_path, monkeypatch)
    node.container(100, 101)
    write = node.fake.write

    def refuses(path: Path, data: bytes) -> None:
        if data == b"101\n":
            raise PermissionError(errno.EPERM, "Operation not permitted", str(path))
        write(path, data)

    monkeypatch.setattr(node.fake, "write", refuses)
    assert node.look()[0].startswith("enforcer: ")
    assert node.told("rdt-class") == [{"rdt_class": "gold", "reason": "TaskNotMoved"}]


async def test_trouble_with_rdt_is_rdt_s_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Groups that cannot be read take the node's rdt label away, with the reason, and nothing else; it comes back with them."""
    node = RdtDaemon(tmp_path, monkeypatch)
    node.container(100)
    assert node.look()[1] is False
    mode = node.fake.root / "noisegate-gold" / "mode"
    mode.unlink()
    mode.mkdir()
    others = [check for check in node.daemon._examine() if check.kinds != ("rdt",)]
    found, gone = node.look()
    assert found.startswith(f"none: resctrl at {node.fake.root} cannot be read: [Errno 21] Is a directory")
    assert gone
    mode.rmdir()
    mode.write_text("shareable\n")
    assert node.look()[1] is False
    assert [check for check in node.daemon._examine() if check.kinds != ("rdt",)] == others
