"""A control group for each worker, with a limit above its hard one: the kernel as back-stop, never needed.

Our looks kill a worker at its hard limit; should they come too late (a loop that hangs, a machine that swaps), its
own group runs out before ours does, and the kernel takes that worker instead of choosing among all of us.

Groups are made below our own, and only where that is ours to do: on version 2 where systemd delegates it (Delegate=)
and nobody but us lives in it, on version 1 where it is asked for. Version 2 allows no processes beside groups with
limits, so the supervisor moves to a leaf group first; what it and the template hold still counts in the group above,
which is the one the budget looks at. Memory taken before a worker is moved stays charged there as well.
"""

import contextlib
import os
import time
from typing import Literal, NamedTuple

from supervisor.mechanism.memory.cgroup_tree import Group, find_group
from supervisor.mechanism.memory.kept_file import figure, read_text

Mode = Literal["auto", "off", "on"]
LEAF = "supervisor"
PREFIX = "gallery-worker-"
CLOSE_SECONDS = 1.0
"""Killed workers are gone within milliseconds; what is left then is the next start's."""


class Offer(NamedTuple):
    """Where groups of workers can be made; `base` None: nowhere, for the reason given."""

    base: Group | None
    reason: str


def look_for(mode: Mode, root: str = "/") -> Offer:
    """Tells where groups of workers could be made, and changes nothing."""
    if mode == "off":
        return Offer(None, "turned off by the setting kernel-limits")
    own = find_group("memory", root)
    if own is None:
        return Offer(None, "there is no memory control group")
    if own.version == 1:
        if mode == "auto":
            return Offer(None, f"{own.path} is of version 1, where they are made only by kernel-limits = on")
        if (read_text(os.path.join(own.path, "memory.use_hierarchy")) or "").strip() != "1":
            return Offer(None, f"{own.path} does not count the groups below it")
    elif os.path.basename(own.path) == LEAF and own.path != own.top:
        own = own._replace(path=os.path.dirname(own.path))  # systemd's DelegateSubgroup=, or our own doing
    files = ("cgroup.procs", "cgroup.subtree_control") if own.version == 2 else ("cgroup.procs",)
    for name in ("", *files):
        if not os.access(os.path.join(own.path, name), os.W_OK):
            return Offer(None, f"{own.path} is not delegated to us (systemd: Delegate=memory)")
    others = _members(own.path) - {os.getpid()}
    if own.version == 2 and others:
        return Offer(None, f"other processes live in {own.path} as well (pid {min(others)})")
    return Offer(own, f"below {own.path}")


class WorkerGroups:
    """The groups of our workers, by (slot, incarnation). Limits are in bytes."""

    def __init__(self, base: Group) -> None:
        """Makes the group ready and removes what earlier supervisors left. Raises OSError where it cannot."""
        self.base = base
        self._limit_name, self._events_name = (
            ("memory.max", "memory.events") if base.version == 2 else ("memory.limit_in_bytes", "memory.oom_control")
        )
        self._wanted: dict[tuple[int, int], int] = {}
        self._dead: set[str] = set()
        if base.version == 2:
            leaf = os.path.join(base.path, LEAF)
            os.makedirs(leaf, exist_ok=True)
            _write(os.path.join(leaf, "cgroup.procs"), str(os.getpid()))
            _write(os.path.join(base.path, "cgroup.subtree_control"), "+memory")
        with os.scandir(base.path) as entries:
            self._dead = {entry.path for entry in entries if entry.name.startswith(PREFIX) and not _members(entry.path)}
        self._bury()

    def enter(self, slot: int, incarnation: int, pid: int) -> None:
        """Puts a new worker into a group of its own, without a limit yet. Raises OSError."""
        path = self._path(slot, incarnation)
        os.makedirs(path, exist_ok=True)
        try:
            _write(os.path.join(path, "cgroup.procs"), str(pid))
        except ProcessLookupError:
            pass  # it died already; the group goes when its end is told
        self.apply(slot, incarnation)

    def want(self, slot: int, incarnation: int, limit_bytes: int) -> bool:
        """Notes the limit a worker is to have. Returns True where it rose: then it is to be applied at once; lowering
        makes the kernel drop cache meanwhile, which is nothing for the loop."""
        before = self._wanted.get((slot, incarnation), 0)
        self._wanted[slot, incarnation] = limit_bytes
        return limit_bytes >= before > 0

    def apply(self, slot: int, incarnation: int) -> None:
        """Gives a worker the limit that is wanted by now; one that is gone, or holds more, is left as it is."""
        limit = self._wanted.get((slot, incarnation))
        if limit is not None:
            with contextlib.suppress(OSError):
                _write(os.path.join(self._path(slot, incarnation), self._limit_name), str(limit))

    def oom_kills(self, slot: int, incarnation: int) -> int:
        """Returns how many processes the kernel took in a worker's group."""
        content = read_text(os.path.join(self._path(slot, incarnation), self._events_name)) or ""
        return figure(content.encode(), b"oom_kill ") or 0

    def leave(self, slot: int, incarnation: int) -> None:
        """Removes the group of a dead worker; one that the kernel still holds on to is tried again at the next."""
        self._wanted.pop((slot, incarnation), None)
        self._dead.add(self._path(slot, incarnation))
        self._bury()

    def close(self) -> None:
        """Removes what is left, in a moment's time for the killed; harmless when repeated."""
        with contextlib.suppress(OSError), os.scandir(self.base.path) as entries:
            self._dead |= {entry.path for entry in entries if entry.name.startswith(PREFIX)}
        deadline = time.monotonic() + CLOSE_SECONDS
        self._bury()
        while self._dead and time.monotonic() < deadline:
            time.sleep(0.01)
            self._bury()

    def _path(self, slot: int, incarnation: int) -> str:
        return os.path.join(self.base.path, f"{PREFIX}{os.getpid()}-{slot}-{incarnation}")

    def _bury(self) -> None:
        for path in list(self._dead):
            try:
                os.rmdir(path)
            except FileNotFoundError:
                self._dead.discard(path)
            except OSError:
                continue  # somebody of it still ends
            else:
                self._dead.discard(path)


def _members(path: str) -> set[int]:
    return {int(word) for word in (read_text(os.path.join(path, "cgroup.procs")) or "").split() if word.isdigit()}


def _write(path: str, text: str) -> None:
    with open(path, "w", encoding="ascii") as file:
        file.write(text)
