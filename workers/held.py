"""What this process holds at the joints of an item: before it, when it is read, after each step.

What grows there and never comes back is a leak, and the step between whose two figures it grew is to blame. Counted
is what Python and the C library have handed out and not got back: unlike resident memory it does not grow while
allocators warm up, nor stay high after a large image. Asking costs 1 µs as a rule and 400 µs where the heap is in
pieces; HELD_SHARE of the time goes into it, no more: then some items are not measured.

Python's memory blocks are counted beside the bytes. Python counts one for every object that takes memory, also for a
large one whose bytes come from the C library; what a library takes for itself it does not see. So a growth that
Python's objects keep comes with blocks, and one that does not is the library's own. The reports that wait to be sent
are blocks too: how many one of them is, is learned whenever they are let go.
"""

import sys
import time
from collections.abc import Callable

from workers.memory import BLOCK_BYTES, handed_out_bytes

HELD_SHARE = 0.0125
"""With a hundredth, small photos in 2.5 ms are measured too seldom to find a leak within 60 of them."""


class HeldMeter:
    """Measures, and knows when it may again."""

    def __init__(
        self, clock: Callable[[], float] = time.perf_counter, spent: Callable[[], float] = time.thread_time
    ) -> None:
        self._clock, self._spent = clock, spent
        self._due = 0.0
        self._cost = 0.0
        self._waiting = 0
        self._blocks_a_report: float | None = None
        self.last_blocks = 0
        """Python's blocks at the last reading."""

    def reported(self, let_go: Callable[[], object]) -> None:
        """Lets go of the reports that waited and were sent: what they took is known then."""
        before = sys.getallocatedblocks()
        let_go()
        if self._waiting:
            self._blocks_a_report = max(0, before - sys.getallocatedblocks()) / self._waiting
        self._waiting = 0

    def waits(self) -> None:
        """One more report waits."""
        self._waiting += 1

    def blocks(self) -> int:
        """Returns Python's blocks at the last reading, without those of the waiting reports; 0 while what one of these
        takes is not known."""
        if self._blocks_a_report is None:
            return 0 if self._waiting else self.last_blocks
        return self.last_blocks - round(self._waiting * self._blocks_a_report)

    def begin(self, now: float) -> bool:
        """Tells whether the item that begins now (on the clock given) may be measured."""
        if now < self._due:
            return False
        self._cost = 0.0
        return True

    def read(self) -> int:
        """Returns what is held, in bytes."""
        began = self._spent()  # processor time: on a loaded machine the wait for a core is no cost of ours
        self.last_blocks = sys.getallocatedblocks()
        held = self.last_blocks * BLOCK_BYTES + handed_out_bytes()
        self._cost += self._spent() - began
        return held

    def end(self) -> None:
        """The item is over: its cost says when the next one is measured."""
        self._due = self._clock() + self._cost / HELD_SHARE
