"""One QEMU process: emulated in software, since test machines have no KVM that works."""

import contextlib
import os
import socket
import subprocess
import time
from pathlib import Path
from typing import Final

from controlplane.plane import dies_with_us

from vm.programs import need
from vm.qmp import Qmp, QmpError

MEMORY: Final = "2G"
ADDRESS: Final = "10.0.2.15"
"""Of the machine, in QEMU's user network; 10.0.2.2 is the host's loopback."""
DISKS: Final = ("root", "whole", "parted", "volumes", "linear")
"""Its disks in order: /dev/vda, /dev/vdb and so on."""
KERNEL_LINE: Final = (
    "console=ttyS0 quiet panic=-1 mitigations=off nokaslr audit=0 lsm= nowatchdog rcupdate.rcu_expedited=1 tsc=reliable "
    "cgroup_no_v1=all psi=1 systemd.unit=node.target"
)
HARDWARE: Final = (
    "-accel", "tcg,thread=multi,tb-size=1024", "-cpu", "Westmere", "-smp", "2", "-m", MEMORY,
    "-machine", "q35,memory-backend=ram",
    "-nodefaults", "-display", "none", "-action", "reboot=shutdown",
    "-device", "virtio-rng-pci",
    "-netdev", "user,id=net,ipv6=off", "-device", "virtio-net-pci,netdev=net,romfile=",
)  # fmt: skip


class Machine:
    """A machine that runs.

    Attributes:
        folder: Where its console.log is.
        qmp: Its monitor.
    """

    def __init__(self, folder: Path, kernel: Path, disks: Path, memory: Path, *, saved: Path | None = None) -> None:
        """Start it.

        Args:
            folder: For the files of this run.
            kernel: Folder of `vmlinuz` and `initrd`.
            disks: Folder of its disks.
            memory: File that its memory is.
            saved: State it goes on from; it then changes neither disks nor memory, what it writes is gone with it.
        """
        # A machine that is saved writes its memory into the file; one that goes on from it maps the file privately.
        backend = f"memory-backend-file,id=ram,size={MEMORY},mem-path={memory},share={'off' if saved else 'on'}"
        command = [
            need("qemu-system-x86_64"), *HARDWARE, "-object", backend,
            "-kernel", str(kernel / "vmlinuz"), "-initrd", str(kernel / "initrd"), "-append", KERNEL_LINE,
            "-serial", f"file:{folder / 'console.log'}", "-qmp", f"unix:{folder / 'qmp'},server=on,wait=off",
        ]  # fmt: skip
        for name in DISKS:
            drive = f"file={disks / name},format=raw,if=none,id={name},cache=unsafe,aio=threads"
            command += ["-drive", f"{drive},snapshot={'on' if saved else 'off'}"]
            command += ["-device", f"virtio-blk-pci,drive={name}"]
        if saved:
            command += ["-incoming", "defer"]
        self.folder: Final = folder
        self._log: Final = folder / "qemu.log"
        with self._log.open("wb") as log:
            self._process: Final = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                preexec_fn=dies_with_us,  # noqa: PLW1509 - the thread that starts it lives as long as the tests
                env={**os.environ, "TMPDIR": str(folder)},  # of snapshot=on
            )
        try:
            self.qmp: Final = Qmp(folder / "qmp")
            if saved:
                self._go_on(saved)
        except QmpError as error:
            self.kill()
            raise RuntimeError(f"QEMU did not start: {error}\n{self._log.read_text()}") from error

    def forward(self, port: int = 0) -> int:
        """Make a port of the machine a port of the host's loopback; return that. 0: a free one, the same on both sides."""
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            host_port: int = free.getsockname()[1]
        told = self.qmp.human(f"hostfwd_add net tcp:127.0.0.1:{host_port}-{ADDRESS}:{port or host_port}")
        assert not told, told
        return host_port

    def await_console(self, text: str, seconds: float, times: int = 1) -> None:
        """Wait until the console has said something, so many times."""
        end = time.monotonic() + seconds
        while self.console().count(text) < times:
            if not self.runs or time.monotonic() > end:
                raise RuntimeError(f"the machine never said {text!r}:\n{self.console()[-3000:]}")
            time.sleep(0.05)

    def console(self) -> str:
        """Return all that its console has said."""
        path = self.folder / "console.log"
        return path.read_text(errors="replace") if path.exists() else ""

    def save(self, path: Path) -> None:
        """Write its state, without its memory, and end it."""
        self.qmp.do("stop")
        self._migrate("migrate", f"exec:cat > {path}")
        self.qmp.do("quit")
        self.wait(30)
        if not path.stat().st_size:
            raise RuntimeError(f"the machine's state was not written: {self._log.read_text()}")

    def _go_on(self, saved: Path) -> None:
        self._migrate("migrate-incoming", f"exec:cat {saved}")
        self.qmp.do("cont")

    def _migrate(self, command: str, uri: str) -> None:
        # Memory is shared through its file (docs/about: x-ignore-shared), so that a state is small and read in no time.
        capability = {"capability": "x-ignore-shared", "state": True}
        self.qmp.do("migrate-set-capabilities", capabilities=[capability])
        self.qmp.do(command, uri=uri)
        while (status := self.qmp.do("query-migrate").get("status")) != "completed":
            if status == "failed" or not self.runs:
                raise QmpError(f"{command} {uri}: {status}")
            time.sleep(0.02)

    @property
    def runs(self) -> bool:
        """Whether the process is there."""
        return self._process.poll() is None

    def wait(self, seconds: float) -> int:
        """Wait for the end of the process; return its exit code."""
        code = self._process.wait(seconds)
        self.qmp.close()
        return code

    def kill(self) -> None:
        """End it at once, as a power cut does."""
        self._process.kill()
        self._process.wait()
        with contextlib.suppress(AttributeError):
            self.qmp.close()
