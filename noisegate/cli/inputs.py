"""The manifests a person names on the command line: files, directories, standard input."""

import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import BinaryIO, Final

from noisegate.webhook import manifests
from noisegate.webhook.manifests import ConfigError, Document, Fault

ENDINGS: Final = (".yaml", ".yml", ".json")
STDIN: Final = "<stdin>"


def documents(names: Sequence[str], stdin: BinaryIO) -> list[Document]:
    """Read every object of files, of directories (`*.yaml`, `*.yml`, `*.json`, at any depth) and of standard input (`-`).

    Entries of a directory whose names begin with a dot are passed by, as are links to directories.

    Raises:
        ConfigError: Everything that cannot be read, by file and line; nothing is returned then.
    """
    found: list[Document] = []
    faults: list[Fault] = []
    for name, read in _files(names, stdin, faults):
        try:
            found += manifests.read(read(), name)
        except OSError as error:
            faults.append(unreadable(name, error))
        except ConfigError as error:
            faults += error.faults
    if faults:
        raise ConfigError(faults)
    return found


def content(name: str) -> bytes:
    """Return the bytes of a file.

    Raises:
        ConfigError: It cannot be read.
    """
    try:
        return Path(name).read_bytes()
    except OSError as error:
        raise ConfigError([unreadable(name, error)]) from None


def unreadable(name: str, error: OSError) -> Fault:
    """Return the fault of a file that cannot be read."""
    return Fault(name, 0, 0, "", f"cannot be read: {error.strerror}")


def _files(names: Iterable[str], stdin: BinaryIO, faults: list[Fault]) -> Iterator[tuple[str, "_Read"]]:
    seen = set()
    for name in names:
        if name == "-":
            if name not in seen:
                yield STDIN, stdin.read
        elif os.path.isdir(name):  # noqa: PTH112  (the name is told as it was typed; a Path would rewrite it)
            inside = list(_inside(name, faults))
            if not inside:
                faults.append(Fault(name, 0, 0, "", f"holds no manifests; allowed: {', '.join('*' + e for e in ENDINGS)}"))
            for path in inside:
                if path not in seen:
                    yield path, Path(path).read_bytes
                seen.add(path)
        elif name not in seen:
            yield name, Path(name).read_bytes
        seen.add(name)
