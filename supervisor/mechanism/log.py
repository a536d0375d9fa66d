"""The log: one line a decision, on standard error, rate-limited by kind.

A thousand images that fail for one reason make a few lines and a count, not a thousand lines; the journal has them all.
"""

import sys
import time
from collections.abc import Callable
from typing import TextIO

from protocol.messages import Decision

LINES_A_KIND = 20
"""Lines of one kind within PERIOD_SECONDS; the rest is counted."""
PERIOD_SECONDS = 10.0
QUIET_KINDS = frozenset({"handed_back", "shrunk", "trimmed", "stopped", "resumed_item"})
"""Everyday adjustments: for `why` and `events`, not for a terminal."""


class Log:
    """Writes lines for people. `verbose` also writes the quiet kinds."""

    def __init__(
        self, stream: TextIO | None = None, verbose: bool = False, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._stream = stream if stream is not None else sys.stderr
        self._verbose = verbose
        self._clock = clock
        self._since: dict[str, float] = {}
        self._lines: dict[str, int] = {}

    def decision(self, decision: Decision) -> None:
        """Writes a decision, unless its kind is quiet or has had its lines."""
        if decision.kind in QUIET_KINDS and not self._verbose:
            return
        now = self._clock()
        if now - self._since.get(decision.kind, -PERIOD_SECONDS) >= PERIOD_SECONDS:
            held_back = self._lines.get(decision.kind, 0) - LINES_A_KIND
            if held_back > 0:
                self._write(f"{decision.kind}: {held_back} more like these ('supervisor events' has them all)")
            self._since[decision.kind] = now
            self._lines[decision.kind] = 0
        self._lines[decision.kind] += 1
        if self._lines[decision.kind] <= LINES_A_KIND:
            self._write(decision.message)

    def line(self, text: str) -> None:
        """Writes a line."""
        self._write(text)

    def _write(self, text: str) -> None:
        stamp = time.strftime("%H:%M:%S")
        try:
            self._stream.write(f"{stamp} {_one_line(text)}\n")
            self._stream.flush()
        except (OSError, ValueError):
            pass  # nobody reads any more (a closed terminal): the journal has it


def _one_line(text: str) -> str:
    """Control characters of file names must not act on a terminal."""
    return "".join(character if character.isprintable() else repr(character)[1:-1] for character in text)
