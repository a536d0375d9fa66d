"""A disk that refuses is told once, and once that it takes again, whoever of the two threads met it."""

import threading
from collections.abc import Callable

from supervisor.policy.events import JournalRecovered, JournalStalled

FIRST_DELAY_SECONDS = 0.1
LONGEST_DELAY_SECONDS = 2.0


class Stalls:
    """Which threads cannot go on; the first one is told, and the end of the last one."""

    def __init__(self, post: Callable[[JournalStalled | JournalRecovered], None]) -> None:
        self._post = post
        self._lock = threading.Lock()
        self._stalled: set[str] = set()

    def begin(self, who: str, reason: str) -> None:
        """`who` cannot go on; harmless when it said so before."""
        with self._lock:
            if not self._stalled:
                self._post(JournalStalled(reason=reason))
            self._stalled.add(who)

    def end(self, who: str) -> None:
        """`who` goes on; harmless when it never stopped."""
        with self._lock:
            if who in self._stalled:
                self._stalled.discard(who)
                if not self._stalled:
                    self._post(JournalRecovered())


def longer(delay_seconds: float) -> float:
    """Returns the pause after one of `delay_seconds`."""
    return min(delay_seconds * 2, LONGEST_DELAY_SECONDS)
