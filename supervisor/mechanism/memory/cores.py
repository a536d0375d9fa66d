"""How many workers can compute at once.

The number of cores of the machine says nothing inside a container: the affinity mask and the control
group's quota do. A fraction of a core is not counted: a worker more would cost its whole memory and gain
a fraction of its time, and the supervisor uses the rest.
"""

import os

from supervisor.mechanism.memory.cgroup_tree import find_group
from supervisor.mechanism.memory.kept_file import read_text


def usable_cores(root: str = "/") -> int:
    """Cores this process may use, by affinity and the quotas of its control group and all above; at least 1."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = quota_cores(root)
    return max(1, cores if quota is None else min(cores, int(quota)))


def quota_cores(root: str = "/") -> float | None:
    """The smallest quota on the way up, as cores (0.5: half of one); None: no quota."""
    group = find_group("cpu", root)
    if group is None:
        return None
    read = _quota_v1 if group.version == 1 else _quota_v2
    quotas = [quota for level in group.levels() if (quota := read(level)) is not None]
    return min(quotas) if quotas else None


def _quota_v1(path: str) -> float | None:
    quota = read_text(os.path.join(path, "cpu.cfs_quota_us"))
    period = read_text(os.path.join(path, "cpu.cfs_period_us"))
    return None if quota is None or period is None else _cores(quota.strip(), period.strip())


def _quota_v2(path: str) -> float | None:
    words = (read_text(os.path.join(path, "cpu.max")) or "").split()
    return _cores(words[0], words[1]) if len(words) == 2 else None


def _cores(quota: str, period: str) -> float | None:
    """No quota is written as -1 (version 1) or "max" (version 2)."""
    if not quota.isdigit() or not period.isdigit() or int(period) == 0 or int(quota) == 0:
        return None
    return int(quota) / int(period)
