"""Builders and a driver for stories about the Pool: feed events, step the clock, look at what was decided.

The journal is the model of the simulation; it commits at once unless the story holds it (`holding`).
"""

from random import Random
from typing import Any, TypeVar

from protocol import messages as m
from supervisor.policy import commands as c
from supervisor.policy import events as e
from supervisor.policy.items import Item
from supervisor.policy.pool import AnyEvent, Pool
from supervisor.policy.sizes import MB
from supervisor.policy.state import PoolSettings
from supervisor.policy.watch_settings import WatchSettings
from supervisor.policy.worker import Worker
from tests.simulation.journal import Journal

C = TypeVar("C", bound=c.Command)

BASELINE_BYTES = 60 * MB
OWN_BYTES = 60 * MB
CLIENT = b"client"


class Clock:
    """A clock that goes when it is told to."""

    def __init__(self) -> None:
        self.now = 1000.0

    def step(self, seconds: float) -> None:
        """Lets time pass."""
        self.now += seconds


class Story:
    """A pool of two workers (each 60 MB warm, 90 MB more as its part), its journal, and what was decided so far.

    `heard` are the commands of the last thing that was told to the pool, what the journal then said included.
    """

    def __init__(
        self, workers: int = 2, journal: Journal | None = None, budget_bytes: int | None = None, **settings: Any
    ) -> None:
        self.clock = Clock()
        self.journal = journal if journal is not None else Journal()
        self.holding = False
        self.second_of_day: float | None = None
        self.heard: list[c.Command] = []
        self.budget_bytes = budget_bytes or OWN_BYTES + workers * (BASELINE_BYTES + 90 * MB) + 30 * MB
        self.pool = Pool(
            PoolSettings(
                workers=workers,
                recipes={"thumbs": m.Recipe(name="thumbs", steps=[m.Step("noop")])},
                budget_bytes=self.budget_bytes,
                **{"watch": WatchSettings(), **settings},
            ),
            Random(1),
            self.clock.now,
        )
        self._request = 0

    # ---- telling ---------------------------------------------------------------------------------

    def feed(self, event: AnyEvent) -> list[c.Command]:
        """Tells the pool, and the journal what the pool decided."""
        self.heard = []
        self._hand(event)
        return self.heard

    def _hand(self, event: AnyEvent) -> None:
        commands = self.pool.handle(event, self.clock.now)
        self.heard += commands
        for command in commands:
            if isinstance(command, _JOURNALED):
                self.journal.submit(command)
        if not self.holding:
            for said in self.journal.commit():
                self._hand(said)

    def commit(self) -> list[c.Command]:
        """Lets the journal commit what it held."""
        self.heard = []
        self.holding = False
        for said in self.journal.commit():
            self._hand(said)
        return self.heard

    def pass_time(self, seconds: float, every: float = 1.0) -> list[c.Command]:
        """Lets time pass with a tick and a calm look every so often."""
        heard: list[c.Command] = []
        end = self.clock.now + seconds
        while self.clock.now < end:
            self.clock.step(min(every, end - self.clock.now))
            heard += self.look()
            heard += self.answer_trims()
        self.heard = heard
        return heard

    def answer_trims(self) -> list[c.Command]:
        """Workers that were told to trim say that they did: one that does not is taken to hang."""
        heard: list[c.Command] = []
        for slot in self.pool.state.slots:
            worker = slot.worker
            if worker is not None and worker.trimming and worker.state == "IDLE":
                rss = worker.rss_bytes
                trimmed = m.Trimmed(
                    slot=slot.index, incarnation=worker.incarnation, before_bytes=rss, after_bytes=rss, seconds=0.01
                )
                heard += self.say(slot.index, trimmed)
        return heard

    def start(self) -> "Story":
        """Starts all workers and looks at them."""
        self.feed(e.Tick())
        for slot in range(len(self.pool.state.slots)):
            self.ready(slot)
        self.look()
        return self

    def ready(self, slot: int) -> list[c.Command]:
        """The worker of a slot exists and is warm."""
        incarnation = self.worker(slot).incarnation
        self.feed(e.WorkerStarted(slot=slot, incarnation=incarnation, pid=100 + slot))
        ready = m.Ready(slot=slot, incarnation=incarnation, pid=100 + slot, memory=m.Memory(BASELINE_BYTES, 0, 0))
        return self.say(slot, ready)

    def say(self, slot: int, message: m.AnyFromWorker) -> list[c.Command]:
        """A worker says something."""
        return self.feed(e.WorkerSaid(slot=slot, incarnation=self.worker(slot).incarnation, message=message))

    def look(self, at: dict[int, int] | None = None, available: int = 10_000 * MB) -> list[c.Command]:
        """A look at all workers; `at` are MB of those that are not at their baseline. Each is found at the first item
        of its lease."""
        samples = []
        for slot in self.pool.state.slots:
            if slot.worker is None or slot.worker.state == "STARTING":
                continue
            lease = self.pool.state.lease_of(slot.worker)
            samples.append(
                e.WorkerSample(
                    slot=slot.index,
                    incarnation=slot.worker.incarnation,
                    rss_bytes=(at or {}).get(slot.index, 60) * MB,
                    shared_bytes=0,
                    item=next(iter(lease.items), 0) if lease is not None else 0,
                    item_started=slot.worker.progress_at,
                    items_done=0,
                )
            )
        return self.feed(
            e.Sampled(
                workers=samples,
                own_bytes=OWN_BYTES,
                cgroup_used_bytes=None,
                budget_bytes=self.budget_bytes,
                available_bytes=available,
                second_of_day=self.second_of_day,
            )
        )

    def ask(self, request: m.AnyRequest, peer: bytes = CLIENT) -> list[c.Command]:
        """A client asks."""
        return self.feed(e.RequestReceived(peer=peer, request=request))

    def submit(self, batch: str, names: list[str], *, close: bool = True, **fields: Any) -> None:
        """Opens a batch, adds items, closes it; all is acknowledged."""
        self.ask(m.OpenBatch(batch=batch, **fields))
        heard = self.ask(m.AddItems(batch=batch, chunk=0, root="/in", names=names))
        if close:
            heard += self.ask(m.CloseBatch(batch=batch))
        self.heard = heard

    def report(
        self,
        slot: int,
        done: list[int] | None = None,
        *,
        back: list[int] | None = None,
        finished: bool = True,
        lease: int | None = None,
        items: list[m.ItemReport] | None = None,
        rss: int = 60,
        blocks: int = 0,
        kept: int = 0,
    ) -> list[c.Command]:
        """A worker reports these items done (all of its lease when none are named)."""
        held = self.lease(slot)
        numbers = [number for number in held if number not in (back or [])] if done is None and items is None else done
        reports = items or [m.ItemReport(id=number, outcome="done", seconds=0.01) for number in numbers or []]
        worker = self.worker(slot)
        report = m.Report(
            slot=slot,
            incarnation=worker.incarnation,
            lease=lease if lease is not None else worker.lease or 0,
            items=reports,
            handed_back=back or [],
            finished=finished,
            memory=m.Memory(rss * MB, 0, 0, blocks, kept * MB),
        )
        return self.say(slot, report)

    def exit(self, slot: int, code: int | None, item: int = 0, *, oom: int = 0, step: int = 0) -> list[c.Command]:
        """The worker of a slot is gone; `item` is what its flight recorder names."""
        return self.feed(
            e.WorkerExited(
                slot=slot,
                incarnation=self.worker(slot).incarnation,
                exit_code=code,
                item=item,
                step=step if item else -1,
                path="",
                partial=b"",
                size_bytes=5,
                mtime_ns=6,
                version="noop 1",
                oom_kills=oom,
            )
        )

    # ---- looking ---------------------------------------------------------------------------------

    def worker(self, slot: int) -> Worker:
        """The worker in a slot."""
        worker = self.pool.state.slots[slot].worker
        assert worker is not None, f"slot {slot} is empty"
        return worker

    def states(self) -> list[str]:
        """The state of each slot's worker."""
        return [slot.worker.state if slot.worker is not None else "-" for slot in self.pool.state.slots]

    def lease(self, slot: int) -> list[int]:
        """The items that the worker of a slot holds."""
        lease = self.pool.state.lease_of(self.worker(slot))
        return list(lease.items) if lease is not None else []

    def waiting(self, batch: str) -> dict[str, list[int]]:
        """The ids that wait in memory, by place."""
        held = self.pool.state.queue.batches[batch]
        places: dict[str, Any] = {"front": held.front, "ready": held.ready, "special": held.special}
        return {name: [item.id for item in place] for name, place in places.items() if place}

    def item(self, batch: str, number: int) -> Item:
        """An item that waits as a special."""
        return next(item for item in self.pool.state.queue.batches[batch].special if item.id == number)

    def on_disk(self, batch: str) -> dict[int, str]:
        """The state of every item of a batch as committed."""
        return {number: self.journal.rows[number].state for number in self.journal.of_batch[batch]}

    def of(self, kind: type[C]) -> list[C]:
        """The commands of one kind among those last heard."""
        return [command for command in self.heard if isinstance(command, kind)]

    def grants(self) -> dict[int, list[int]]:
        """What was granted last, by slot."""
        told = [command for command in self.of(c.TellWorker) if isinstance(command.message, m.Grant)]
        return {
            each.slot: [item.id for item in each.message.items] for each in told if isinstance(each.message, m.Grant)
        }

    def notes(self, kind: str) -> list[c.Note]:
        """The notes of one kind last heard."""
        return [note for note in self.of(c.Note) if note.kind == kind]

    def answer(self) -> m.AnyAnswer:
        """The one answer last heard."""
        (reply,) = self.of(c.Reply)
        return reply.answer


_JOURNALED = (
    c.CreateBatch, c.InsertItems, c.SealBatch, c.FetchItems, c.SettleItems, c.ChargeItems, c.ChangeBatch,
    c.CancelItems, c.RetryItems, c.ForgetQuarantine,
)  # fmt: skip


def names(count: int) -> list[str]:
    """So many file names."""
    return [f"{number}.jpg" for number in range(1, count + 1)]
