"""The ledger: whatever happens to the process, the disk or the bytes, a record is the old one or the new one."""

import ctypes
import json
import os
import random
import resource
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any, Final

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from noisegate.enforcement import ledger as ledger_module
from noisegate.enforcement.actions import UNLIMITED, Device, Interface, IoLimits, Rates
from noisegate.enforcement.intent.intent import Remembered
from noisegate.enforcement.ledger import (
    MOST_DAMAGED,
    IoSet,
    Ledger,
    Placed,
    Record,
    Shaped,
    Unreadable,
    decode,
    encode,
)
from noisegate.enforcement.refusal import Refusal

BOOT: Final = "0d6cfa8e-3e52-4b39-9f5e-0e5a4a53f0a1"
UID: Final = "7f3a4c52-95f2-4f8e-a6c1-0f6b8f6f2d11"
DISK: Final = Device(8, 0)
RECORD: Final = Record(
    uid=UID,
    namespace="default",
    name="app-0",
    intent=Remembered(
        "watch",
        "4711",
        {"blockio.kubernetes.io/resources": '{"data": {"limits": {"wbps": "4Mi/4k"}}}'},
        {"data": {"app": "/data"}},
    ),
    sandbox="5c1f",
    cgroup="/kubepods.slice/kubepods-pod7f3a4c52.slice",
    inode=1234,
    netns="/run/netns/x",
    io=(IoSet(DISK, UNLIMITED, IoLimits(wbps=4 << 20, wiops=1024)),),
    network=Shaped(Interface(7, "veth7"), "ng7f3a4c52", Rates(50_000_000, None)),
    containers=(Placed("c1", "app", {"data": DISK}, "gold"),),
)


def numbered(number: int) -> Record:
    """Return a record that differs from others of its pod."""
    return msgspec.structs.replace(RECORD, inode=number, sandbox="x" * (number % 7))


def files(folder: Path) -> list[str]:
    """Return the names of everything under the records' folder."""
    return sorted(path.name for path in (folder / "pods").iterdir())


def test_what_is_put_is_there_after_a_restart(tmp_path: Path) -> None:
    """The same record, in a file of its own that nobody else may read."""
    ledger = Ledger.open(tmp_path / "state", BOOT)
    ledger.put(RECORD)
    other = msgspec.structs.replace(RECORD, uid="b", network=None, io=(), containers=())
    ledger.put(other)
    assert files(tmp_path / "state") == [f"{UID}.json", "b.json"]
    assert (tmp_path / "state" / "pods" / "b.json").stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "state").stat().st_mode & 0o777 == 0o700
    again = Ledger.open(tmp_path / "state", BOOT)
    assert again.get(UID) == RECORD
    assert set(map(repr, again.all())) == {repr(RECORD), repr(other)}
    assert again.damaged == ()


def test_a_record_is_replaced_and_forgotten(tmp_path: Path) -> None:
    """One file a pod; forgetting what is not there is no error."""
    ledger = Ledger.open(tmp_path, BOOT)
    for number in range(5):
        ledger.put(numbered(number))
    assert files(tmp_path) == [f"{UID}.json"]
    assert Ledger.open(tmp_path, BOOT).get(UID) == numbered(4)
    ledger.forget(UID)
    ledger.forget(UID)
    assert ledger.get(UID) is None
    assert files(tmp_path) == []


def test_what_does_not_change_is_not_written(tmp_path: Path) -> None:
    """A loop that puts the same again touches no file."""
    ledger = Ledger.open(tmp_path, BOOT)
    ledger.put(RECORD)
    before = (tmp_path / "pods" / f"{UID}.json").stat().st_ino
    ledger.put(msgspec.structs.replace(RECORD))
    assert (tmp_path / "pods" / f"{UID}.json").stat().st_ino == before


@pytest.mark.parametrize("uid", ["../../evil", ".", "..", "a/b", "ü%2F", "x.tmp"])
def test_any_uid_has_a_file_in_the_folder(tmp_path: Path, uid: str) -> None:
    """A static pod's author may write any uid; it leads nowhere else."""
    ledger = Ledger.open(tmp_path, BOOT)
    record = msgspec.structs.replace(RECORD, uid=uid)
    ledger.put(record)
    assert len(files(tmp_path)) == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["damaged", "pods"]
    assert Ledger.open(tmp_path, BOOT).get(uid) == record


def test_a_uid_that_no_file_can_bear_is_refused(tmp_path: Path) -> None:
    """Nothing may be done for such a pod."""
    with pytest.raises(Refusal, match="ENAMETOOLONG"):
        Ledger.open(tmp_path, BOOT).put(msgspec.structs.replace(RECORD, uid="x" * 300))


def test_a_record_cut_short_anywhere_is_set_aside(tmp_path: Path) -> None:
    """After every byte but the last; a good one beside it is read."""
    whole = encode(RECORD, BOOT)
    for length in range(len(whole)):
        with pytest.raises(Unreadable):
            decode(whole[:length])
    Ledger.open(tmp_path, BOOT).put(msgspec.structs.replace(RECORD, uid="good"))
    for number, length in enumerate((0, 1, len(whole) // 2, len(whole) - 1)):
        (tmp_path / "pods" / f"{number}.json").write_bytes(whole[:length])
    ledger = Ledger.open(tmp_path, BOOT)
    assert [record.uid for record in ledger.all()] == ["good"]
    assert [damage.file for damage in ledger.damaged] == ["0.json", "1.json", "2.json", "3.json"]
    assert all("cut short or changed" in damage.told for damage in ledger.damaged)
    assert sorted(path.name for path in (tmp_path / "damaged").iterdir()) == ["0.json", "1.json", "2.json", "3.json"]
    assert files(tmp_path) == ["good.json"]


WHOLE: Final = encode(RECORD, BOOT)


@given(
    st.lists(st.tuples(st.integers(0, len(WHOLE) - 1), st.integers(1, 255)), min_size=1, max_size=4),
)
def test_changed_bytes_are_never_another_record(flips: list[tuple[int, int]]) -> None:
    """Whichever bytes are changed: it is the record that was written, or none."""
    data = bytearray(WHOLE)
    for place, mask in flips:
        data[place] ^= mask
    try:
        record, boot = decode(bytes(data))
    except Unreadable:
        return
    assert (record, boot) == (RECORD, BOOT)


@given(st.binary(max_size=200) | st.recursive(st.none() | st.integers() | st.text(), lambda inner: st.lists(inner) | st.dictionaries(st.sampled_from(["version", "boot", "checksum", "record", "uid"]), inner)).map(lambda value: json.dumps(value).encode()))  # fmt: skip
def test_garbage_is_never_a_record(data: bytes) -> None:
    """Whatever stands in a file, the answer is that it is none."""
    with pytest.raises(Unreadable):
        decode(data)


def test_a_newer_version_is_set_aside_and_says_so(tmp_path: Path) -> None:
    """Whatever its form is."""
    Ledger.open(tmp_path, BOOT)
    (tmp_path / "pods" / "a.json").write_text('{"version": 2, "anything": [1, {}]}')
    ledger = Ledger.open(tmp_path, BOOT)
    (damage,) = ledger.damaged
    assert damage.told == (
        f"it is of version 2, and this noisegate reads 1: a newer one wrote it; it is in {tmp_path / 'damaged'} now"
    )
    assert (tmp_path / "damaged" / "a.json").is_file()


def test_a_record_under_another_name_is_set_aside(tmp_path: Path) -> None:
    """A copy of a record is not the record of another pod."""
    Ledger.open(tmp_path, BOOT)
    (tmp_path / "pods" / "b.json").write_bytes(WHOLE)
    ledger = Ledger.open(tmp_path, BOOT)
    assert ledger.all() == ()
    assert f"it holds the record of pod {UID}" in ledger.damaged[0].told


def test_a_record_of_another_boot_is_dropped(tmp_path: Path) -> None:
    """It tells of a kernel that is gone; it is counted, and no damage."""
    Ledger.open(tmp_path, "an earlier boot").put(RECORD)
    ledger = Ledger.open(tmp_path, BOOT)
    assert (ledger.all(), ledger.damaged, ledger.outlived) == ((), (), 1)
    assert files(tmp_path) == []


def test_what_a_dead_writer_left_is_removed(tmp_path: Path) -> None:
    """Half-written files have names of their own and are nobody's damage."""
    Ledger.open(tmp_path, BOOT).put(RECORD)
    (tmp_path / "pods" / ".abc.tmp").write_bytes(WHOLE[:50])
    ledger = Ledger.open(tmp_path, BOOT)
    assert files(tmp_path) == [f"{UID}.json"]
    assert (ledger.get(UID), ledger.damaged) == (RECORD, ())


def test_only_the_newest_damaged_files_are_kept(tmp_path: Path) -> None:
    """Their number has an end, over restarts too."""
    Ledger.open(tmp_path, BOOT)
    for turn in range(3):
        for number in range(MOST_DAMAGED):
            (tmp_path / "pods" / f"{turn}-{number}.json").write_bytes(b"{")
        assert len(Ledger.open(tmp_path, BOOT).damaged) == MOST_DAMAGED
    kept = sorted(path.name for path in (tmp_path / "damaged").iterdir())
    assert kept == sorted(f"2-{number}.json" for number in range(MOST_DAMAGED))


def test_what_is_no_file_stops_nothing(tmp_path: Path) -> None:
    """A folder, a dangling link and a file that is far too large are reported; the rest is read."""
    Ledger.open(tmp_path, BOOT).put(RECORD)
    (tmp_path / "pods" / "a.json").mkdir()
    (tmp_path / "pods" / "b.json").symlink_to("nowhere")
    with (tmp_path / "pods" / "c.json").open("wb") as file:
        file.truncate(1 << 30)
    ledger = Ledger.open(tmp_path, BOOT)
    assert ledger.all() == (RECORD,)
    assert [damage.told.partition(";")[0] for damage in ledger.damaged] == [
        "EISDIR (Is a directory)",
        "ENOENT (No such file or directory)",
        "it is larger than 4 MiB",
    ]


def test_a_folder_that_cannot_be_made_is_an_error(tmp_path: Path) -> None:
    """Without a ledger there is no start."""
    (tmp_path / "state").write_text("a file")
    with pytest.raises(OSError, match="state"):
        Ledger.open(tmp_path / "state", BOOT)


def in_child(work: Callable[[], None]) -> int:
    """Do something in a process of its own; return how it ended: an exit code, or minus a signal's number."""
    pid = os.fork()
    if pid == 0:
        try:
            sys.settrace(None)
            work()
        except BaseException as error:  # noqa: BLE001  (it must not come back into pytest)
            os.write(2, f"{type(error).__name__}: {error}\n".encode())
            os._exit(1)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def test_a_writer_killed_before_any_line_leaves_the_old_record_or_the_new(tmp_path: Path) -> None:
    """A real process gets SIGKILL before the first line of the writing, before the second, and so on to the last."""
    source = ledger_module.__file__
    seen = {"old": 0, "new": 0}
    for fatal in range(200):
        folder = tmp_path / str(fatal)
        Ledger.open(folder, BOOT).put(numbered(1))

        def write(folder: Path = folder, fatal: int = fatal) -> None:
            ledger = Ledger.open(folder, BOOT)
            lines = 0

            def trace(frame: FrameType, what: str, _: Any) -> Any:
                nonlocal lines
                if frame.f_code.co_filename != source:
                    return None
                if what == "line":
                    if lines == fatal:
                        os.kill(os.getpid(), signal.SIGKILL)
                    lines += 1
                return trace

            sys.settrace(trace)
            ledger.put(numbered(2))
            sys.settrace(None)

        ended = in_child(write)
        ledger = Ledger.open(folder, BOOT)
        assert ledger.damaged == ()
        assert files(folder) == [f"{UID}.json"]
        if ended == 0:
            assert ledger.get(UID) == numbered(2)
            break
        assert ended == -signal.SIGKILL
        found = ledger.get(UID)
        assert found in [numbered(1), numbered(2)]
        seen["old" if found == numbered(1) else "new"] += 1
    else:
        pytest.fail("the writing has more lines than that")
    assert seen["old"] > 5
    assert seen["new"] > 0


def test_a_writer_killed_at_any_moment_leaves_a_whole_record(tmp_path: Path) -> None:
    """200 times, a process that writes record after record is killed at some moment, inside a system call too."""
    chance = random.Random(5)
    for _ in range(200):
        begun, writing = os.pipe()
        pid = os.fork()
        if pid == 0:
            os.close(begun)
            ledger = Ledger.open(tmp_path, BOOT)
            for number in range(1, 1 << 20):
                os.write(writing, b"b")
                ledger.put(numbered(number))
                os.write(writing, b"d")
            os._exit(0)
        os.close(writing)
        told = b""
        for _ in range(chance.randrange(1, 12)):
            told += os.read(begun, chance.randrange(1, 4))
        for _ in range(chance.randrange(3000)):
            pass
        os.kill(pid, signal.SIGKILL)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGKILL
        while more := os.read(begun, 1 << 16):
            told += more
        os.close(begun)
        ledger = Ledger.open(tmp_path, BOOT)
        assert ledger.damaged == ()
        done = told.count(b"d")
        found = ledger.get(UID)
        assert found is not None or done == 0
        if found is not None and done:
            assert found.inode in {done, told.count(b"b")}
            assert found == numbered(found.inode)


def test_a_write_that_is_too_large_for_the_process_is_refused(tmp_path: Path) -> None:
    """RLIMIT_FSIZE stands in for a full disk, for whoever is not root: EFBIG; nothing half-written stays."""

    def write() -> None:
        ledger = Ledger.open(tmp_path, BOOT)
        ledger.put(RECORD)
        resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))
        with pytest.raises(Refusal, match="EFBIG") as refused:
            ledger.put(numbered(2))
        assert refused.value.reason == "LedgerNotWritten"
        assert ledger.get(UID) == RECORD
        assert files(tmp_path) == [f"{UID}.json"]

    assert in_child(write) == 0
    assert Ledger.open(tmp_path, BOOT).get(UID) == RECORD


_CLONE_NEWNS: Final = 0x00020000
_MS_REC_PRIVATE: Final = 0x4000 | 1 << 18
_MS_REMOUNT_RDONLY: Final = 0x20 | 1
_libc: Final = ctypes.CDLL(None, use_errno=True)


def on_tmpfs(folder: Path, options: str) -> None:
    """Mount a tmpfs, in a mount namespace that ends with this process."""
    assert _libc.unshare(_CLONE_NEWNS) == 0
    assert _libc.mount(b"none", b"/", None, _MS_REC_PRIVATE, None) == 0
    assert _libc.mount(b"tmpfs", str(folder).encode(), b"tmpfs", 0, options.encode()) == 0


def put_until_refused(ledger: Ledger) -> tuple[int, Refusal]:
    """Put records of ever more pods; return how many were taken, and why no more."""
    for number in range(1000):
        try:
            ledger.put(msgspec.structs.replace(RECORD, uid=f"pod-{number}"))
        except Refusal as refusal:
            return number, refusal
    raise AssertionError("the disk is never full")


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root: a tmpfs in a mount namespace of its own")
def test_a_full_disk_refuses_and_spoils_nothing(tmp_path: Path) -> None:
    """A real tmpfs of 64 KiB: records fit until ENOSPC; all of them are whole then, and what is forgotten makes room."""

    def fill() -> None:
        on_tmpfs(tmp_path, "size=64k")
        ledger = Ledger.open(tmp_path, BOOT)
        fitting, refusal = put_until_refused(ledger)
        assert refusal.reason == "LedgerNotWritten"
        assert "ENOSPC (No space left on device)" in refusal.told
        assert 3 < fitting < 64
        assert ledger.get(f"pod-{fitting}") is None
        with pytest.raises(Refusal, match="ENOSPC"):
            ledger.put(msgspec.structs.replace(RECORD, uid="pod-0", inode=2))
        again = Ledger.open(tmp_path, BOOT)
        assert again.damaged == ()
        assert {record.uid for record in again.all()} == {f"pod-{number}" for number in range(fitting)}
        assert again.get("pod-0") == msgspec.structs.replace(RECORD, uid="pod-0")
        again.forget("pod-1")
        again.put(msgspec.structs.replace(RECORD, uid="late"))
        assert Ledger.open(tmp_path, BOOT).get("late") is not None

    assert in_child(fill) == 0


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root: a tmpfs in a mount namespace of its own")
def test_a_read_only_disk_refuses_both_ways(tmp_path: Path) -> None:
    """EROFS: nothing is written and nothing forgotten; a damaged file stays where it is and is reported."""

    def work() -> None:
        on_tmpfs(tmp_path, "size=1m")
        ledger = Ledger.open(tmp_path, BOOT)
        ledger.put(RECORD)
        (tmp_path / "pods" / "a.json").write_bytes(b"{")
        assert _libc.mount(None, str(tmp_path).encode(), None, _MS_REMOUNT_RDONLY, None) == 0
        with pytest.raises(Refusal, match="EROFS"):
            ledger.put(numbered(2))
        with pytest.raises(Refusal, match="EROFS"):
            ledger.forget(UID)
        assert ledger.get(UID) == RECORD
        again = Ledger.open(tmp_path, BOOT)
        assert again.all() == (RECORD,)
        assert "it stays where it is: EROFS" in again.damaged[0].told

    assert in_child(work) == 0
