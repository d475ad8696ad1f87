"""A node that tests use: commands and files in it, its runtime, its pods' cgroups, its end."""

import contextlib
import functools
import io
import itertools
import os
import tarfile
import time
import uuid
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

from containerd.config import Nri
from containerd.cri import Cri, CriError, Pod

from vm import podcgroups, runtime
from vm.channel import Channel, Ran, Sample
from vm.door import Door
from vm.machine import Machine
from vm.service import Service

AGENT: Final = 7000
DISKS: Final = ("/srv/whole", "/srv/partition", "/srv/logical", "/srv/linear")
"""File systems on a whole disk, a partition, a logical volume of LVM and a linear target of device-mapper."""
LISTENS: Final = "agent listens"
"""What the agent says on the console when it can be spoken to."""


class CommandError(AssertionError):
    """A command failed in the machine: what it was and what it said."""


class Node:
    """A machine with Linux of Debian, cgroup v2, systemd as its first process, and a container runtime.

    Attributes:
        machine: What it runs in.
        containerd: The runtime; it does not run until `start_containerd`.
        kubelet: Likewise.
        systemd_cgroup: Whether systemd makes the containers' cgroups; `start_containerd` decides.
    """

    def __init__(self, machine: Machine) -> None:
        self.machine: Final = machine
        self._channel: Final = Channel(machine.forward(AGENT))
        self.containerd: Final = Service(self, "containerd", "/var/log/containerd.log")
        self.kubelet: Final = Service(self, "kubelet", "/var/log/kubelet.log")
        self.systemd_cgroup = True
        self._numbers: Final = itertools.count(1)
        self._ends: Final = contextlib.ExitStack()

    def run(
        self,
        *argv: str,
        timeout: float = 60.0,
        check: bool = True,
        given: bytes = b"",
        cgroup: str = "",
    ) -> Ran:
        """Run a command to its end.

        Args:
            argv: The program and its arguments.
            timeout: Seconds until it is killed, with all that it started in its session.
            check: Whether its failure is ours.
            given: Its stdin.
            cgroup: Folder below /sys/fs/cgroup that it joins first.

        Raises:
            CommandError: It failed or was late, and `check` is set.
        """
        if cgroup:
            argv = ("sh", "-c", 'echo $$ > "/sys/fs/cgroup$0/cgroup.procs" && exec "$@"', cgroup, *argv)
        ran = self._channel.run(argv, timeout, given)
        if check and (ran.code or ran.late):
            how = f"killed after {timeout:g} s" if ran.late else f"exit code {ran.code}"
            raise CommandError(f"{' '.join(argv)}: {how}\n{ran.out[-4000:]}{ran.err[-4000:]}")
        return ran

    def sh(self, script: str, *, timeout: float = 60.0, check: bool = True) -> str:
        """Run a script of sh; return what it prints, without the last line's end."""
        return self.run("sh", "-ec", script, timeout=timeout, check=check).out.rstrip("\n")

    def sample(self, *paths: str) -> Sample:
        """Read files at one moment, for rates."""
        return self._channel.read(*paths)

    def read(self, path: str) -> str:
        """Read a file.

        Raises:
            OSError: It cannot be read there.
        """
        sample = self._channel.read(path)
        if sample.errors[0]:
            raise OSError(sample.errors[0], os.strerror(sample.errors[0]), path)
        return sample.texts[0]

    def write(self, path: str, text: str) -> None:
        """Write a text in one call, as kernel files want it.

        Raises:
            OSError: It cannot be written there.
        """
        error = self._channel.write(path, text)
        if error:
            raise OSError(error, os.strerror(error), path)

    def device(self, path: str) -> str:
        """Return the device that a mounted folder lies on, as `8:0`."""
        return self.sh(f"findmnt --noheadings --output MAJ:MIN --target {path}").strip()

    def push(self, paths: Iterable[Path], target: str, *, without: Iterable[str] = ("__pycache__",)) -> None:
        """Copy files and folders of the host into a folder; links are followed.

        Args:
            paths: On the host; each keeps its last name.
            target: The folder in the machine, made where it is absent.
            without: Names that are left out wherever they are.
        """
        unwanted = frozenset(without)
        packed = io.BytesIO()
        with tarfile.open(fileobj=packed, mode="w", dereference=True) as tar:
            for path in paths:
                tar.add(
                    path, path.name, filter=lambda entry: None if Path(entry.name).name in unwanted else _as_root(entry)
                )
        self.run("mkdir", "-p", target)
        self.run("tar", "-x", "-C", target, given=packed.getvalue())

    def start(self, name: str, *argv: str, env: dict[str, str] | None = None) -> Service:
        """Start a program that goes on, as a service of systemd with a log of its own."""
        log = f"/var/log/{name}.log"
        settings = [f"--setenv={key}={value}" for key, value in (env or {}).items()]
        out = [f"--property=StandardOutput=append:{log}", f"--property=StandardError=append:{log}"]
        ours = ["--property=KillMode=process", "--property=DefaultDependencies=no", "--property=TasksMax=infinity"]
        self.run("systemctl", "reset-failed", f"{name}.service", check=False)
        self.run("systemd-run", "--quiet", f"--unit={name}", *out, *ours, *settings, "--", *argv)
        return Service(self, name, log)

    def socket(self, path: str) -> Path:
        """Return a unix socket of the host that leads to one of the machine's."""
        door = self.machine.folder / f"{Path(path).name}.{next(self._numbers)}"
        self._ends.enter_context(Door(door, lambda: self._channel.connect(path)))
        return door

    @functools.cached_property
    def cri(self) -> Cri:
        """A client of the runtime; it stays when the runtime is started again."""
        client = Cri(self.socket(runtime.SOCKET))
        self._ends.callback(client.close)
        return client

    def run_pod(self, *, qos: str = "burstable", **options: Any) -> Pod:
        """Make a pod's cgroup as the kubelet does, and run a sandbox in it; what else there is goes to `Cri.run_pod`."""
        uid = options.pop("uid", "") or str(uuid.uuid4())
        create = podcgroups.create_slice if self.systemd_cgroup else podcgroups.create_folder
        return self.cri.run_pod(uid=uid, cgroup=create(self, uid, qos), **options)

    def start_containerd(self, nri: Nri = Nri(request=10.0, validator=True), *, systemd_cgroup: bool = True) -> None:  # noqa: B008
        """Start the runtime, or start it again otherwise configured.

        Args:
            nri: How plugins are treated. Emulation is slow: 2 seconds are soon gone.
            systemd_cgroup: Whether systemd makes the containers' cgroups.
        """
        self.systemd_cgroup = systemd_cgroup
        self.write(runtime.CONFIG, runtime.toml(nri, systemd_cgroup=systemd_cgroup))
        self.containerd.restart()
        self.await_runtime()

    def await_runtime(self, seconds: float = 60.0) -> None:
        """Wait until the runtime can be asked for pods: its socket answers a little before."""
        end = time.monotonic() + seconds
        while True:
            try:
                if not (lacking := str(self.cri.not_ready() or "")):
                    return
            except CriError as error:
                lacking = str(error)
            assert time.monotonic() < end, f"the runtime is not ready: {lacking}\n{self.containerd.log()[-3000:]}"
            time.sleep(0.05)

    def set_clock(self) -> None:
        """Set the machine's clock to the host's: a state that was saved has its time."""
        self.run("date", "--utc", "--set", f"@{time.time():.3f}")

    def power_off(self) -> int:
        """Shut down as an operator does; return QEMU's exit code."""
        # logind, which `systemctl poweroff` asks, is not here.
        self.run("systemctl", "start", "--no-block", "--job-mode=replace-irreversibly", "poweroff.target")
        self._channel.close()
        return self.machine.wait(60)

    def reboot(self) -> None:
        """Shut down and boot again, from the disks as they are."""
        self.machine.qmp.do("set-action", reboot="reset")
        heard = self.machine.console().count(LISTENS)
        self.run("systemctl", "start", "--no-block", "--job-mode=replace-irreversibly", "reboot.target")
        self._channel.close()
        self.machine.await_console(LISTENS, 400, heard + 1)

    def close(self) -> None:
        """Close the connections to it."""
        self._ends.close()
        self._channel.close()


def _as_root(entry: tarfile.TarInfo) -> tarfile.TarInfo:
    entry.uid = entry.gid = 0
    entry.uname = entry.gname = "root"
    return entry
