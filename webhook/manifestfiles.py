"""Finds and reads files of manifests: single files, folders, globs."""

import glob
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from noisegate.webhook.faults import ConfigError, Fault
from noisegate.webhook.manifests import Document, read

SUFFIXES: Final = (".yaml", ".yml", ".json")
"""Names by which manifests are found in a folder, as kubectl does it."""
LARGEST_FILE: Final = 64 << 20
"""Bytes. Ten thousand pods as kubectl prints them are about this much."""


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
        if path.is_dir():
            found.update(dict.fromkeys(_below(path)))
        elif path.exists():
            found[path] = None
        else:
            matches = sorted(glob.glob(entry)) if glob.has_magic(entry) else []  # noqa: PTH207  (the pattern may be absolute)
            if not matches:
                told = "no file matches this pattern" if glob.has_magic(entry) else "there is no such file or folder"
                faults.append(Fault(entry, 0, 0, "", told))
            for match in map(Path, matches):
                found.update(dict.fromkeys(_below(match) if match.is_dir() else [match]))
    if faults:
        raise ConfigError(faults)
    return list(found)


def _below(folder: Path) -> list[Path]:
    files: list[Path] = []
    for place, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        files.extend(
            Path(place, name) for name in sorted(names) if name.endswith(SUFFIXES) and not name.startswith(".")
        )
    return files


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
