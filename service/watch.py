"""Files followed by content: what changed is read whole, tried, and put into force or refused with a reason.

Mounted ConfigMaps and Secrets are links that the kubelet swaps, so neither modification times nor file events can be
relied on: the contents are read again at an interval, and only their digest is kept.
"""

import glob
import hashlib
import os
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final, Literal, NamedTuple

LARGEST_FILE: Final = 64 << 20
"""Bytes of one file: `kubectl get -o yaml` of a large cluster's claims stays below it."""
MOST_FILES: Final = 4096
"""Files of one watch."""
SUFFIXES: Final = (".yaml", ".yml", ".json")
"""What is read of a directory; names that begin with a dot are not (the kubelet's own `..data`)."""

Reload = Callable[[Mapping[str, bytes]], None]
"""Takes the contents by path, in order of path. Raises when they are bad. Builds everything first and puts it into
force as its last act, by one assignment: it runs in a thread while calls are decided."""


class UnreadableError(ValueError):
    """A file that cannot be read."""


class Outcome(NamedTuple):
    """What a check found.

    Attributes:
        result: `unchanged`; `reloaded`: new contents are in force; `refused`: the last good ones stay in force;
            `recovered`: the contents are again those in force, after some that were refused.
        reason: Why they were refused; else empty.
    """

    result: Literal["unchanged", "reloaded", "refused", "recovered"]
    reason: str = ""


UNCHANGED: Final = Outcome("unchanged")


class Watch:
    """Files that belong together: they are read, judged and put into force together or not at all.

    Args:
        what: One word for logs and metrics: `certificate`, `mutations`, `catalogue`, `rdt-classes`.
        sources: Paths of files or directories, or glob patterns. A plain file must exist; a directory and a pattern may
            be empty, and files may come and go in them.
        reload: Puts contents into force.
        clock: Seconds since the epoch.
    """

    def __init__(
        self, what: str, sources: Sequence[str | Path], reload: Reload, clock: Callable[[], float] = time.time
    ) -> None:
        self.what: Final = what
        self.sources: Final = tuple(str(source) for source in sources)
        self._reload: Final = reload
        self._clock: Final = clock
        self._lock: Final = threading.Lock()
        self._in_force = b""
        self._refused = b""
        self.reason = ""
        """Why the newest contents were refused; empty while the newest are in force."""
        self.last_success = 0.0
        """When contents were last put into force, in seconds since the epoch; 0 before `load`."""

    @property
    def note(self) -> str:
        """One line for readiness: what was refused, why, and since when the contents in force are in force; or empty."""
        if not self.reason:
            return ""
        since = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(self.last_success))
        return f"{self.what}: the new contents are refused, those of {since} stay in force: {self.reason}"

    def load(self) -> None:
        """Read and put into force for the first time.

        Raises:
            UnreadableError: A file cannot be read.
            Exception: Whatever `reload` raises.
        """
        with self._lock:
            contents = read(self.sources)
            self._reload(contents)
            self._accept(digest(contents))

    def check(self) -> Outcome:
        """Read again, and put what changed into force. Blocks: call it in a thread. Never raises."""
        with self._lock:
            try:
                contents = read(self.sources)
                found = digest(contents)
                if found == self._in_force:
                    return self._recover()
                if found == self._refused:
                    return UNCHANGED
                # A set that is being swapped or written this moment is left for the next check.
                if digest(read(self.sources)) != found:
                    return UNCHANGED
            except UnreadableError as error:
                return self._refuse(b"", str(error))
            try:
                self._reload(contents)
            except Exception as error:  # noqa: BLE001  (bad contents must not end the server, whatever they provoke)
                return self._refuse(found, str(error) or type(error).__name__)
            self._accept(found)
            return Outcome("reloaded")

    def _accept(self, found: bytes) -> None:
        self._in_force = found
        self._refused = b""
        self.reason = ""
        self.last_success = self._clock()

    def _recover(self) -> Outcome:
        if not self.reason:
            return UNCHANGED
        self._refused = b""
        self.reason = ""
        return Outcome("recovered")

    def _refuse(self, found: bytes, reason: str) -> Outcome:
        again = reason == self.reason
        self._refused = found
        self.reason = reason
        return UNCHANGED if again else Outcome("refused", reason)


def read(sources: Sequence[str]) -> dict[str, bytes]:
    """Read all files of the sources, by path, in order of path.

    Raises:
        UnreadableError: One of them is missing, too large or not to be read.
    """
    paths: set[str] = set()
    for source in sources:
        paths.update(_expanded(source))
    if len(paths) > MOST_FILES:
        raise UnreadableError(f"{len(paths)} files are more than the {MOST_FILES} that are read")
    return {path: _content(path) for path in sorted(paths)}


def digest(contents: Mapping[str, bytes]) -> bytes:
    """Return a digest of paths and contents."""
    whole = hashlib.sha256()
    for path, content in contents.items():
        name = os.fsencode(path)
        whole.update(b"%d %d\n" % (len(name), len(content)))
        whole.update(name)
        whole.update(content)
    return whole.digest()


def below(folder: str | Path) -> list[str]:
    """Return the paths of the files in a folder and below, sorted: those with one of `SUFFIXES`, hidden ones left out.

    Raises:
        UnreadableError: A folder cannot be listed.
    """

    def fail(error: OSError) -> None:
        raise UnreadableError(f"{error.filename or folder}: {error.strerror}") from error

    found: list[str] = []
    for place, folders, names in os.walk(folder, onerror=fail):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        found += [
            str(Path(place, name)) for name in sorted(names) if name.endswith(SUFFIXES) and not name.startswith(".")
        ]
    return found


def _expanded(source: str) -> list[str]:
    if Path(source).is_dir():
        return below(source)
    if not glob.has_magic(source) or Path(source).exists():
        return [source]
    found: list[str] = []
    for match in glob.glob(source, recursive=True):  # noqa: PTH207  (the pattern may be absolute)
        found += below(match) if Path(match).is_dir() else [match]
    return found


def _content(path: str) -> bytes:
    try:
        with Path(path).open("rb") as file:
            content = file.read(LARGEST_FILE + 1)
    except OSError as error:
        raise UnreadableError(f"{path}: {error.strerror}") from error
    if len(content) > LARGEST_FILE:
        raise UnreadableError(f"{path}: larger than {LARGEST_FILE >> 20} MiB")
    return content
