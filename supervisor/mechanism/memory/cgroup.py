"""Working set, limit and OOM kills of our control group, from files that are kept open.

Working set is what the kernel cannot drop: usage without file cache. Cache that is dirty or being written
back cannot be dropped yet and stays in; on version 2 kernel caches known to be reclaimable (the names of
a million files walked) are left out too. Swap counts as used.

Limits bind at every level above us, and a level above is shared with neighbours. What they hold there is not
ours to use, so what a level leaves us is its limit minus what its other members hold; the smallest over all
levels is our budget. Limits are read anew on every look: they are changed while we run. Version 1 tells the
smallest limit of all ancestors, also of those a container cannot see, as hierarchical_memory_limit.
"""

import os
from typing import NamedTuple

from supervisor.mechanism.memory.cgroup_tree import Group, find_group
from supervisor.mechanism.memory.kept_file import KeptFile, figure, open_kept

_UNLIMITED_BYTES = 1 << 60
"""Version 1 writes "no limit" as the largest page-aligned number (0x7FFFFFFFFFFFF000 with 4 KiB pages); no
machine has an exbibyte."""


class CgroupLook(NamedTuple):
    """One look at our group, in bytes. `budget_bytes` is what the tightest level leaves us, of the limit
    `limit_bytes` at `limit_path`; all three are None when no level has a limit."""

    working_set_bytes: int
    swap_bytes: int
    budget_bytes: int | None
    limit_bytes: int | None
    limit_path: str | None

    @property
    def used_bytes(self) -> int:
        """What counts as used: working set and swap."""
        return self.working_set_bytes + self.swap_bytes


class Cgroup:
    """Our memory control group. `version` is 1 or 2, `path` its directory.

    Methods answer None when the group is gone (we were moved): open it anew then.
    """

    def __init__(self, group: Group, levels: "list[_Level]") -> None:
        self.version = group.version
        self.path = group.path
        self._levels = levels
        name = "memory.oom_control" if group.version == 1 else "memory.events"
        self._oom = open_kept(os.path.join(levels[0].path, name))

    def look(self) -> CgroupLook | None:
        """Usage and limit of now. Costs a few microseconds for each level."""
        try:
            return self._look()
        except OSError:
            return None

    def _look(self) -> CgroupLook:
        working_set, swap, hierarchical = self._levels[0].usage()
        room: int | None = None
        binding: tuple[int, str] | None = None
        for level in self._levels:
            limit = level.limit()
            if limit is None:
                continue
            others = 0
            if level is not self._levels[0]:
                others = max(0, level.usage()[0] - working_set)
            left = max(0, limit - others)
            if room is None or left < room:
                room, binding = left, (limit, level.path)
        if hierarchical is not None and (binding is None or hierarchical < binding[0]):
            left = hierarchical if room is None else min(room, hierarchical)
            room, binding = left, (hierarchical, f"above {self._levels[-1].path}")
        limit_bytes, limit_path = binding if binding is not None else (None, None)
        return CgroupLook(working_set, swap, room, limit_bytes, limit_path)

    def working_set_bytes(self) -> int | None:
        """What our group holds that the kernel cannot drop."""
        look = self.look()
        return None if look is None else look.working_set_bytes

    def limit_bytes(self) -> int | None:
        """The limit of the level that leaves us least, read anew; None: there is none."""
        look = self.look()
        return None if look is None else look.limit_bytes

    def oom_kills(self) -> int | None:
        """How many processes of our group the kernel's OOM killer took; None: not told here."""
        if self._oom is None:
            return None
        try:
            return figure(self._oom.read(), b"oom_kill ")
        except OSError:
            return None

    def close(self) -> None:
        """Close all files; harmless when repeated."""
        for level in self._levels:
            level.close()
        if self._oom is not None:
            self._oom.close()


def open_cgroup(root: str = "/") -> Cgroup | None:
    """Our memory control group, or None where there is none that counts memory."""
    group = find_group("memory", root)
    return None if group is None else open_group(group)


def open_group(group: Group) -> Cgroup | None:
    """The given memory control group and those above it, or None where none of them counts memory."""
    levels: list[_Level] = []
    for directory in group.levels():
        # A group whose parent does not hand down the memory controller has no such files; the next one above
        # counts it. The root of version 2 has none either, and no limit.
        try:
            levels.append(_LevelV1(directory) if group.version == 1 else _LevelV2(directory))
        except OSError:
            continue
    return Cgroup(group, levels) if levels else None


class _Level:
    """One group with its files."""

    def __init__(self, path: str, usage_name: str) -> None:
        self.path = path
        self._files: list[KeptFile] = []
        try:
            self._usage = self._open(usage_name)
            self._stat = self._open("memory.stat")
        except OSError:
            self.close()
            raise

    def _open(self, name: str) -> KeptFile:
        file = KeptFile(os.path.join(self.path, name))
        self._files.append(file)
        return file

    def _open_if_there(self, name: str) -> KeptFile | None:
        file = open_kept(os.path.join(self.path, name))
        if file is not None:
            self._files.append(file)
        return file

    def limit(self) -> int | None:
        """The limit of this group alone, or None."""
        raise AssertionError("a level is of version 1 or 2")

    def usage(self) -> tuple[int, int, int | None]:
        """Working set, swap, and the smallest limit of this group and all above where it is told."""
        raise AssertionError("a level is of version 1 or 2")

    def close(self) -> None:
        for file in self._files:
            file.close()


class _LevelV1(_Level):
    def __init__(self, path: str) -> None:
        super().__init__(path, "memory.usage_in_bytes")
        self._limit = self._open_if_there("memory.limit_in_bytes")

    def limit(self) -> int | None:
        return None if self._limit is None else _limit_in(self._limit)

    def usage(self) -> tuple[int, int, int | None]:
        stat = self._stat.read()
        cache = (figure(stat, b"total_active_file ") or 0) + (figure(stat, b"total_inactive_file ") or 0)
        unwritten = (figure(stat, b"total_dirty ") or 0) + (figure(stat, b"total_writeback ") or 0)
        used = int(self._usage.read(32)) - max(0, cache - unwritten)
        hierarchical = figure(stat, b"hierarchical_memory_limit ")
        if hierarchical is not None and hierarchical >= _UNLIMITED_BYTES:
            hierarchical = None
        return max(0, used), figure(stat, b"total_swap ") or 0, hierarchical


class _LevelV2(_Level):
    def __init__(self, path: str) -> None:
        super().__init__(path, "memory.current")
        self._max = self._open_if_there("memory.max")
        # Above `high` the kernel throttles its members to a crawl: for us that is the limit as well.
        self._high = self._open_if_there("memory.high")
        self._swap = self._open_if_there("memory.swap.current")

    def limit(self) -> int | None:
        found = [
            limit for file in (self._max, self._high) if file is not None and (limit := _limit_in(file)) is not None
        ]
        return min(found) if found else None

    def usage(self) -> tuple[int, int, int | None]:
        stat = self._stat.read()
        cache = (figure(stat, b"active_file ") or 0) + (figure(stat, b"inactive_file ") or 0)
        unwritten = (figure(stat, b"file_dirty ") or 0) + (figure(stat, b"file_writeback ") or 0)
        droppable = max(0, cache - unwritten) + (figure(stat, b"slab_reclaimable ") or 0)
        swap = int(self._swap.read(32)) if self._swap is not None else 0
        return max(0, int(self._usage.read(32)) - droppable), swap, None


def _limit_in(file: KeptFile) -> int | None:
    text = file.read(32).strip()
    if not text.isdigit():
        return None
    limit = int(text)
    return limit if limit < _UNLIMITED_BYTES else None
