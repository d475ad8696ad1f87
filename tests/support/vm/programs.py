"""What the tier needs of the machine it runs on; a fresh Debian has none of it."""

import os
import shutil
import subprocess
import sys
from typing import Final

from tiers import UnavailableError

PACKAGES: Final = {
    "qemu-system-x86_64": "qemu-system-x86",
    "mmdebstrap": "mmdebstrap",
    "mkfs.ext4": "e2fsprogs",
    "unshare": "util-linux",
}
"""Each program's Debian package."""


def need(program: str) -> str:
    """Return a program's path; install its package where it is absent.

    Raises:
        UnavailableError: It is not there and cannot be installed.
    """
    if os.geteuid() != 0:
        raise UnavailableError("only root can build and run a node: run it as root")
    path = shutil.which(program)
    if path is not None:
        return path
    package = PACKAGES[program]
    apt = shutil.which("apt-get")
    if apt is None:
        raise UnavailableError(f"{program} is absent: install it (Debian's package is {package})")
    print(f"installing {package} ...", file=sys.stderr, flush=True)
    quiet = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    installing = [apt, "install", "--yes", "--quiet=2", "--no-install-recommends", package]
    for command in ([apt, "update", "--quiet=2"], installing):
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=quiet)
    path = shutil.which(program)
    if path is None:
        raise UnavailableError(f"{program} is absent and apt-get install {package} failed: {done.stderr[-1000:]}")
    return path
