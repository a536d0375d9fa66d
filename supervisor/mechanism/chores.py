"""The chores thread: what may take a while and must not hold the loop up.

It forks workers (a start waits for the template), buries the dead (deletes their unfinished output and temp
directory), and takes thorough looks at memory (smaps_rollup costs milliseconds per 100 MB). It lives as long
as the supervisor: workers are told to die with the *thread* that started their template.
"""

import queue
import threading
from collections.abc import Callable

from protocol.messages import Store

MAX_CHORES = 10_000
"""More than this many waiting chores means that the disk hangs; the oldest kinds are starts, which are few."""


class Chores:
    """A thread that does one chore after the other. A chore answers, if at all, by posting an event itself."""

    def __init__(self, complain: Callable[[str], None]) -> None:
        self._queue: queue.Queue[Callable[[], object] | None] = queue.Queue(MAX_CHORES)
        self._complain = complain
        self._thread = threading.Thread(target=self._run, name="chores", daemon=True)

    def start(self) -> None:
        """Begins."""
        self._thread.start()

    def submit(self, chore: Callable[[], object]) -> None:
        """Queues a chore; a full queue drops it with a complaint, because the loop must not wait."""
        try:
            self._queue.put_nowait(chore)
        except queue.Full:
            self._complain(f"{MAX_CHORES} chores wait already: one was dropped; is a disk hanging?")

    def stores(self) -> list[Store]:
        """Returns what waits here, with its limit."""
        return [
            Store(name="chores", owner="chores", count=self._queue.qsize(), limit_count=MAX_CHORES, bytes=None,
                  limit_bytes=None)
        ]  # fmt: skip

    def call(self, chore: Callable[[], object]) -> None:
        """Has a chore done and waits for it; raises what it raised. For the start, before the loop runs."""
        done = threading.Event()
        raised: list[BaseException] = []

        def wrapped() -> None:
            try:
                chore()
            except BaseException as error:
                raised.append(error)
            finally:
                done.set()

        self._queue.put(wrapped)
        done.wait()
        if raised:
            raise raised[0]

    def close(self, timeout_seconds: float) -> None:
        """Does what is queued, then ends; gives up waiting after the time."""
        try:
            self._queue.put_nowait(None)
        except queue.Full:
            return
        self._thread.join(timeout_seconds)

    def _run(self) -> None:
        while True:
            chore = self._queue.get()
            if chore is None:
                return
            try:
                chore()
            except Exception as error:  # one failing chore must not end the thread: workers would die with it
                self._complain(f"a chore failed: {type(error).__name__}: {error}")
