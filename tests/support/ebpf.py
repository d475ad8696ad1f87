"""The smallest eBPF classifiers, loaded through bpf(2): each answers one verdict for every frame."""

import ctypes
import os
import struct
from typing import Final

from noisegate.enforcement.kernel.tcx import SYSCALL, Hook

_PROG_LOAD: Final = 5
_LINK_CREATE: Final = 28
_SCHED_CLS: Final = 3
_ATTACH_TYPES: Final = {"ingress": 46, "egress": 47}
_libc: Final = ctypes.CDLL(None, use_errno=True)


def _bpf(command: int, attributes: bytes) -> int:
    result = int(
        _libc.syscall(SYSCALL, command, ctypes.create_string_buffer(attributes, len(attributes)), len(attributes))
    )
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result


def classifier(verdict: int) -> int:
    """Load a program that answers a verdict (TC_ACT_*, TCX_*), and return its file descriptor."""
    # Register 0 is the answer: BPF_ALU64 | BPF_MOV | BPF_K, then BPF_JMP | BPF_EXIT.
    code = ctypes.create_string_buffer(struct.pack("=BBhi", 0xB7, 0, 0, verdict) + struct.pack("=BBhi", 0x95, 0, 0, 0))
    licence = ctypes.create_string_buffer(b"GPL")
    head = struct.pack("=IIQQIIQII", _SCHED_CLS, 2, ctypes.addressof(code), ctypes.addressof(licence), 0, 0, 0, 0, 0)
    return _bpf(_PROG_LOAD, head + b"verdict".ljust(16, b"\0"))


def attach(program: int, ifindex: int, hook: Hook) -> int:
    """Attach a program through tcx, for as long as the returned file is open."""
    return _bpf(_LINK_CREATE, struct.pack("=IIII16x", program, ifindex, _ATTACH_TYPES[hook], 0))
