"""eBPF programs that stand on a device through tcx (Linux 6.6), which rtnetlink does not tell: bpf(2), BPF_PROG_QUERY."""

import ctypes
import errno
import os
import platform
import struct
from typing import Final, Literal

Hook = Literal["ingress", "egress"]

SYSCALL: Final = {"x86_64": 321, "s390x": 351, "ppc64le": 361}.get(platform.machine(), 280)
"""Number of bpf(2); 280 where the kernel's generic table stands (aarch64, riscv64)."""
_PROG_QUERY: Final = 16
_ATTACH_TYPES: Final = {"ingress": 46, "egress": 47}
_MOST: Final = 64
"""A hook holds at most so many (BPF_MPROG_MAX, linux/bpf_mprog.h)."""
_QUERY: Final = struct.Struct("=IIIIQIIQQQQ")
"""union bpf_attr: target_ifindex, attach_type, query_flags, attach_flags, prog_ids, prog_cnt, ..."""

_libc: Final = ctypes.CDLL(None, use_errno=True)


def programs(ifindex: int, hook: Hook) -> tuple[int, ...]:
    """Return the ids of the programs at a hook of a device in this thread's network namespace.

    Raises:
        OSError: EPERM: it takes CAP_NET_ADMIN and, where kernel.unprivileged_bpf_disabled is set, CAP_BPF; a seccomp
            filter may say so too. ENODEV: the device has gone.
    """
    ids = (ctypes.c_uint32 * _MOST)()
    query = _QUERY.pack(ifindex, _ATTACH_TYPES[hook], 0, 0, ctypes.addressof(ids), _MOST, 0, 0, 0, 0, 0)
    attributes = ctypes.create_string_buffer(query, _QUERY.size)
    if _libc.syscall(SYSCALL, _PROG_QUERY, attributes, _QUERY.size) < 0:
        number = ctypes.get_errno()
        if number == errno.EINVAL:  # a kernel without tcx, or with none of bpf's attachments to devices
            return ()
        raise OSError(number, os.strerror(number))
    count = _QUERY.unpack(attributes.raw)[5]
    return tuple(ids[:count])
