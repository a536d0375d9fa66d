"""What happens, told once to every open dashboard: server-sent events from one poll and one subscription.

However many look, the supervisor is asked once: the status every half second, batches and the newest results every two,
temp and cache every ten, decisions as they are published. With nobody looking nothing is asked at all. A listener that
does not keep up misses what is between, never what is newest: each kind of event tells the whole of its matter, save
decisions, of which the last ones are kept.
"""

import asyncio
import contextlib
import threading
import time
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import msgspec

from protocol.errors import GalleryError, NoSupervisor
from protocol.messages import (
    AskCache,
    Batches,
    BatchRow,
    CacheReport,
    Decision,
    ListBatches,
    MemoryReport,
    MemoryRequest,
    QuarantineEntries,
    QuarantineList,
    Results,
    ResultsPage,
    Status,
    StatusRequest,
    TempStats,
    TempUsage,
)
from supervisor.gateway.access import Refusal
from supervisor.gateway.clients import Clients
from supervisor.gateway.rows import row

LISTENERS_MOST = 16
STATUS_SECONDS = 0.5
BATCHES_SECONDS = 2.0
STORES_SECONDS = 10.0
DECISIONS_SECONDS = 0.2
"""Decisions are told together: a storm of them is a few messages a second."""
DECISIONS_KEPT = 200
QUEUE_MESSAGES = 100
BATCHES_TOLD = 12
RESULTS_TOLD = 16
FAILURES_TOLD = 20
QUARANTINE_TOLD = 100
AGAIN_SECONDS = 1.0


class Feed:
    """The events, and who listens."""

    def __init__(self, clients: Clients) -> None:
        self._clients = clients
        self._listeners: set[asyncio.Queue[bytes | None]] = set()
        self._latest: dict[str, bytes] = {}
        self._decisions: deque[Decision] = deque(maxlen=DECISIONS_KEPT)
        self._tasks: list[asyncio.Task[None]] = []
        self._following: threading.Event | None = None
        self._ended = False

    async def listen(self) -> AsyncIterator[bytes]:
        """Returns the events from now on, after the latest of each kind. Raises Refusal where too many listen."""
        if self._ended or len(self._listeners) >= LISTENERS_MOST:
            raise Refusal(503, "busy", f"{LISTENERS_MOST} dashboards are open already; close one")
        queue: asyncio.Queue[bytes | None] = asyncio.Queue(QUEUE_MESSAGES)
        return self._told(queue)

    async def _told(self, queue: "asyncio.Queue[bytes | None]") -> AsyncIterator[bytes]:
        self._listeners.add(queue)
        self._begin()
        try:
            yield b"retry: 2000\n\n" + b"".join(self._latest.values())
            while (event := await queue.get()) is not None:
                yield event
        finally:
            self._listeners.discard(queue)
            if not self._listeners:
                self._rest()

    def end(self) -> None:
        """Ends every listener: the gateway stops."""
        self._ended = True
        for queue in self._listeners:
            _put(queue, None)
        self._rest()

    def _begin(self) -> None:
        if self._tasks:
            return
        loop = asyncio.get_running_loop()
        work: list[tuple[Callable[[], Awaitable[None]], float]] = [
            (self._tell_status, STATUS_SECONDS), (self._tell_batches, BATCHES_SECONDS),
            (self._tell_stores, STORES_SECONDS), (self._tell_decisions, DECISIONS_SECONDS),
        ]  # fmt: skip
        self._tasks = [loop.create_task(self._every(function, seconds)) for function, seconds in work]
        self._following = threading.Event()
        threading.Thread(target=self._follow, args=(loop, self._following), name="decisions", daemon=True).start()

    def _rest(self) -> None:
        for task in self._tasks:
            task.cancel()
        self._tasks = []
        self._latest.clear()
        if self._following is not None:
            self._following.set()
            self._following = None

    async def _every(self, function: Callable[[], Awaitable[None]], seconds: float) -> None:
        while True:
            try:
                await function()
            except GalleryError as error:
                if isinstance(error, NoSupervisor):
                    self._tell("gone", {"message": str(error)})
            await asyncio.sleep(seconds)

    def _tell(self, kind: str, data: object, *, keep: bool = True) -> None:
        event = b"event: %b\ndata: %b\n\n" % (kind.encode(), msgspec.json.encode(data))
        if keep:
            self._latest[kind] = event
        if kind == "status":
            self._latest.pop("gone", None)
        for queue in self._listeners:
            _put(queue, event)

    async def _tell_status(self) -> None:
        status = await self._clients.ask(StatusRequest(), Status)
        self._tell("status", {**row(status), "at": time.time()})

    async def _tell_batches(self) -> None:
        found = (await self._clients.ask(ListBatches(limit=BATCHES_TOLD), Batches)).batches
        self._tell("batches", [row(batch) for batch in found])
        shown = max(found, key=_liveliness, default=None)
        recent: dict[str, Any] = {"batch": None, "out": None, "results": [], "failures": []}
        if shown is not None:
            newest = Results(batch=shown.batch, newest=True, limit=RESULTS_TOLD, states=["done", "cached"])
            failed = Results(batch=shown.batch, newest=True, limit=FAILURES_TOLD, states=["failed", "quarantined"])
            recent["batch"], recent["out"] = shown.batch, shown.out
            for name, asked in (("results", newest), ("failures", failed)):
                page = await self._clients.ask(asked, ResultsPage)
                recent[name] = [_short(msgspec.json.decode(result)) for result in page.results]
        self._tell("recent", recent)
        entries = (await self._clients.ask(QuarantineList(), QuarantineEntries)).entries
        self._tell("quarantine", [row(entry) for entry in entries[:QUARANTINE_TOLD]])

    async def _tell_stores(self) -> None:
        memory = await self._clients.ask(MemoryRequest(), MemoryReport)
        self._tell("memory", row(memory))
        self._tell("temp", row(await self._clients.ask(TempStats(), TempUsage)))
        with contextlib.suppress(GalleryError):  # there may be no cache
            self._tell("cache", (await self._clients.ask(AskCache(), CacheReport)).stats)

    async def _tell_decisions(self) -> None:
        if self._decisions:
            told = [row(decision) for decision in self._decisions]
            self._decisions.clear()
            self._tell("decisions", told, keep=False)

    def _follow(self, loop: asyncio.AbstractEventLoop, ended: threading.Event) -> None:
        """In a thread: hands the decisions on as they are published, from one supervisor after the other."""
        while not ended.wait(0):
            try:
                with self._clients.connect() as client:
                    for decision in client.follow(backlog=0):
                        if ended.is_set():
                            return
                        if decision is not None:
                            loop.call_soon_threadsafe(self._decisions.append, decision)
            except GalleryError:
                ended.wait(AGAIN_SECONDS)
            except RuntimeError:
                return  # the loop is closed: the gateway has ended


def _liveliness(batch: BatchRow) -> tuple[bool, bool, float]:
    """Orders batches by how much there is to see in them."""
    counts = batch.counts
    return counts.leased > 0, batch.finished_at is None and counts.done + counts.cached > 0, batch.opened_at


def _short(result: dict[str, Any]) -> dict[str, Any]:
    """Returns what a dashboard shows of a result: its values may be of any size."""
    names = ("path", "path_b64", "state", "error", "attempts", "outputs", "seconds", "peak_bytes", "worker")
    return {name: result[name] for name in names if name in result}


def _put(queue: "asyncio.Queue[bytes | None]", event: bytes | None) -> None:
    if queue.full():
        queue.get_nowait()
    queue.put_nowait(event)
