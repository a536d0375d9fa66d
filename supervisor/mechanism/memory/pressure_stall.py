"""Pressure stall information: for how much of the time tasks waited for memory.

`some`: at least one task waited; `full`: all of them did. It tells what no size can, that memory is being
fought for, and it comes late and averaged: it may brake admission, it never chooses whom to kill. Our
group's own file (version 2) is preferred; the machine's speaks of neighbours as well. The kernel's own averages are
over ten seconds at the shortest; the counters give any window, here that of the trigger (`stall_trigger`).
"""

import os
import re
from collections import deque
from typing import NamedTuple

from supervisor.mechanism.memory.cgroup_tree import Group, find_group
from supervisor.mechanism.memory.kept_file import KeptFile, open_kept
from supervisor.mechanism.memory.stall_trigger import WINDOW_SECONDS, StallTrigger

_LOOKS_A_WINDOW = 20
_TOTAL = re.compile(rb"^some .*total=([0-9]+)", re.MULTILINE)
_AVG10 = re.compile(rb"^(some|full) avg10=([0-9.]+)", re.MULTILINE)


class Stall(NamedTuple):
    """Share of the last ten seconds, 0.0 to 1.0, in which some or all tasks waited for memory."""

    some: float
    full: float


class PressureStall:
    """Reads memory pressure. `source` is the file in use, None where the kernel tells none. `group`: whose pressure,
    where it is not our own group's (the workers have groups beside ours)."""

    def __init__(self, root: str = "/", group: Group | None = None) -> None:
        self._file = _open(root, group)
        self._share: float | None = None
        self._looks: deque[tuple[float, float]] = deque()
        self.source = None if self._file is None else self._file.path
        self.trigger = StallTrigger(self.source)

    def look(self) -> Stall | None:
        """The averages of now, or None where they cannot be had."""
        if self._file is None:
            return None
        try:
            shares = {kind: float(share) / 100 for kind, share in _AVG10.findall(self._file.read(512))}
        except OSError:
            # A kernel started with psi=0 has the file and refuses to read it.
            return None
        return Stall(shares.get(b"some", 0.0), shares.get(b"full", 0.0)) if shares else None

    def share(self, now: float) -> float | None:
        """The share of the last WINDOW_SECONDS, 0.0 to 1.0, in which some task waited for memory: the growth of the
        kernel's counter between looks. None where it cannot be had, and before the window is full."""
        if self._file is None:
            return None
        try:
            found = _TOTAL.search(self._file.read(512))
        except OSError:
            return None
        if found is None:
            return None
        if self._looks and now - self._looks[-1][0] < WINDOW_SECONDS / _LOOKS_A_WINDOW:
            return self._share
        self._looks.append((now, int(found[1]) / 1e6))
        while len(self._looks) > 2 and now - self._looks[1][0] >= WINDOW_SECONDS:
            self._looks.popleft()
        (began, before), (ended, after) = self._looks[0], self._looks[-1]
        full = ended - began >= WINDOW_SECONDS
        self._share = min(1.0, max(0.0, (after - before) / (ended - began))) if full else None
        return self._share

    def close(self) -> None:
        """Close the files; harmless when repeated."""
        self.trigger.close()
        if self._file is not None:
            self._file.close()


def _open(root: str, group: Group | None) -> KeptFile | None:
    group = find_group("memory", root) if group is None else group
    if group is not None and group.version == 2:
        file = open_kept(os.path.join(group.path, "memory.pressure"))
        if file is not None:
            return file
    return open_kept(os.path.join(root, "proc", "pressure", "memory"))
