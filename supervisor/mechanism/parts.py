"""Runs the parts of the supervisor that are processes of their own, each by its command.

A part must never outlive the supervisor, and nobody must have to trust it for that. It is started through a few
lines of Python that ask the kernel for the parent-death signal, look once more whether the parent is still there,
and become the part's command: code between fork and exec in a process with threads is what others paid for. It has
a process group of its own, so that Ctrl-C reaches the supervisor alone and a KILL its children too. What it writes
goes to the log, line by line under its name.

Starts happen in the chores thread (the parent-death signal follows the *thread* that started the child); everything
else in the loop's.
"""

import contextlib
import os
import signal
import sys
from collections.abc import Callable, Container, Sequence
from typing import IO, TYPE_CHECKING

import msgspec

from supervisor.mechanism.chores import Chores
from supervisor.mechanism.memory import ProcessMemory, open_process
from supervisor.policy.events import PartExited, PartSample, PartStarted

if TYPE_CHECKING:
    import subprocess

_BECOME = """
import ctypes, os, signal, sys
if sys.platform == "linux":
    ctypes.CDLL(None).prctl(1, signal.SIGKILL, 0, 0, 0)  # PR_SET_PDEATHSIG, linux/prctl.h
if os.getppid() != int(sys.argv[1]):
    os._exit(70)
try:
    os.execvp(sys.argv[2], sys.argv[2:])
except OSError as error:
    print(f"{sys.argv[2]} cannot be started: {error.strerror}", flush=True)
    os._exit(127)  # as a shell says it
"""
READ_BYTES = 64 * 1024
LINE_BYTES = 2_000
"""A longer line is cut: a part that writes without ever ending a line must not fill the supervisor."""
LINES_A_TURN = 50


class Program(msgspec.Struct, frozen=True, kw_only=True):
    """How a part is run. `environment` is added to the supervisor's own."""

    name: str
    argv: list[str]
    environment: dict[str, str] = {}


class PartArrived:
    """A process that the chores thread made, on its way to the loop."""

    def __init__(self, name: str, incarnation: int, process: "subprocess.Popen[bytes]") -> None:
        self.name, self.incarnation, self.process = name, incarnation, process


class _Child:
    """One running part as the loop holds it."""

    def __init__(self, arrived: PartArrived) -> None:
        self.name, self.incarnation, self.process = arrived.name, arrived.incarnation, arrived.process
        self.memory: ProcessMemory | None = open_process(self.process.pid)
        self.output: IO[bytes] | None = self.process.stdout
        self.rest = b""
        self.pidfd = _open_pidfd(self.process.pid)

    def signal(self, number: int) -> None:
        """To its whole group; a group that is gone is no fault."""
        if self.process.poll() is None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self.process.pid, number)

    def close(self) -> None:
        """Lets its descriptors go."""
        if self.output is not None:
            self.output.close()
            self.output = None
        if self.pidfd is not None:
            os.close(self.pidfd)
            self.pidfd = None
        if self.memory is not None:
            self.memory.close()
            self.memory = None


class PartProcesses:
    """The parts at hand. One thread, the loop's, except what `Chores` runs."""

    def __init__(
        self,
        *,
        programs: Sequence[Program],
        chores: Chores,
        post: Callable[[PartArrived | PartExited], None],
        say: Callable[[str], None],
    ) -> None:
        """`post` must be thread safe; `say` takes the lines that parts write."""
        self._programs = {program.name: program for program in programs}
        self._chores, self._post, self._say = chores, post, say
        self._children: dict[str, _Child] = {}

    def start(self, name: str, incarnation: int) -> None:
        """Has a part started by the chores thread; PartArrived or PartExited is posted."""
        program = self._programs[name]

        def chore() -> None:
            try:
                process = _spawn(program)
            except OSError as error:
                reason = f"{program.argv[0]} cannot be started: {error.strerror or error}"
                self._post(PartExited(name=name, incarnation=incarnation, exit_code=None, reason=reason))
                return
            self._post(PartArrived(name, incarnation, process))

        self._chores.submit(chore)

    def arrived(self, arrived: PartArrived) -> PartStarted:
        """Takes a new process in."""
        child = _Child(arrived)
        self._children[arrived.name] = child
        return PartStarted(name=child.name, incarnation=child.incarnation, pid=child.process.pid)

    def stop(self, name: str, incarnation: int, kill: bool) -> None:
        """Sends TERM, or KILL, to a part and what it started; one that is gone is no fault."""
        child = self._children.get(name)
        if child is not None and child.incarnation == incarnation:
            child.signal(signal.SIGKILL if kill else signal.SIGTERM)

    def descriptors(self) -> set[int]:
        """Returns what to poll for reading: the parts' output and their ends."""
        found = {child.pidfd for child in self._children.values() if child.pidfd is not None}
        return found | {child.output.fileno() for child in self._children.values() if child.output is not None}

    def take(self, ready: Container[object]) -> list[PartExited]:
        """Passes on what parts wrote and returns which are gone, each once. `ready` holds the readable descriptors."""
        gone: list[PartExited] = []
        for name, child in list(self._children.items()):
            if child.output is not None and child.output.fileno() in ready:
                self._read(child)
            code = child.process.poll() if child.pidfd is None or child.pidfd in ready else None
            if code is None:
                continue
            self._read(child)
            _end_group(child.process.pid)
            child.close()
            del self._children[name]
            gone.append(PartExited(name=name, incarnation=child.incarnation, exit_code=code))
        return gone

    def sample(self, swapping: bool = False) -> list[PartSample]:
        """Looks at all parts."""
        found = []
        for child in self._children.values():
            seen = child.memory.sample(swapping) if child.memory is not None else None
            if seen is not None:
                found.append(
                    PartSample(
                        role=child.name,
                        pid=child.process.pid,
                        rss_bytes=seen.rss_bytes,
                        shared_bytes=seen.shared_bytes,
                        swap_bytes=seen.swap_bytes,
                    )
                )
        return found

    def close(self) -> None:
        """Kills whoever is left and lets the descriptors go."""
        for child in self._children.values():
            child.signal(signal.SIGKILL)
            child.process.wait()
            child.close()
        self._children.clear()

    def _read(self, child: _Child) -> None:
        if child.output is None:
            return
        try:
            read = os.read(child.output.fileno(), READ_BYTES)
        except BlockingIOError:
            return
        *lines, rest = (child.rest + read).split(b"\n")
        child.rest = rest[:LINE_BYTES]
        if not read:
            lines, child.rest = [child.rest] if child.rest else [], b""
            child.output.close()
            child.output = None
        for line in lines[:LINES_A_TURN]:
            self._say(f"{child.name}: {line[:LINE_BYTES].decode('utf-8', 'replace')}")
        if len(lines) > LINES_A_TURN:
            self._say(f"{child.name}: {len(lines) - LINES_A_TURN} more lines")


def _spawn(program: Program) -> "subprocess.Popen[bytes]":
    import subprocess  # 1 MB, for those alone who have parts

    process = subprocess.Popen(
        [sys.executable, "-I", "-S", "-c", _BECOME, str(os.getpid()), *program.argv],
        env=os.environ | program.environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        process_group=0,
    )
    assert process.stdout is not None
    os.set_blocking(process.stdout.fileno(), False)
    return process


def _end_group(group: int) -> None:
    """What a dead part had started ends with it."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(group, signal.SIGKILL)


def _open_pidfd(pid: int) -> int | None:
    """None where the kernel has none: then its end is looked for at every turn."""
    try:
        return os.pidfd_open(pid)
    except (AttributeError, OSError):
        return None
