"""One enforcer on a host, against real processes."""

import os
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from noisegate.enforcement.hostlock import NAME, AlreadyHeldError, host_lock

HOLD = """
import sys, pathlib
from noisegate.enforcement.hostlock import host_lock
with host_lock(pathlib.Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


@contextmanager
def holder(folder: Path) -> Iterator[subprocess.Popen[str]]:
    """Run a process that holds the lock until its stdin is closed."""
    with subprocess.Popen(  # noqa: S603  (its program is its own)
        [sys.executable, "-c", HOLD, str(folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        yield process


def test_a_second_one_is_refused(tmp_path: Path) -> None:
    """The text names the process that is in the way."""
    with holder(tmp_path) as process, pytest.raises(AlreadyHeldError) as refused, host_lock(tmp_path):
        pass
    told = f"{tmp_path / NAME}: another enforcer runs on this host: pid {process.pid} on {socket.gethostname()}"
    assert str(refused.value) == told


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_the_kernel_lets_go(tmp_path: Path, number: signal.Signals) -> None:
    """However the first process ends, the next one has the lock and its own name in the file."""
    with holder(tmp_path) as process:
        process.send_signal(number)
        process.wait()
    with host_lock(tmp_path):
        assert (tmp_path / NAME).read_text().split()[0] == str(os.getpid())


def test_it_waits_for_the_one_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With patience, the lock is had once the first process has ended."""
    with holder(tmp_path) as process:

        def ends_meanwhile(_seconds: float) -> None:
            assert process.stdin is not None
            process.stdin.close()
            process.wait()

        monkeypatch.setattr("noisegate.enforcement.hostlock.time.sleep", ends_meanwhile)
        with host_lock(tmp_path, seconds=30):
            assert process.returncode == 0
            assert (tmp_path / NAME).read_text().startswith(f"{os.getpid()} ")


def test_twice_in_one_process(tmp_path: Path) -> None:
    """The lock belongs to the open file, not to the process: a second hold is refused, and after both it is free."""
    with host_lock(tmp_path):
        with pytest.raises(AlreadyHeldError, match=rf"pid {os.getpid()} on "), host_lock(tmp_path):
            pass
        with pytest.raises(AlreadyHeldError), host_lock(tmp_path):
            pass
    with host_lock(tmp_path):
        pass


def test_a_holder_that_has_not_written_its_name_yet(tmp_path: Path) -> None:
    """The text does not invent a pid."""
    with host_lock(tmp_path):
        (tmp_path / NAME).write_text("")
        with pytest.raises(AlreadyHeldError, match=r"a process that is just starting$"), host_lock(tmp_path):
            pass


def test_the_folder_is_made_for_us_alone(tmp_path: Path) -> None:
    """Nobody else may hold the lock or read the state beside it."""
    folder = tmp_path / "state" / "noisegate"
    with host_lock(folder):
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        assert stat.S_IMODE((folder / NAME).stat().st_mode) == 0o600


def test_a_folder_that_cannot_be(tmp_path: Path) -> None:
    """What stands in the way is told by the system's own error."""
    (tmp_path / "file").write_text("")
    with pytest.raises(NotADirectoryError), host_lock(tmp_path / "file" / "state"):
        pass
