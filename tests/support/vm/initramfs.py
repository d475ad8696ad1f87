"""What the kernel starts with: busybox, the modules that lead to the root disk, and a script that goes there.

Format: https://docs.kernel.org/driver-api/early-userspace/buffer-format.html (newc).
"""

import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Final

WANTED: Final = ("virtio_pci", "virtio_blk", "virtio_net", "virtio-rng", "crc32c_generic", "ext4")
"""Modules, which no udev will load later; ext4 asks for crc32c by name and modules.dep does not know it."""
INIT: Final = """\
#!/bin/busybox sh
/bin/busybox mkdir -p /proc /sys /dev /new
/bin/busybox mount -t proc proc /proc
/bin/busybox mount -t sysfs sysfs /sys
/bin/busybox mount -t devtmpfs devtmpfs /dev
while read -r module; do /bin/busybox insmod "/modules/$module"; done < /modules/order
/bin/busybox mount -t ext4 -o noatime /dev/vda /new
for name in proc sys dev; do /bin/busybox mount --move "/$name" "/new/$name"; done
exec /bin/busybox switch_root /new /usr/lib/systemd/systemd
"""


def build(tree: Path, release: str) -> bytes:
    """Return the archive.

    Args:
        tree: With `/bin/busybox` and the kernel's modules in it.
        release: The kernel's, as `uname -r` says it.
    """
    modules = tree / "usr/lib/modules" / release
    paths = _in_order(modules)
    folder, program = stat.S_IFDIR | 0o755, stat.S_IFREG | 0o755
    entries = [(name, folder, b"") for name in ("bin", "modules")]
    entries.append(("bin/busybox", program, (tree / "usr/bin/busybox").read_bytes()))
    entries.append(("init", program, INIT.encode()))
    entries.append(("modules/order", program, "".join(f"{Path(path).name}\n" for path in paths).encode()))
    entries += [(f"modules/{Path(path).name}", program, (modules / path).read_bytes()) for path in paths]
    return b"".join(_newc([*entries, ("TRAILER!!!", 0, b"")]))


def _in_order(modules: Path) -> list[str]:
    # A line of modules.dep: what it is of, then all it needs, the nearest first.
    lines = (line.partition(":") for line in (modules / "modules.dep").read_text().splitlines())
    needs = {Path(name).stem: [*reversed(rest.split()), name] for name, _, rest in lines}
    return list(dict.fromkeys(path for wanted in WANTED for path in needs[wanted]))


def _newc(entries: list[tuple[str, int, bytes]]) -> Iterator[bytes]:
    for number, (name, mode, content) in enumerate(entries, 1):
        fields = (number, mode, 0, 0, 1, 0, len(content), 0, 0, 0, 0, len(name) + 1, 0)
        header = b"070701" + b"".join(b"%08X" % field for field in fields) + name.encode() + b"\0"
        yield _padded(header)
        yield _padded(content)


def _padded(content: bytes) -> bytes:
    return content + bytes(-len(content) % 4)
