"""Signals as events: handlers only enqueue, the loop acts.

The first SIGTERM or SIGINT asks for a drain, the second for an end at once. SIGHUP has the settings read again.
"""

import os
import signal
from types import FrameType

from supervisor.policy.events import ReloadAsked, StopAsked


class Signals:
    """Turns SIGTERM and SIGINT into StopAsked, SIGHUP into ReloadAsked. Made in the main thread (a rule of Python)."""

    def __init__(self) -> None:
        self._reader, self._writer = os.pipe()
        os.set_blocking(self._reader, False)
        os.set_blocking(self._writer, False)
        self._times = 0
        self._before = {
            number: signal.signal(number, self._noted) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
        }
        self._before_fd = signal.set_wakeup_fd(self._writer, warn_on_full_buffer=False)

    def fileno(self) -> int:
        """Returns the descriptor that is readable when a signal came."""
        return self._reader

    def take(self) -> list[StopAsked | ReloadAsked]:
        """Returns what has been asked for since the last call."""
        try:
            numbers = os.read(self._reader, 4096)
        except BlockingIOError:
            return []
        asked: list[StopAsked | ReloadAsked] = []
        for number in numbers:
            if number == signal.SIGHUP:
                asked.append(ReloadAsked())
            elif number in self._before:
                self._times += 1
                asked.append(StopAsked(now=self._times > 1, reason=signal.Signals(number).name))
        return asked

    def close(self) -> None:
        """Puts the handlers back."""
        signal.set_wakeup_fd(self._before_fd)
        for number, handler in self._before.items():
            signal.signal(number, handler)
        os.close(self._reader)
        os.close(self._writer)

    @staticmethod
    def _noted(_number: int, _frame: FrameType | None) -> None:
        """Python needs a handler for the wake-up descriptor to be written to; the work is done in `take`."""
