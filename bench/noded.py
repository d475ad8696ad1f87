"""The enforcer's own process on a node that is half made up: `python -m bench.noded CONFIG`, for bench.node.

Real are the process, its ledger, sysfs, mounts, interfaces and queueing disciplines; the cgroups are plain files that
behave as io.max does. It has a mount namespace of its own, with as many mounts as a node with 250 pods has.
"""

import argparse
import asyncio
import ctypes
import os
import sys
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT / "tests" / "support")]

from fakecgroup import FakeCgroupTree  # noqa: E402

from noisegate.enforcement import config, daemon, survey  # noqa: E402
from noisegate.enforcement.actions import Device  # noqa: E402
from noisegate.service.log import Log, take_over  # noqa: E402

_NEW_MOUNTS: Final = 0x20000
_BIND: Final = 0x1000
_RECURSIVE: Final = 0x4000
_PRIVATE: Final = 1 << 18


def main() -> int:
    """Run the enforcer; return its exit status."""
    parser = argparse.ArgumentParser(prog="python -m bench.noded", description=__doc__)
    parser.add_argument("config", type=Path)
    parser.add_argument("--mounts", type=Path, metavar="FOLDER", help="bind each folder in it to itself")
    parser.add_argument("--all-seconds", type=float, default=daemon.ALL_SECONDS, help="between looks at every pod")
    given = parser.parse_args()
    if given.mounts:
        _mount(given.mounts)
    settings = config.load(given.config.read_bytes(), str(given.config), "bench")
    disks = {Device(*map(int, entry.name.split(":"))) for entry in Path(settings.sys, "dev/block").iterdir()}
    # No setting says so: on a node the cgroups are the kernel's.
    vars(survey)["CgroupTree"] = lambda root: FakeCgroupTree(root, disks)
    vars(daemon)["ALL_SECONDS"] = given.all_seconds
    log = Log(form="text")
    take_over(log)
    return asyncio.run(daemon.serve(settings, "bench", log))


def _mount(folder: Path) -> None:
    libc = ctypes.CDLL(None, use_errno=True)

    def checked(result: int) -> None:
        if result < 0:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))

    checked(libc.unshare(_NEW_MOUNTS))
    checked(libc.mount(b"none", b"/", None, _RECURSIVE | _PRIVATE, None))
    for path in folder.iterdir():
        name = str(path).encode()
        checked(libc.mount(name, name, None, _BIND, None))


if __name__ == "__main__":
    sys.exit(main())
