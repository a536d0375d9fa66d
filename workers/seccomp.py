"""System calls that no image operation needs, refused by a small filter in the kernel.

Landlock speaks of files, TCP and signals; this closes what it leaves: every other socket family, other processes'
memory, io_uring (whose requests pass no filter), namespaces, keys, ownership and permissions of files. A refused
call fails with an error, as it would for lack of rights; nobody is killed for it.

Two filters, one after the other, because a worker needs one connection, which ZeroMQ's thread makes in its own time:

* `restrict`  before any thread exists: sockets of the Unix kind only;
* `seal`      when the supervisor has been heard: no new socket and no connection at all, in every thread (TSYNC),
  so that no agent, daemon or bus that listens on this machine can be reached.

The numbers are those of asm/unistd_64.h and asm-generic/unistd.h; a machine they are not written down for has no
filter. The foreign calling conventions of x86-64 (i386, x32) are refused as a whole.
"""

import ctypes
import errno
import os
import platform
import struct

from protocol.kernel import SECCOMP_CALL

_AUDIT_ARCH = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}  # linux/audit.h
_X32_BIT = 0x40000000
_SET_MODE_FILTER = 1  # linux/seccomp.h
_TSYNC = 1
_SPEC_ALLOW = 4
"""Without it kernels before 5.16 slow the whole process down against a kind of attack that is not ours."""
_ALLOW, _ERRNO = 0x7FFF0000, 0x00050000
_AF_UNIX = 1
_NR_AT, _ARCH_AT, _ARGUMENT_AT = 0, 4, 16  # struct seccomp_data; an argument's low half comes first
_LOAD, _EQUAL, _AT_LEAST, _RETURN = 0x20, 0x15, 0x35, 0x06  # BPF_LD|W|ABS, BPF_JMP|JEQ|K, BPF_JMP|JGE|K, BPF_RET|K

_REFUSED = {
    "x86_64": (
        101, 310, 311, 312, 438,  # ptrace process_vm_readv process_vm_writev kcmp pidfd_getfd
        425, 426, 427,  # io_uring_setup io_uring_enter io_uring_register
        321, 298, 323, 304,  # bpf perf_event_open userfaultfd open_by_handle_at
        248, 249, 250,  # add_key request_key keyctl
        165, 166, 155, 161, 272, 308,  # mount umount2 pivot_root chroot unshare setns
        428, 429, 430, 431, 432, 433, 442,  # open_tree move_mount fsopen fsconfig fsmount fspick mount_setattr
        175, 176, 313, 246, 320, 169, 167, 168, 163, 179,  # modules, kexec, reboot, swap, acct, quotactl
        164, 227, 170, 171, 172, 173,  # settimeofday clock_settime sethostname setdomainname iopl ioperm
        90, 91, 268, 452, 92, 93, 94, 260,  # chmod fchmod fchmodat fchmodat2 chown fchown lchown fchownat
        188, 189, 190, 197, 198, 199, 463, 466,  # setxattr and removexattr, all forms
    ),
    "aarch64": (
        117, 270, 271, 272, 438,
        425, 426, 427,
        280, 241, 282, 265,
        217, 218, 219,
        40, 39, 41, 51, 97, 268,
        428, 429, 430, 431, 432, 433, 442,
        105, 106, 273, 104, 294, 142, 224, 225, 89, 60,
        170, 112, 161, 162,
        52, 53, 452, 55, 54,
        5, 6, 7, 14, 15, 16, 463, 466,
    ),
}  # fmt: skip
_SOCKET = {"x86_64": 41, "aarch64": 198}
_CONNECT = {"x86_64": 42, "aarch64": 203}
_SIGNALS = {"x86_64": (62, 234, 129, 297), "aarch64": (129, 131, 138, 240)}
"""kill tgkill rt_sigqueueinfo rt_tgsigqueueinfo: whom they mean is their first argument."""
_OTHER_SIGNALS = {"x86_64": (200, 424), "aarch64": (130, 424)}
"""tkill pidfd_send_signal: whom they mean cannot be told from their arguments."""
_PRLIMIT = {"x86_64": 302, "aarch64": 261}

_libc = ctypes.CDLL(None, use_errno=True)


class _Program(ctypes.Structure):
    """struct sock_fprog of linux/filter.h."""

    _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_char_p))


def restrict(*, signals: bool) -> None:
    """Applies the first filter to this thread and those it will start; `signals`: to itself alone, for kernels whose
    Landlock does not know signals. no_new_privs must be set. Raises OSError."""
    machine, me = platform.machine(), os.getpid()
    rules = [_deny(number) for number in _REFUSED[machine]]
    rules.append(_deny_unless(_SOCKET[machine], 0, (_AF_UNIX,), errno.EACCES))
    rules.append(_deny_unless(_PRLIMIT[machine], 0, (0, me)))
    if signals:
        rules += [_deny_unless(number, 0, (0, me)) for number in _SIGNALS[machine]]
        rules += [_deny(number) for number in _OTHER_SIGNALS[machine]]
    _apply(b"".join(rules), _SPEC_ALLOW)


def seal() -> None:
    """Applies the second filter to every thread of this process. Raises OSError."""
    machine = platform.machine()
    rules = _deny(_SOCKET[machine], errno.EACCES) + _deny(_CONNECT[machine], errno.EACCES)
    _apply(rules, _SPEC_ALLOW | _TSYNC)


def _apply(rules: bytes, flags: int) -> None:
    machine = platform.machine()
    start = _code(_LOAD, _ARCH_AT) + _code(_EQUAL, _AUDIT_ARCH[machine], 1, 0) + _code(_RETURN, _ERRNO | errno.ENOSYS)
    start += _code(_LOAD, _NR_AT)
    if machine == "x86_64":
        start += _code(_AT_LEAST, _X32_BIT, 0, 1) + _code(_RETURN, _ERRNO | errno.ENOSYS)
    raw = start + rules + _code(_RETURN, _ALLOW)
    program = _Program(len(raw) // 8, raw)
    if _libc.syscall(SECCOMP_CALL[machine], _SET_MODE_FILTER, flags, ctypes.byref(program)) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"seccomp(SECCOMP_SET_MODE_FILTER): {os.strerror(number)}")


def _deny(number: int, error: int = errno.EPERM) -> bytes:
    return _code(_EQUAL, number, 0, 1) + _code(_RETURN, _ERRNO | error)


def _deny_unless(number: int, argument: int, values: tuple[int, ...], error: int = errno.EPERM) -> bytes:
    """Refuses the call unless one of its arguments has one of the values; every way out of it ends the filter."""
    body = _code(_LOAD, _ARGUMENT_AT + 8 * argument)
    for left, value in zip(range(len(values), 0, -1), values, strict=True):
        body += _code(_EQUAL, value, left, 0)  # over the other values and the refusal
    body += _code(_RETURN, _ERRNO | error) + _code(_RETURN, _ALLOW)
    return _code(_EQUAL, number, 0, len(body) // 8) + body


def _code(operation: int, value: int, if_true: int = 0, if_false: int = 0) -> bytes:
    """struct sock_filter: code, jump if true, jump if false, operand."""
    return struct.pack("<HBBI", operation, if_true, if_false, value)
