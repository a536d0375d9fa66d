"""What all our processes together may use, found anew on every look.

In this order: the limit of the control groups we are in, `--memory`, whichever is smaller; without either,
what the machine can spare: our own memory plus what is available, minus a reserve. So neighbours count, and
a limit that is changed while we run is followed.

With a limit of a control group its working set is the truth for what is used: it also knows the memory
of processes that nobody told us about. With `--memory` only our own processes count.
"""

from typing import Literal, NamedTuple

from supervisor.mechanism.memory.cgroup import Cgroup, CgroupLook, open_cgroup, open_group
from supervisor.mechanism.memory.cgroup_tree import Group
from supervisor.mechanism.memory.machine import Machine, MachineLook
from supervisor.policy.sizes import MB

BudgetSource = Literal["--memory", "cgroup v1", "cgroup v2", "machine"]

RESERVE_BYTES = 100 * MB
"""Left free for the rest of the machine; the same 100 MB below which free memory alone raises the level."""


class Budget(NamedTuple):
    """One look. `cgroup_used_bytes` is set where a control group's limit binds us, and then is the truth for the total;
    `limit_path` says where that limit is. `note` tells why the figure is not what was asked for, or is empty."""

    bytes: int
    source: BudgetSource
    limit_path: str | None
    cgroup_used_bytes: int | None
    available_bytes: int
    physical_bytes: int
    swap_used_bytes: int
    note: str


class BudgetFinder:
    """Keeps the sources open, so that looking again costs microseconds.

    `override_bytes` is what `--memory` says, None where it was not given.
    """

    def __init__(self, override_bytes: int | None = None, root: str = "/", reserve_bytes: int = RESERVE_BYTES) -> None:
        self.machine = Machine(root)
        self._group: Group | None = None
        self.cgroup: Cgroup | None = open_cgroup(root)
        self._override_bytes = override_bytes
        self._reserve_bytes = reserve_bytes
        self._root = root

    @property
    def group(self) -> Group | None:
        """The group above our own that it was told to look at; None: our own."""
        return self._group

    def look_at(self, group: Group) -> None:
        """Looks at this group from now on: the one above our own, which counts our workers as well."""
        if self.cgroup is not None:
            self.cgroup.close()
        self._group = group
        self.cgroup = open_group(group)

    def override(self, override_bytes: int | None) -> None:
        """Changes what `--memory` says; it counts from the next look."""
        self._override_bytes = override_bytes

    def find(self, own_bytes: int, machine: MachineLook | None = None) -> Budget:
        """The budget of now; `own_bytes` is what all our processes hold, `machine` a look of this moment, where one was
        taken already."""
        machine = self.machine.look() if machine is None else machine
        group = self._look_at_group()
        override = self._override_bytes
        limit = None if group is None else group.budget_bytes
        smallest_other = machine.physical_bytes if override is None else min(override, machine.physical_bytes)
        if group is not None and limit is not None and limit <= smallest_other:
            return self._of_group(group, limit, machine)
        if override is not None:
            return self._of_override(override, machine)
        spare = own_bytes + machine.available_bytes - self._reserve_bytes
        size = max(0, min(machine.physical_bytes, spare))
        return _budget(size, "machine", None, None, machine, "")

    def _look_at_group(self) -> CgroupLook | None:
        look = None if self.cgroup is None else self.cgroup.look()
        if look is None and self.cgroup is not None:
            # Its directory is gone: we were moved to another group.
            self.cgroup.close()
            self.cgroup = open_cgroup(self._root) if self._group is None else open_group(self._group)
            look = None if self.cgroup is None else self.cgroup.look()
        return look

    def _of_group(self, group: CgroupLook, limit: int, machine: MachineLook) -> Budget:
        source: BudgetSource = "cgroup v1" if self.cgroup is not None and self.cgroup.version == 1 else "cgroup v2"
        note = ""
        if self._override_bytes is not None and limit < self._override_bytes:
            note = f"--memory asks for {self._override_bytes} bytes, but {group.limit_path} leaves {limit}"
        elif group.limit_bytes is not None and limit < group.limit_bytes:
            note = f"{group.limit_path} allows {group.limit_bytes} bytes, of which its other members leave {limit}"
        return _budget(limit, source, group.limit_path, group.used_bytes, machine, note)

    def _of_override(self, override: int, machine: MachineLook) -> Budget:
        note = ""
        if override > machine.physical_bytes:
            note = f"--memory asks for {override} bytes, but the machine has {machine.physical_bytes}"
        return _budget(min(override, machine.physical_bytes), "--memory", None, None, machine, note)

    def oom_kills(self) -> int:
        """Processes taken by the kernel's OOM killer: of our group where it counts them, else of the machine."""
        counted = None if self.cgroup is None else self.cgroup.oom_kills()
        if counted is None:
            counted = self.machine.oom_kills()
        return counted or 0

    def close(self) -> None:
        """Close all files; harmless when repeated."""
        self.machine.close()
        if self.cgroup is not None:
            self.cgroup.close()


def find_budget(override_bytes: int | None, own_bytes: int, root: str = "/") -> Budget:
    """The budget of now, found once: `--memory` in bytes or None, and what our processes hold already."""
    finder = BudgetFinder(override_bytes, root)
    try:
        return finder.find(own_bytes)
    finally:
        finder.close()


def _budget(
    size: int, source: BudgetSource, path: str | None, used: int | None, machine: MachineLook, note: str
) -> Budget:
    return Budget(
        size, source, path, used, machine.available_bytes, machine.physical_bytes, machine.swap_used_bytes, note
    )
