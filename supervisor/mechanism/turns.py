"""How long the loop's turns take: what it promises to everybody who waits for it, measured where it is made."""

import math
import time
from collections import deque
from collections.abc import Callable

WINDOW_SECONDS = 10
"""The longest turn is told of so many seconds: long enough to be seen by who looks once, short enough to pass."""
_AN_OCTAVE = 4
_BUCKETS = 24 * _AN_OCTAVE
_FIRST_SECONDS = 1e-6


class TurnTimes:
    """Turns of the loop, from the return of the poll to the next: a histogram of buckets each a fifth wider than the
    one before, and the longest of each of the last seconds."""

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self._clock = clock
        self._counts = [0] * _BUCKETS
        self._began: float | None = None
        self._longest: deque[tuple[int, float]] = deque(maxlen=WINDOW_SECONDS)
        """(second on the clock, longest turn that ended in it), oldest first."""

    def begin(self) -> None:
        """A turn begins."""
        self._began = self._clock()

    def end(self) -> None:
        """It ends."""
        if self._began is None:
            return
        now = self._clock()
        passed = max(_FIRST_SECONDS, now - self._began)
        bucket = math.ceil(_AN_OCTAVE * math.log2(passed / _FIRST_SECONDS))
        self._counts[min(bucket, _BUCKETS - 1)] += 1
        second = int(now)
        if not self._longest or self._longest[-1][0] != second:
            self._longest.append((second, passed))
        elif passed > self._longest[-1][1]:
            self._longest[-1] = (second, passed)
        self._began = None

    @property
    def on(self) -> bool:
        """Whether a turn is on: what other threads do in Python meanwhile, the loop waits for. Any thread may ask."""
        return self._began is not None

    def p99_seconds(self) -> float:
        """Returns the upper edge of the bucket that holds the 99th percentile; 0 before the first turn."""
        total = sum(self._counts)
        seen = 0
        for bucket, count in enumerate(self._counts):
            seen += count
            if total and seen >= 0.99 * total:
                return float(_FIRST_SECONDS * 2 ** (bucket / _AN_OCTAVE))
        return 0.0

    def longest_seconds(self) -> float:
        """Returns the longest turn that ended in the last `WINDOW_SECONDS` seconds; 0 where none did."""
        since = self._clock() - WINDOW_SECONDS
        return max((passed for second, passed in self._longest if second >= since), default=0.0)
