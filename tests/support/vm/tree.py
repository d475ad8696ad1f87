"""A Debian tree for the node: systemd, a kernel, what the tests measure with, and the libraries noisegate stands on."""

import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Final

from tiers import UnavailableError

from vm.kept import digest
from vm.programs import need

SUITE: Final = "bookworm"
"""Debian 12: kernel 6.1, systemd 252, Python 3.11."""
PACKAGES: Final = (
    "usr-is-merged", "systemd", "systemd-sysv", "dbus", "kmod", "procps", "python3", "busybox-static",
    "fio", "iperf3", "iproute2",
    "e2fsprogs", "fdisk", "lvm2", "dmsetup", "fuse2fs", "nfs-common", "nfs-kernel-server",
)  # fmt: skip
WHEELS: Final = "opt/wheels"
"""Where the libraries are in the tree; a .pth file makes Debian's python3 look there."""
GLIBC: Final = tuple(
    f"--platform={tag}_x86_64" for tag in (*(f"manylinux_2_{minor}" for minor in range(36, 16, -1)), "manylinux2014")
)
"""What Debian 12's glibc 2.36 can load, the newest first."""
MODULES: Final = (
    "crypto", "lib", "arch/x86/crypto", "net",
    "fs/autofs", "fs/ext4", "fs/fscache", "fs/fuse", "fs/jbd2", "fs/lockd", "fs/mbcache.ko", "fs/netfs", "fs/nfs", "fs/nfs_common",
    "fs/nfsd", "fs/overlayfs",
    "drivers/block", "drivers/char/hw_random", "drivers/md", "drivers/virtio",
    "drivers/net/dummy.ko", "drivers/net/ifb.ko", "drivers/net/macvlan.ko", "drivers/net/net_failover.ko", "drivers/net/veth.ko",
    "drivers/net/virtio_net.ko",
)  # fmt: skip
"""What is kept of the kernel's modules: 300 MB of drivers are of no use to a machine that has four devices."""
UNNEEDED: Final = (
    "usr/share/doc", "usr/share/man", "usr/share/locale", "usr/share/info", "usr/share/i18n", "usr/share/zoneinfo",
    "usr/share/perl", "usr/share/bash-completion", "usr/share/lintian", "usr/lib/x86_64-linux-gnu/gconv", "usr/lib/udev/hwdb.d",
    "usr/lib/systemd/catalog", "var/lib/apt/lists", "var/cache/apt", "var/cache/debconf", "var/log",
)  # fmt: skip
_PROJECT: Final = Path(__file__).parents[3] / "pyproject.toml"
_KERNEL: Final = (
    'set -e; export APT_CONFIG="$MMDEBSTRAP_APT_CONFIG"; cd "$1/tmp"; '
    "name=$(apt-cache depends linux-image-amd64 | sed -n 's/^ *Depends: //p' | head -n 1); "
    'apt-get download "$name"; dpkg-deb --fsys-tarfile "$name"_*.deb | tar --extract --keep-directory-symlink --directory="$1"; rm "$name"_*.deb'
)
"""The kernel's package is unpacked, not installed: installing it would make an initramfs that is not used."""


def key() -> str:
    """Return the digest of what the tree is made from."""
    return digest(SUITE, *PACKAGES, *_requirements(), Path(__file__))


def build(folder: Path) -> None:
    """Fill a folder with `tree/`, `vmlinuz` and `release` (the kernel's).

    Raises:
        UnavailableError: A program is missing, or the packages cannot be had.
    """
    tree = folder / "tree"
    excluded = [f"--dpkgopt=path-exclude=/usr/share/{name}/*" for name in ("doc", "man", "locale", "info")]
    command = [
        need("unshare"), "--mount", "--propagation", "private",
        need("mmdebstrap"), "--mode=root", "--variant=minbase", "--format=directory", "--quiet",
        f"--include={','.join(PACKAGES)}", '--aptopt=APT::Install-Recommends "false"', *excluded,
        f"--customize-hook={_KERNEL}", SUITE, str(tree),
    ]  # fmt: skip
    _run(*command)
    _keep_modules(tree, folder)
    _install_wheels(tree)
    for name in UNNEEDED:
        shutil.rmtree(tree / name, ignore_errors=True)
        (tree / name).mkdir(parents=True)


def _keep_modules(tree: Path, folder: Path) -> None:
    (image,) = (tree / "boot").glob("vmlinuz-*")
    release = image.name.removeprefix("vmlinuz-")
    shutil.copy(image, folder / "vmlinuz")
    (folder / "release").write_text(release)
    shutil.rmtree(tree / "boot")
    modules = tree / "usr/lib/modules" / release
    kernel = modules / "kernel"
    for path in [path for path in kernel.rglob("*.ko*") if not _is_kept(path.relative_to(kernel))]:
        path.unlink()
    _run("chroot", str(tree), "depmod", release)


def _is_kept(path: Path) -> bool:
    return any(path.is_relative_to(name) or str(path).startswith(f"{name}") for name in MODULES)


def _install_wheels(tree: Path) -> None:
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-compile"]
    binary = ["--only-binary=:all:", "--python-version=3.11", "--implementation=cp", *GLIBC]
    _run(*pip, *binary, f"--target={tree / WHEELS}", *_requirements())
    (tree / "usr/lib/python3/dist-packages/noisegate.pth").write_text(f"/opt/noisegate\n/{WHEELS}\n")
    # Byte code makes an import in an emulated machine three times as fast.
    _run("chroot", str(tree), "python3", "-m", "compileall", "-q", f"/{WHEELS}")


def _requirements() -> list[str]:
    project = tomllib.loads(_PROJECT.read_text())["project"]
    return sorted(
        {*project["dependencies"], *(line for room in ("node",) for line in project["optional-dependencies"][room])}
    )


def _run(*command: str) -> None:
    environment = {**os.environ, "PATH": f"{os.environ['PATH']}:/usr/sbin:/sbin"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    if done.returncode:
        raise UnavailableError(f"{' '.join(command[:6])} ...: {(done.stderr or done.stdout)[-2000:]}")
