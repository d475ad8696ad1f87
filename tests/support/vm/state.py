"""A node's saved state: booted once, everything read that a test will need, and gone on from by every test module."""

import contextlib
import json
import os
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from containerd import images

from vm import root, tree
from vm.kept import digest, kept
from vm.machine import DISKS, HARDWARE, KERNEL_LINE, Machine
from vm.node import LISTENS, Node
from vm.programs import need

DISK_SIZE: Final = 1 << 30
"""Of each disk but the root's; files on the host are sparse."""


@contextlib.contextmanager
def start(folder: Path) -> Iterator[Node]:
    """Run a node that goes on from the saved state, which is made where it is absent (in about two minutes).

    Args:
        folder: An empty one, for the files of this run.

    Raises:
        UnavailableError: The machine cannot have a node.
    """
    need("qemu-system-x86_64")
    with _saved() as saved, _running(Machine(folder, saved, saved, saved / "memory", saved=saved / "state")) as node:
        node.set_clock()
        yield node


@contextlib.contextmanager
def _running(started: Machine) -> Iterator[Node]:
    try:
        node = Node(started)
        yield node
        node.close()
    finally:
        started.kill()


@contextlib.contextmanager
def _saved() -> Iterator[Path]:
    trunk = tree.key()
    disk = root.key(trunk)
    emulator = subprocess.run([need("qemu-system-x86_64"), "--version"], capture_output=True, check=True).stdout
    own = [Path(__file__), Path(str(images.__file__))]
    key = digest(disk, emulator, json.dumps([HARDWARE, KERNEL_LINE, DISKS]), *own)
    with kept("node-state", key, lambda folder: _save(folder, trunk, disk)) as folder:
        yield folder


def _save(folder: Path, trunk: str, disk: str) -> None:
    with kept("node-tree", trunk, tree.build) as made:
        root.build(folder, made)
    for name in DISKS[1:]:
        os.truncate(_touched(folder / name), DISK_SIZE)
    with tempfile.TemporaryDirectory(prefix="noisegate-node-") as run:
        booted = Machine(Path(run), folder, folder, folder / "memory")
        with contextlib.ExitStack() as ends:
            ends.callback(booted.kill)
            booted.await_console(LISTENS, 120)
            node = Node(booted)
            _prepare(node, Path(run))
            node.close()
            booted.save(folder / "state")


def _prepare(node: Node, folder: Path) -> None:
    node.sh(
        "systemctl is-system-running --wait || { systemctl --failed; journalctl --boot --no-pager | tail -n 30; exit 1; }"
    )
    images.write(folder / "images.tar")
    node.start_containerd()
    node.run("ctr", "--namespace", "k8s.io", "images", "import", "-", given=(folder / "images.tar").read_bytes())
    # What is read now is in the page cache of every node that goes on from here.
    node.run("ctr", "--namespace", "k8s.io", "run", "--rm", images.BUSYBOX, "warm", "true")
    node.containerd.stop()
    node.run("kubelet", "--version")
    node.run("fio", "--version")
    node.run(
        "python3", "-c", "import asyncio, ssl, msgspec, pydantic, yaml, prometheus_client, google.protobuf.message"
    )
    node.run("sync")


def _touched(path: Path) -> Path:
    path.touch()
    return path
