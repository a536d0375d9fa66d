"""Events from other threads, for the one loop.

The journal and chores threads post; the loop takes everything at once when the mailbox's descriptor is readable.
The descriptor is written to only when the mailbox was empty, so that a burst of events costs one wake-up.
"""

import os
from collections import deque
from collections.abc import Callable
from typing import Generic, TypeVar

Letter = TypeVar("Letter")


class Mailbox(Generic[Letter]):
    """A queue with a descriptor to poll. `post` from any thread, `take` from the loop's."""

    def __init__(self) -> None:
        self._letters: deque[Letter] = deque()
        self._reader, self._writer = os.pipe()
        os.set_blocking(self._reader, False)
        os.set_blocking(self._writer, False)
        self._woken = False

    def fileno(self) -> int:
        """Returns the descriptor that is readable when there is something to take."""
        return self._reader

    def __len__(self) -> int:
        return len(self._letters)

    def post(self, letter: Letter) -> None:
        """Puts a letter in and wakes the loop."""
        self._letters.append(letter)
        self._wake()

    def _wake(self) -> None:
        if not self._woken:
            self._woken = True
            try:
                os.write(self._writer, b"\0")
            except BlockingIOError:
                pass  # full of wake-ups: one more changes nothing

    def take(self, weigh: Callable[[Letter], int], limit: int) -> list[Letter]:
        """Returns what has come, oldest first, until its weight reaches `limit`; the rest is for the next turn."""
        try:
            os.read(self._reader, 4096)
        except BlockingIOError:
            pass  # the flag was raised, its byte is still under way: it costs one turn with nothing to take
        # Lowered before the letters are taken: a letter that comes now writes a new byte.
        self._woken = False
        letters: list[Letter] = []
        weight = 0
        while self._letters and weight < limit:
            letters.append(self._letters.popleft())
            weight += weigh(letters[-1])
        if self._letters:
            self._wake()
        return letters

    def close(self) -> None:
        """Closes the descriptor."""
        os.close(self._reader)
        os.close(self._writer)
