"""One process from outside.

Resident memory (RSS) comes from a kept-open /proc/PID/statm: about a microsecond, no help from the
process needed, so a worker that is deep inside a decoder is seen like an idle one. Swap counts as used
and is read only while the machine swaps. statm sums counters that each core keeps for itself, so it may
lag by some 64 pages a core; smaps_rollup is exact but walks the page tables, costs milliseconds per
100 MB and stalls its target meanwhile: it is read rarely, to learn which part is shared.

Shared: pages of the template that the worker never wrote, and libraries. They exist once, whatever the
number of workers. statm knows only the file-backed ones; once `details` has measured, its figure is used. Until then
what a fresh worker shares is presumed (`presume_shared`): taken for its own, four new workers' copies of the template
were 60 MB that nobody held, and a small budget's emergency.
"""

import os
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple, Protocol

from supervisor.mechanism.memory.kept_file import KeptFile, figure, open_kept, read_text

if TYPE_CHECKING:
    import psutil

_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


class MemorySample(NamedTuple):
    """One look: resident memory including swap, the part of it that others share, the part in swap. Bytes."""

    rss_bytes: int
    shared_bytes: int
    swap_bytes: int = 0


class Details(NamedTuple):
    """A thorough look, in bytes. `pss_bytes`: shared pages divided among those who share them. `uss_bytes`: what
    would come back if the process ended now."""

    rss_bytes: int
    pss_bytes: int
    uss_bytes: int
    swap_bytes: int


class ProcessMemory(Protocol):
    """The memory of one process. `source` names where the figures come from."""

    pid: int
    source: str
    measured_shared_bytes: int | None
    """As the last thorough look found it; None: there was none yet."""

    def presume_shared(self, size_bytes: int) -> None:
        """Until a thorough look measures it, so much is taken to be shared at least."""

    def sample(self, swap_in_use: bool = False) -> MemorySample | None:
        """One cheap look, or None when the process is exiting or gone. Raises nothing."""

    def details(self) -> Details | None:
        """One thorough look, or None when it cannot be had. Raises nothing."""

    def close(self) -> None:
        """Release what is kept open; harmless when repeated."""


def open_process(pid: int, root: str = "/") -> ProcessMemory | None:
    """A handle on the memory of process `pid`, or None when there is no such process.

    Open it while the process cannot have been reaped (right after its start): from then on the handle is
    bound to this process, and a later one with the same pid is never mistaken for it.
    """
    if os.path.exists(os.path.join(root, "proc", "self", "statm")):
        statm = open_kept(os.path.join(root, "proc", str(pid), "statm"))
        return None if statm is None else _ProcMemory(pid, statm, root)
    return _open_psutil(pid)


class _ProcMemory:
    source = "/proc/PID/statm"

    def __init__(self, pid: int, statm: KeptFile, root: str) -> None:
        self.pid = pid
        self._statm = statm
        self._directory = os.path.join(root, "proc", str(pid))
        self._status: KeptFile | None = None
        self.measured_shared_bytes: int | None = None
        self._presumed_shared_bytes = 0

    def presume_shared(self, size_bytes: int) -> None:
        self._presumed_shared_bytes = size_bytes

    def sample(self, swap_in_use: bool = False) -> MemorySample | None:
        try:
            fields = self._statm.read(128).split(None, 3)
        except OSError:
            return None
        # All zero: the process is exiting, and its memory is being given back.
        if len(fields) < 3 or fields[1] == b"0":
            return None
        rss = int(fields[1]) * _PAGE_BYTES
        shared = self.measured_shared_bytes
        if shared is None:
            shared = max(int(fields[2]) * _PAGE_BYTES, self._presumed_shared_bytes)
        swap = self._swap_bytes() if swap_in_use else 0
        return MemorySample(rss + swap, min(shared, rss), swap)

    def _swap_bytes(self) -> int:
        if self._status is None:
            self._status = open_kept(os.path.join(self._directory, "status"))
        if self._status is None:
            return 0
        try:
            return (figure(self._status.read(), b"VmSwap:") or 0) * 1024
        except OSError:
            return 0

    def details(self) -> Details | None:
        # statm first: were the pid given to another process meanwhile, the kept-open file says so.
        if self.sample() is None:
            return None
        text = read_text(os.path.join(self._directory, "smaps_rollup"))
        if not text:
            return None
        content = text.encode("utf-8", "surrogateescape")

        def kilobytes(name: bytes) -> int:
            return (figure(content, name) or 0) * 1024

        uss = kilobytes(b"Private_Clean:") + kilobytes(b"Private_Dirty:") + kilobytes(b"Private_Hugetlb:")
        details = Details(kilobytes(b"Rss:"), kilobytes(b"Pss:"), uss, kilobytes(b"Swap:"))
        if details.rss_bytes == 0:
            return None
        self.measured_shared_bytes = max(0, details.rss_bytes - uss)
        return details

    def close(self) -> None:
        self._statm.close()
        if self._status is not None:
            self._status.close()
            self._status = None


def _open_psutil(pid: int) -> "_PsutilMemory | None":
    import psutil

    try:
        return _PsutilMemory(psutil.Process(pid), (psutil.Error, OSError))
    except psutil.Error:
        return None


class _PsutilMemory:
    """Where there is no /proc (macOS). psutil compares start times, so a reused pid is noticed."""

    source = "psutil"

    def __init__(self, process: "psutil.Process", gone: tuple[type[BaseException], ...]) -> None:
        self.pid = process.pid
        self._process = process
        self._gone = gone
        self.measured_shared_bytes: int | None = None
        self._presumed_shared_bytes = 0

    def presume_shared(self, size_bytes: int) -> None:
        self._presumed_shared_bytes = size_bytes

    def sample(self, swap_in_use: bool = False) -> MemorySample | None:
        rss = self._ask(lambda: int(self._process.memory_info().rss) if self._process.is_running() else 0)
        shared = self._presumed_shared_bytes if self.measured_shared_bytes is None else self.measured_shared_bytes
        return MemorySample(rss, min(shared, rss)) if rss else None

    def details(self) -> Details | None:
        try:
            full = self._process.memory_full_info()
        except self._gone:
            return None
        rss, uss = int(full.rss), int(full.uss)
        self.measured_shared_bytes = max(0, rss - uss)
        return Details(rss, int(getattr(full, "pss", uss)), uss, int(getattr(full, "swap", 0)))

    def _ask(self, question: Callable[[], int]) -> int:
        try:
            return question()
        except self._gone:
            return 0

    def close(self) -> None:
        """Nothing is kept open."""
