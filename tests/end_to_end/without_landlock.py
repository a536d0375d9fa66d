"""Runs a command on a kernel without Landlock: a seccomp filter answers its first call as if it were not there.

That is what the container runtimes of some years do. The filter is inherited, and cannot be taken off again.
"""

import ctypes
import errno
import os
import struct
import sys

_LOAD_WORD, _JUMP_IF_EQUAL, _RETURN = 0x20, 0x15, 0x06  # linux/bpf_common.h
_ALLOW, _ERRNO = 0x7FFF0000, 0x00050000  # linux/seccomp.h
_CREATE_RULESET = 444  # asm-generic/unistd.h
_NO_NEW_PRIVS, _SET_SECCOMP, _MODE_FILTER = 38, 22, 2  # linux/prctl.h


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_char_p))


def _hide() -> None:
    steps = [
        (_LOAD_WORD, 0, 0, 0),
        (_JUMP_IF_EQUAL, 0, 1, _CREATE_RULESET),
        (_RETURN, 0, 0, _ERRNO | errno.ENOSYS),
        (_RETURN, 0, 0, _ALLOW),
    ]
    content = b"".join(struct.pack("=HBBI", *step) for step in steps)
    program = _Program(len(steps), content)
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_NO_NEW_PRIVS, 1, 0, 0, 0) or libc.prctl(_SET_SECCOMP, _MODE_FILTER, ctypes.byref(program), 0, 0):
        raise OSError(ctypes.get_errno(), "the filter was refused")


if __name__ == "__main__":
    _hide()
    os.execvp(sys.argv[1], sys.argv[1:])
