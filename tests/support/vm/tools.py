"""What loads a container's disk and network: the node's own programs, seen in a container through read-only mounts."""

from typing import Final

from containerd.cri_pb2 import Mount

FOLDERS: Final = {"/usr": "/usr", "/lib": "/usr/lib", "/lib64": "/usr/lib64"}
"""Paths in a container of busybox, and what is there of the node: programs and the libraries they ask for."""
FIO: Final = ("/usr/bin/fio", "--name=load", "--ioengine=libaio", "--iodepth=8", "--time_based", "--runtime=600")


def mounts() -> list[Mount]:
    """Return the mounts by which a container has the node's programs."""
    return [Mount(container_path=here, host_path=there, readonly=True) for here, there in FOLDERS.items()]


def fio(path: str, kind: str, *, block: str = "1M", size: str = "64M", direct: bool = True) -> list[str]:
    """Return a command that loads a file's disk until it is ended.

    Args:
        path: The file.
        kind: `read`, `write`, `randread` or `randwrite`.
        block: Size of a request.
        size: Of the file.
        direct: Whether the page cache is passed by.
    """
    return [*FIO, f"--filename={path}", f"--rw={kind}", f"--bs={block}", f"--size={size}", f"--direct={int(direct)}"]
