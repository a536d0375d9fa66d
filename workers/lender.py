"""The supervisor as the lender of a worker's operations: asked over the worker's one socket, in the middle of an item.

The socket is the main thread's, and so is the operation that asks; what else arrives while the answer is awaited (a
Shrink, a Trim, a Quit) is kept for the next look between two items, where it would have been found anyway.
"""

import time
from collections import deque
from collections.abc import Callable

from protocol.errors import BadMessage
from protocol.launch import WorkerStart
from protocol.messages import (
    AnyFromWorker,
    AnyToWorker,
    MemoryGranted,
    MemoryRefused,
    ModelLoaded,
    ModelUnloaded,
    ReleaseMemory,
    RenewMemory,
    RequestMemory,
)
from workers.memory_lease import Refused

MAX_KEPT = 100
"""Messages that may come while an answer is waited for; the supervisor sends a handful at most."""
PURPOSE_CHARACTERS = 100

_monotonic = time.monotonic


class SupervisorLender:
    """Asks the supervisor (`workers.memory_lease.Lender`)."""

    def __init__(
        self,
        start: WorkerStart,
        send: Callable[[AnyFromWorker], None],
        receive: Callable[[], AnyToWorker | None],
        wait: Callable[[float], None],
    ) -> None:
        """`receive` returns the next message, None when there is none; `wait` waits for one, at most so long."""
        self._start, self._send, self._receive, self._wait = start, send, receive, wait
        self.kept: deque[AnyToWorker] = deque()

    def ask(
        self, number: int, size_bytes: int, at_least: int, purpose: str, item: int, within_bytes: int = 0
    ) -> int | Refused:
        """Asks the supervisor in the middle of an item. What else arrives meanwhile is kept for the next look."""
        start = self._start
        patience = start.lease_patience_seconds if at_least < size_bytes else 0.0
        self._send(
            RequestMemory(
                slot=start.slot,
                incarnation=start.incarnation,
                number=number,
                purpose=purpose[:PURPOSE_CHARACTERS],
                bytes=size_bytes,
                at_least=at_least,
                within_bytes=within_bytes,
                patience_seconds=patience,
                item=item,
            )
        )
        deadline = _monotonic() + start.lease_answer_seconds + patience
        while (left := deadline - _monotonic()) > 0:
            match self._receive():
                case MemoryGranted() as granted if granted.number == number:
                    return granted.bytes
                case MemoryRefused() as refused if refused.number == number:
                    return Refused(refused.reason, refused.for_ever)
                case None:
                    self._wait(left)
                case message:
                    if len(self.kept) >= MAX_KEPT:
                        raise BadMessage(f"{MAX_KEPT} messages came while an answer was waited for")
                    self.kept.append(message)
        self.release(number)
        return Refused(f"{purpose}: no answer within {start.lease_answer_seconds:g} s", False)

    def note(self, number: int, size_bytes: int, purpose: str, item: int) -> None:
        """Tells of a piece within the item's allowance."""
        start = self._start
        self._send(
            RequestMemory(
                slot=start.slot,
                incarnation=start.incarnation,
                number=number,
                purpose=purpose[:PURPOSE_CHARACTERS],
                bytes=0,
                within_bytes=size_bytes,
                item=item,
            )
        )

    def release(self, number: int) -> None:
        """Gives a lease back."""
        self._send(ReleaseMemory(slot=self._start.slot, incarnation=self._start.incarnation, number=number))

    def renew(self, numbers: list[int]) -> None:
        """Keeps leases from becoming stale."""
        self._send(RenewMemory(slot=self._start.slot, incarnation=self._start.incarnation, numbers=numbers))

    def model_loaded(self, number: int, name: str, size_bytes: int, uses: int, within_bytes: int = 0) -> None:
        """Tells what a model was measured to take, or how often it was used."""
        self._send(
            ModelLoaded(
                slot=self._start.slot,
                incarnation=self._start.incarnation,
                number=number,
                name=name[:PURPOSE_CHARACTERS],
                bytes=size_bytes,
                uses=uses,
                within_bytes=within_bytes,
            )
        )

    def model_unloaded(self, number: int, name: str, freed_bytes: int, reason: str) -> None:
        """Tells that a model and its lease are gone."""
        self._send(
            ModelUnloaded(
                slot=self._start.slot,
                incarnation=self._start.incarnation,
                number=number,
                name=name[:PURPOSE_CHARACTERS],
                bytes=freed_bytes,
                reason=reason[:PURPOSE_CHARACTERS],
            )
        )
