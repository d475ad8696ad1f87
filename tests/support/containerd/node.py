"""A node's namespaces: what runs in them sees a machine of its own and cannot touch the real one's cgroups or network."""

import os
import signal
import subprocess
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from debian import unpacked
from tiers import UnavailableError

from containerd.cgroups import Cgroups

SCRIPT: Final = Path(__file__).with_name("node.sh")


class Node:
    """Mount, network, pid and cgroup namespaces with one process that holds them, until the node is left.

    All that runs in it ends with it, and with this process too: the kernel kills a pid namespace whose first process dies.
    It has a /run of its own, a copy of /var/lib, and a network with nothing but `lo`; the rest of the file system is shared.

    Args:
        folder: For its files; not below /run.

    Attributes:
        folder: Its files.
        cgroups: Its part of the machine's cgroups.
        busybox: A static busybox, for commands in the node.
        pid: Of the process that holds the namespaces, as this process counts.
    """

    def __init__(self, folder: Path) -> None:
        assert not folder.is_relative_to("/run"), "a node has a /run of its own"
        self.folder: Final = folder
        self.cgroups: Final = Cgroups()
        self.busybox = Path()
        self.pid = 0
        self._table: Final = folder / "hierarchies"
        self._process: subprocess.Popen[str]

    def __enter__(self) -> Self:
        if os.geteuid() != 0:
            raise UnavailableError("root is needed, for namespaces and cgroups; run it as root")
        self.busybox = unpacked("busybox-static") / "bin/busybox"
        self._table.write_text(
            "".join(f"{one.kind} {one.option} {one.mount}\n" for one in self.cgroups.hierarchies), encoding="ascii"
        )
        try:
            self.cgroups.create()
        except OSError as error:
            raise UnavailableError(f"cgroups of our own cannot be made: {error}") from None
        # A signal at the death of its parent, which an exec keeps (prctl(2)); unshare hands it on.
        self._process = subprocess.Popen(
            ["setpriv", "--pdeathsig", "KILL", *self._script("make"), str(self.busybox)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        assert self._process.stdout is not None
        told = self._process.stdout.readline()
        if not told:
            _, why = self._process.communicate()
            self.cgroups.remove()
            raise UnavailableError(f"namespaces of our own cannot be made: {why.strip()}")
        self.pid = int(told)
        self.cgroups.delegate()
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        # unshare waits for it, and it is gone when all that is in the pid namespace is (pid_namespaces(7)).
        os.kill(self.pid, signal.SIGKILL)
        self._process.communicate()
        self.cgroups.remove()

    @property
    def root(self) -> Path:
        """Its file system as this process reaches it.

        `root / "proc" / str(pid)` is for pids as the node counts, such as a runtime tells them; `root / "sys/fs/cgroup"`
        are its cgroups, and `root / "run/netns"` the networks of its pods.
        """
        return Path("/proc", str(self.pid), "root")

    def command(self, *words: str) -> list[str]:
        """Return the command that runs a command in the node."""
        spaces = ("--mount", "--net", "--pid", "--cgroup", "--wd=/")
        return ["nsenter", f"--target={self.pid}", *spaces, "--", *self._script("enter"), *words]

    def run(self, *words: str) -> str:
        """Run a command in the node, and return what it printed.

        Raises:
            AssertionError: It failed; its error output is told.
        """
        done = subprocess.run(self.command(*words), capture_output=True, text=True, check=False, timeout=60)
        assert done.returncode == 0, f"{' '.join(words)}: exit {done.returncode}: {done.stderr}{done.stdout}"
        return done.stdout

    def cgroup(self, controller: str, path: str) -> Path:
        """Return the folder of a cgroup, of a v1 controller or of the one hierarchy of v2, by its path in the node."""
        for one in self.cgroups.hierarchies:
            if one.kind == "cgroup2" and one.mount == Path("/sys/fs/cgroup"):
                return one.mount / self.cgroups.name / path.lstrip("/")
            if controller in one.option.split(","):
                return one.mount / self.cgroups.name / path.lstrip("/")
        raise AssertionError(f"no hierarchy of controller {controller}")

    def _script(self, stage: str) -> list[str]:
        return ["sh", str(SCRIPT), stage, str(self._table), self.cgroups.name]
