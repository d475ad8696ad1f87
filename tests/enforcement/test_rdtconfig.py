"""The runtime's RDT file, made from the class file."""

import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from noisegate.enforcement.plan.partitions import ClassFile, read
from noisegate.enforcement.plan.schemata import Cache, Machine
from noisegate.enforcement.rdtconfig import HEADER, render, write_runtime_file
from noisegate.enforcement.refusal import Refusal
from noisegate.service.faults import ConfigError

TEXT = """
options: {l3: {optional: true}}
updateInterval: 30
partitions:
  p: &p
    l3Allocation: {all: "60%", "1": 0xf0}
    mbAllocation: [100%, 10000MBps]
    classes:
      gold: {l3Allocation: 20-60%, kubernetes: {denyPodAnnotation: true}}
      "":
"""

SMALL_FILES = (
    "import resource, sys; from noisegate.__main__ import main; "
    "resource.setrlimit(resource.RLIMIT_FSIZE, (20, 20)); sys.exit(main())"
)


@pytest.fixture
def classes() -> ClassFile:
    """Return a class file."""
    return read(TEXT.replace("0xf0", '"0xf0"'), "c.yaml")


def test_what_goresctrl_reads_is_written(classes: ClassFile) -> None:
    """Options and partitions as they stand, under a header of ours; nothing that goresctrl's strict reader refuses."""
    text = render(classes)
    assert text.startswith(f"{HEADER}\n")
    assert yaml.safe_load(text) == {key: classes.value[key] for key in ("options", "partitions")}
    assert read(text, "again").classes == classes.classes


def test_aliases_are_written_out() -> None:
    """What an alias repeats stands there twice."""
    classes = read("partitions: {p: {classes: {a: &a {kubernetes: {denyPodAnnotation: true}}, b: *a}}}", "c.yaml")
    text = render(classes)
    assert text.count("denyPodAnnotation") == 2
    assert "*" not in text


def test_written_once(tmp_path: Path, classes: ClassFile) -> None:
    """The file is written whole, readable for all; again it is unchanged; nothing else is left beside it."""
    target = tmp_path / "rdt.yaml"
    assert write_runtime_file(classes, target) == "written"
    assert (target.read_text(), oct(target.stat().st_mode)[-3:]) == (render(classes), "644")
    inode = target.stat().st_ino
    assert write_runtime_file(classes, target) == "unchanged"
    assert target.stat().st_ino == inode
    assert list(tmp_path.iterdir()) == [target]


def test_an_older_file_of_ours_is_replaced(tmp_path: Path, classes: ClassFile) -> None:
    """A file with our header is ours to change."""
    target = tmp_path / "rdt.yaml"
    target.write_text(f"{HEADER}\npartitions: {{}}\n")
    assert write_runtime_file(classes, target, check=True) == "stale"
    assert target.read_text() != render(classes)
    assert write_runtime_file(classes, target) == "written"
    assert write_runtime_file(classes, target, check=True) == "unchanged"


def test_a_file_of_others_is_left(tmp_path: Path, classes: ClassFile) -> None:
    """Without our header a file is refused, unless it is told to be overwritten."""
    target = tmp_path / "rdt.yaml"
    target.write_text("partitions: {}\n")
    with pytest.raises(Refusal, match=r"was not written by noisegate \(move it away, or overwrite it with --force\)"):
        write_runtime_file(classes, target)
    assert target.read_text() == "partitions: {}\n"
    assert write_runtime_file(classes, target, force=True) == "written"


def test_check_writes_nothing(tmp_path: Path, classes: ClassFile) -> None:
    """A missing file is stale."""
    assert write_runtime_file(classes, tmp_path / "rdt.yaml", check=True) == "stale"
    assert list(tmp_path.iterdir()) == []


def test_classes_that_do_not_fit_are_not_written(tmp_path: Path, classes: ClassFile) -> None:
    """On a node, what the runtime would refuse there is refused before."""
    machine = Machine({"L3": Cache((0, 1), 0xFF, 1, sparse=False, closids=8)}, None, 8)
    with pytest.raises(ConfigError, match="this node cannot share out memory bandwidth"):
        write_runtime_file(classes, tmp_path / "rdt.yaml", machine=machine)
    assert list(tmp_path.iterdir()) == []


def test_names_only_make_no_file(tmp_path: Path) -> None:
    """Goresctrl knows partitions only."""
    with pytest.raises(Refusal, match="names classes only"):
        write_runtime_file(read("classes: [gold]", "c.yaml"), tmp_path / "rdt.yaml")


@pytest.mark.parametrize("name", ["gone/rdt.yaml", ""])
def test_a_file_that_cannot_be_written(tmp_path: Path, classes: ClassFile, name: str) -> None:
    """A missing folder, and a folder in its place, are told."""
    with pytest.raises(Refusal) as error:
        write_runtime_file(classes, tmp_path / name)
    assert error.value.reason == "FileNotWritten"


def test_nothing_is_left_of_a_failed_write(tmp_path: Path) -> None:
    """Where the write fails the old file stays as it was, and nothing stands beside it.

    A process of its own may write no file beyond 20 bytes: a disk that is full, as far as a writer can tell.
    """
    target = tmp_path / "etc" / "rdt.yaml"
    target.parent.mkdir()
    target.write_text("partitions: {}")
    (tmp_path / "classes.yaml").write_text(TEXT.replace("0xf0", '"0xf0"'))
    command = ["node", "rdt-config", str(tmp_path / "classes.yaml"), str(target), "--force"]
    done = subprocess.run(  # noqa: S603
        [sys.executable, "-c", SMALL_FILES, *command], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert "/rdt.yaml cannot be written: File too large" in done.stderr
    assert target.read_text() == "partitions: {}"
    assert list(target.parent.iterdir()) == [target]
