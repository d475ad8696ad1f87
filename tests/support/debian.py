"""Debian packages unpacked into a cache: nothing is installed, and the machine stays as it is."""

import fcntl
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tiers import UnavailableError


def cache() -> Path:
    """Return the folder outside the checkout where what tests need once is kept."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "noisegate"


def unpacked(package: str) -> Path:
    """Return a folder with a package's files, as `usr/lib/...` in it; download it where it is absent.

    Raises:
        UnavailableError: This is no Debian, or its archive cannot be reached.
    """
    folder = cache() / "debian" / package
    if folder.exists():
        return folder
    apt, dpkg = shutil.which("apt-get"), shutil.which("dpkg")
    if apt is None or dpkg is None:
        raise UnavailableError(f"the Debian package {package} is needed and there is no apt-get")
    folder.parent.mkdir(parents=True, exist_ok=True)
    with locked(folder.parent / ".lock"), tempfile.TemporaryDirectory(dir=folder.parent) as half:
        if folder.exists():
            return folder
        # Lists are empty on a machine made from an image; only root may fetch them.
        for command in ([apt, "download", package], [apt, "update"], [apt, "download", package]):
            if not list(Path(half).glob("*.deb")):
                done = subprocess.run(command, cwd=half, capture_output=True, text=True, check=False)
        files = list(Path(half).glob("*.deb"))
        if not files:
            raise UnavailableError(f"the Debian package {package} cannot be downloaded: {done.stderr[-1000:]}")
        subprocess.run([dpkg, "-x", str(files[0]), str(Path(half, "files"))], check=True)
        Path(half, "files").rename(folder)
    return folder


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold a file's lock against other processes."""
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
