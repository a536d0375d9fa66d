"""Which sources of memory figures are in use here, and which are missing, in words for people."""

import os

from supervisor.mechanism.memory.budget import BudgetFinder
from supervisor.mechanism.memory.cores import quota_cores, usable_cores
from supervisor.mechanism.memory.pressure_stall import PressureStall
from supervisor.mechanism.memory.process import open_process
from supervisor.mechanism.memory.stall_trigger import why_missing
from supervisor.policy.watch_settings import WatchSettings


def describe(root: str = "/") -> list[str]:
    """One line for each source: what it is, and what is done without it where it is missing."""
    return [*_of_process(root), *_of_whole(root), _of_stall(root), _of_cores(root)]


def _of_process(root: str) -> list[str]:
    process = open_process(os.getpid(), root)
    if process is None:
        return ["memory of a process: missing, neither /proc nor psutil tells it"]
    try:
        lines = [f"memory of a process: {process.source}"]
        if process.details() is None:
            lines.append("shared memory: missing (no smaps_rollup), estimated from file-backed pages")
        else:
            lines.append(f"shared memory: {'psutil' if process.source == 'psutil' else '/proc/PID/smaps_rollup'}")
        return lines
    finally:
        process.close()


def _of_whole(root: str) -> list[str]:
    finder = BudgetFinder(root=root)
    try:
        budget = finder.find(0)
        lines = [f"memory of the machine: {finder.machine.source}"]
        if finder.cgroup is None:
            lines.append("control group: missing, the budget is what the machine can spare")
        elif budget.limit_path is None:
            lines.append(f"control group: version {finder.cgroup.version}, {finder.cgroup.path}, without a limit")
        else:
            lines.append(
                f"control group: version {finder.cgroup.version}, {finder.cgroup.path}, {budget.bytes} bytes"
                f" by the limit of {budget.limit_path}"
            )
        if finder.cgroup is not None and finder.cgroup.oom_kills() is not None:
            lines.append("OOM kills: counted by the control group")
        elif finder.machine.oom_kills() is not None:
            lines.append("OOM kills: /proc/vmstat, which counts those of neighbours as well")
        else:
            lines.append("OOM kills: missing, a worker taken by the kernel counts as killed from outside")
        return lines
    finally:
        finder.close()


def _of_stall(root: str) -> str:
    stall = PressureStall(root)
    try:
        if stall.look() is None:
            return "pressure stall information: missing, memory sizes alone decide"
        missing = why_missing(stall.source, WatchSettings().stall_share_brake)
        how = "its trigger wakes the supervisor" if missing is None else f"read at every look, no trigger ({missing})"
        return f"pressure stall information: {stall.source}; {how}"
    finally:
        stall.close()


def _of_cores(root: str) -> str:
    quota = quota_cores(root)
    return f"cores: {usable_cores(root)} usable, " + ("no quota" if quota is None else f"quota {quota:g}")
