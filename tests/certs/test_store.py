import os
import stat
import threading
from collections.abc import Callable, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any, NoReturn

import pytest

from noisegate.certs import store
from noisegate.certs.names import read_names
from noisegate.certs.pair import CertificateError, Pair, Purpose, public_bytes, read_certificates, read_key
from noisegate.certs.rotation import CA, Outcome, Pairs, issued
from noisegate.certs.store import DISK, Disk, Store, provide
from noisegate.certs.verification import verify_leaf

Generation = dict[str, Pair]

UNSYNCED = DISK._replace(fsync=lambda _: None)


@pytest.fixture(scope="module")
def old(now: datetime) -> Generation:
    """What is there first."""
    return issued({}, now, server=read_names(["localhost"]))[0]


@pytest.fixture(scope="module")
def new(now: datetime) -> Generation:
    """What is to be published: an authority, a serving and a client pair that differ from the old ones."""
    return issued({}, now, server=read_names(["localhost"]), client="c")[0]


def to(pairs: Pairs) -> Callable[[Pairs], tuple[Pairs, list[Outcome]]]:
    """Return the change that leads to these pairs."""
    return lambda _: (pairs, [])


def names(directory: Path) -> set[str]:
    """Return the names in a directory, one generation's random name made plain."""
    found = {path.name for path in directory.iterdir()}
    assert sum(name.startswith("..noisegate-") for name in found) <= 1
    return {"generation" if name.startswith("..noisegate-") else name for name in found}


FILES = {"ca.crt", "ca.key", "tls.crt", "tls.key"}
ALL_FILES = FILES | {"client.crt", "client.key"}


def test_write_and_read(tmp_path: Path, old: Generation, new: Generation) -> None:
    """What was published is read, under names that stay, in files that only the owner reads."""
    directory = tmp_path / "deep" / "certs"
    kept = Store(directory)
    kept.update(to(old), make=True)
    assert kept.read() == old
    assert names(directory) == FILES | {"..data", "generation"}
    kept.update(to(new))
    assert kept.read() == new
    assert names(directory) == ALL_FILES | {"..data", "generation"}
    assert (directory / "tls.key").read_bytes() == new["tls"].key
    modes = {stat.S_IMODE((directory / name).stat().st_mode) for name in ALL_FILES}
    assert modes == {0o600}
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    assert stat.S_IMODE((directory / "..data").stat().st_mode) == 0o700


def test_update_sees_what_is_there(tmp_path: Path, old: Generation) -> None:
    """A change is given the present pairs; one that changes nothing writes nothing and still reports."""
    kept = Store(tmp_path)
    kept.update(to(old))
    before = (tmp_path / "..data").readlink()
    outcomes = [Outcome(CA, False, "left")]
    assert kept.update(lambda pairs: (pairs, outcomes)) == outcomes
    assert (tmp_path / "..data").readlink() == before


def test_a_key_may_be_kept_elsewhere(tmp_path: Path, old: Generation) -> None:
    """An authority without its key is kept and read as such."""
    pairs = {CA: Pair(old[CA].certificates, b""), "tls": old["tls"]}
    kept = Store(tmp_path)
    kept.update(to(pairs))
    assert kept.read() == pairs
    assert names(tmp_path) == {"ca.crt", "tls.crt", "tls.key", "..data", "generation"}


def test_plain_files_are_read(tmp_path: Path, old: Generation) -> None:
    """Files that somebody else put there, as in a mounted Secret, are read and never replaced."""
    (tmp_path / "tls.crt").write_bytes(old["tls"].certificates)
    (tmp_path / "tls.key").write_bytes(old["tls"].key)
    kept = Store(tmp_path)
    assert kept.read() == {"tls": old["tls"]}
    with pytest.raises(CertificateError) as caught:
        kept.update(to(old))
    assert str(caught.value) == (
        f"{tmp_path}/tls.crt: was not written by noisegate and is left alone; allowed: an empty directory, "
        "or move it away"
    )
    assert {path.name for path in tmp_path.iterdir()} == {"tls.crt", "tls.key"}


@pytest.mark.parametrize("name", ["ca.crt", "tls.key", "..data"])
@pytest.mark.parametrize("kind", ["file", "directory", "link"])
def test_foreign_files_are_left_alone(tmp_path: Path, old: Generation, name: str, kind: str) -> None:
    """Whatever takes one of our names and is not ours stays, and nothing is written."""
    directory = tmp_path / "certs"
    directory.mkdir()
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    if kind == "file":
        (directory / name).write_text("mine")
    elif kind == "directory":
        (directory / name).mkdir()
    else:
        (directory / name).symlink_to(elsewhere)
    with pytest.raises(CertificateError) as caught:
        Store(directory).update(to(old))
    assert str(directory) in str(caught.value)
    assert [path.name for path in directory.iterdir()] == [name]
    assert list(elsewhere.iterdir()) == []


def test_other_files_beside_ours_stay(tmp_path: Path, old: Generation, new: Generation) -> None:
    """Files of other names are nobody's business."""
    (tmp_path / "README").write_text("mine")
    (tmp_path / "..noisegate-notes").write_text("mine")
    kept = Store(tmp_path)
    kept.update(to(old))
    kept.update(to(new))
    assert (tmp_path / "README").read_text() == "mine"
    assert (tmp_path / "..noisegate-notes").read_text() == "mine"


def test_unreadable_directories(tmp_path: Path, old: Generation) -> None:
    """Each thing that stands in the way is told with its place."""
    (tmp_path / "file").write_text("")
    (tmp_path / "lone").mkdir()
    (tmp_path / "lone" / "tls.key").write_bytes(old["tls"].key)
    (tmp_path / "large").mkdir()
    (tmp_path / "large" / "ca.crt").write_bytes(b" " * ((1 << 20) + 1))
    (tmp_path / "pipe").mkdir()
    os.mkfifo(tmp_path / "pipe" / "ca.crt")
    (tmp_path / "loop").mkdir()
    (tmp_path / "loop" / "ca.crt").symlink_to("ca.crt")
    table = {
        "absent": "absent: cannot be read: No such file or directory",
        "file": "file: cannot be read: Not a directory",
        "lone": "lone/tls.key: is there without tls.crt; allowed: both or none",
        "large": "large/ca.crt: is larger than 1048576 bytes, which no certificate or key is",
        "pipe": "pipe/ca.crt: is not a regular file",
        "loop": "loop/ca.crt: cannot be read: Too many levels of symbolic links",
    }
    for name, message in table.items():
        with pytest.raises(CertificateError) as caught:
            Store(tmp_path / name).read()
        assert str(caught.value) == f"{tmp_path}/{message}"
    with pytest.raises(CertificateError) as caught:
        Store(tmp_path / "absent").update(to(old))
    assert str(caught.value) == f"{tmp_path}/absent: cannot be written: No such file or directory"
    assert not (tmp_path / "absent").exists()


def test_a_failing_change_leaves_all(tmp_path: Path, old: Generation) -> None:
    """What the change refuses is told with the directory, and nothing is written."""

    def refuse(_: Pairs) -> NoReturn:
        raise CertificateError("ca.key", "is missing")

    kept = Store(tmp_path)
    kept.update(to(old))
    with pytest.raises(CertificateError) as caught:
        kept.update(refuse)
    assert str(caught.value) == f"{tmp_path}/ca.key: is missing"
    assert kept.read() == old


def failing(at: int, fail: Callable[[], None]) -> tuple[Disk, list[str]]:
    """Return a disk on which `fail` is called in the place of the call number `at`, and the names of all calls."""
    calls: list[str] = []

    def counted(name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def counting(*args: Any, **options: Any) -> Any:
            calls.append(name)
            if len(calls) - 1 == at:
                fail()
            return call(*args, **options)

        return counting

    return Disk(*(counted(name, call) for name, call in UNSYNCED._asdict().items())), calls


def steps(directory: Path, first: Mapping[str, Pair], second: Mapping[str, Pair]) -> list[str]:
    """Return the calls that a change makes."""
    Store(directory, UNSYNCED).update(to(first), make=True)
    disk, calls = failing(-1, lambda: None)
    Store(directory, disk).update(to(second))
    return calls


def test_every_file_is_synced_before_the_swing(tmp_path: Path, old: Generation, new: Generation) -> None:
    """Files, then their directory, then the links reach the disk before the one rename, which does too."""
    one_file = ["create", "write", "fsync"]
    assert steps(tmp_path, old, new) == [
        "mkdir",
        *one_file * 6,
        "fsync",
        *["symlink"] * 2,
        "symlink",
        "fsync",
        "replace",
        "fsync",
        "rmtree",
    ]


def out_of_space() -> None:
    """Fail as a full disk does."""
    raise OSError(28, os.strerror(28))


@pytest.mark.parametrize("fresh", [True, False], ids=["first-write", "rotation"])
def test_an_error_at_any_step(tmp_path: Path, old: Generation, new: Generation, fresh: bool) -> None:
    """An error anywhere is told, leaves the old or the new pairs whole, and the next change leaves no leftovers."""
    before: Generation = {} if fresh else old
    calls = steps(tmp_path / "count", before, new)
    swing = calls.index("replace")
    for at in range(len(calls)):
        directory = tmp_path / str(at)
        directory.mkdir()
        Store(directory, UNSYNCED).update(to(before))
        disk, _ = failing(at, out_of_space)
        with pytest.raises(CertificateError) as caught:
            Store(directory, disk).update(to(new))
        assert str(caught.value) == f"{directory}: cannot be written: No space left on device"
        assert Store(directory).read() == (before if at <= swing else new)
        if at <= swing:
            names(directory)
        Store(directory, UNSYNCED).update(to(old))
        assert Store(directory).read() == old
        # Another change, since one that finds the pairs wanted writes nothing and so sweeps nothing.
        Store(directory, UNSYNCED).update(to(new))
        assert names(directory) == ALL_FILES | {"..data", "generation"}


@pytest.mark.parametrize("fresh", [True, False], ids=["first-write", "rotation"])
def test_a_crash_at_any_step(tmp_path: Path, old: Generation, new: Generation, fresh: bool) -> None:
    """A process that dies anywhere leaves the old or the new pairs whole; the next change leaves no leftovers."""
    before: Generation = {} if fresh else old
    calls = steps(tmp_path / "count", before, new)
    swing = calls.index("replace")
    for at in range(len(calls)):
        directory = tmp_path / str(at)
        directory.mkdir()
        Store(directory, UNSYNCED).update(to(before))
        disk, _ = failing(at, lambda: os._exit(9))
        child = os.fork()
        if child == 0:
            try:
                Store(directory, disk).update(to(new))
            finally:
                os._exit(0)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9
        assert Store(directory).read() == (before if at <= swing else new)
        by_name = {name for name in ALL_FILES if (directory / name).exists()}
        assert by_name == (set() if fresh and at <= swing else FILES if at <= swing else ALL_FILES)
        Store(directory, UNSYNCED).update(to(old))
        Store(directory, UNSYNCED).update(to(new))
        assert Store(directory).read() == new
        assert names(directory) == ALL_FILES | {"..data", "generation"}


def test_a_short_write_is_continued(tmp_path: Path, old: Generation) -> None:
    """A write that takes only a part is followed by another."""
    disk = DISK._replace(write=lambda file, data: os.write(file, data[:100]))
    Store(tmp_path, disk).update(to(old))
    assert Store(tmp_path).read() == old


def test_a_reader_never_meets_a_mixed_pair(tmp_path: Path, old: Generation, now: datetime) -> None:
    """While a writer publishes 200 times or more, two readers read only generations that were published whole."""
    others = [issued({}, now, server=read_names(["localhost"]), client="c")[0] for _ in range(3)]
    published: list[Generation] = [old, *others]
    Store(tmp_path).update(to(old))
    over = threading.Event()
    seen: list[list[int]] = [[], []]
    wrong: list[object] = []

    def read(into: list[int]) -> None:
        kept = Store(tmp_path)
        try:
            while not over.is_set():
                into.append(published.index(kept.read()))
        except Exception as error:  # noqa: BLE001  (it is the test's answer, whatever it is)
            wrong.append(error)

    readers = [threading.Thread(target=read, args=[into]) for into in seen]
    for reader in readers:
        reader.start()
    writer = Store(tmp_path, UNSYNCED)
    count = 0
    while count < 200 or not (wrong or all(len(set(indices)) > 1 for indices in seen)):
        count += 1
        writer.update(to(published[count % len(published)]))
    over.set()
    for reader in readers:
        reader.join()
    assert wrong == []
    assert "generation" in names(tmp_path)


@pytest.mark.parametrize("fresh", [True, False], ids=["first-write", "rotation"])
def test_a_reader_overtaken_by_a_write_reads_again(
    tmp_path: Path, old: Generation, new: Generation, fresh: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pairs that go while they are read are never taken for fewer pairs, nor mixed with those that come."""
    # The moment between the opening of two files cannot be met from outside, so the write is hung into the reading.
    reading = store._read_file
    overtaken: list[str] = []

    def read(name: str, directory: int) -> bytes | None:
        content = reading(name, directory)
        if not overtaken:
            overtaken.append(name)
            monkeypatch.undo()
            Store(tmp_path).update(to(new))
        return content

    if not fresh:
        Store(tmp_path).update(to(old))
    monkeypatch.setattr(store, "_read_file", read)
    assert Store(tmp_path).read() == new
    assert overtaken == ["ca.crt"]


def test_writers_wait_for_each_other(tmp_path: Path, now: datetime) -> None:
    """Two that change at once each see what the other wrote: no change is lost."""
    Store(tmp_path).update(lambda pairs: issued(pairs, now, server=read_names(["localhost"])))
    start = threading.Barrier(2)
    wrong: list[object] = []

    def write(stem: str) -> None:
        start.wait()
        try:
            for _ in range(10):
                Store(tmp_path, UNSYNCED).update(
                    lambda pairs: issued(
                        pairs,
                        now,
                        server=read_names(["localhost"]) if stem == "tls" else None,
                        client="c" if stem == "client" else None,
                        replace=True,
                    )
                )
        except Exception as error:  # noqa: BLE001  (it is the test's answer, whatever it is)
            wrong.append(error)

    writers = [threading.Thread(target=write, args=[stem]) for stem in ("tls", "client")]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert wrong == []
    pairs = Store(tmp_path).read()
    assert set(pairs) == {"ca", "tls", "client"}
    assert verify_leaf(pairs["tls"], pairs[CA].certificates, Purpose.SERVER, now) == []
    assert names(tmp_path) == ALL_FILES | {"..data", "generation"}


def test_provide(tmp_path: Path, now: datetime) -> None:
    """One call fills an empty directory with all that mutual TLS on this machine needs."""
    pairs = provide(tmp_path / "certs", now, ["localhost", "127.0.0.1"], client="demo")
    assert set(pairs) == {"ca", "tls", "client"}
    for pair in pairs.values():
        public = read_certificates(pair.certificates, "")[0].public_key()
        assert public_bytes(read_key(pair.key, "").public_key()) == public_bytes(public)
    assert verify_leaf(pairs["tls"], pairs[CA].certificates, Purpose.SERVER, now, ["localhost", "127.0.0.1"]) == []
    assert verify_leaf(pairs["client"], pairs[CA].certificates, Purpose.CLIENT, now, stem="client") == []
