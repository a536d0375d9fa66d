"""Memory of the whole machine: what is available, whether it swaps, whom the OOM killer took.

MemAvailable is the kernel's own estimate of what can be had without swapping: free memory and droppable
cache. In a container it still speaks of the machine; the control group's limit is asked elsewhere.
"""

import os
from typing import NamedTuple

from supervisor.mechanism.memory.kept_file import KeptFile, figure, open_kept

_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


class MachineLook(NamedTuple):
    """One look, in bytes."""

    physical_bytes: int
    available_bytes: int
    swap_used_bytes: int


class Machine:
    """The machine's memory. `source` names where the figures come from."""

    def __init__(self, root: str = "/") -> None:
        self._meminfo: KeptFile | None = open_kept(os.path.join(root, "proc", "meminfo"))
        self._vmstat: KeptFile | None = open_kept(os.path.join(root, "proc", "vmstat"))
        self.source = "psutil" if self._meminfo is None else "/proc/meminfo"

    def look(self) -> MachineLook:
        """Memory of now."""
        if self._meminfo is None:
            return _look_with_psutil()
        content = self._meminfo.read()

        def kilobytes(name: bytes) -> int:
            return (figure(content, name) or 0) * 1024

        available = figure(content, b"MemAvailable:")
        # Kernels before 3.14 and some emulations have no MemAvailable.
        usable = kilobytes(b"MemFree:") + kilobytes(b"Cached:") if available is None else available * 1024
        swap = max(0, kilobytes(b"SwapTotal:") - kilobytes(b"SwapFree:"))
        return MachineLook(kilobytes(b"MemTotal:"), usable, swap)

    def swapped_in_bytes(self) -> int | None:
        """Bytes read back from swap since the machine started; None: not told here."""
        pages = self._counter(b"pswpin ")
        return None if pages is None else pages * _PAGE_BYTES

    def oom_kills(self) -> int | None:
        """Processes the OOM killer took, on the whole machine, since it started; None: not told here."""
        return self._counter(b"oom_kill ")

    def _counter(self, name: bytes) -> int | None:
        return None if self._vmstat is None else figure(self._vmstat.read_all(), name)

    def close(self) -> None:
        """Close all files; harmless when repeated."""
        for file in (self._meminfo, self._vmstat):
            if file is not None:
                file.close()


def _look_with_psutil() -> MachineLook:
    import psutil

    memory = psutil.virtual_memory()
    try:
        swap = int(psutil.swap_memory().used)
    except (OSError, RuntimeError):
        # Some systems refuse to tell about swap; then none is known to be used.
        swap = 0
    return MachineLook(int(memory.total), int(memory.available), swap)
