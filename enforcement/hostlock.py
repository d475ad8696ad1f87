"""One enforcer on a host: two would undo each other, and a runtime with the same plugin twice refuses every container."""

import fcntl
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

NAME: Final = "lock"
_AGAIN_SECONDS: Final = 0.05


class AlreadyHeldError(Exception):
    """Another enforcer runs on this host."""


@contextmanager
def host_lock(folder: Path, seconds: float = 0.0) -> Iterator[None]:
    """Hold the lock of the state folder; the kernel lets go of it when the process ends, however it ends.

    Args:
        folder: Where the enforcer keeps its state; made if it is not there.
        seconds: How long to wait for the one before us to end.

    Raises:
        AlreadyHeldError: Another process holds it; the text names it.
        OSError: The folder cannot be used.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    path = folder / NAME
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        _take(descriptor, path, time.monotonic() + seconds)
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()} {socket.gethostname()}\n".encode(), 0)
        yield
    finally:
        # The file stays: were it removed, two could hold locks of two files of one name.
        os.close(descriptor)


def _take(descriptor: int, path: Path, until: float) -> None:
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if time.monotonic() >= until:
                # A pid of another container is a number of its own PID namespace: its host name tells whose.
                pid, _, host = os.pread(descriptor, 256, 0).decode(errors="replace").strip().partition(" ")
                holder = f"pid {pid} on {host}" if pid else "a process that is just starting"
                raise AlreadyHeldError(f"{path}: another enforcer runs on this host: {holder}") from None
        time.sleep(_AGAIN_SECONDS)
