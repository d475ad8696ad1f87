"""Finds and reads files of manifests: single files, folders, globs."""

import glob
from collections.abc import Iterable
from pathlib import Path

from noisegate.service.faults import ConfigError, Fault
from noisegate.service.manifests import Document, read
from noisegate.service.watch import LARGEST_FILE, UnreadableError, below


def find(entries: Iterable[str]) -> list[Path]:
    """Return the files that entries stand for, each once, in the order of the entries, folders sorted by name.

    An entry is a file, a folder (every manifest in it and below; names that begin with a dot are left out, as in a
    mounted ConfigMap they are the kubelet's), or a glob.

    Raises:
        ConfigError: Entries that stand for nothing.
    """
    found: dict[Path, None] = {}
    faults: list[Fault] = []
    for entry in entries:
        path = Path(entry)
        if path.exists():
            found.update(_files(path, faults))
        else:
            matches = sorted(glob.glob(entry)) if glob.has_magic(entry) else []  # noqa: PTH207  (the pattern may be absolute)
            if not matches:
                told = "no file matches this pattern" if glob.has_magic(entry) else "there is no such file or folder"
                faults.append(Fault(entry, 0, 0, "", told))
            for match in map(Path, matches):
                found.update(_files(match, faults))
    if faults:
        raise ConfigError(faults)
    return list(found)


def _files(path: Path, faults: list[Fault]) -> dict[Path, None]:
    if not path.is_dir():
        return {path: None}
    try:
        return dict.fromkeys(map(Path, below(path)))
    except UnreadableError as error:
        faults.append(Fault(str(path), 0, 0, "", str(error).removeprefix(f"{path}: ")))
        return {}


def read_bytes(path: Path) -> bytes:
    """Return a file's content.

    Raises:
        ConfigError: It cannot be read, or is larger than `LARGEST_FILE`.
    """
    try:
        with path.open("rb") as file:
            content = file.read(LARGEST_FILE + 1)
    except OSError as error:
        raise ConfigError([Fault(str(path), 0, 0, "", f"cannot be read: {error.strerror}")]) from None
    if len(content) > LARGEST_FILE:
        raise ConfigError([Fault(str(path), 0, 0, "", f"larger than {LARGEST_FILE >> 20} MiB", "split it")])
    return content


def read_files(paths: Iterable[Path]) -> list[Document]:
    """Return the objects of several files, in their order.

    Raises:
        ConfigError: Everything that is wrong with any of them.
    """
    documents: list[Document] = []
    faults: list[Fault] = []
    for path in paths:
        try:
            documents.extend(read(read_bytes(path), str(path)))
        except ConfigError as error:
            faults.extend(error.faults)
    if faults:
        raise ConfigError(faults)
    return documents
