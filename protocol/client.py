"""The client: what outsiders import, and what the command line itself uses.

Synchronous, one DEALER, one thread. Every request carries a number that its answer brings back, so
several may be in flight (submitting keeps WINDOW chunks under way while the next one is read) and an
answer that came too late for its request is recognised and dropped.

    with Client(endpoint) as client:
        with client.open_batch(out="/thumbs") as batch:
            batch.add("/photos", ["a.jpg", "b.jpg"])
        for progress in client.iter_progress(batch.name):
            print(progress.counts.done, "of", progress.items)
        for result in client.iter_results(batch.name):
            print(result["path"], result["state"])

A `Problem` becomes the exception of its code (`protocol.errors`); a supervisor that is not there, or goes
away while it is waited for, becomes NoSupervisor.
"""

import itertools
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from types import TracebackType
from typing import Any, Self, TypeVar

import msgspec

from protocol import sockets
from protocol.chunks import CHUNK_NAMES, FIRST_CHUNK_NAMES, bounded
from protocol.codec import decode_answer, encode
from protocol.errors import BadMessage, NoSupervisor, WaitedTooLong
from protocol.messages import (
    AddItems,
    Answer,
    AnyAnswer,
    AnyRequest,
    BatchClosed,
    Batches,
    BatchOpened,
    BatchProgress,
    BatchRow,
    CancelBatch,
    ChangeSettings,
    CleanupReport,
    CloseBatch,
    Decision,
    Decisions,
    Done,
    EmergencyCollect,
    EndMemoryLease,
    Events,
    Hello,
    History,
    HistoryPage,
    ItemsAdded,
    ItemState,
    LeaksReport,
    LeaksRequest,
    LeaseMemory,
    ListBatches,
    MemoryLeased,
    MemoryReport,
    MemoryRequest,
    OpenBatch,
    PauseWork,
    Problem,
    Progress,
    QuarantineDrop,
    QuarantineEntries,
    QuarantineEntry,
    QuarantineList,
    RenewMemoryLease,
    Results,
    ResultsPage,
    ResumeWork,
    RetryBatch,
    SettingsReport,
    Status,
    StatusRequest,
    Stop,
    Welcome,
    Why,
)
from protocol.problems import error_of

A = TypeVar("A", bound=Answer)

WINDOW = 4
"""Chunks under way at once: hides one commit (some ms) behind the next ones; more only fills queues."""

DEFAULT_TIMEOUT_SECONDS = 30.0
"""A commit takes milliseconds; a disk that is drowned in writes, some seconds."""

CONNECT_SECONDS = 5.0
CONNECT_CHECK_SECONDS = 0.2
ALIVE_CHECK_SECONDS = 1.0
"""So often a client that waits looks whether the supervisor still listens."""

LAST_WORD_SECONDS = 0.1
"""What was sent before a supervisor ended is on its way for less."""

PROGRESS_FLOOR_SECONDS = 0.02
"""Progress is not asked for more often than that, however many events come."""


class Client:
    """A connection to a supervisor. Not for use by several threads.

    `endpoint` is an `ipc://` address; `timeout_seconds` bounds the wait for each answer. Connecting is
    lazy; the first request raises NoSupervisor at once when nobody listens.
    """

    def __init__(self, endpoint: str, timeout_seconds: float = DEFAULT_TIMEOUT_SECONDS) -> None:
        self.endpoint = endpoint
        self.timeout_seconds = timeout_seconds
        self._context = sockets.new_context()
        self._socket: sockets.Socket | None = None
        self._number = 0
        self._expected: set[int | str] = set()
        self._answers: dict[int | str, AnyAnswer] = {}
        self._welcome: Welcome | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Closes the connection; batches go on without it."""
        sockets.destroy_context(self._context)  # also the sockets of iterators that somebody still holds
        self._socket = None

    # ---- requests ----------------------------------------------------------------------------

    def request(self, message: AnyRequest, timeout_seconds: float | None = None) -> AnyAnswer:
        """Sends a request and returns its answer; the request's `id` is set here.

        Raises the GalleryError of a Problem, NoSupervisor, or UsageError for a message too large to send.
        """
        return self._answer_to(self._post(message), timeout_seconds)

    def hello(self) -> Welcome:
        """Returns who is there."""
        self._welcome = self._ask(Hello(), Welcome)
        return self._welcome

    def open_batch(self, **fields: Any) -> "OpenedBatch":
        """Opens a batch (fields of OpenBatch: batch, recipe, out, overwrite, strict, priority, hold,
        fingerprint, resume, kind) and returns it, ready for its items."""
        return OpenedBatch(self, self._ask(OpenBatch(**fields), BatchOpened))

    def progress(self, batch: str) -> BatchProgress:
        """Returns how far a batch is. Raises UnknownBatch."""
        return self._ask(Progress(batch=batch), BatchProgress)

    def batches(self, limit: int = 100) -> list[BatchRow]:
        """Returns the batches, newest first."""
        return self._ask(ListBatches(limit=limit), Batches).batches

    def cancel(self, batch: str) -> BatchProgress:
        """Cancels what has not been started."""
        return self._ask(CancelBatch(batch=batch), BatchProgress)

    def retry(self, batch: str, quarantined: bool = False) -> BatchProgress:
        """Puts failed (and quarantined) items back to work."""
        return self._ask(RetryBatch(batch=batch, quarantined=quarantined), BatchProgress)

    def pause(self, batch: str | None = None, reason: str = "asked by the user", seconds: float | None = None) -> str:
        """Pauses a batch, or the pool; returns what was done."""
        return self._ask(PauseWork(batch=batch, reason=reason, seconds=seconds), Done).message

    def resume(self, batch: str | None = None) -> str:
        """Ends a pause; returns what was done."""
        return self._ask(ResumeWork(batch=batch), Done).message

    def status(self) -> Status:
        """Returns the whole pool at this moment."""
        return self._ask(StatusRequest(), Status)

    def memory(self) -> MemoryReport:
        """Returns everything known about memory."""
        return self._ask(MemoryRequest(), MemoryReport)

    def history(self, since: float | None = None, resolution: float = 0.0, limit: int = 1_000) -> HistoryPage:
        """Returns the memory of the past since a date, in columns."""
        return self._ask(History(since=since, resolution=resolution, limit=limit), HistoryPage)

    def change_settings(self, changes: Mapping[str, str], save: bool = False) -> SettingsReport:
        """Changes settings by key path while the supervisor runs, all or none; with no changes, its settings file is
        read anew. Raises UsageError with every fault."""
        return self._ask(ChangeSettings(changes=dict(changes), save=save), SettingsReport)

    def leaks(self) -> LeaksReport:
        """Returns what grows, and where it is heading."""
        return self._ask(LeaksRequest(), LeaksReport)

    def collect_garbage(self, cycles: int = 1) -> CleanupReport:
        """Has the supervisor and every worker collect garbage, so many times; tells what each gave back."""
        return self._ask(EmergencyCollect(cycles=cycles), CleanupReport)

    def is_active(self) -> bool:
        """Tells whether it grants work: neither paused nor draining."""
        status = self.status()
        return status.paused is None and not status.draining

    def why(self, *, slot: int | None = None, path: str | None = None, limit: int = 200) -> list[Decision]:
        """Returns the decisions about one worker or one image (path token), oldest first."""
        return self._ask(Why(slot=slot, path=path, limit=limit), Decisions).decisions

    def decisions(self, after: int = -1, limit: int = 200) -> list[Decision]:
        """Returns the decisions after a number, oldest first; -1 gives the last ones."""
        return self._ask(Events(after=after, limit=limit), Decisions).decisions

    def quarantine(self, path: str | None = None) -> list[QuarantineEntry]:
        """Returns what is in quarantine, newest first, or the entry of one image (path token)."""
        return self._ask(QuarantineList(path=path), QuarantineEntries).entries

    def drop_quarantine(self, path: str, retry: bool = False) -> str:
        """Forgets a quarantined image (path token), with `retry` its items go back to work."""
        return self._ask(QuarantineDrop(path=path, retry=retry), Done).message

    def request_memory(self, size_bytes: int, *, at_least: int | None = None, purpose: str = "") -> MemoryLeased:
        """Asks for memory for this process, for less down to `at_least` (all of it when that is None); its `bytes` may
        then be taken until `release_memory(lease)`. Renew it before `stale_after_seconds`. Raises Refused, which says
        why and how much is free."""
        return self._ask(LeaseMemory(bytes=size_bytes, at_least=at_least, purpose=purpose), MemoryLeased)

    def renew_memory(self, lease: int) -> str:
        """Keeps a memory lease from becoming stale. Raises Refused where it is gone."""
        return self._ask(RenewMemoryLease(lease=lease), Done).message

    def release_memory(self, lease: int) -> str:
        """Gives a memory lease back, or stops tracking an allocation. Raises Refused where it is gone."""
        return self._ask(EndMemoryLease(lease=lease), Done).message

    def track_memory(self, size_bytes: int, purpose: str = "") -> MemoryLeased:
        """Has memory that this process has taken reckoned with, until `release_memory(lease)`. Never refused for want
        of memory."""
        return self._ask(LeaseMemory(bytes=size_bytes, purpose=purpose, track=True), MemoryLeased)

    def stop(self, now: bool = False) -> str:
        """Drains and stops the supervisor; answers at once."""
        return self._ask(Stop(now=now), Done).message

    # ---- following ---------------------------------------------------------------------------

    def iter_progress(self, batch: str, every_seconds: float = 0.25) -> Iterator[BatchProgress]:
        """Yields the batch's progress, last of all when it is over (`is_over`).

        Asks every `every_seconds`, and at once when the supervisor publishes something about the batch.
        """
        with self._subscribed([f"batch.{batch}"]) as news:
            while True:
                progress = self.progress(batch)
                yield progress
                if is_over(progress):
                    return
                if sockets.wait_readable(news, every_seconds):
                    time.sleep(PROGRESS_FLOOR_SECONDS)
                    while sockets.receive(news) is not None:
                        pass

    def wait(self, batch: str, timeout_seconds: float | None = None) -> BatchProgress:
        """Returns the batch's last progress once it is finished or cancelled. Raises WaitedTooLong."""
        deadline = None if timeout_seconds is None else time.monotonic() + timeout_seconds
        every = 0.25 if timeout_seconds is None else max(PROGRESS_FLOOR_SECONDS, min(0.25, timeout_seconds))
        progress = None
        for progress in self.iter_progress(batch, every):
            if not is_over(progress) and deadline is not None and time.monotonic() > deadline:
                left = f"{progress.counts.pending + progress.counts.leased:,} of {progress.items:,} items remain"
                raise WaitedTooLong(f"batch {batch} is not finished after {timeout_seconds:g} s: {left}")
        assert progress is not None
        return progress

    def iter_raw_results(self, batch: str, states: Iterable[ItemState] = ()) -> Iterator[bytes]:
        """Yields settled items as JSON objects in bytes, in the order they settled; all states, or only these."""
        after, wanted = 0, list(states)
        while True:
            page = self._ask(Results(batch=batch, after=after, states=wanted), ResultsPage)
            for result in page.results:
                yield bytes(result)
            if page.next is None:
                return
            after = page.next

    def iter_results(self, batch: str, states: Iterable[ItemState] = ()) -> Iterator[dict[str, Any]]:
        """Yields settled items as dictionaries (see `supervisor results`), in the order they settled."""
        for raw in self.iter_raw_results(batch, states):
            yield msgspec.json.decode(raw)

    def follow(self, topics: Iterable[str] = ("",), backlog: int = 20) -> Iterator[Decision | None]:
        """Yields decisions as they are taken, after the last `backlog` ones of all topics; None while it is quiet.

        Topics are prefixes: `worker.3`, `batch.b1`, `pool`. Raises NoSupervisor when the supervisor goes.
        """
        with self._subscribed(list(topics)) as news:
            last = -1
            for decision in self.decisions(limit=backlog) if backlog else ():
                last = decision.number
                yield decision
            while True:
                if not sockets.wait_readable(news, ALIVE_CHECK_SECONDS):
                    self._check_alive()
                    yield None
                while (frames := sockets.receive(news)) is not None:
                    decision = msgspec.json.decode(frames[-1], type=Decision)
                    if decision.number > last:
                        last = decision.number
                        yield decision

    # ---- the wire ----------------------------------------------------------------------------

    def _ask(self, message: AnyRequest, expected: type[A]) -> A:
        answer = self.request(message)
        if not isinstance(answer, expected):
            raise BadMessage(f"the supervisor answered {type(message).__name__} with {type(answer).__name__}")
        return answer

    def _post(self, message: AnyRequest) -> int:
        self._number += 1
        frame = encode(msgspec.structs.replace(message, id=self._number))
        socket = self._connected()
        deadline = time.monotonic() + min(CONNECT_SECONDS, self.timeout_seconds)
        while (sent := sockets.send(socket, [frame])) is not sockets.Sent.SENT:
            left = deadline - time.monotonic()
            if sent is sockets.Sent.GONE or left <= 0:
                raise NoSupervisor(f"the supervisor at {self.endpoint} takes no message")
            if not sockets.wait_writable(socket, min(left, CONNECT_CHECK_SECONDS)):
                self._check_alive()
        self._expected.add(self._number)
        return self._number

    def _answer_to(self, number: int, timeout_seconds: float | None = None) -> AnyAnswer:
        """Returns the answer to a request; answers to others are kept for those who wait for them."""
        patience = self.timeout_seconds if timeout_seconds is None else timeout_seconds
        deadline = time.monotonic() + patience
        while number not in self._answers:
            left = deadline - time.monotonic()
            if left <= 0:
                self._expected.discard(number)
                raise NoSupervisor(f"the supervisor at {self.endpoint} has not answered within {patience:g} s")
            self._take_answers(min(left, ALIVE_CHECK_SECONDS))
        self._expected.discard(number)
        answer = self._answers.pop(number)
        if isinstance(answer, Problem):
            raise error_of(answer)
        return answer

    def _take_answers(self, wait_seconds: float) -> None:
        socket = self._connected()
        # A supervisor that stops answers what it was asked, then goes: its last word may come after its listening ends.
        gone = not sockets.wait_readable(socket, wait_seconds) and not sockets.is_listening(self.endpoint)
        if gone and not sockets.wait_readable(socket, LAST_WORD_SECONDS):
            self._check_alive()
        while (frames := sockets.receive(socket)) is not None:
            answer = decode_answer(frames[-1])
            if answer.id in self._expected:
                self._answers[answer.id] = answer
            elif isinstance(answer, Problem) and answer.id in (0, ""):
                raise error_of(answer)  # about a frame whose number could not be read

    def _connected(self) -> sockets.Socket:
        if self._socket is None:
            self._check_alive()
            self._socket = sockets.client_socket(self._context, self.endpoint)
        return self._socket

    def _check_alive(self) -> None:
        if not sockets.is_listening(self.endpoint):
            raise NoSupervisor(f"no supervisor listens at {self.endpoint}")

    def _subscribed(self, topics: list[str]) -> sockets.Socket:
        welcome = self._welcome or self.hello()
        return sockets.subscriber(self._context, welcome.events_endpoint, topics)


def is_over(progress: BatchProgress) -> bool:
    """Tells whether nothing more will happen in a batch: a cancelled one may still have images in progress."""
    return progress.state in ("finished", "cancelled") and not (progress.counts.pending or progress.counts.leased)


class OpenedBatch:
    """A batch that takes items. As a context manager it is closed at the end of the block, unless that raised."""

    def __init__(self, client: Client, opened: BatchOpened) -> None:
        self._client = client
        self._chunk = opened.next_chunk
        self._in_flight: list[int] = []
        self._limit = FIRST_CHUNK_NAMES
        self.name = opened.batch
        self.resumed = opened.resumed
        self.added = 0
        self.known = 0
        self.closed: BatchClosed | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None and self.closed is None:
            self.close()

    def add(self, root: str, names: Iterable[str], prefix: str = "", between: Callable[[], None] | None = None) -> None:
        """Adds the files `root`/name (path tokens, `root` absolute); outputs are named after `prefix`/name.

        Reads `names` lazily, a chunk at a time; returns when the last chunk is sent, which is not yet
        acknowledged (see `flush`). `between` is called after each chunk. Raises what the supervisor
        answers to any chunk: OutputClash, Refused, UnknownBatch.
        """
        iterator = iter(names)
        while chunk := list(itertools.islice(iterator, self._limit)):
            for part in bounded(chunk):
                self._send(AddItems(batch=self.name, chunk=self._chunk, root=root, prefix=prefix, names=part))
            self._limit = min(CHUNK_NAMES, self._limit * 5)
            if between is not None:
                between()

    def flush(self) -> None:
        """Waits until every chunk is acknowledged: committed to disk."""
        while self._in_flight:
            self._settle_oldest()

    def close(self, ignored: int = 0) -> BatchClosed:
        """Says that all items were added (`ignored` files were no images); returns the count on disk."""
        self.flush()
        self.closed = self._client._ask(CloseBatch(batch=self.name, ignored=ignored), BatchClosed)
        return self.closed

    def _send(self, message: AddItems) -> None:
        while len(self._in_flight) >= WINDOW:
            self._settle_oldest()
        self._in_flight.append(self._client._post(message))
        self._chunk += 1

    def _settle_oldest(self) -> None:
        answer = self._client._answer_to(self._in_flight.pop(0))
        if isinstance(answer, ItemsAdded):
            self.added += answer.added
            self.known += answer.known
