"""Simulated clients: each submits one batch, patiently; others meddle with whatever is there."""

from collections.abc import Callable
from random import Random

import msgspec

from protocol import messages as m
from tests.simulation.crew import draw_names

PATIENCE_SECONDS = 1.5
REFUSALS_AT_MOST = 100
"""Two that hold their batches until they are complete can fill a small queue for good: then one gives up."""


class Client:
    """Opens a batch, adds its items, closes it; asks again when refused as busy or not answered in time."""

    def __init__(self, name: str, random: Random, send: Callable[[bytes, m.AnyRequest], None]) -> None:
        self.name = name
        self.peer = name.encode()
        self._random = random
        self._send = send
        self._number = 0
        self.acknowledged: set[str] = set()
        chunks = [draw_names(random, random.choice([1, 3, 8, 15])) for _ in range(random.choice([1, 1, 2, 3]))]
        hold = random.random() < 0.2
        fingerprint = name if random.random() < 0.5 else None
        self._todo: list[m.AnyRequest] = [
            m.OpenBatch(
                batch=name,
                recipe="r",
                priority=random.choice([0, 0, 0, 5, -5]),
                hold=hold,
                fingerprint=fingerprint,
                resume=fingerprint is not None,
            ),
            *(m.AddItems(batch=name, chunk=number, root="/in", names=names) for number, names in enumerate(chunks)),
            m.CloseBatch(batch=name),
        ]
        self._at = 0
        self._send_at = 0.0
        self._answered = True
        self._refused = 0

    @property
    def finished(self) -> bool:
        """Whether it has said all it had to say."""
        return self._at >= len(self._todo)

    def due(self, now: float) -> None:
        """Sends what it has to say next, if it is time."""
        if self.finished or now < self._send_at:
            return
        self._number += 1
        self._answered = False
        self._send_at = now + PATIENCE_SECONDS
        self._send(self.peer, msgspec.structs.replace(self._todo[self._at], id=self._number))

    def hear(self, answer: m.AnyAnswer, now: float) -> None:
        """An answer; one to an earlier attempt is of no interest."""
        if answer.id != self._number or self._answered or self.finished:
            return
        self._answered = True
        self._send_at = now + self._random.choice([0.0, 0.01, 0.3])
        if isinstance(answer, m.Problem):
            self._refused += 1
            if answer.code == "busy" and self._refused < REFUSALS_AT_MOST:
                self._send_at = now + 0.4
            elif answer.code in ("busy", "usage", "closed", "bad_chunk"):
                self._at = len(self._todo)
            else:
                raise AssertionError(f"{self._todo[self._at]} was answered {answer}")
            return
        request = self._todo[self._at]
        if isinstance(request, m.AddItems):
            self.acknowledged.update(request.names)
        self._at += 1


def meddle(random: Random, batches: list[str], paths: list[str]) -> m.AnyRequest:
    """Draws a request of somebody who does whatever comes to mind."""
    batch = random.choice(batches)
    number = random.randrange(10**6)
    requests: list[m.AnyRequest] = [
        m.CancelBatch(id=number, batch=batch),
        m.RetryBatch(id=number, batch=batch, quarantined=random.random() < 0.5),
        m.PauseWork(id=number, batch=random.choice([batch, None])),
        m.PauseWork(id=number, batch=random.choice([batch, None]), seconds=random.uniform(0.05, 2.0)),
        m.ResumeWork(id=number, batch=random.choice([batch, None])),
        m.ResumeWork(id=number, batch=random.choice([batch, None])),
        m.StatusRequest(id=number),
        m.ListBatches(id=number),
        m.Hello(id=number),
        m.Progress(id=number, batch=batch),
        m.OpenBatch(id=number, batch=batch, recipe="r"),
        m.OpenBatch(id=number, batch=f"again-{number}", recipe="r", fingerprint=batch, resume=True),
        m.OpenBatch(id=number, recipe="no such recipe"),
        m.AddItems(id=number, batch=batch, chunk=0, root="relative", names=["good-1"]),
        m.QuarantineDrop(id=number, path=random.choice(paths), retry=random.random() < 0.7),
    ]
    return random.choice(requests)
