"""Memory levels told to a program that has a supervisor of its own (`supervisor.embedded`): pressure callbacks.

A thread listens on the event socket, and asks for the level whenever it is quiet, so that nothing is missed by a
subscription that came late or a supervisor that was started again. Callbacks run in that thread, one after the other,
outside the pool: a slow one delays the others and nobody else. One that raises is named in a warning and passed over,
and forgotten after FAILURES_ALLOWED failures in a row.
"""

import contextlib
import threading
import warnings
from collections.abc import Callable

from protocol.client import Client
from protocol.errors import GalleryError
from protocol.messages import Decision

FAILURES_ALLOWED = 3
RETRY_SECONDS = 0.2
"""Pause before the next try while no supervisor runs."""
LEVELS = ("normal", "elevated", "warning", "critical", "emergency", "protection")

PressureCallback = Callable[[str], object]
"""Called with the new level: one of LEVELS."""


class PressureSubscription:
    """One callback."""

    def __init__(self, callback: PressureCallback, forget: Callable[["PressureSubscription"], None]) -> None:
        self.callback = callback
        self.failures = 0
        self._forget = forget

    def unsubscribe(self) -> None:
        """Takes it back; a second time is no fault."""
        self._forget(self)


class PressureListener:
    """Tells level changes of the supervisor at an endpoint (asked for each time, None while there is none)."""

    def __init__(self, endpoint: Callable[[], str | None]) -> None:
        self._endpoint = endpoint
        self._subscriptions: list[PressureSubscription] = []
        self._level = LEVELS[0]
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None

    def subscribe(self, callback: PressureCallback) -> PressureSubscription:
        """Has a callback called at every change of the level, beginning with the first that is not normal."""
        subscription = PressureSubscription(callback, self._forget)
        self._subscriptions.append(subscription)
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="pressure", daemon=True)
            self._thread.start()
        return subscription

    def close(self) -> None:
        """Ends the thread; harmless when there is none, or when called by a callback."""
        self._ended.set()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join()

    def _forget(self, subscription: PressureSubscription) -> None:
        with contextlib.suppress(ValueError):
            self._subscriptions.remove(subscription)

    def _run(self) -> None:
        while not self._ended.is_set():
            endpoint = self._endpoint()
            if endpoint is not None:
                with contextlib.suppress(GalleryError):
                    self._listen(endpoint)
            self._ended.wait(RETRY_SECONDS)

    def _listen(self, endpoint: str) -> None:
        """Raises a GalleryError when the supervisor goes."""
        with Client(endpoint) as client:
            self._tell(client.status().level)
            for decision in client.follow(["pool"], backlog=0):
                if self._ended.is_set():
                    return
                self._tell(client.status().level if decision is None else _level_of(decision))

    def _tell(self, level: str | None) -> None:
        if level is None or level == self._level:
            return
        self._level = level
        for subscription in list(self._subscriptions):
            try:
                subscription.callback(level)
            except Exception as error:  # the author's fault: told, and the others have their turn
                self._failed(subscription, error)
            else:
                subscription.failures = 0

    def _failed(self, subscription: PressureSubscription, error: Exception) -> None:
        subscription.failures += 1
        name = getattr(subscription.callback, "__qualname__", repr(subscription.callback))
        text = f"pressure callback {name} failed: {type(error).__name__}: {error}"
        if subscription.failures >= FAILURES_ALLOWED:
            subscription.unsubscribe()
            text += f" (unsubscribed after {subscription.failures} failures in a row)"
        with contextlib.suppress(RuntimeWarning):  # where warnings are errors they must not end the thread
            warnings.warn(text, RuntimeWarning, stacklevel=2)


def _level_of(decision: Decision) -> str | None:
    number = decision.figures.get("level")
    if decision.kind != "level" or not isinstance(number, int) or not 0 <= number < len(LEVELS):
        return None
    return LEVELS[number]
