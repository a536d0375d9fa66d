"""What can be known about memory, and from where.

Everything here only reads. Two questions are asked up to a hundred times a second and must cost
microseconds: what does each worker hold (`process`), and what does the whole hold of what it may
(`budget`, which joins `cgroup` and `machine`). Their files are opened once and read again with pread.

* `process`        one process from outside: /proc/PID/statm, smaps_rollup rarely
* `cgroup_tree`    which control group we are in, and the groups above it
* `cgroup`         working set, limit and OOM kills of that group
* `machine`        free memory, swap and OOM kills of the machine
* `pressure_stall` how long tasks waited for memory (PSI), counted
* `stall_trigger`  the kernel says at once that they wait
* `budget`         what all our processes together may use
* `giving_back`    the supervisor gives its own freed memory back
* `own_heap`       what of the supervisor's own memory is in use
* `cores`          how many workers can compute at once
* `sources`        which of these are in use here, and which are missing

Any source may be missing; psutil, imported only then, stands in where there is no /proc. Every function
takes `root`, the directory that stands for "/", so that recorded trees of other machines can be read.
"""

from supervisor.mechanism.memory.budget import Budget, BudgetFinder, find_budget
from supervisor.mechanism.memory.cgroup import Cgroup, CgroupLook, open_cgroup
from supervisor.mechanism.memory.cores import usable_cores
from supervisor.mechanism.memory.giving_back import give_back, share_arenas
from supervisor.mechanism.memory.machine import Machine, MachineLook
from supervisor.mechanism.memory.own_heap import own_heap_bytes
from supervisor.mechanism.memory.pressure_stall import PressureStall, Stall
from supervisor.mechanism.memory.process import Details, MemorySample, ProcessMemory, open_process
from supervisor.mechanism.memory.sources import describe

__all__ = [
    "Budget",
    "BudgetFinder",
    "Cgroup",
    "CgroupLook",
    "Details",
    "Machine",
    "MachineLook",
    "MemorySample",
    "PressureStall",
    "ProcessMemory",
    "Stall",
    "describe",
    "find_budget",
    "give_back",
    "open_cgroup",
    "open_process",
    "own_heap_bytes",
    "share_arenas",
    "usable_cores",
]
