"""Where a running worker's memory is allocated: tracemalloc, on demand and off by itself.

Off, it costs nothing; on, every allocation of Python's is noted with its line, which makes Python code some times
slower and takes memory for each live block. What libraries allocate by themselves (pixels in libvips) is not seen:
that is the worker's native memory.
"""

import time
import tracemalloc

from protocol.messages import AllocatedLine

LONGEST_SECONDS = 700.0
"""Tracing that nobody ends is ended."""
_OURS = (tracemalloc.Filter(False, tracemalloc.__file__), tracemalloc.Filter(False, __file__))


class Profiler:
    """One profile at a time."""

    def __init__(self) -> None:
        self._before: tracemalloc.Snapshot | None = None
        self._began_at = 0.0
        self._items = 0
        self.number = 0

    @property
    def tracing(self) -> bool:
        """Whether a profile is under way."""
        return self._before is not None

    def begin(self, number: int, items_done: int) -> None:
        """Begins to trace; a profile under way is thrown away."""
        self.number, self._items, self._began_at = number, items_done, time.monotonic()
        tracemalloc.start()
        self._before = tracemalloc.take_snapshot()

    def end(self, top: int, items_done: int) -> tuple[float, int, int, int, int, list[AllocatedLine]]:
        """Returns seconds, items, grown bytes and blocks, what tracing took, and the lines that grew most; then
        tracing is off."""
        before = self._before
        if before is None:
            return 0.0, 0, 0, 0, 0, []
        tracer_bytes = tracemalloc.get_tracemalloc_memory()
        after = tracemalloc.take_snapshot().filter_traces(_OURS)
        self.stop()
        grown = after.compare_to(before.filter_traces(_OURS), "lineno")
        grown.sort(key=lambda line: line.size_diff, reverse=True)
        lines = [
            AllocatedLine(f"{line.traceback[0].filename}:{line.traceback[0].lineno}", line.size_diff, line.count_diff)
            for line in grown[:top]
            if line.size_diff > 0
        ]
        return (
            time.monotonic() - self._began_at,
            items_done - self._items,
            sum(line.size_diff for line in grown),
            sum(line.count_diff for line in grown),
            tracer_bytes,
            lines,
        )

    def stop(self) -> None:
        """Ends tracing and lets its memory go."""
        tracemalloc.stop()
        tracemalloc.clear_traces()
        self._before = None

    def expire(self, now: float) -> None:
        """Ends tracing that nobody ended."""
        if self._before is not None and now - self._began_at > LONGEST_SECONDS:
            self.stop()
