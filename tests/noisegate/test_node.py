"""`noisegate node`: what each command prints, and its exit code."""

import asyncio
import json
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import msgspec
import pytest

from noisegate.__main__ import main, parser
from noisegate.cli import node, nodetable
from noisegate.enforcement import cleanup as cleaning
from noisegate.enforcement import status as status_module
from noisegate.enforcement import survey
from noisegate.enforcement.hostlock import host_lock
from noisegate.enforcement.kernel import probe
from noisegate.enforcement.kernel.containerd_config import ContainerdConfig, Validator
from noisegate.enforcement.kernel.probe import Facts
from noisegate.enforcement.kernel.runc import RuncFeatures
from noisegate.enforcement.refusal import Refusal
from noisegate.enforcement.report.node import OwnPod
from noisegate.enforcement.status import (
    SOCKET,
    CheckStatus,
    DeviceStatus,
    NetworkStatus,
    NodeStatus,
    PodStatus,
    StatusServer,
)

NONE: Final[dict[str, int | None]] = {"rbps": None, "wbps": None, "riops": None, "wiops": None}
LINE: Final = {**NONE, "wbps": 4194304, "wiops": 1024}
CLASSES: Final = "partitions:\n  p:\n    l3Allocation: '100%'\n    classes:\n      gold: {l3Allocation: '50%'}\n"
GOOD: Final = Facts(
    "6.12.0", "cgroup2", frozenset({"io", "memory"}), "systemd", frozenset({"io"}),
    ContainerdConfig(validator=Validator(enabled=True)), "/var/run/nri/nri.sock", True,
    "/var/lib/containerd", Refusal("VolumeNotThrottled", "it is on zfs"),
    "", RuncFeatures("1.5.2", "1.3.0", *[True] * 6), None, "tmpfs",
)  # fmt: skip


def told(**changed: Any) -> NodeStatus:
    """Return what an enforcer says."""
    pod = PodStatus(
        "shop",
        "web",
        "u1",
        "watch",
        [DeviceStatus("8:16", ["data", "more"], LINE, LINE, {**NONE, "wbps": 9})],
        NetworkStatus("veth7", {"ingress": 40_000_000, "egress": None}, {"ingress": 40_000_000, "egress": None}, {"ingress": None, "egress": None}),
        {"app": "gold"},
    )  # fmt: skip
    whole = NodeStatus("n1", "0.4", True, "containerd v2.4.2", ["disk", "network"], "none", [], [pod])
    return msgspec.structs.replace(whole, **changed)


@contextmanager
def enforcer(folder: Path, answer: NodeStatus) -> Iterator[None]:
    """Have an enforcer's socket answer, in a thread of its own: the command has its own event loop."""
    loop = asyncio.new_event_loop()
    ready, stop = threading.Event(), asyncio.Event()

    async def serve() -> None:
        async def status() -> NodeStatus:
            return answer

        server = StatusServer(folder / SOCKET, status)
        await server.open()
        ready.set()
        await stop.wait()
        await server.close()

    thread = threading.Thread(target=loop.run_until_complete, args=(serve(),))
    thread.start()
    try:
        assert ready.wait(20)
        yield
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join()
        loop.close()


class Test_status:  # noqa: N801  (the command's name)
    """Asked, applied, observed."""

    def test_table(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        """Columns line up; what differs is seen beside each other."""
        with enforcer(tmp_path, told()):
            assert main(["node", "status", "--state", str(tmp_path)]) == 0
        assert capsys.readouterr().out.splitlines() == [
            "n1: connected to containerd v2.4.2, noisegate 0.4",
            "holds: disk, network; RDT belongs to: none",
            "",
            "POD       KIND     ON              ASKED                    APPLIED                  OBSERVED",
            "shop/web  disk     8:16 data,more  wbps=4194304 wiops=1024  wbps=4194304 wiops=1024  wbps=9",
            "shop/web  network  veth7           ingress=40000000         ingress=40000000         no limit",
            "shop/web  rdt      app             gold                     gold                     -",
        ]

    def test_json(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        """The whole answer, for programs."""
        with enforcer(tmp_path, told()):
            assert main(["node", "status", "--state", str(tmp_path), "-o", "json"]) == 0
        value = json.loads(capsys.readouterr().out)
        assert msgspec.convert(value, NodeStatus) == told()
        assert value["pods"][0]["disk"][0]["observed"]["wbps"] == 9

    def test_trouble_is_an_exit_code(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        """A pod that is not as it asked: 1. What was left out of a request is said, and is its author's business."""
        pod = msgspec.structs.replace(told().pods[0], trouble=["disk: it is on nfs4"], skipped=["network: bad"])
        with enforcer(tmp_path, told(pods=[pod])):
            assert main(["node", "status", "--state", str(tmp_path)]) == 1
        out = capsys.readouterr().out
        assert "shop/web: NOT HELD: disk: it is on nfs4" in out
        assert "shop/web: left out: network: bad" in out
        pod = msgspec.structs.replace(pod, trouble=[])
        with enforcer(tmp_path, told(pods=[pod])):
            assert main(["node", "status", "--state", str(tmp_path)]) == 0

    def test_a_node_that_holds_nothing(self) -> None:
        """It says why, and that no pod asks."""
        check = CheckStatus("NRI", False, "off", "on", "put the drop-in there", ["disk", "network", "rdt"])
        note = CheckStatus("state folder", False, "ext4", "tmpfs", "", [])
        text = "\n".join(
            nodetable.status(told(connected=False, runtime="", enforces=[], checks=[check, note], pods=[]))
        )
        assert "n1: NOT connected to a runtime that was never reached" in text
        assert "holds: nothing" in text
        assert "missing for disk, network, rdt: NRI: off (put the drop-in there)" in text
        assert "ext4" not in text
        assert text.endswith("no pod of this node asks for limits")

    def test_nobody_is_there(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        """The path, the reason and what it may be: 2."""
        assert main(["node", "status", "--state", str(tmp_path)]) == 2
        error = capsys.readouterr().err
        assert error == (
            f"noisegate node status: {tmp_path / SOCKET}: No such file or directory; "
            "no enforcer runs here, or you are not root\n"
        )

    @pytest.mark.parametrize(
        ("error", "words"), [(TimeoutError(), "TimeoutError"), (msgspec.ValidationError("another version"), "another version")]
    )  # fmt: skip
    def test_an_answer_that_does_not_come_or_is_none(
        self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], error: Exception, words: str
    ) -> None:
        """It is not said that nobody is there."""

        async def ask(_path: Path) -> NodeStatus:
            raise error

        monkeypatch.setattr(status_module, "ask", ask)
        assert main(["node", "status"]) == 2
        assert capsys.readouterr().err == f"noisegate node status: {words}\n"


class Test_preflight:  # noqa: N801  (the command's name)
    """What a node lacks. The look itself is replaced: it would make an ifb on this machine."""

    @pytest.fixture(autouse=True)
    def _node(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.facts = GOOD
        monkeypatch.setattr(survey, "examine", lambda _settings, _parts: self.facts)

    def config(self, folder: Path, text: str = "rdt: {enforced: true}") -> list[str]:
        """Return the command with a node.yaml."""
        (folder / "node.yaml").write_text(text)
        return ["node", "preflight", "--config", str(folder / "node.yaml"), "--node", "n1"]

    def test_a_node_without_resctrl(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        """One kind is missing: 1, with what to do; a note is no lack."""
        self.facts = GOOD._replace(resctrl=Refusal("ResctrlNotMounted", "resctrl is not mounted", "mount it"))
        assert main(self.config(tmp_path)) == 1
        out = capsys.readouterr().out
        lines = out.splitlines()
        assert lines[0].split() == ["CHECK", "FOUND", "NEEDED", "FOR"]
        assert "MISSING  owner of RDT" in out
        assert "note     container store" in out
        assert lines[-1] == "this node cannot hold: rdt"

    def test_a_good_node(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        """All can be held: 0."""
        (tmp_path / "classes.yaml").write_text(CLASSES)
        assert main(self.config(tmp_path, f"rdt: {{classes: {tmp_path}/classes.yaml}}")) == 0
        assert capsys.readouterr().out.endswith("\nthis node can hold everything\n")

    def test_json(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        """Each check with all it says."""
        assert main([*self.config(tmp_path, "nodes: {n1: {disk: {enforced: false}}}"), "-o", "json"]) == 1
        rows = msgspec.convert(json.loads(capsys.readouterr().out), list[CheckStatus])
        assert [row.kinds for row in rows if row.name == "disk in node.yaml"] == [["disk"]]

    @pytest.mark.parametrize("text", ["disk: {enforce: true}", "rdt: {classes: /nowhere/classes.yaml}"])
    def test_files_that_cannot_be_used(self, tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str) -> None:
        """2, and each line says which command it was."""
        assert main(self.config(tmp_path, text)) == 2
        error = capsys.readouterr().err
        assert all(line.startswith("noisegate node preflight: ") for line in error.splitlines())
        assert "enforce" in error or "/nowhere/classes.yaml" in error

    def test_a_file_that_is_not_there(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        """Its name and why, without an errno."""
        assert main(["node", "preflight", "--config", str(tmp_path / "nope")]) == 2
        assert capsys.readouterr().err == f"noisegate node preflight: {tmp_path}/nope: No such file or directory\n"

    def test_it_says_what_it_makes(self, capsys: pytest.CaptureFixture[str]) -> None:
        """Whoever tries it on a node learns of the device that is there for a moment."""
        with pytest.raises(SystemExit):
            main(["node", "preflight", "--help"])
        assert probe.PROBE in capsys.readouterr().out


class Test_cleanup:  # noqa: N801  (the command's name)
    """The work itself is in tests/enforcement/test_cleanup.py."""

    @pytest.mark.parametrize(("good", "code"), [(True, 0), (False, 1)])
    def test_what_was_done(
        self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], good: bool, code: int
    ) -> None:
        """A line each; 1 where something is left."""
        monkeypatch.setattr(cleaning, "cleanup", lambda _settings: iter([("a: freed", True), ("b: done", good)]))
        assert main(["node", "cleanup"]) == code
        assert capsys.readouterr().out == "a: freed\nb: done\n"

    def test_an_enforcer_that_runs(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        """2, with its pid; nothing is touched."""
        (tmp_path / "node.yaml").write_text(f"state: {tmp_path}/state")
        with host_lock(tmp_path / "state"):
            assert main(["node", "cleanup", "--config", str(tmp_path / "node.yaml")]) == 2
        assert "another enforcer runs on this host: pid " in capsys.readouterr().err


class Test_rdt_config:  # noqa: N801  (the command's name)
    """The runtime's file."""

    def test_it_is_printed_written_and_compared(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        """Printed without a target; written once; stale after the class file changed."""
        classes, target = tmp_path / "classes.yaml", tmp_path / "rdt.yaml"
        classes.write_text(CLASSES)
        command = ["node", "rdt-config", str(classes)]
        assert main(command) == 0
        printed = capsys.readouterr().out
        for word, code in (("written", 0), ("unchanged", 0)):
            assert main([*command, str(target)]) == code
            assert capsys.readouterr().out == f"{target}: {word}\n"
        assert target.read_text() == printed
        classes.write_text(CLASSES.replace("gold", "silver"))
        assert main([*command, str(target), "--check", "--resctrl", str(tmp_path)]) == 2
        assert "resctrl is not mounted" in capsys.readouterr().err
        assert target.read_text() == printed

    def test_a_foreign_file_stays(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        """2, and how to have it replaced."""
        (tmp_path / "classes.yaml").write_text(CLASSES)
        (tmp_path / "rdt.yaml").write_text("partitions: {}\n")
        command = ["node", "rdt-config", str(tmp_path / "classes.yaml"), str(tmp_path / "rdt.yaml")]
        assert main(command) == 2
        assert (tmp_path / "rdt.yaml").read_text() == "partitions: {}\n"
        assert "--force" in capsys.readouterr().err
        assert main([*command, "--force"]) == 0

    def test_a_class_file_that_is_none(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        """2, by the file's name."""
        (tmp_path / "classes.yaml").write_text("partitions: 5\n")
        assert main(["node", "rdt-config", str(tmp_path / "classes.yaml")]) == 2
        assert f"{tmp_path}/classes.yaml" in capsys.readouterr().err


def test_the_node_s_name(monkeypatch: pytest.MonkeyPatch) -> None:
    """The flag, else the DaemonSet's environment, else the host's name, small as the kubelet has it."""
    words = ["node", "run"]
    monkeypatch.setenv("NODE_NAME", "from-env")
    assert node.node_name(parser().parse_args([*words, "--node", "flag"])) == "flag"
    assert node.node_name(parser().parse_args(words)) == "from-env"
    monkeypatch.delenv("NODE_NAME")
    assert node.node_name(parser().parse_args(words)) == os.uname().nodename.lower()


def test_the_own_pod(monkeypatch: pytest.MonkeyPatch) -> None:
    """As the DaemonSet's environment says, all of it; else it runs on the host itself."""
    told = {"POD_NAMESPACE": "ns", "POD_NAME": "enforcer-x", "POD_UID": "u"}
    for name, value in told.items():
        monkeypatch.setenv(name, value)
    assert node.own_pod() == OwnPod("ns", "enforcer-x", "u")
    for name in told:
        with monkeypatch.context() as without:
            without.delenv(name)
            assert node.own_pod() is None


def test_a_table_lines_up() -> None:
    """Each column is as wide as its widest entry, and no line ends in blanks."""
    assert list(nodetable.table(("A", "BB"), [("ccc", ""), ("d", "e")])) == ["A    BB", "ccc", "d    e"]


@pytest.mark.parametrize("command", ["run", "status", "preflight", "cleanup", "rdt-config"])
def test_each_command_teaches(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Each has a help of its own."""
    with pytest.raises(SystemExit) as stopped:
        main(["node", command, "--help"])
    assert stopped.value.code == 0
    assert len(capsys.readouterr().out.splitlines()) > 5


@pytest.mark.parametrize("text", ["disk: {enforce: true}", "reconcileSeconds: 0", "{"])
def test_a_run_with_a_bad_file(tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str) -> None:
    """Nothing is begun: 2, with the file and the line."""
    (tmp_path / "node.yaml").write_text(f"state: {tmp_path}/state\n{text}\n")
    assert main(["node", "run", "--config", str(tmp_path / "node.yaml")]) == 2
    assert f"noisegate node run: {tmp_path}/node.yaml" in capsys.readouterr().err
    assert not (tmp_path / "state").exists()
