"""The supervisor's own part of a clean-up, in a thread of its own that lives as long as the clean-up.

Each action is measured apart, as the change of the supervisor's resident size; one that raises or does not answer in
its time is named and passed over. What belongs to another thread (the journal's connection, the cache) is asked for
and waited for here, so that the loop never is. A collection holds the interpreter, and with it the loop: while there
is work only the younger generations are collected, which takes less than a millisecond.
"""

import contextlib
import gc
import os
import threading
import time
from collections.abc import Callable
from typing import Any

from protocol.messages import CleanupAction, CleanupTier
from supervisor.mechanism.cache import CacheThread
from supervisor.mechanism.journal import Journal
from supervisor.mechanism.memory import give_back, open_process
from supervisor.policy.commands import CleanUp
from supervisor.policy.events import CleanedUp

YOUNG, WHOLE = 1, 2
"""Generations of Python's collector. What was there at the start is frozen and never looked at."""


class Cleaner:
    """Runs one clean-up at a time; a further one while it runs is answered at once, with that as its error."""

    def __init__(self, journal: Journal, cache: CacheThread | None, post: Callable[[CleanedUp], None]) -> None:
        """`post` must be thread safe."""
        self._journal, self._cache, self._post = journal, cache, post
        self._thread: threading.Thread | None = None

    def start(self, command: CleanUp) -> None:
        """Begins; CleanedUp is posted when it is done. Never blocks."""
        if self._thread is not None and self._thread.is_alive():
            busy = "the clean-up before is still at it"
            actions = [_told(name, 0, 0.0, busy) for name, _ in command.actions]
            self._post(CleanedUp(number=command.number, actions=actions))
            return
        self._thread = threading.Thread(target=self._run, args=(command,), name="cleanup", daemon=True)
        self._thread.start()

    def close(self, patience_seconds: float = 1.0) -> None:
        """Waits for the one in progress, as far as the time allows."""
        if self._thread is not None:
            self._thread.join(patience_seconds)

    def _run(self, command: CleanUp) -> None:
        actions = [self._one(command, name, limit) for name, limit in command.actions]
        self._post(CleanedUp(number=command.number, actions=actions))

    def _one(self, command: CleanUp, name: str, limit_seconds: float) -> CleanupAction:
        before, began = _rss_bytes(), time.monotonic()
        error = None
        try:
            self._act(command, name, limit_seconds)
        except Exception as raised:  # whatever one action does, the others have their turn
            error = f"{type(raised).__name__}: {raised}"
        return _told(name, before - _rss_bytes(), time.monotonic() - began, error)

    def _act(self, command: CleanUp, name: str, limit_seconds: float) -> None:
        match name:
            case "expired cache entries":
                if self._cache is not None:
                    self._cache.hurry()
            case "cache memory level":
                if self._cache is not None:
                    _trim(self._cache, command.tier, limit_seconds)
            case "journal memory":
                _wait(self._journal.release_memory(), limit_seconds, "the journal is at work")
            case "gc":
                for _ in range(command.collect_cycles):
                    gc.collect(WHOLE if command.whole else YOUNG)
            case "malloc_trim":
                give_back()
            case _:
                raise AssertionError(f"nobody does {name!r}")


def _trim(cache: CacheThread, tier: CleanupTier, limit_seconds: float) -> None:
    done = threading.Event()
    found: list[Any] = []

    def answer(freed: Any) -> None:
        found.append(freed)
        done.set()

    cache.trim_memory(tier, answer)
    _wait(done, limit_seconds, "the cache is at work")
    if found and isinstance(found[0], Exception):
        raise found[0]


def _wait(done: threading.Event, limit_seconds: float, otherwise: str) -> None:
    if not done.wait(limit_seconds):
        raise TimeoutError(f"{otherwise} and did not get to it within {limit_seconds:g} s")


def _told(name: str, freed_bytes: int, seconds: float, error: str | None) -> CleanupAction:
    return CleanupAction(name=name, owner="supervisor", freed_bytes=freed_bytes, seconds=seconds, error=error)


def _rss_bytes() -> int:
    process = open_process(os.getpid())
    if process is None:
        return 0
    with contextlib.closing(process):
        seen = process.sample()
        return seen.rss_bytes if seen is not None else 0
