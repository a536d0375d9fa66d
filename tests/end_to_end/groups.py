"""Memory control groups of a test: made below our own, removed again whatever happened."""

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from supervisor.mechanism.memory.cgroup_tree import find_group
from tests.end_to_end.bed import wait_for


class MemoryGroup:
    """A group with a limit; commands enter it by `prefix`."""

    def __init__(self, path: str, version: int) -> None:
        self.path = path
        self.version = version
        self.prefix = ("sh", "-c", f'echo $$ > {path}/cgroup.procs && exec "$@"', "sh")

    def set_limit(self, limit_bytes: int) -> None:
        """Changes the limit, with no swap beside it. Raises OSError where the kernel refuses."""
        names = ("memory.limit_in_bytes",) if self.version == 1 else ("memory.max",)
        for name in names:
            Path(self.path, name).write_text(str(limit_bytes))

    def oom_kills(self) -> int:
        """Returns how many processes the kernel killed here for want of memory."""
        name = "memory.oom_control" if self.version == 1 else "memory.events"
        for line in Path(self.path, name).read_text().splitlines():
            key, _, value = line.partition(" ")
            if key == "oom_kill":
                return int(value)
        pytest.skip(f"this kernel does not count OOM kills in {name}")

    def members(self) -> list[int]:
        """Returns the pids in it."""
        return [int(line) for line in Path(self.path, "cgroup.procs").read_text().split()]


@contextlib.contextmanager
def memory_group(limit_bytes: int) -> Iterator[MemoryGroup]:
    """Gives a group of `limit_bytes`; skips the test, naming what is missing, where none can be made."""
    own = find_group("memory")
    if own is None:
        pytest.skip("no memory control group here")
    path = f"{own.path}/gallery-supervisor-e2e-{os.getpid()}"
    try:
        os.mkdir(path)
    except OSError as error:
        pytest.skip(f"no memory control group can be made below {own.path}: {error.strerror}")
    group = MemoryGroup(path, own.version)
    try:
        try:
            group.set_limit(limit_bytes)
        except OSError as error:
            pytest.skip(f"{own.path} does not hand the memory controller down: {error.strerror}")
        yield group
    finally:
        wait_for(lambda: not group.members(), f"everybody has left {path}")
        wait_for(lambda: _removed(path), f"{path} is removed")


def _removed(path: str) -> bool:
    """Removes the group, and first those that a supervisor made in it and, being killed, left behind."""
    try:
        with os.scandir(path) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    os.rmdir(entry.path)
        os.rmdir(path)
    except OSError:
        return False  # the kernel takes a moment to forget the dead
    return True


_WAITS = """
import sys, time
with open(sys.argv[1], "wb") as file:
    until = time.monotonic() + 60
    while time.monotonic() < until:
        file.seek(0)
        for _ in range(100):
            file.write(bytes(1_000_000))
"""
"""Five times as much file cache as its group may hold: the kernel takes it back while the writer waits."""


@contextlib.contextmanager
def waiting_for_memory(path: str) -> Iterator[None]:
    """Has a process of its own group wait for memory, over and over; it writes the file `path`."""
    with contextlib.ExitStack() as ending:
        group = ending.enter_context(memory_group(20_000_000))
        process = ending.enter_context(subprocess.Popen([*group.prefix, sys.executable, "-c", _WAITS, path]))
        ending.callback(process.kill)
        yield
