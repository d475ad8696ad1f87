"""A unix socket on the host that leads somewhere else."""

import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Final, Self


class Door:
    """Listens on a path; each connection is joined to one that is made for it, or closed where none can be had.

    Args:
        path: The socket to be made.
        connect: Makes the other side's connection.
    """

    def __init__(self, path: Path, connect: Callable[[], socket.socket]) -> None:
        self._connect: Final = connect
        self._listener: Final = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(path))
        self._listener.listen()
        self._open: Final[set[socket.socket]] = set()
        self._thread: Final = threading.Thread(target=self._accept, name=f"door {path.name}", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        # Closing a socket does not wake a thread that waits in accept(2); shutting it down does.
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._listener.close()
        for one in list(self._open):
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)

    def _accept(self) -> None:
        while True:
            try:
                here, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._join, args=(here,), daemon=True).start()

    def _join(self, here: socket.socket) -> None:
        with here, suppress(OSError), self._connect() as there:
            self._open.update((here, there))
            back = threading.Thread(target=_copy, args=(there, here), daemon=True)
            back.start()
            _copy(here, there)
            back.join()
            self._open.difference_update((here, there))


def _copy(source: socket.socket, target: socket.socket) -> None:
    with suppress(OSError):
        while content := source.recv(1 << 16):
            target.sendall(content)
    with suppress(OSError):
        target.shutdown(socket.SHUT_WR)
