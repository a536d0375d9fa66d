"""What this process holds at the joints of an item: before it, when it is read, after each step.

What grows there and never comes back is a leak, and the step between whose two figures it grew is to blame. Counted
is what Python and the C library have handed out and not got back: unlike resident memory it does not grow while
allocators warm up, nor stay high after a large image. Asking costs 1 µs as a rule and 400 µs where the heap is in
pieces; HELD_SHARE of the time goes into it, no more: then some items are not measured.
"""

import sys
import time
from collections.abc import Callable

from workers.memory import BLOCK_BYTES, handed_out_bytes

HELD_SHARE = 0.01


class HeldMeter:
    """Measures, and knows when it may again."""

    def __init__(
        self, clock: Callable[[], float] = time.perf_counter, spent: Callable[[], float] = time.thread_time
    ) -> None:
        self._clock, self._spent = clock, spent
        self._due = 0.0
        self._cost = 0.0

    def begin(self, now: float) -> bool:
        """Tells whether the item that begins now (on the clock given) may be measured."""
        if now < self._due:
            return False
        self._cost = 0.0
        return True

    def read(self) -> int:
        """Returns what is held, in bytes."""
        began = self._spent()  # processor time: on a loaded machine the wait for a core is no cost of ours
        held = sys.getallocatedblocks() * BLOCK_BYTES + handed_out_bytes()
        self._cost += self._spent() - began
        return held

    def end(self) -> None:
        """The item is over: its cost says when the next one is measured."""
        self._due = self._clock() + self._cost / HELD_SHARE
