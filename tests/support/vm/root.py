"""The node's root disk: the Debian tree, the programs of a node, and the files of guest/."""

import shutil
import subprocess
from pathlib import Path
from typing import Final

from binaries import PACKAGES, RUNTIME, find

from vm import initramfs
from vm.kept import digest
from vm.programs import need

GUEST: Final = Path(__file__).with_name("guest")
FOLDERS: Final = ("etc/containerd", "etc/kubernetes", "etc/nri/conf.d", "opt/nri/plugins")
PROGRAMS: Final = ("kubelet", *RUNTIME)
MASKED: Final = (
    "blk-availability.service", "cryptsetup.target", "dev-hugepages.mount", "dev-mqueue.mount", "dm-event.socket",
    "integritysetup.target", "lvm2-lvmpolld.socket", "lvm2-monitor.service",
    "proc-sys-fs-binfmt_misc.automount", "sys-fs-fuse-connections.mount", "sys-kernel-config.mount", "sys-kernel-debug.mount",
    "sys-kernel-tracing.mount", "systemd-ask-password-console.path", "systemd-binfmt.service", "systemd-firstboot.service",
    "systemd-journal-flush.service", "systemd-logind.service", "systemd-machine-id-commit.service", "systemd-modules-load.service",
    "systemd-pcrphase-sysinit.service", "systemd-pcrphase.service", "systemd-pstore.service", "systemd-random-seed.service",
    "systemd-remount-fs.service", "systemd-repart.service", "systemd-sysusers.service", "systemd-udevd.service",
    "systemd-update-utmp.service", "veritysetup.target",
)  # fmt: skip
"""Units of a start that a machine made for one test has no use for; in emulation each costs tenths of a second."""


def key(tree: str) -> str:
    """Return the digest of what the disk is made from; `tree` is the tree's own."""
    files = sorted(path for path in GUEST.rglob("*") if path.is_file())
    programs = [str(find(name)) for name in PROGRAMS]
    own = [Path(__file__), Path(initramfs.__file__)]
    return digest(tree, *(str(path.relative_to(GUEST)) for path in files), *files, *programs, *own)


def build(folder: Path, made: Path) -> None:
    """Fill a folder with `root` (a raw ext4 disk), `vmlinuz` and `initrd`.

    Args:
        folder: An empty one.
        made: What `tree.build` made.
    """
    tree = folder / "tree"
    # Hard links: what is added or replaced here is not written through them.
    subprocess.run(["cp", "--archive", "--link", str(made / "tree"), str(tree)], check=True)
    for name in PROGRAMS:
        target = tree / ("opt/cni/bin" if PACKAGES[name][0] == "cni" else "usr/local/bin") / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(find(name), target)
    subprocess.run(["cp", "--recursive", "--remove-destination", f"{GUEST}/.", str(tree)], check=True)
    for name in FOLDERS:
        (tree / name).mkdir(parents=True, exist_ok=True)
    units = tree / "etc/systemd/system"
    for name in MASKED:
        (units / name).unlink(missing_ok=True)
        (units / name).symlink_to("/dev/null")
    (tree / "etc/fstab").unlink(missing_ok=True)
    disk = folder / "root"
    with disk.open("wb") as file:
        file.truncate(4 << 30)
    lazy = ["-E", "lazy_itable_init=1,lazy_journal_init=1,nodiscard", "-O", "^has_journal", "-m", "0"]
    subprocess.run([need("mkfs.ext4"), "-q", "-F", "-d", str(tree), *lazy, str(disk)], check=True)
    shutil.rmtree(tree)
    shutil.copy(made / "vmlinuz", folder / "vmlinuz")
    release = (made / "release").read_text()
    (folder / "initrd").write_bytes(initramfs.build(made / "tree", release))
