"""Starts a process that deletes a directory, and follows it.

A directory of 100,000 files keeps a thread busy for seconds. However short its turns, each time the loop wakes up in
one it must ask for the interpreter, and a thread that the system has put aside while it holds it (another process'
turn: 4 to 12 ms on a full machine) holds up the loop too. Another process has an interpreter of its own.

It is started by posix_spawn(3) through ctypes, which lets the interpreter go meanwhile; `os.posix_spawn` and
`subprocess` hold it until the new program is loaded, 0.3 ms mostly, 29 ms on a full machine.
"""

import ctypes
import os
import signal
import sys
from collections.abc import Generator, Sequence
from contextlib import suppress

from supervisor.mechanism.deleting.tree import Tally

LOOK_SECONDS = 0.02
"""Between two looks whether it is done."""
_BEGIN = """
import sys
sys.path.append(sys.argv[1])
from supervisor.mechanism.deleting.process import main
main(sys.argv[2], *map(int, sys.argv[3:]))
"""
_HOME = os.path.dirname(os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))
_SETPGROUP = 0x02  # spawn.h, the same everywhere
_OPAQUE_BYTES = 1024  # more than any C library's posix_spawnattr_t (336) and posix_spawn_file_actions_t (80)
_READ_BYTES = 65_536

Wait = float
"""What a job yields where there is nothing to do but to wait so many seconds."""


def delete_apart(parent: int, name: str, descriptor: int, device: int, tally: Tally) -> Generator[Wait, None, bool]:
    """Deletes as `tree.delete` does, in a process of its own; yields until it has ended. Its value tells whether the
    directory is gone; where not, the caller goes on by itself. Closed meanwhile, it ends the process."""
    reader, writer = os.pipe()
    told = _Report(reader)
    pid = None
    try:
        told_what = [name, str(parent), str(descriptor), str(device), str(writer), str(os.getpid())]
        try:
            pid = spawn([sys.executable, "-I", "-S", "-c", _BEGIN, _HOME, *told_what], (parent, descriptor, writer))
        except OSError:
            return False
        while os.waitpid(pid, os.WNOHANG) == (0, 0):
            told.take()
            yield LOOK_SECONDS
        pid = None
    finally:
        os.close(writer)
        if pid is not None:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
        told.take()
        os.close(reader)
        tally.files += told.files
        tally.bytes += told.bytes
        for fault in told.faults:
            name, _, why = fault.partition(": ")
            tally.failed(name, why)
    return told.over


class _Report:
    """What the process said last."""

    def __init__(self, reader: int) -> None:
        os.set_blocking(reader, False)
        self._reader = reader
        self._rest = b""
        self.files = 0
        self.bytes = 0
        self.faults: list[str] = []
        self.over = False

    def take(self) -> None:
        """Reads what has come."""
        import json  # 0.3 MB, for who has such directories; names that are no UTF-8 are beyond msgspec

        with suppress(BlockingIOError):
            while read := os.read(self._reader, _READ_BYTES):
                *lines, self._rest = (self._rest + read).split(b"\n")
                if lines:
                    self.files, self.bytes, self.faults, self.over = json.loads(lines[-1])


def spawn(command: Sequence[str], descriptors: Sequence[int]) -> int:
    """Starts a program in a process group of its own with these descriptors, by their numbers, and standard ones;
    returns its pid. Other threads go on meanwhile. Raises OSError."""
    libc = ctypes.CDLL(None)
    actions, attributes = ctypes.create_string_buffer(_OPAQUE_BYTES), ctypes.create_string_buffer(_OPAQUE_BYTES)
    _check(libc.posix_spawn_file_actions_init(actions))
    _check(libc.posix_spawnattr_init(attributes))
    try:
        _check(libc.posix_spawnattr_setflags(attributes, ctypes.c_short(_SETPGROUP)))
        for number in descriptors:
            _check(libc.posix_spawn_file_actions_adddup2(actions, number, number))  # to itself: is not closed
        pid = ctypes.c_int()
        texts = [os.fsencode(text) for text in command]
        arguments = (ctypes.c_char_p * (len(texts) + 1))(*texts, None)
        pairs = [name + b"=" + value for name, value in os.environb.items()]
        environment = (ctypes.c_char_p * (len(pairs) + 1))(*pairs, None)
        _check(libc.posix_spawn(ctypes.byref(pid), texts[0], actions, attributes, arguments, environment))
        return pid.value
    finally:
        libc.posix_spawn_file_actions_destroy(actions)
        libc.posix_spawnattr_destroy(attributes)


def _check(error: int) -> None:
    if error:
        raise OSError(error, os.strerror(error))
