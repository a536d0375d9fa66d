"""A real journal in a directory of its own, and short ways to say what it is asked."""

import os
import queue
import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from protocol.messages import AnyAnswer, AnyRequest, Counts, Problem, Recipe, Results, ResultsPage, Step
from supervisor.mechanism.journal import Answered, Journal
from supervisor.policy import commands as c
from supervisor.policy import events as e
from supervisor.policy.items import BatchRecord, Item, QuarantineFacts, Settlement

PEER = b"client"
WAIT_SECONDS = 20.0
T = TypeVar("T")


def record(batch: str = "b1", **changes: Any) -> BatchRecord:
    """A batch as a client would open it."""
    fields: dict[str, Any] = {
        "batch": batch,
        "recipe": Recipe(name="thumbs", steps=[Step(operation="thumbnail", parameters={"sizes": ["256"]})]),
        "out": "/out",
        "overwrite": False,
        "strict": True,
        "priority": 3,
        "hold": False,
        "fingerprint": "paths+out",
        "kind": "default",
        "opened_at": 1000.0,
    }
    return BatchRecord(**fields | changes)


def settlement(item: int, state: Any = "done", batch: str = "b1", **changes: Any) -> Settlement:
    """The final word on an item."""
    return Settlement(id=item, batch=batch, state=state, **{"tries": 1, **changes})


def facts(**changes: Any) -> QuarantineFacts:
    """What is known of an image that killed its workers."""
    fields: dict[str, Any] = {
        "kind": "crash",
        "message": "SIGSEGV twice in thumbnail",
        "recipe": "thumbs",
        "size_bytes": 10,
        "mtime_ns": 20,
        "version": "thumbnail-1",
        "evidence": {"signals": [11, 11]},
    }
    return QuarantineFacts(**fields | changes)


class Bed:
    """A journal that runs, and everything it posted."""

    def __init__(self, directory: str, *, start: bool = True) -> None:
        os.makedirs(directory, exist_ok=True)
        self.directory = directory
        self.posted: queue.Queue[Any] = queue.Queue()
        self.threads: set[str] = set()
        self.journal = Journal(directory, self._post, clock=lambda: 5000.0)
        self.recovered = self.journal.open()
        if start:
            self.journal.start()

    def _post(self, event: Any) -> None:
        self.threads.add(threading.current_thread().name)
        self.posted.put(event)

    def expect(self, kind: type[T]) -> T:
        """Returns the next thing posted, which must be of this type."""
        found = self.posted.get(timeout=WAIT_SECONDS)
        assert isinstance(found, kind), found
        return found

    def create(self, batch: str = "b1", *, resume: bool = False, **changes: Any) -> e.BatchCreated:
        self.journal.submit(c.CreateBatch(peer=PEER, request_id=1, record=record(batch, **changes), resume=resume))
        return self.expect(e.BatchCreated)

    def send(self, names: list[str], chunk: int = 0, batch: str = "b1", root: str = "/in", prefix: str = "") -> None:
        self.journal.submit(
            c.InsertItems(peer=PEER, request_id=7, batch=batch, chunk=chunk, root=root, prefix=prefix, names=names)
        )

    def insert(self, names: list[str], chunk: int = 0, **more: Any) -> e.ItemsInserted:
        self.send(names, chunk, **more)
        return self.expect(e.ItemsInserted)

    def refused(self, names: list[str], chunk: int = 0, **more: Any) -> e.JournalRefused:
        self.send(names, chunk, **more)
        return self.expect(e.JournalRefused)

    def seal(self, batch: str = "b1", ignored: int = 0) -> e.BatchSealed:
        self.journal.submit(c.SealBatch(peer=PEER, request_id=2, batch=batch, ignored=ignored))
        return self.expect(e.BatchSealed)

    def fetch(self, batch: str = "b1", after: int = 0, limit: int = 1000) -> list[Item]:
        self.journal.submit(c.FetchItems(batch=batch, after=after, limit=limit))
        return self.expect(e.ItemsFetched).items

    def settle(self, *settlements: Settlement) -> list[Settlement]:
        self.journal.submit(c.SettleItems(settlements=list(settlements)))
        return self.expect(e.ItemsCommitted).settlements

    def change(self, batch: str = "b1", **fields: Any) -> None:
        self.journal.submit(c.ChangeBatch(batch=batch, **fields))
        self.expect(e.BatchChanged)

    def finish(self, batch: str = "b1") -> None:
        self.change(batch, state="finished", finished_at=2000.0)

    def filled(self, names: list[str], batch: str = "b1", **changes: Any) -> list[Item]:
        """A batch with these items, as they are fetched."""
        self.create(batch, **changes)
        self.insert(names, batch=batch)
        return self.fetch(batch, limit=len(names) + 1)

    def ask(self, request: AnyRequest, live: dict[str, c.LiveBatch] | None = None) -> AnyAnswer:
        self.journal.submit(c.Query(peer=PEER, request=request, live=live or {}))
        answered = self.expect(Answered)
        assert answered.peer == PEER
        return answered.answer

    def results(self, batch: str = "b1", **more: Any) -> list[dict[str, Any]]:
        page = self.ask(Results(batch=batch, **more))
        assert isinstance(page, ResultsPage)
        return [msgspec.json.decode(line) for line in page.results]

    def problem(self, request: AnyRequest) -> Problem:
        answer = self.ask(request)
        assert isinstance(answer, Problem)
        return answer

    def counts(self, batch: str = "b1") -> Counts:
        """Counts as they are on disk, read by opening the batch again, which changes nothing."""
        return self.create(batch).record.counts

    def close(self) -> None:
        self.journal.close()
        assert self.posted.empty(), self.posted.queue

    def power_cut(self, directory: Path) -> Path:
        """Makes the directory what the next supervisor would find if this one never got to close the journal."""
        shutil.copytree(self.directory, directory)
        return directory


def wait_until(fact: Callable[[], object], seconds: float = WAIT_SECONDS) -> None:
    """Waits on a fact, with a deadline."""
    deadline = time.monotonic() + seconds
    turn = threading.Event()
    while not fact():
        assert time.monotonic() < deadline, "the fact never came true"
        turn.wait(0.005)
