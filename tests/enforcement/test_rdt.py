"""RDT on a node: groups kept in step, owners, containers answered. The first part also runs on silicon (make test-rdt)."""

import errno
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from fakeresctrl import FakeResctrl
from rdtnodes import CLASS, RdtNode, rdt_node

from noisegate.enforcement.kernel.resctrl import Resctrl
from noisegate.enforcement.plan.partitions import ClassFile, read
from noisegate.enforcement.plan.rdt import MakeGroup, Owner, RdtAdjustment, RemoveGroup, WriteSchemata
from noisegate.enforcement.rdt import NodeRdt
from noisegate.enforcement.refusal import Refusal
from noisegate.isolation.rdt import Choice

GOLD, BRONZE = f"{CLASS}gold", f"{CLASS}bronze"


@pytest.fixture
def node(tmp_path: Path) -> Iterator[RdtNode]:
    """Return a node with resctrl: the fake, or this machine."""
    with rdt_node(tmp_path) as one:
        yield one


def class_file(**shares: str) -> ClassFile:
    """Return a class file of classes with shares of the L3 cache, where the machine has one."""
    text = "".join(f'\n      {CLASS}{name}: {{l3Allocation: "{share}"}}' for name, share in shares.items())
    return read(
        f'options: {{l3: {{optional: true}}}}\npartitions:\n  p:\n    l3Allocation: "100%"\n    classes:{text}',
        "c.yaml",
    )


def own(name: str) -> Choice:
    """Return a class chosen by our key."""
    return Choice(name, "noisegate.io/rdt-class", own=True)


def ours(resctrl: Resctrl, classes: ClassFile | None, *, runtime_config: str = "") -> NodeRdt:
    """Return a node's RDT with a class file, reconciled once."""
    rdt = NodeRdt(resctrl, runtime_config=runtime_config, starts_in_group=True)
    rdt.load(classes)
    rdt.reconcile()
    return rdt


def test_groups_come_and_stay_in_step(node: RdtNode) -> None:
    """Every class has its group; a second look finds nothing to do; a changed class is written while it is used."""
    rdt = ours(node.resctrl, class_file(gold="100%", bronze="30%"))
    assert rdt.report.owner.who == "enforcer"
    assert {f"noisegate-{GOLD}", f"noisegate-{BRONZE}"} <= set(node.resctrl.names())
    assert rdt.reconcile().done == ()
    node.resctrl.add(f"noisegate-{BRONZE}", [node.start()])
    before = node.resctrl.read(f"noisegate-{BRONZE}")
    rdt.load(class_file(gold="100%", bronze="60%"))
    done = rdt.reconcile().done
    if any(name.startswith("L3") for name in before):
        assert [(type(action), action.group) for action in done] == [(WriteSchemata, f"noisegate-{BRONZE}")]
        assert node.resctrl.read(f"noisegate-{BRONZE}") != before
    assert rdt.reconcile().done == ()


def test_a_class_leaves(node: RdtNode) -> None:
    """A class that left the file keeps its group as long as a thread is in it, takes no new container, then goes."""
    rdt = ours(node.resctrl, class_file(gold="100%", bronze="30%"))
    thread = node.start()
    assert rdt.place(BRONZE, [thread]) == 1
    rdt.load(class_file(gold="100%"))
    report = rdt.reconcile()
    assert (report.done, [each.reason for each in report.outcomes]) == ((), ["ClassKept"])
    assert node.resctrl.tasks(f"noisegate-{BRONZE}") == [thread]
    with pytest.raises(Refusal) as error:
        rdt.adjust(own(BRONZE))
    assert error.value.reason == "ClassKept"
    node.end(thread)
    assert rdt.reconcile().done == (RemoveGroup(f"noisegate-{BRONZE}"),)


def test_a_class_that_left_and_is_asked_for_again(node: RdtNode) -> None:
    """Asking for a class that is not in the file any more does not keep its empty group."""
    rdt = ours(node.resctrl, class_file(gold="100%", bronze="30%"))
    rdt.load(class_file(gold="100%"))
    rdt.reconcile()
    with pytest.raises(Refusal) as error:
        rdt.adjust(own(BRONZE))
    assert error.value.reason == "RdtClassUnknown"
    assert f"noisegate-{BRONZE}" not in node.resctrl.names()


def test_a_group_that_somebody_removed(node: RdtNode) -> None:
    """A container that asks for the class finds it made again before it is answered."""
    rdt = ours(node.resctrl, class_file(gold="50%"))
    schemata = node.resctrl.read(f"noisegate-{GOLD}")
    node.resctrl.remove(f"noisegate-{GOLD}")
    assert rdt.adjust(own(GOLD)) == RdtAdjustment(clos_id=f"noisegate-{GOLD}")
    assert node.resctrl.read(f"noisegate-{GOLD}") == schemata


def test_threads_that_are_not_where_they_belong(node: RdtNode) -> None:
    """One that somebody moved, and all of a group that was removed and made again, by a container's start or otherwise."""
    rdt = ours(node.resctrl, class_file(gold="50%", bronze="20%"))
    first, second, other = node.start(), node.start(), node.start()
    assert rdt.astray(GOLD, [first, second]) == {first, second}
    assert rdt.place(GOLD, [first, second]) == 2
    assert rdt.astray(GOLD, [first, second]) == set()
    node.resctrl.add(f"noisegate-{BRONZE}", [second, other])
    assert rdt.astray(GOLD, [first, second]) == {second}
    node.resctrl.remove(f"noisegate-{GOLD}")
    assert rdt.astray(GOLD, [first, second]) == set()
    rdt.adjust(own(GOLD))
    assert rdt.reconcile().done == ()
    assert rdt.astray(GOLD, [first, second]) == {first, second}


def test_nothing_is_left_after_the_cleanup(node: RdtNode) -> None:
    """Apply, then clean up: the groups and the root's schemata are as they were."""
    before = (node.resctrl.names(), node.resctrl.root_schemata())
    rdt = ours(node.resctrl, class_file(gold="50%", bronze="20%"))
    assert node.resctrl.names() != before[0]
    done = rdt.cleanup().done
    assert {RemoveGroup(f"noisegate-{GOLD}"), RemoveGroup(f"noisegate-{BRONZE}")} <= set(done)
    assert (node.resctrl.names(), node.resctrl.root_schemata()) == before


@pytest.fixture
def fake(tmp_path: Path) -> FakeResctrl:
    """Return a fake machine on which somebody else has a group."""
    (tmp_path / "resctrl").mkdir()
    fake = FakeResctrl(tmp_path / "resctrl")
    fake.mkdir(fake.root / "silver")
    fake.calls.clear()
    return fake


def on(fake: FakeResctrl) -> Resctrl:
    """Return the resctrl of a fake."""
    return Resctrl(fake.root, fake.mountinfo, fake)


def test_the_runtime_s_groups_are_only_looked_at(fake: FakeResctrl) -> None:
    """Where the runtime owns RDT, its classes are the groups there are, and nothing is made, written or removed."""
    fake.mkdir(fake.root / "noisegate-left")
    fake.calls.clear()
    rdt = ours(on(fake), class_file(gold="50%"), runtime_config="/etc/rdt.yaml")
    assert rdt.report.owner.who == "runtime"
    assert rdt.adjust(own("silver")) == RdtAdjustment(rdt_class="silver")
    with pytest.raises(Refusal, match="RDT class gold is unknown on this node; known: silver"):
        rdt.adjust(own("gold"))
    assert fake.calls == []


def test_threads_in_groups_that_are_not_ours_to_keep(fake: FakeResctrl) -> None:
    """Where RDT is switched off, or the runtime's, nobody is called astray: others may have moved them on purpose."""
    rdt = ours(on(fake), class_file(gold="50%"))
    assert rdt.astray(GOLD, [1]) == {1}
    rdt.load(None, enforced=False)
    assert rdt.reconcile(in_use=[GOLD]).owner.who == "none"
    assert f"noisegate-{GOLD}" in on(fake).names()
    assert rdt.astray(GOLD, [1]) == set()
    rdt.renew(runtime_config="/etc/rdt.yaml", starts_in_group=True)
    assert rdt.reconcile(in_use=[GOLD]).owner.who == "runtime"
    assert rdt.astray(GOLD, [1]) == set()


def test_the_runtime_was_configured_otherwise(fake: FakeResctrl) -> None:
    """From then on the groups are the runtime's: one that somebody removed is not made again, and none is written."""
    rdt = ours(on(fake), class_file(gold="50%"))
    on(fake).remove(f"noisegate-{GOLD}")
    fake.calls.clear()
    rdt.renew(runtime_config="/etc/rdt.yaml", starts_in_group=True)
    assert (rdt.reconcile().owner.who, fake.calls) == ("runtime", [])
    assert rdt.adjust(own("silver")) == RdtAdjustment(rdt_class="silver")


def test_a_runc_that_answers_later(fake: FakeResctrl) -> None:
    """While it is not known whether containers can start in groups they are refused; then they can, without a restart."""
    busy = Refusal("RuncFeaturesUnknown", "runc features did not answer within 10 s")
    rdt = NodeRdt(on(fake), runtime_config="", starts_in_group=busy)
    rdt.load(class_file(gold="50%"))
    with pytest.raises(Refusal, match="is not known: runc features did not answer within 10 s"):
        rdt.adjust(own(GOLD))
    rdt.renew(runtime_config="", starts_in_group=True)
    assert rdt.reconcile().owner.who == "enforcer"
    assert rdt.adjust(own(GOLD)) == RdtAdjustment(clos_id=f"noisegate-{GOLD}")


def test_the_runtime_s_key_is_the_runtime_s(fake: FakeResctrl) -> None:
    """A class that the runtime's own key chose, the root group and no class at all need nothing from us."""
    rdt = ours(on(fake), None)
    for choice in (None, own("gold")._replace(own=False), own("system/default")):
        assert rdt.adjust(choice) == RdtAdjustment()


def test_a_node_without_a_class_file(fake: FakeResctrl) -> None:
    """Nothing is made, groups of an older file go, and a container that asks is refused with what to do."""
    rdt = ours(on(fake), class_file(gold="50%"))
    rdt.load(None)
    assert rdt.reconcile().done == (RemoveGroup(f"noisegate-{GOLD}"),)
    with pytest.raises(Refusal, match=r"there is no class file \(set the node's class file\)"):
        rdt.adjust(own(GOLD))


def test_rdt_that_is_switched_off(fake: FakeResctrl) -> None:
    """No CLOSID is taken; what is left of before goes as soon as it is empty, and it is said why nothing is held."""
    rdt = ours(on(fake), class_file(gold="50%", bronze="20%"))
    fake.write(fake.root / f"noisegate-{GOLD}" / "tasks", b"3\n")
    rdt.load(class_file(gold="50%", bronze="20%"), enforced=False)
    report = rdt.reconcile()
    assert report.owner == Owner("none", "RDT is switched off on this node", "set rdt.enforced in node.yaml")
    assert report.done == (RemoveGroup(f"noisegate-{BRONZE}"),)
    assert [(each.rdt_class, each.reason) for each in report.outcomes] == [(GOLD, "ClassKept")]
    fake.end(3)
    assert rdt.reconcile().done == (RemoveGroup(f"noisegate-{GOLD}"),)
    assert on(fake).names() == ["silver"]


def test_a_node_without_resctrl(tmp_path: Path) -> None:
    """Where resctrl is not mounted nobody owns RDT, and the refusal says how to mend it."""
    (tmp_path / "mountinfo").write_text("")
    rdt = ours(Resctrl(tmp_path, tmp_path / "mountinfo"), class_file(gold="50%"), runtime_config="/etc/rdt.yaml")
    with pytest.raises(Refusal, match=r"is not mounted at .* mount -t resctrl"):
        rdt.adjust(own(GOLD))
    assert rdt.cleanup().owner.who == "none"


def test_before_the_first_look(fake: FakeResctrl) -> None:
    """A container that comes before the first reconciliation brings it about."""
    rdt = NodeRdt(on(fake), runtime_config="", starts_in_group=True)
    rdt.load(class_file(gold="50%"))
    assert rdt.adjust(own(GOLD)) == RdtAdjustment(clos_id=f"noisegate-{GOLD}")


def test_a_class_file_that_does_not_fit(fake: FakeResctrl) -> None:
    """Groups stay as they are, containers are refused, and every fault is in the report."""
    rdt = ours(on(fake), class_file(gold="50%"))
    fake.calls.clear()
    rdt.load(class_file(gold="0xffffff", bronze="0x1000000"))
    report = rdt.reconcile()
    assert [fault.split(": ")[1] for fault in report.faults] == [
        f"partitions.p.classes.{CLASS}{name}.l3Allocation" for name in ("gold", "bronze")
    ]
    with pytest.raises(Refusal, match="the class file does not fit this machine"):
        rdt.adjust(own(GOLD))
    assert fake.calls == []


def test_too_many_classes(fake: FakeResctrl) -> None:
    """The first classes have their groups; a container of another is refused for want of a CLOSID."""
    rdt = ours(on(fake), class_file(**{f"c{number}": "50%" for number in range(7)}))
    assert rdt.adjust(own(f"{CLASS}c5")).clos_id == f"noisegate-{CLASS}c5"
    with pytest.raises(Refusal) as error:
        rdt.adjust(own(f"{CLASS}c6"))
    assert error.value.reason == "ClosidsExhausted"


def test_a_group_is_never_left_with_the_kernel_s_first_schemata(fake: FakeResctrl) -> None:
    """Schemata that are refused take their group with them: in it a container would have all of the cache."""
    fake.write(fake.root / "silver" / "schemata", b"L3:0=ff;1=ff\n")
    fake.write(fake.root / "schemata", b"L3:0=fff00;1=fff00\n")
    fake.write(fake.root / "silver" / "mode", b"exclusive\n")
    rdt = ours(on(fake), class_file(gold="50%", bronze="100%"))
    assert rdt.report.done == ()
    assert [(each.rdt_class, each.reason) for each in rdt.report.outcomes] == [
        (GOLD, "SchemataRefused"),
        (BRONZE, "SchemataRefused"),
    ]
    assert on(fake).names() == ["silver"]
    with pytest.raises(Refusal, match=r"Overlaps with exclusive group \(EINVAL\)"):
        rdt.adjust(own(GOLD))


def test_a_group_that_cannot_be_filled_nor_removed(tmp_path: Path) -> None:
    """It stays, no container comes into it, and it is filled once that can be done."""

    class TurnsReadOnly(FakeResctrl):
        turned = True

        def rmdir(self, path: Path) -> None:
            self._refuse(path)
            super().rmdir(path)

        def write(self, path: Path, data: bytes) -> None:
            self._refuse(path)
            super().write(path, data)

        def _refuse(self, path: Path) -> None:
            if self.turned:
                raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(path))

    fake = TurnsReadOnly(tmp_path / "resctrl")
    rdt = ours(on(fake), class_file(gold="50%"))
    assert rdt.report.done == (MakeGroup(f"noisegate-{GOLD}"),)
    assert on(fake).names() == [f"noisegate-{GOLD}"]
    for _ in range(2):
        with pytest.raises(Refusal, match="EROFS") as error:
            rdt.adjust(own(GOLD))
        assert error.value.reason == "SchemataRefused"
    fake.turned = False
    assert rdt.adjust(own(GOLD)) == RdtAdjustment(clos_id=f"noisegate-{GOLD}")
    assert fake.shown(fake.root / f"noisegate-{GOLD}")["L3"][0] == 0x3FF


def test_a_changed_class_that_the_kernel_refuses(fake: FakeResctrl) -> None:
    """Its group stays as it was for those who are in it; nobody else is put into what the class file does not say."""
    rdt = ours(on(fake), class_file(gold="50%"))
    fake.write(fake.root / "schemata", b"L3:0=f0000;1=f0000\n")
    fake.write(fake.root / "silver" / "schemata", b"L3:0=c00;1=c00\n")
    fake.write(fake.root / "silver" / "mode", b"exclusive\n")
    rdt.load(class_file(gold="60%"))
    assert [each.reason for each in rdt.reconcile().outcomes] == ["SchemataRefused"]
    assert fake.shown(fake.root / f"noisegate-{GOLD}")["L3"][0] == 0x3FF
    with pytest.raises(Refusal, match=r"Overlaps with exclusive group \(EINVAL\)"):
        rdt.adjust(own(GOLD))
    fake.write(fake.root / "silver" / "mode", b"shareable\n")
    assert rdt.adjust(own(GOLD)) == RdtAdjustment(clos_id=f"noisegate-{GOLD}")


def test_groups_that_cannot_be_read(fake: FakeResctrl) -> None:
    """Nobody owns RDT meanwhile, and it is said why; nothing is raised but to whom asks for a class."""
    rdt = ours(on(fake), class_file(gold="50%"))
    mode = fake.root / f"noisegate-{GOLD}" / "mode"
    mode.unlink()
    mode.mkdir()
    report = rdt.reconcile()
    assert (report.owner.who, report.done) == ("none", ())
    assert "cannot be read: [Errno 21] Is a directory" in report.owner.why
    with pytest.raises(Refusal, match=r"cannot be given on this node: resctrl at .* cannot be read"):
        rdt.adjust(own(GOLD))
    mode.rmdir()
    mode.write_text("shareable\n")
    assert rdt.adjust(own(GOLD)) == RdtAdjustment(clos_id=f"noisegate-{GOLD}")


def test_a_mount_that_goes_between_two_looks(fake: FakeResctrl) -> None:
    """Who asks for a class then is refused in the same way as after the next look."""
    rdt = ours(on(fake), class_file(gold="50%"))
    shutil.rmtree(fake.root)
    with pytest.raises(Refusal, match=r"resctrl at .* cannot be read"):
        rdt.adjust(own(GOLD))


def test_a_kernel_without_a_place_for_one(fake: FakeResctrl) -> None:
    """Where the kernel refuses a group that was counted on, its schemata are not tried, and other classes go on."""
    fake.rmids = 3
    rdt = ours(on(fake), class_file(gold="50%", bronze="20%"))
    assert [type(action) for action in rdt.report.done] == [MakeGroup, WriteSchemata]
    assert [(each.rdt_class, each.reason) for each in rdt.report.outcomes] == [(BRONZE, "RmidsExhausted")]


def test_drift_is_repaired(fake: FakeResctrl) -> None:
    """What somebody writes over is written again, and what somebody else has is left."""
    rdt = ours(on(fake), class_file(gold="50%"))
    fake.write(fake.root / f"noisegate-{GOLD}" / "schemata", b"L3:1=1\n")
    fake.write(fake.root / "silver" / "schemata", b"L3:1=3\n")
    assert rdt.reconcile().done == (WriteSchemata(f"noisegate-{GOLD}", {"L3": {1: 0x3FF}}),)
    assert fake.shown(fake.root / "silver")["L3"][1] == 3


def test_a_container_about_to_start_keeps_its_group(fake: FakeResctrl) -> None:
    """Between the answer to CreateContainer and the start no thread is in the group yet; it stays."""
    rdt = ours(on(fake), class_file(gold="50%", bronze="20%"))
    rdt.load(class_file(gold="50%"))
    assert [each.reason for each in rdt.reconcile(in_use=[BRONZE]).outcomes] == ["ClassKept"]
    assert f"noisegate-{BRONZE}" in on(fake).names()
