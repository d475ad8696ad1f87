"""Files of manifests on disk."""

import os
from pathlib import Path

import pytest

from noisegate.service import watch
from noisegate.service.faults import ConfigError
from noisegate.webhook.manifestfiles import find, read_bytes, read_files


def _made(folder: Path, *names: str) -> None:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"kind: Pod\nmetadata: {{name: {path.stem}}}\n")


def test_files_folders_and_globs_are_found_in_order(tmp_path: Path) -> None:
    """Folders are read whole and sorted, hidden names left out, and no file comes twice."""
    _made(tmp_path, "b.yaml", "a.yml", "sub/c.json", "notes.txt", ".hidden.yaml", "..data/d.yaml", "other/e.yaml")
    found = find([str(tmp_path / "other" / "*.yaml"), str(tmp_path / "notes.txt"), str(tmp_path)])
    assert [str(path.relative_to(tmp_path)) for path in found] == [
        "other/e.yaml",
        "notes.txt",
        "a.yml",
        "b.yaml",
        "sub/c.json",
    ]
    assert [path.name for path in find([str(tmp_path / "s*")])] == ["c.json"]


def test_what_stands_for_nothing_is_told(tmp_path: Path) -> None:
    """Missing files and patterns without a match are named together."""
    with pytest.raises(ConfigError) as error:
        find([f"{tmp_path}/x.yaml", f"{tmp_path}/*.yaml"])
    assert str(error.value) == (
        f"{tmp_path}/x.yaml: there is no such file or folder\n{tmp_path}/*.yaml: no file matches this pattern"
    )


def test_files_are_read_together(tmp_path: Path) -> None:
    """The objects come in the order of the files; what is wrong with any of them is told together."""
    _made(tmp_path, "a.yaml", "b.yaml")
    assert [document.name for document in read_files(find([str(tmp_path)]))] == ["a", "b"]
    (tmp_path / "a.yaml").write_text("a: b: c")
    with pytest.raises(ConfigError) as error:
        read_files([*find([str(tmp_path)]), tmp_path / "gone.yaml"])
    assert [fault.file for fault in error.value.faults] == [f"{tmp_path}/a.yaml", f"{tmp_path}/gone.yaml"]
    assert str(error.value).splitlines()[1] == f"{tmp_path}/gone.yaml: cannot be read: No such file or directory"


def test_a_file_may_not_be_too_large(tmp_path: Path) -> None:
    """A file beyond the limit is refused before it is parsed."""
    path = tmp_path / "large.yaml"
    path.touch()
    os.truncate(path, watch.LARGEST_FILE + 1)
    with pytest.raises(ConfigError) as error:
        read_bytes(path)
    assert str(error.value) == f"{path}: larger than 64 MiB (split it)"


def test_a_folder_that_cannot_be_listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder that cannot be listed is named; root can list all, so the refusal is made up here."""

    def refuse(_path: object) -> None:
        raise PermissionError(13, "Permission denied", str(tmp_path))

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(ConfigError) as error:
        find([str(tmp_path)])
    assert str(error.value) == f"{tmp_path}: Permission denied"
