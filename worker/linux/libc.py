# SPDX-License-Identifier: Apache-2.0
"""The one door to C: libc functions and system calls that raise `OSError` as `os` does."""

import ctypes
import os

_LIBC = ctypes.CDLL(None, use_errno=True)
_LIBC.syscall.restype = ctypes.c_long

SYS_OPEN_TREE = 428
SYS_MOVE_MOUNT = 429
SYS_FSOPEN = 430
SYS_FSCONFIG = 431
SYS_FSMOUNT = 432
SYS_OPENAT2 = 437
SYS_MOUNT_SETATTR = 442
"""Numbers since Linux 5.1 are the same on every architecture (alpha aside)."""


def call(function: str, *arguments: object) -> int:
    """Call a libc function that answers -1 on failure; integers are passed as C longs.

    Raises:
        OSError: With the errno the function set.
    """
    return _checked(getattr(_LIBC, function)(*map(_as_c, arguments)))


def system_call(number: int, *arguments: object) -> int:
    """Make a system call that libc may not wrap yet.

    Raises:
        OSError: With the errno the kernel answered; ENOSYS where it is too old.
    """
    return _checked(_LIBC.syscall(ctypes.c_long(number), *map(_as_c, arguments)))


def _as_c(argument: object) -> object:
    """Widen integers: ctypes would pass 32 bits and leave the upper half of the register undefined."""
    return ctypes.c_long(argument) if isinstance(argument, int) else argument


def _checked(result: int) -> int:
    if result == -1:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return result
