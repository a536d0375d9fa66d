"""Batches, and the window of their items that is held in memory.

The journal holds every item; here are only those near their turn: at most WINDOW_ITEMS in all. A batch's
window is filled by FetchItems in order of id; the cursor is the highest id fetched. Items that come back
(handed back, uncharged losses) go to the front. Items that must run in a lease of one (suspects, and those
that need more memory than a worker's share) wait in `special`.

Counts: an item of the batch is in exactly one place: on disk beyond the cursor, in the window (`front`,
`ready`, `special`; `looking` and `following` for the cache), leased, settling (its verdict is on its way to the
disk), or settled (`counts`).
"""

from collections import deque
from collections.abc import Iterator

import msgspec

from protocol.messages import Counts, Summary
from protocol.paths import item_path
from supervisor.policy.cache.coalesce import Coalescer
from supervisor.policy.items import BatchRecord, Item, SettledState

WINDOW_ITEMS = 10_000
"""DESIGN 1: the policy holds a window, not the world; at some 300 bytes an item this is 3 MB."""
FETCH_ITEMS = 2_000
"""Read at a time: some 5 ms of journal work, a tenth of a second of the fastest no-op work."""
VERDICTS_MAX = 20_000
"""Several seconds of the fastest no-op work; a journal that keeps up has some hundreds on their way."""
VERDICTS_MAX_BYTES = 32 * 1024 * 1024
"""What they may take by then: 20,000 ordinary ones take 20 MB, the text of a page alone some KB."""
VERDICT_BYTES = 1_000
"""Of a verdict on its way to the disk beside its detail, as measured: the struct, a path for each output, its place."""
SPECIALS_BEFORE_OTHERS = 64
"""Above this many waiting specials they no longer wait for the ordinary items to be finished."""


class Batch(msgspec.Struct, kw_only=True):
    """An unfinished batch. `record` is what the journal knows; the rest is where its items are now."""

    record: BatchRecord
    order: int
    """Batches of one priority are served in the order of this number."""
    open: bool
    items: int
    ignored: int
    roots: list[tuple[str, str]]
    """(root, prefix) by number."""
    counts: dict[SettledState, int]
    leased: int = 0
    settling_ids: dict[int, int] = msgspec.field(default_factory=dict)
    """Items whose verdict is on its way to the disk, with what it takes in memory until then."""
    settling_bytes: int = 0
    """The sum of those."""
    cursor: int = 0
    exhausted: bool = False
    fetching: bool = False
    stale_fetch: bool = False
    """The answer of the fetch under way is to be thrown away (the window was rewound meanwhile)."""
    away: set[int] = msgspec.field(default_factory=set)
    """Ids leased or settling when the window was rewound: not to be taken from the journal again."""
    front: deque[Item] = msgspec.field(default_factory=deque)
    ready: deque[Item] = msgspec.field(default_factory=deque)
    special: deque[Item] = msgspec.field(default_factory=deque)
    looking: dict[int, Item] = msgspec.field(default_factory=dict)
    """Items that the cache is asked for."""
    following: dict[int, Item] = msgspec.field(default_factory=dict)
    """Items that wait for an identical one to be over."""
    storing: dict[int, bytes] = msgspec.field(default_factory=dict)
    """Items whose results are on their way into the cache, with their identities."""
    coalescer: Coalescer[int] = msgspec.field(default_factory=Coalescer)
    cancelled: bool = False
    sweeping: bool = False
    """A CancelItems is under way: what comes back meanwhile is cancelled by the next one."""
    paused: str | None = None
    resume_at: float | None = None
    """When a pause for a machine error ends by itself; None: it lasts until it is ended."""
    machine_pauses: int = 0
    short_since: float | None = None
    """Since when no item was done because memory was refused for what each of them needs, such as a model."""
    heard_at: float | None = None
    """When who fills it was last heard of, while it is open."""
    sealing: bool = False
    """That it is abandoned is on its way to the journal."""
    abandoned_at: float | None = None
    """When it was closed in place of its client, in seconds since the epoch; None: it was not."""
    closing: bool = False
    """Its end is on its way to the journal."""
    changing: int = 0
    """States on their way to the journal: it is let go when the last one, its end, has arrived."""
    began_at: float | None = None
    busy_seconds: float = 0.0
    summary: Summary = Summary()
    recycles: dict[str, int] = msgspec.field(default_factory=dict)
    restarts: int = 0
    kills: int = 0
    batch_shrinks: int = 0
    oom_kills: int = 0
    peak_bytes: int = 0
    read_bytes: int = 0
    """Size of the images that workers settled since this supervisor has the batch."""

    @property
    def name(self) -> str:
        """The batch's identifier."""
        return self.record.batch

    @property
    def settling(self) -> int:
        """How many verdicts are on their way to the disk."""
        return len(self.settling_ids)

    def settles(self, item: int, detail_bytes: int = 0) -> None:
        """Notes that the verdict of an item is sent to the disk; `detail_bytes` is what it consists of."""
        self.settling_ids[item] = VERDICT_BYTES + detail_bytes
        self.settling_bytes += VERDICT_BYTES + detail_bytes

    def committed(self, item: int) -> bool:
        """Notes that the verdict of an item is on the disk. False: it was not on its way."""
        size = self.settling_ids.pop(item, None)
        self.settling_bytes -= size or 0
        return size is not None

    @property
    def windowed(self) -> int:
        """Items of it held in memory and not leased."""
        return len(self.front) + len(self.ready) + len(self.special) + len(self.looking) + len(self.following)

    @property
    def settled(self) -> int:
        """Items with a committed verdict."""
        return sum(self.counts.values())

    @property
    def pending(self) -> int:
        """Items that wait, in memory or on disk."""
        return max(0, self.items - self.settled - self.settling - self.leased)

    @property
    def runnable(self) -> bool:
        """Whether leases may be made of it now."""
        held = self.record.hold and self.open
        return not (held or self.cancelled or self.paused is not None or self.closing)

    @property
    def complete(self) -> bool:
        """Whether nothing of it is left to do."""
        return not self.open and not self.closing and self.settled >= self.items and not self.settling

    def live_counts(self) -> Counts:
        """Returns the counts as clients see them: a verdict counts when it is committed."""
        counts = self.counts
        return Counts(
            pending=self.pending,
            leased=self.leased + self.settling,
            done=counts["done"],
            cached=counts["cached"],
            failed=counts["failed"],
            quarantined=counts["quarantined"],
            cancelled=counts["cancelled"],
        )

    def so_far(self, now: float, budget_bytes: int) -> Summary:
        """Returns what running the batch has taken up to now, under earlier supervisors too."""
        seconds = self.busy_seconds + (now - self.began_at if self.began_at is not None else 0.0)
        worked = self.settled - self.counts["cancelled"]
        return Summary(
            seconds=round(seconds, 3),
            items_per_second=round(worked / seconds, 3) if seconds > 0 else 0.0,
            peak_bytes=self.peak_bytes,
            budget_bytes=budget_bytes,
            recycles=dict(self.recycles),
            restarts=self.restarts,
            kills=self.kills,
            batch_shrinks=self.batch_shrinks,
            oom_kills=self.oom_kills,
        )

    def path(self, item: Item) -> str:
        """Returns the token of the item's input."""
        root, prefix = self.roots[item.root]
        return item_path(root, prefix, item.stem)

    def take(self, limit: int) -> list[Item]:
        """Removes up to `limit` ordinary items from the window, returned ones first."""
        taken: list[Item] = []
        for source in (self.front, self.ready):
            while source and len(taken) < limit:
                taken.append(source.popleft())
        return taken

    def give_back(self, items: list[Item]) -> None:
        """Puts items back at the front, in their order; those that must run alone to the specials."""
        for item in reversed(items):
            if item.suspect or item.needs_bytes:
                self.special.appendleft(item)
            else:
                self.front.appendleft(item)

    def rewind(self, away: set[int]) -> None:
        """Forgets the window, to be read again from the journal; `away` are the ids leased or settling."""
        self.front.clear()
        self.ready.clear()
        self.special.clear()
        self.looking.clear()
        self.following.clear()
        self.coalescer = Coalescer()
        self.cursor = 0
        self.exhausted = False
        self.stale_fetch = self.fetching
        self.away = away

    def fetched(self, items: list[Item], exhausted: bool) -> list[Item]:
        """Takes in what the journal read. Returns the ordinary items, which are still to be put somewhere."""
        self.fetching = False
        if self.stale_fetch:
            self.stale_fetch = False
            return []
        self.exhausted = exhausted
        if items:
            self.cursor = items[-1].id
        ordinary: list[Item] = []
        for item in items:
            if item.id in self.away:
                self.away.discard(item.id)
            elif item.suspect or item.needs_bytes:
                self.special.append(item)
            else:
                ordinary.append(item)
        return ordinary


def from_record(record: BatchRecord, order: int) -> Batch:
    """Returns the batch as the journal left it."""
    counts = record.counts
    return Batch(
        record=record,
        order=order,
        open=record.open and record.state != "cancelled",
        cancelled=record.state == "cancelled",
        items=record.items,
        ignored=record.ignored,
        roots=list(record.roots),
        counts={
            "done": counts.done,
            "cached": counts.cached,
            "failed": counts.failed,
            "quarantined": counts.quarantined,
            "cancelled": counts.cancelled,
        },
        paused=record.paused,
        abandoned_at=record.abandoned_at,
        summary=record.summary,
        recycles=dict(record.summary.recycles),
        restarts=record.summary.restarts,
        kills=record.summary.kills,
        batch_shrinks=record.summary.batch_shrinks,
        oom_kills=record.summary.oom_kills,
        peak_bytes=record.summary.peak_bytes,
        busy_seconds=record.summary.seconds,
    )


class Queue:
    """The unfinished batches, in the order in which they are served."""

    def __init__(
        self,
        window_items: int = WINDOW_ITEMS,
        fetch_items: int = FETCH_ITEMS,
        verdicts_max: int = VERDICTS_MAX,
        verdicts_max_bytes: int = VERDICTS_MAX_BYTES,
    ) -> None:
        self.verdicts_max = verdicts_max
        self.verdicts_max_bytes = verdicts_max_bytes
        self.window_items = window_items
        self.fetch_items = fetch_items
        self.batches: dict[str, Batch] = {}
        self.abandon_at: float | None = None
        """When the first of the open batches may be abandoned, at the earliest."""
        self._opened = 0
        self._serving: list[Batch] | None = None

    def add(self, record: BatchRecord) -> Batch:
        """Takes a batch in; one already here is returned as it is."""
        known = self.batches.get(record.batch)
        if known is not None:
            return known
        self._opened += 1
        batch = from_record(record, self._opened)
        self.batches[record.batch] = batch
        self._serving = None
        return batch

    def remove(self, name: str) -> None:
        """Lets a finished batch go."""
        self.batches.pop(name, None)
        self._serving = None

    def serving(self) -> list[Batch]:
        """Returns all batches, highest priority first, then oldest first."""
        if self._serving is None:
            self._serving = sorted(self.batches.values(), key=lambda batch: (-batch.record.priority, batch.order))
        return self._serving

    def runnable(self) -> Iterator[Batch]:
        """Yields the batches of which leases may be made, in serving order."""
        return (batch for batch in self.serving() if batch.runnable)

    @property
    def windowed(self) -> int:
        """Items held in memory and not leased, of all batches."""
        return sum(batch.windowed for batch in self.batches.values())

    @property
    def settling(self) -> int:
        """Verdicts on their way to the disk, of all batches."""
        return sum(batch.settling for batch in self.batches.values())

    @property
    def settling_bytes(self) -> int:
        """What those take in memory."""
        return sum(batch.settling_bytes for batch in self.batches.values())

    @property
    def must_wait(self) -> bool:
        """Whether the disk is so far behind with the verdicts that nothing more is to be begun: neither read from the
        journal nor granted. What is in memory and with the workers by then may still be added to them."""
        return self.settling >= self.verdicts_max or self.settling_bytes >= self.verdicts_max_bytes

    @property
    def pending(self) -> int:
        """Items that wait, of all batches."""
        return sum(batch.pending for batch in self.batches.values())

    def wants_fetch(self) -> list[Batch]:
        """Returns the batches whose window should be filled now, in serving order, within the window's size."""
        hungry = [
            batch
            for batch in self.runnable()
            if not batch.fetching and not batch.exhausted and batch.windowed < self.fetch_items
        ]
        if not hungry:
            return []
        if self.must_wait:
            return []
        under_way = sum(self.fetch_items for batch in self.batches.values() if batch.fetching)
        room = self.window_items - self.windowed - under_way
        return hungry[: max(0, room // self.fetch_items)]

    def in_the_way(self) -> Batch | None:
        """Returns a batch whose window must be given up: the window is full, and the batch whose turn it is has none
        of it. One that may not run now goes first, else the one that is served last. None: nobody is in the way."""
        if self.window_items - self.windowed >= self.fetch_items:
            return None
        order = self.serving()
        first = next((batch for batch in order if batch.runnable and (batch.windowed or not batch.exhausted)), None)
        if first is None or first.windowed or first.fetching:
            return None
        full = [batch for batch in reversed(order) if batch.windowed]
        return min(full, key=lambda batch: batch.runnable, default=None)
