"""resctrl: what is read, made, written and removed. The first part also runs on silicon (make test-rdt)."""

import errno
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from fakeresctrl import AMD, CDP, INTEL, L2, FakeCache, FakeResctrl, Resources
from rdtnodes import RdtNode, rdt_node

from noisegate.enforcement.kernel.resctrl import Calls, Resctrl, sees_all_tasks
from noisegate.enforcement.plan.schemata import Bandwidth, Cache, Machine, Schemata
from noisegate.enforcement.refusal import Refusal

GOLD, BRONZE = "noisegate-test-gold", "noisegate-test-bronze"


@pytest.fixture
def node(tmp_path: Path) -> Iterator[RdtNode]:
    """Return a node with resctrl: the fake, or this machine."""
    with rdt_node(tmp_path) as one:
        yield one


def narrow(machine: Machine) -> Schemata:
    """Return schemata that take the lowest ways of every cache only."""
    return {name: dict.fromkeys(cache.ids, (1 << max(cache.min_bits, 1)) - 1) for name, cache in machine.caches.items()}


def refusal_of(error: pytest.ExceptionInfo[Refusal]) -> tuple[str, str]:
    """Return reason and sentence of a refusal."""
    return error.value.reason, error.value.told


def test_the_machine_says_what_it_can_share_out(node: RdtNode) -> None:
    """Every resource of the root's schemata that can be shared out has its caches, and a number of groups."""
    machine = node.resctrl.machine()
    root = node.resctrl.root_schemata()
    for name, cache in machine.caches.items():
        assert cache.ids == tuple(sorted(root[name]))
        assert cache.min_bits <= cache.mask.bit_count()
    assert machine.bandwidth is None or machine.bandwidth.ids == tuple(sorted(root["MB"]))
    assert machine.closids >= 1


def test_a_group_is_a_directory_that_the_kernel_fills(node: RdtNode) -> None:
    """Making a group makes tasks, schemata and mode appear, removing it takes them away; both may come twice."""
    for _ in range(2):
        node.resctrl.make(GOLD)
    assert GOLD in node.resctrl.names()
    assert node.resctrl.tasks(GOLD) == []
    assert node.resctrl.mode(GOLD) == "shareable"
    assert set(node.resctrl.read(GOLD)) >= set(node.resctrl.machine().caches)
    for _ in range(2):
        node.resctrl.remove(GOLD)
    assert GOLD not in node.resctrl.names()
    with pytest.raises(Refusal) as error:
        node.resctrl.read(GOLD)
    assert refusal_of(error) == ("GroupGone", f"the group {GOLD} has been removed")


def test_schemata_are_read_back(node: RdtNode) -> None:
    """What is written is what the kernel shows; what is not named stays, in this group and in the root."""
    root, wanted = node.resctrl.root_schemata(), narrow(node.resctrl.machine())
    node.resctrl.make(GOLD)
    before = node.resctrl.read(GOLD)
    node.resctrl.write(GOLD, wanted)
    assert node.resctrl.read(GOLD) == {**before, **wanted}
    name, values = next(iter(wanted.items()))
    whole = {name: {max(values): node.resctrl.machine().caches[name].mask}}
    node.resctrl.write(GOLD, whole)
    assert node.resctrl.read(GOLD) == {**before, **wanted, name: {**values, **whole[name]}}
    assert node.resctrl.root_schemata() == root


def test_a_refused_write_changes_nothing_and_says_why(node: RdtNode) -> None:
    """A bad line beside good ones: none takes effect, and the kernel's own words are in the refusal."""
    machine = node.resctrl.machine()
    node.resctrl.make(GOLD)
    before = node.resctrl.read(GOLD)
    wanted = {name: dict(values) for name, values in narrow(machine).items()}
    name = max(wanted)
    wanted[name][max(wanted[name])] = machine.caches[name].mask + 1
    with pytest.raises(Refusal) as error:
        node.resctrl.write(GOLD, wanted)
    reason, told = refusal_of(error)
    assert reason == "SchemataRefused"
    assert told.endswith("Mask out of range (EINVAL)")
    assert f"{name}:" in told
    assert node.resctrl.read(GOLD) == before


def test_closids_end(node: RdtNode) -> None:
    """One group more than there are CLOSIDs is refused with that reason, and leaves no directory."""
    free = node.resctrl.machine().closids - 1 - len(node.resctrl.names())
    groups = [f"noisegate-test-{number}" for number in range(free + 1)]
    for group in groups[:-1]:
        node.resctrl.make(group)
    with pytest.raises(Refusal) as error:
        node.resctrl.make(groups[-1])
    reason, told = refusal_of(error)
    assert reason == "ClosidsExhausted"
    assert told == f"the group {groups[-1]} cannot be made: Out of CLOSIDs (ENOSPC)"
    assert groups[-1] not in node.resctrl.names()
    node.resctrl.remove(groups[0])
    node.resctrl.make(groups[-1])


def test_threads_move(node: RdtNode) -> None:
    """A thread is in one group; it goes with its group's removal to the root; one that has ended is passed by."""
    thread, ended = node.start(), node.start()
    node.end(ended)
    node.resctrl.make(GOLD)
    node.resctrl.make(BRONZE)
    assert node.resctrl.add(GOLD, [ended, thread]) == 1
    assert node.resctrl.tasks(GOLD) == [thread]
    assert node.resctrl.groups().ours[GOLD].used
    assert node.resctrl.add(BRONZE, [thread]) == 1
    assert (node.resctrl.tasks(GOLD), node.resctrl.tasks(BRONZE)) == ([], [thread])
    node.resctrl.remove(BRONZE)
    assert str(thread) in (node.resctrl.root / "tasks").read_text().split()


def test_a_thread_that_cannot_be_moved_is_told(node: RdtNode) -> None:
    """What is no thread's id is refused with the kernel's words."""
    node.resctrl.make(GOLD)
    with pytest.raises(Refusal, match=r"thread -1 cannot be moved .*: Invalid pid -1 \(EINVAL\)"):
        node.resctrl.add(GOLD, [-1])


def test_a_thread_that_we_cannot_see_is_told(node: RdtNode) -> None:
    """Its number is 0 here, by which the kernel would move ourselves: nothing is written."""
    node.resctrl.make(GOLD)
    with pytest.raises(Refusal, match=r"a thread of another PID namespace .* \(the enforcer needs hostPID\)"):
        node.resctrl.add(GOLD, [0])
    assert node.resctrl.tasks(GOLD) == []


@pytest.mark.parametrize(
    "name", ["", "gold", "info", "../noisegate-x", "noisegate-/../x", "noisegate-a\nb", "noisegate-\0"]
)
def test_only_groups_of_ours_are_touched(node: RdtNode, name: str) -> None:
    """No method that reads or changes a group takes a name that is not one of ours."""
    for call in (node.resctrl.make, node.resctrl.remove, node.resctrl.read, node.resctrl.tasks, node.resctrl.mode):
        with pytest.raises(ValueError, match="is no group of ours"):
            call(name)
    with pytest.raises(ValueError, match="is no group of ours"):
        node.resctrl.write(name, {})
    with pytest.raises(ValueError, match="is no group of ours"):
        node.resctrl.add(name, [])


def faked(tmp_path: Path, resources: Resources = INTEL, options: tuple[str, ...] = (), **more: int) -> FakeResctrl:
    """Return a fake below the test's folder."""
    root = tmp_path / "resctrl"
    root.mkdir()
    return FakeResctrl(root, resources, options, **more)  # type: ignore[arg-type]


def on(fake: FakeResctrl) -> Resctrl:
    """Return the resctrl of a fake."""
    return Resctrl(fake.root, fake.mountinfo, fake)


@pytest.mark.parametrize(
    ("resources", "options", "machine"),
    [
        pytest.param(
            INTEL,
            (),
            Machine({"L3": Cache((0, 1), 0xFFFFF, 1, sparse=False, closids=16)}, Bandwidth((0, 1), 10, 10, "%", 8), 8),
            id="intel",
        ),
        pytest.param(
            CDP,
            ("cdp", "mba_MBps"),
            Machine(
                {name: Cache((0, 1), 0xFFFFF, 1, sparse=False, closids=8) for name in ("L3CODE", "L3DATA")},
                Bandwidth((0, 1), 10, 10, "MiBps", 8),
                8,
            ),
            id="code and data prioritization, software controller",
        ),
        pytest.param(
            L2, (), Machine({"L2": Cache((0, 1, 4, 5), 0xFF, 1, sparse=False, closids=4)}, None, 4), id="L2 alone"
        ),
        pytest.param(
            AMD,
            (),
            Machine(
                {"L3": Cache((0, 1, 8, 9), 0xFFFF, 0, sparse=True, closids=16)},
                Bandwidth((0, 1, 8, 9), 0, 1, "GBps/8", 16),
                16,
            ),
            id="amd",
        ),
    ],
)
def test_machines(tmp_path: Path, resources: Resources, options: tuple[str, ...], machine: Machine) -> None:
    """Masks, minima, units and the least number of CLOSIDs are read from info and from the mount's options."""
    assert on(faked(tmp_path, resources, options)).machine() == machine


def test_shareable_bits_are_read(tmp_path: Path) -> None:
    """Ways that devices may write into are known."""
    fake = faked(tmp_path, {"L3": FakeCache(shareable=0xC0000, min_bits=2)})
    assert on(fake).machine().caches["L3"] == Cache((0, 1), 0xFFFFF, 2, sparse=False, closids=16, shareable=0xC0000)


def test_an_older_kernel_has_no_sparse_masks(tmp_path: Path) -> None:
    """Where info says nothing of gaps, none are allowed."""
    fake = faked(tmp_path)
    (fake.root / "info/L3/sparse_masks").unlink()
    assert not on(fake).machine().caches["L3"].sparse


def test_a_missing_mount_is_told(tmp_path: Path) -> None:
    """A directory on which resctrl is not mounted is refused, also when something else is mounted over it."""
    fake = faked(tmp_path)
    mounted = fake.mountinfo.read_text()
    fake.mountinfo.write_text(mounted + f"50 22 0:40 / {fake.root} rw - tmpfs tmpfs rw\n")
    with pytest.raises(Refusal) as error:
        on(fake).machine()
    assert refusal_of(error) == ("ResctrlNotMounted", f"resctrl is not mounted at {fake.root}")
    fake.mountinfo.write_text("")
    with pytest.raises(Refusal, match="resctrl is not mounted"):
        on(fake).machine()


def test_a_mount_point_with_blanks(tmp_path: Path) -> None:
    """A blank stands in mountinfo as an octal escape."""
    folder = tmp_path / "my host"
    folder.mkdir()
    fake = faked(folder)
    fake.mountinfo.write_text(fake.mountinfo.read_text().replace("my host", r"my\040host"))
    assert on(fake).machine().closids == 8


def test_a_read_only_mount_is_told(tmp_path: Path) -> None:
    """A container often has /sys for reading only."""
    with pytest.raises(Refusal) as error:
        on(faked(tmp_path, read_only=True)).machine()
    assert error.value.reason == "ResctrlReadOnly"


def test_a_machine_that_only_measures_is_told(tmp_path: Path) -> None:
    """Without a resource in the root's schemata there is nothing to share out."""
    fake = faked(tmp_path)
    (fake.root / "schemata").write_text("")
    with pytest.raises(Refusal) as error:
        on(fake).machine()
    assert error.value.reason == "ResctrlMonitorsOnly"


def test_foreign_groups_are_only_named(tmp_path: Path) -> None:
    """Groups of others are listed by name; info and monitoring directories are none."""
    fake = faked(tmp_path)
    fake.mkdir(fake.root / "theirs")
    fake.mkdir(fake.root / "mon_groups" / "measured")
    on(fake).make(GOLD)
    groups = on(fake).groups()
    assert (list(groups.ours), groups.foreign) == ([GOLD], ("theirs",))


def test_rmids_end(tmp_path: Path) -> None:
    """Where no group can be measured any more, the refusal says that and not CLOSIDs."""
    fake = faked(tmp_path, rmids=2)
    on(fake).make(GOLD)
    with pytest.raises(Refusal) as error:
        on(fake).make(BRONZE)
    assert refusal_of(error) == (
        "RmidsExhausted",
        f"the group {BRONZE} cannot be made: Out of RMIDs (ENOSPC)",
    )


def test_a_cache_that_others_have_for_themselves(tmp_path: Path) -> None:
    """Where exclusive groups have every way, a new group has none."""
    fake = faked(tmp_path, {"L3": FakeCache((0,))})
    fake.write(fake.root / "mode", b"exclusive\n")
    with pytest.raises(Refusal) as error:
        on(fake).make(GOLD)
    assert refusal_of(error) == ("CacheExhausted", f"the group {GOLD} cannot be made: No space on L3:0 (ENOSPC)")


def test_another_error_of_mkdir(tmp_path: Path) -> None:
    """What the kernel says nothing of is told by the errno."""
    fake = faked(tmp_path)
    (fake.root / "info/last_cmd_status").unlink()
    missing = Resctrl(tmp_path / "elsewhere", fake.mountinfo)
    with pytest.raises(Refusal) as error:
        missing.make(GOLD)
    assert refusal_of(error) == (
        "GroupNotMade",
        f"the group {GOLD} cannot be made: No such file or directory (ENOENT)",
    )


def test_a_group_that_is_none_cannot_be_removed(tmp_path: Path) -> None:
    """A directory that holds something of its own is left alone, with the errno's name."""
    (tmp_path / GOLD / "inside").mkdir(parents=True)
    with pytest.raises(Refusal, match=r"cannot be removed: Directory not empty \(ENOTEMPTY\)"):
        Resctrl(tmp_path).remove(GOLD)


def test_more_than_a_page(tmp_path: Path) -> None:
    """Schemata of more than 4096 bytes are written in several commands, each of whole lines."""
    resources = {name: FakeCache(tuple(range(200)), 20) for name in ("L2CODE", "L2DATA", "L3")}
    fake = faked(tmp_path, resources, rmids=0)
    wanted = {name: dict.fromkeys(each.ids, 0xFFF) for name, each in resources.items()}
    on(fake).make(GOLD)
    on(fake).write(GOLD, wanted)
    assert on(fake).read(GOLD) == wanted
    assert len([call for call in fake.calls if call.startswith("write")]) > 1


def test_what_the_kernel_shows_otherwise_is_told(tmp_path: Path) -> None:
    """A bandwidth that the kernel rounds up is no longer what was asked for."""
    fake = faked(tmp_path)
    on(fake).make(GOLD)
    with pytest.raises(Refusal) as error:
        on(fake).write(GOLD, {"MB": {0: 15, 1: 20}})
    assert refusal_of(error) == (
        "SchemataDiffer",
        f"the kernel shows other schemata of the group {GOLD} than MB:0=15",
    )


def test_a_group_that_goes_while_it_is_read(tmp_path: Path) -> None:
    """A group without its files, removed between listing and reading, is passed over."""
    fake = faked(tmp_path)
    (fake.root / GOLD).mkdir()
    assert on(fake).groups().ours == {}


@pytest.mark.parametrize("name", ["schemata", "tasks", "mode"])
def test_a_group_whose_files_go_while_they_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """ENODEV is no trouble with resctrl: that group is passed over, the others are there."""
    fake = faked(tmp_path)
    on(fake).make(GOLD)
    on(fake).make(BRONZE)
    read = Path.read_text

    # No plain file answers so: only kernfs does, of a file whose directory is being removed.
    def read_text(path: Path, encoding: str | None = None) -> str:
        if path == fake.root / GOLD / name:
            raise OSError(errno.ENODEV, os.strerror(errno.ENODEV), str(path))
        return read(path, encoding)

    monkeypatch.setattr(Path, "read_text", read_text)
    assert list(on(fake).groups().ours) == [BRONZE]


def test_a_group_that_is_being_removed_is_removed(tmp_path: Path) -> None:
    """ENODEV says that somebody else is about it."""

    class Dying(FakeResctrl):
        def rmdir(self, path: Path) -> None:
            raise OSError(errno.ENODEV, os.strerror(errno.ENODEV), str(path))

    (tmp_path / "resctrl").mkdir()
    on(Dying(tmp_path / "resctrl")).remove(GOLD)


def test_a_group_that_goes_after_it_was_written(tmp_path: Path) -> None:
    """What cannot be read back is not as it was asked for."""

    class Fleeting(FakeResctrl):
        def write(self, path: Path, data: bytes) -> None:
            super().write(path, data)
            self.rmdir(path.parent)

    (tmp_path / "resctrl").mkdir()
    resctrl = on(Fleeting(tmp_path / "resctrl"))
    resctrl.make(GOLD)
    with pytest.raises(Refusal) as error:
        resctrl.write(GOLD, {"L3": {0: 1}})
    assert error.value.reason == "GroupGone"


def test_groups_that_cannot_be_listed(tmp_path: Path) -> None:
    """A mount point that is not there any more is told."""
    with pytest.raises(Refusal, match=r"cannot be read: .*No such file") as error:
        Resctrl(tmp_path / "elsewhere").names()
    assert error.value.reason == "ResctrlUnreadable"


def test_the_calls_are_the_system_s(tmp_path: Path) -> None:
    """Without a fake a group is a directory, and a command is what a file that exists is given, in place."""
    calls = Calls()
    calls.mkdir(tmp_path / GOLD)
    with pytest.raises(FileNotFoundError):
        calls.write(tmp_path / GOLD / "tasks", b"1\n")
    (tmp_path / GOLD / "tasks").touch()
    calls.write(tmp_path / GOLD / "tasks", b"1\n")
    assert (tmp_path / GOLD / "tasks").read_bytes() == b"1\n"
    (tmp_path / GOLD / "tasks").unlink()
    calls.rmdir(tmp_path / GOLD)
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_written_for_nothing(tmp_path: Path) -> None:
    """Empty schemata are no command."""
    fake = faked(tmp_path)
    on(fake).make(GOLD)
    fake.calls.clear()
    on(fake).write(GOLD, {})
    assert fake.calls == []


def test_what_cannot_be_read_is_told(tmp_path: Path) -> None:
    """A missing file of info, and schemata that are none, are refusals, not errors of ours."""
    fake = faked(tmp_path)
    (fake.root / "info/L3/cbm_mask").unlink()
    with pytest.raises(Refusal) as error:
        on(fake).machine()
    assert error.value.reason == "ResctrlUnreadable"
    on(fake).make(GOLD)
    (fake.root / GOLD / "schemata").write_text("L3:0=zz\n")
    with pytest.raises(Refusal, match=r"resctrl at .* cannot be read: invalid literal"):
        on(fake).groups()


def test_the_initial_pid_namespace(tmp_path: Path) -> None:
    """Another inode than the kernel's own for the first namespace means that threads may be hidden."""
    (tmp_path / "pid").touch()
    assert not sees_all_tasks(tmp_path / "pid")
