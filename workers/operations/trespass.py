"""What a worker that was taken over would try, for tests of the sandbox: each attempt, and how it ended.

Loaded only where a recipe names it. It does no harm where it succeeds: what it reads it forgets, what it
writes is empty, whom it signals gets signal 0.
"""

import ctypes
import mmap
import os
import socket
import subprocess
from collections.abc import Callable
from typing import Any, Literal

from workers.operations import Operation, Parameters, Work

Attempt = Literal[
    "read", "list", "write", "remove", "truncate", "chmod", "tcp", "udp", "unix", "signal", "ptrace", "memory",
    "io_uring", "execute", "link",
]  # fmt: skip
_PTRACE_ATTACH = 16  # sys/ptrace.h
_IO_URING_SETUP = 425  # asm-generic/unistd.h, the same on all machines
_libc = ctypes.CDLL(None, use_errno=True)


class Trespass(Parameters, frozen=True, kw_only=True):
    """`attempts`: what to try on which target: a path, a port of 127.0.0.1, a pid."""

    attempts: list[tuple[Attempt, str]]


def _write(path: str) -> None:
    with open(path, "wb"):
        pass


def _read(path: str) -> None:
    with open(path, "rb") as file:
        file.read(1)


def _connect(family: socket.AddressFamily, kind: socket.SocketKind, address: Any) -> None:
    with socket.socket(family, kind) as opened:
        opened.settimeout(5.0)
        opened.connect(address)


def _ptrace(pid: str) -> None:
    _answered(_libc.ptrace(_PTRACE_ATTACH, int(pid), 0, 0))


def _io_uring(_target: str) -> None:
    parameters = mmap.mmap(-1, 120)  # struct io_uring_params
    os.close(_answered(_libc.syscall(_IO_URING_SETUP, 1, ctypes.byref(ctypes.c_char.from_buffer(parameters)))))


def _answered(answer: int) -> int:
    if answer < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return answer


_TRIES: dict[Attempt, Callable[[str], object]] = {
    "read": _read,
    "list": os.listdir,
    "write": _write,
    "remove": os.unlink,
    "truncate": lambda path: os.truncate(path, 0),
    "chmod": lambda path: os.chmod(path, 0o644),
    "link": lambda path: os.symlink("/etc", path),
    "tcp": lambda port: _connect(socket.AF_INET, socket.SOCK_STREAM, ("127.0.0.1", int(port))),
    "udp": lambda port: _connect(socket.AF_INET, socket.SOCK_DGRAM, ("127.0.0.1", int(port))),
    "unix": lambda path: _connect(socket.AF_UNIX, socket.SOCK_STREAM, path),
    "signal": lambda pid: os.kill(int(pid), 0),
    "ptrace": _ptrace,
    "memory": lambda pid: _read(f"/proc/{pid}/mem"),
    "io_uring": _io_uring,
    "execute": lambda path: subprocess.run([path], check=False, timeout=10.0),
}


def _run(work: Work, parameters: Trespass) -> dict[str, Any]:
    return {f"{attempt} {target}": _try(attempt, target) for attempt, target in parameters.attempts}


def _try(attempt: Attempt, target: str) -> str:
    try:
        _TRIES[attempt](target)
    except OSError as error:
        return error.strerror or str(error)
    return "succeeded"


OPERATIONS = (
    Operation(name="misbehave.trespass", version=1, reads="name", run=_run, parameters=Trespass),
)  # fmt: skip
