"""A node with RDT for tests: the fake by default, this machine's own resctrl with NOISEGATE_RDT=1 (make test-rdt).

On silicon only groups that begin with `noisegate-test-` are made, and all of them are removed again.
"""

import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from fakeresctrl import FakeResctrl

from noisegate.enforcement.kernel.resctrl import Resctrl

SILICON = os.environ.get("NOISEGATE_RDT") == "1"
CLASS = "test-"
"""Classes of tests begin so."""


class RdtNode(NamedTuple):
    """A machine with resctrl.

    Attributes:
        resctrl: As the enforcer uses it.
        start: Starts a thread in the root group and returns its id.
        end: Ends one.
    """

    resctrl: Resctrl
    start: Callable[[], int]
    end: Callable[[int], None]


@contextmanager
def rdt_node(folder: Path) -> Iterator[RdtNode]:
    """Yield a node and leave nothing of it behind."""
    if not SILICON:
        (folder / "resctrl").mkdir()
        fake = FakeResctrl(folder / "resctrl")
        numbers = iter(range(1000, 2000))

        def start() -> int:
            thread = next(numbers)
            fake.fork(1, thread)
            return thread

        yield RdtNode(Resctrl(fake.root, fake.mountinfo, fake), start, fake.end)
        return
    resctrl = Resctrl(Path("/sys/fs/resctrl"))
    running: dict[int, subprocess.Popen[bytes]] = {}

    def run() -> int:
        process = subprocess.Popen(["sleep", "60"])  # noqa: S607
        running[process.pid] = process
        return process.pid

    def stop(thread: int) -> None:
        process = running.pop(thread)
        process.kill()
        process.wait()

    try:
        yield RdtNode(resctrl, run, stop)
    finally:
        for thread in list(running):
            stop(thread)
        for name in resctrl.names():
            if name.startswith(f"noisegate-{CLASS}"):
                resctrl.remove(name)
