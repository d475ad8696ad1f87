"""A directory of certificates and keys on disk, published so that no reader meets a half-changed one.

The files of one state lie together in one generation, and a rename swings one link from the old generation to the new,
as the kubelet does for mounted Secrets:

    ca.crt  -> ..data/ca.crt       the names that programs are given; they never change
    tls.key -> ..data/tls.key
    ..data  -> ..noisegate-5f0c... the one link that swings
    ..noisegate-5f0c.../           one generation: ca.crt ca.key tls.crt tls.key client.crt client.key, each 0600

`Store.read` holds the generation open while it reads. A program that opens tls.crt and tls.key one after the other by
their names can meet a swing in between: it must check that they fit (OpenSSL does) and read again.
"""

import fcntl
import os
import re
import secrets
import shutil
import stat
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

from noisegate.certs.names import read_names
from noisegate.certs.pair import CertificateError, Pair
from noisegate.certs.rotation import CA, LEAVES, Outcome, Pairs, issued

STEMS = (CA, *LEAVES)
CURRENT = "..data"
OURS = re.compile(r"\.\.noisegate-[0-9a-f]{16}")
OURS_OR_HALF = re.compile(OURS.pattern + r"(?:\.link)?")
LARGEST_FILE = 1 << 20
"""Bytes; a certificate is about one or two thousand."""

DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC


class Disk(NamedTuple):
    """The calls that change the disk, named as in `os`, so that each of them can be made to fail."""

    mkdir: Callable[..., None] = os.mkdir
    create: Callable[..., int] = os.open
    write: Callable[[int, bytes], int] = os.write
    fsync: Callable[[int], None] = os.fsync
    symlink: Callable[..., None] = os.symlink
    replace: Callable[..., None] = os.replace
    unlink: Callable[..., None] = os.unlink
    rmtree: Callable[..., Any] = shutil.rmtree


DISK = Disk()


class Store:
    """Reads and changes one directory.

    Args:
        directory: Where; made (0700), with its parents, where a change says so.
        disk: How it is changed.
    """

    def __init__(self, directory: Path, disk: Disk = DISK) -> None:
        self.directory = directory
        self._disk = disk

    def read(self) -> dict[str, Pair]:
        """Return the pairs of one generation by stem; or those in plain files, where somebody else put them.

        Raises:
            CertificateError: The directory or a file cannot be read, or a key has no certificate.
        """
        with self._errors("read"), _opened(self.directory) as top:
            return self._read(top)

    def update(self, change: Callable[[Pairs], tuple[Pairs, list[Outcome]]], *, make: bool = False) -> list[Outcome]:
        """Read, change and publish, as the only one who writes here; return the outcomes of the change.

        Where it fails before the link swings, the old pairs stay; after that, the new ones are there, whole.

        Args:
            change: Takes the pairs that are there; returns those that shall be, and what to tell the user.
            make: Whether a missing directory is made.

        Raises:
            CertificateError: As `read`; what `change` raises; the directory holds files that are not noisegate's;
                a write fails.
        """
        with self._errors("written"):
            if make:
                self.directory.parent.mkdir(parents=True, exist_ok=True)
                self.directory.mkdir(mode=0o700, exist_ok=True)
            with _opened(self.directory) as top:
                fcntl.flock(top, fcntl.LOCK_EX)
                pairs = self._read(top)
                wanted, outcomes = change(pairs)
                if wanted != pairs:
                    self._publish(top, wanted)
                return outcomes

    def _read(self, top: int) -> dict[str, Pair]:
        """Read one generation whole; again when the link swung meanwhile."""
        while True:
            current = _open_current(top)
            try:
                files = {name: _read_file(name, top if current is None else current) for name in _file_names()}
                unchanged = _is_current(top, current)
            finally:
                if current is not None:
                    os.close(current)
            if unchanged:
                return _pairs(files)

    def _publish(self, top: int, pairs: Pairs) -> None:
        """Write a new generation, swing the link to it, and remove what lies behind it."""
        files = _files(pairs)
        _refuse_foreign(top, files)
        generation = f"..noisegate-{secrets.token_hex(8)}"
        half = f"{generation}.link"
        disk = self._disk
        swung = False
        try:
            disk.mkdir(generation, 0o700, dir_fd=top)
            with _opened(generation, top) as inside:
                for name, content in files.items():
                    self._write(name, content, inside)
                disk.fsync(inside)
            for name in files:
                if not _exists(name, top):
                    disk.symlink(f"{CURRENT}/{name}", name, dir_fd=top)
            disk.symlink(generation, half, dir_fd=top)
            disk.fsync(top)
            disk.replace(half, CURRENT, src_dir_fd=top, dst_dir_fd=top)
            swung = True
            disk.fsync(top)
        except OSError:
            if not swung:
                with suppress(OSError):  # what stays is removed by the next change
                    self._sweep(top, _current_name(top))
            raise
        self._sweep(top, generation)

    def _write(self, name: str, content: bytes, inside: int) -> None:
        """Write one file of a generation and see it to the disk."""
        disk = self._disk
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        file = disk.create(name, flags, 0o600, dir_fd=inside)
        try:
            left = content
            while left:
                left = left[disk.write(file, left) :]
            disk.fsync(file)
        finally:
            os.close(file)

    def _sweep(self, top: int, keep: str) -> None:
        """Remove every generation and half-made link of ours but the current generation."""
        for name in os.listdir(top):
            if name == keep or not OURS_OR_HALF.fullmatch(name):
                continue
            if name.endswith(".link"):
                self._disk.unlink(name, dir_fd=top)
            else:
                self._disk.rmtree(name, dir_fd=top)

    @contextmanager
    def _errors(self, done: str) -> Iterator[None]:
        """Say of every error which file it is about."""
        try:
            yield
        except CertificateError as error:
            raise CertificateError(str(self.directory / error.place), error.reason) from None
        except OSError as error:
            raise CertificateError(str(self.directory), f"cannot be {done}: {error.strerror}") from error


def provide(directory: Path, now: datetime, names: list[str], client: str | None = None) -> dict[str, Pair]:
    """Make, in an empty directory, an authority, a serving pair for names and, if named, a client pair.

    Returns:
        The pairs, by `ca`, `tls` and `client`; in the directory stand ca.crt, tls.crt, tls.key and so on.

    Raises:
        CertificateError: A name is not allowed, or as `Store.update`.
    """
    store = Store(directory)
    store.update(lambda pairs: issued(pairs, now, server=read_names(names), client=client), make=True)
    return store.read()


def _file_names() -> list[str]:
    return [f"{stem}.{ending}" for stem in STEMS for ending in ("crt", "key")]


def _files(pairs: Pairs) -> dict[str, bytes]:
    """Return the files that hold pairs; a key that is kept elsewhere has none."""
    files = {}
    for stem, pair in pairs.items():
        files[f"{stem}.crt"] = pair.certificates
        if pair.key:
            files[f"{stem}.key"] = pair.key
    return files


def _pairs(files: Mapping[str, bytes | None]) -> dict[str, Pair]:
    """Return the pairs that files hold."""
    pairs = {}
    for stem in STEMS:
        certificates, key = files[f"{stem}.crt"], files[f"{stem}.key"]
        if certificates is not None:
            pairs[stem] = Pair(certificates, key or b"")
        elif key is not None:
            raise CertificateError(f"{stem}.key", f"is there without {stem}.crt; allowed: both or none")
    return pairs


def _read_file(name: str, directory: int) -> bytes | None:
    """Return the content of a file, or None where there is none."""
    try:
        # O_NONBLOCK: opening a FIFO would wait for its writer.
        file = os.open(name, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=directory)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise CertificateError(name, f"cannot be read: {error.strerror}") from error
    with os.fdopen(file, "rb") as opened:
        if not stat.S_ISREG(os.fstat(file).st_mode):
            raise CertificateError(name, "is not a regular file")
        content = opened.read(LARGEST_FILE + 1)
    if len(content) > LARGEST_FILE:
        raise CertificateError(name, f"is larger than {LARGEST_FILE} bytes, which no certificate or key is")
    return content


def _open_current(top: int) -> int | None:
    """Open the generation that the link names now, or return None where there is no link."""
    try:
        return os.open(CURRENT, DIRECTORY, dir_fd=top)
    except FileNotFoundError:
        return None


def _is_current(top: int, current: int | None) -> bool:
    """Tell whether the link still names an opened generation: then none of its files has been removed."""
    try:
        now = os.stat(CURRENT, dir_fd=top)
    except FileNotFoundError:
        return current is None
    # The inode cannot have been given to another directory: it is held open.
    return current is not None and os.path.samestat(now, os.fstat(current))


def _current_name(top: int) -> str:
    """Return the name of the current generation; empty where there is none."""
    return os.readlink(CURRENT, dir_fd=top) if _exists(CURRENT, top) else ""


def _refuse_foreign(top: int, files: Mapping[str, bytes]) -> None:
    """Refuse to replace what noisegate did not write.

    Raises:
        CertificateError: A name is taken by a file, a directory or a link of somebody else.
    """
    ours = {name: re.compile(re.escape(f"{CURRENT}/{name}")) for name in files}
    for name, target in {**ours, CURRENT: OURS}.items():
        try:
            link = os.readlink(name, dir_fd=top)
        except FileNotFoundError:
            continue
        except OSError:  # EINVAL: it is there and is no link
            link = ""
        if not target.fullmatch(link):
            raise CertificateError(
                name, "was not written by noisegate and is left alone; allowed: an empty directory, or move it away"
            )


def _exists(name: str, top: int) -> bool:
    """Tell whether a name is taken, be it by a link that leads nowhere."""
    try:
        os.lstat(name, dir_fd=top)
    except FileNotFoundError:
        return False
    return True


@contextmanager
def _opened(path: str | Path, top: int | None = None) -> Iterator[int]:
    """Open a directory, so that what happens inside it cannot be led elsewhere by a renamed path."""
    directory = os.open(path, DIRECTORY, dir_fd=top)
    try:
        yield directory
    finally:
        os.close(directory)
