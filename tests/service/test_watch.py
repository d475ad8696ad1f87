"""Files followed by content."""

import os
from collections.abc import Mapping
from pathlib import Path

import pytest

from noisegate.service import watch
from noisegate.service.watch import Outcome, UnreadableError, Watch, read


class Taker:
    """Holds what was put into force; refuses what says `bad`."""

    def __init__(self) -> None:
        self.held: list[dict[str, bytes]] = []
        self.calls = 0

    def __call__(self, contents: Mapping[str, bytes]) -> None:
        """Take contents."""
        self.calls += 1
        if any(b"bad" in content for content in contents.values()):
            raise ValueError("it says bad")
        if any(b"silent" in content for content in contents.values()):
            raise RuntimeError
        self.held.append({Path(path).name: content for path, content in contents.items()})


@pytest.fixture(name="taker")
def _taker() -> Taker:
    return Taker()


def test_what_changes_comes_into_force(tmp_path: Path, taker: Taker) -> None:
    """The first contents are loaded, the same ones are left alone, others are put into force."""
    file = tmp_path / "a.yaml"
    file.write_text("one")
    follower = Watch("rules", [file], taker, clock=lambda: 1000.0)
    follower.load()
    assert follower.check() == Outcome("unchanged")
    file.write_text("two")
    assert follower.check() == Outcome("reloaded")
    assert follower.check() == Outcome("unchanged")
    assert taker.held == [{"a.yaml": b"one"}, {"a.yaml": b"two"}]
    assert (follower.last_success, follower.reason, follower.note) == (1000.0, "", "")


def test_swapped_link_is_a_change(tmp_path: Path, taker: Taker) -> None:
    """A mount whose link is swapped, as the kubelet does, is seen by what is behind the link."""
    for number in ("1", "2"):
        (tmp_path / number).mkdir()
        (tmp_path / number / "key").write_text(number)
        os.utime(tmp_path / number / "key", (0, 0))
    (tmp_path / "data").symlink_to("1")
    follower = Watch("rules", [tmp_path / "data" / "key"], taker)
    follower.load()
    (tmp_path / "next").symlink_to("2")
    (tmp_path / "next").replace(tmp_path / "data")
    assert follower.check() == Outcome("reloaded")
    assert taker.held == [{"key": b"1"}, {"key": b"2"}]


def test_bad_contents_are_refused_once_and_the_good_ones_kept(tmp_path: Path, taker: Taker) -> None:
    """Bad contents are tried and told once; the note says why; the good ones coming back is told too."""
    file = tmp_path / "a.yaml"
    file.write_text("good")
    follower = Watch("rules", [file], taker, clock=lambda: 0.0)
    follower.load()
    file.write_text("bad")
    assert follower.check() == Outcome("refused", "it says bad")
    assert follower.check() == Outcome("unchanged")
    assert follower.note == (
        "rules: the new contents are refused, those of 1970-01-01T00:00:00Z stay in force: it says bad"
    )
    file.write_text("bad in the same way")
    assert follower.check() == Outcome("unchanged")
    file.write_text("silent")
    assert follower.check() == Outcome("refused", "RuntimeError")
    file.write_text("good")
    assert follower.check() == Outcome("recovered")
    assert follower.note == ""
    assert taker.held == [{"a.yaml": b"good"}]
    assert taker.calls == 4


def test_missing_file_is_refused_and_its_return_noticed(tmp_path: Path, taker: Taker) -> None:
    """A file that vanishes is refused by name; when other contents come they are put into force."""
    file = tmp_path / "a.yaml"
    file.write_text("one")
    follower = Watch("rules", [file], taker)
    follower.load()
    file.unlink()
    assert follower.check() == Outcome("refused", f"{file}: No such file or directory")
    assert follower.check() == Outcome("unchanged")
    file.write_text("two")
    assert follower.check() == Outcome("reloaded")
    assert follower.reason == ""


def test_first_load_raises(tmp_path: Path, taker: Taker) -> None:
    """What cannot be read or is bad at the start is the caller's to tell."""
    file = tmp_path / "a.yaml"
    follower = Watch("rules", [str(file)], taker)
    with pytest.raises(UnreadableError, match=r"a\.yaml: No such file or directory$"):
        follower.load()
    file.write_text("bad")
    with pytest.raises(ValueError, match=r"^it says bad$"):
        follower.load()
    assert follower.last_success == 0


def test_set_that_changes_while_it_is_read_is_left_for_later(
    tmp_path: Path, taker: Taker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Contents that differ between two readings are not tried: half of them may be old.

    Nothing but a stand-in for the reading can be relied on to change between its two calls.
    """
    file = tmp_path / "a"
    file.write_text("old")
    follower = Watch("rules", [file], taker)
    follower.load()
    readings = iter([{"a": b"new"}, {"a": b"newer"}])
    monkeypatch.setattr(watch, "read", lambda _sources: next(readings))
    assert follower.check() == Outcome("unchanged")
    assert taker.calls == 1


def test_sources(tmp_path: Path) -> None:
    """Files, directories and patterns are read together, each file once, in order; hidden and other files are not."""
    for name in ("b.yaml", "a.json", "c.yml", "d.txt", ".hidden.yaml", "sub/e.yaml", "sub/deep/f.yaml"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
    (tmp_path / "folder.yaml").mkdir()
    found = read([str(tmp_path), str(tmp_path / "a.json"), str(tmp_path / "sub/**/*.yaml"), str(tmp_path / "*.no")])
    assert [str(Path(path).relative_to(tmp_path)) for path in found] == [
        "a.json",
        "b.yaml",
        "c.yml",
        "sub/deep/f.yaml",
        "sub/e.yaml",
    ]
    assert list(found.values()) == [b"a.json", b"b.yaml", b"c.yml", b"sub/deep/f.yaml", b"sub/e.yaml"]


def test_files_may_come_and_go_in_a_directory(tmp_path: Path, taker: Taker) -> None:
    """An empty directory is fine; a new file and one that goes are changes."""
    follower = Watch("catalogue", [tmp_path], taker)
    follower.load()
    (tmp_path / "a.yaml").write_text("a")
    assert follower.check() == Outcome("reloaded")
    (tmp_path / "a.yaml").rename(tmp_path / "b.yaml")
    assert follower.check() == Outcome("reloaded")
    (tmp_path / "b.yaml").unlink()
    assert follower.check() == Outcome("reloaded")
    assert taker.held == [{}, {"a.yaml": b"a"}, {"b.yaml": b"a"}, {}]


def test_name_with_pattern_characters_that_exists_is_a_file(tmp_path: Path) -> None:
    """A file whose name looks like a pattern is read as what it is."""
    (tmp_path / "a[1].yaml").write_text("x")
    assert list(read([str(tmp_path / "a[1].yaml")]).values()) == [b"x"]


def test_limits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Files above the size that is read, and more files than are read, are refused with the number."""
    (tmp_path / "a.yaml").write_bytes(b"x" * 100)
    (tmp_path / "b.yaml").touch()
    monkeypatch.setattr(watch, "LARGEST_FILE", 99)
    with pytest.raises(UnreadableError, match=r"a\.yaml: larger than 0 MiB$"):
        read([str(tmp_path)])
    monkeypatch.setattr(watch, "MOST_FILES", 1)
    with pytest.raises(UnreadableError, match=r"^2 files are more than the 1 that are read$"):
        read([str(tmp_path)])


def test_directory_that_cannot_be_listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A directory that cannot be listed is named; root can list all, so the refusal is made up here."""

    def refuse(_path: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(UnreadableError, match=r"Permission denied$"):
        read([str(tmp_path)])
