"""The manifests a person names on the command line: files, directories, patterns, standard input."""

from collections.abc import Iterable
from pathlib import Path
from typing import BinaryIO, Final

from noisegate.service import manifests, watch
from noisegate.service.faults import ConfigError, Fault
from noisegate.service.manifests import Document
from noisegate.webhook import manifestfiles

STDIN: Final = "<stdin>"
"""Stands for the file of what came in on standard input."""


def documents(names: Iterable[str], stdin: BinaryIO) -> list[Document]:
    """Read every object of what is named; `-` is standard input. What is named twice is read once.

    Raises:
        ConfigError: Everything that cannot be read, by file and line; nothing is returned then.
    """
    found: list[Document] = []
    faults: list[Fault] = []
    seen: set[Path | str] = set()
    for name in names:
        try:
            if name == "-":
                if name not in seen:
                    found += manifests.read(stdin.read(), STDIN)
                seen.add(name)
                continue
            paths = manifestfiles.find([name])
            if not paths:
                endings = ", ".join(f"*{ending}" for ending in watch.SUFFIXES)
                faults.append(Fault(name, 0, 0, "", f"there are no manifests here; looked for: {endings}"))
            fresh = [path for path in paths if path not in seen]
            seen.update(fresh)
            found += manifestfiles.read_files(fresh)
        except ConfigError as error:
            faults += error.faults
    if faults:
        raise ConfigError(faults)
    return found
