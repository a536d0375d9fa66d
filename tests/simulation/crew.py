"""Simulated workers: they do what the real ones do, and everything that real ones do wrong.

What an image does to its worker is told by the beginning of its name (`good-3`, `crash-1`), so that it does so in
every batch, every retry, and after every restart. What a worker says arrives in its order, some time later; its exit
may overtake its last words.
"""

from collections.abc import Callable
from random import Random
from typing import Any, Protocol

import msgspec

from protocol import messages as m
from supervisor.policy import events as e
from supervisor.policy.sizes import MB
from tests.simulation.cache import MADE, content_of

BASELINE_BYTES = 60 * MB
SHARED_BYTES = 20 * MB
MEDIUM_BYTES = 80 * MB
"""More than an ordinary lease reserves, less than a worker's part."""
LARGE_BYTES = 110 * MB
"""More than a worker's part of the smallest budget, less than the whole room."""
HOG_BYTES = 900 * MB
GIANT_BYTES = 5_000 * MB

KINDS = {
    "good": 60, "slow": 6, "leak": 6, "corrupt": 5, "crash": 3, "once": 4, "exit": 2, "hang": 1,
    "hog": 2, "medium": 4, "large": 5, "giant": 2, "machine": 2,
    "outside": 2,
}  # fmt: skip
"""How often each kind of image is drawn."""
DEADLY = frozenset({"crash", "exit", "hang", "hog"})


class Surroundings(Protocol):
    """What a worker needs of the world."""

    random: Random
    now: float
    faults: bool
    tried: dict[str, int]

    def later(self, seconds: float, act: Callable[[], e.AnyEvent | None]) -> None:
        """Lets something happen later, and its event reach the pool."""

    def budget(self) -> int:
        """The budget of the moment."""

    def outputs_full(self) -> bool:
        """Whether nothing can be published now."""


class Page(msgspec.Struct):
    """A page of the flight recorder: it outlives worker and supervisor."""

    incarnation: int = 0
    item: int = 0
    started: float = 0.0
    path: str = ""


class Worker:
    """One process. It has no lease, works on one, or is dead."""

    def __init__(self, world: Surroundings, page: Page, slot: int, incarnation: int) -> None:
        self.world = world
        self.page = page
        self.slot = slot
        self.incarnation = incarnation
        self.alive = True
        self.blamed = False
        """It died of something that the item in progress may have done."""
        self.ready = False
        self.stopping = False
        self.frozen = False
        self.deaf_to_term = world.faults and world.random.random() < 0.05
        self.grant: m.Grant | None = None
        self.at = 0
        self.total = 0
        self.done: list[m.ItemReport] = []
        self.leaked_bytes = 0
        self.factor = 1.0
        self.peak_bytes = 0
        self.ramp: tuple[float, float, int] | None = None
        """(from, to, bytes) of the growth that the item in progress causes."""
        self.own_random = Random(1000 * slot + incarnation)
        """For what was added later: worlds stay what they were."""
        self.asked = 0
        self.leased: dict[int, int] = {}
        """Memory leases that it was granted, and their bytes."""
        self._heard_at = 0.0
        self._said_at = 0.0
        page.incarnation, page.item = incarnation, 0

    # ---- from outside ----------------------------------------------------------------------------

    def rss_bytes(self) -> int:
        """Memory at this moment."""
        above = self.leaked_bytes + sum(self.leased.values())
        if self.ramp is not None:
            begun, ended, size = self.ramp
            above += int(size * min(1.0, (self.world.now - begun) / max(1e-9, ended - begun)))
        return BASELINE_BYTES + above

    def begin(self) -> e.AnyEvent:
        """The process exists; it is warm a little later."""
        if not (self.world.faults and self.world.random.random() < 0.02):
            self.world.later(self.world.random.uniform(0.005, 0.03), self._warm)
        return e.WorkerStarted(slot=self.slot, incarnation=self.incarnation, pid=1000 + self.incarnation)

    def tell(self, message: m.AnyToWorker) -> None:
        """A message is on its way to the worker, after those before it."""
        self._heard_at = max(self._heard_at, self.world.now + self.world.random.uniform(0.0, 0.003))
        self.world.later(self._heard_at - self.world.now, lambda: self._hear(message))

    def terminate(self) -> None:
        """SIGTERM."""
        if not self.deaf_to_term:
            self.world.later(0.0005, self._stop)

    def kill(self, delay: float) -> None:
        """SIGKILL by the supervisor, which knows what for."""
        self.world.later(delay, lambda: self.die(-9, blamed=False))

    def die(self, exit_code: int | None, oom_kills: int = 0, *, blamed: bool = True) -> None:
        """The process ends; its exit is noticed soon, perhaps before its last words are read."""
        if not self.alive:
            return
        self.alive = False
        page = self.page
        exited = e.WorkerExited(
            slot=self.slot,
            incarnation=self.incarnation,
            exit_code=exit_code,
            item=page.item,
            step=0 if page.item else -1,
            path=page.path,
            partial=b"",
            size_bytes=1,
            mtime_ns=1,
            version="v",
            oom_kills=oom_kills,
        )
        self.blamed = blamed
        delay = self.world.random.choice([0.0, 0.002, 0.02, max(0.0, self._said_at - self.world.now) + 0.001])
        self.world.later(delay, lambda: self._gone(exited))

    def _gone(self, exited: e.WorkerExited) -> e.WorkerExited:
        self.page.item = 0
        return exited

    # ---- life ------------------------------------------------------------------------------------

    def _warm(self) -> None:
        if self.alive:
            self.ready = True
            self._say(m.Ready(slot=self.slot, incarnation=self.incarnation, pid=1, memory=self._memory()))
            if self.stopping:
                self._leave()

    def _hear(self, message: m.AnyToWorker) -> None:
        if not self.alive or self.frozen:
            return
        match message:
            case m.MemoryGranted():
                if message.number <= self.asked:
                    self.leased[message.number] = message.bytes
            case m.Grant():
                self.grant, self.at, self.total, self.done = message, 0, len(message.items), []
                self._next()
            case m.Shrink():
                if self.grant is not None and message.lease == self.grant.lease:
                    self.total = min(self.total, self.at + 1 + message.keep)
            case m.Trim():
                before = self.rss_bytes()
                self.leaked_bytes = self.leaked_bytes * self.world.random.choice([0, 2, 4]) // 4
                self._say(
                    m.Trimmed(
                        slot=self.slot,
                        incarnation=self.incarnation,
                        before_bytes=before,
                        after_bytes=self.rss_bytes(),
                        seconds=0.01,
                    )
                )
            case m.Quit():
                self._stop()

    def _stop(self) -> None:
        self.stopping = True
        if self.grant is None and self.ready:
            self._leave()

    def _leave(self) -> None:
        if self.alive and not self.frozen:
            self.die(0)

    def _next(self) -> None:
        """Between two items."""
        grant, world = self.grant, self.world
        if not self.alive or self.frozen or grant is None:
            return
        if world.faults and world.random.random() < 0.01 and self._misbehave():
            return
        if self.stopping or self.at >= self.total:
            back = [granted.id for granted in grant.items[self.at :]]
            self.grant = None
            self._report(grant.lease, back, finished=True)
            if self.stopping:
                self._leave()
            return
        if self.done and world.random.random() < 0.3:
            self._report(grant.lease, [], finished=False)
        granted = grant.items[self.at]
        self.page.item, self.page.started = granted.id, world.now
        self.page.path = f"{grant.roots[granted.root].root}/{granted.stem}"
        self._ask_memory(granted.id)
        self._work(grant, granted)

    def _ask_memory(self, item: int) -> None:
        """Now and then an operation asks for memory, and gives it back, or forgets to."""
        random = self.own_random
        who: Any = {"slot": self.slot, "incarnation": self.incarnation}
        if self.leased and random.random() < 0.5:
            number = random.choice(list(self.leased))
            del self.leased[number]
            self._say(m.ReleaseMemory(**who, number=number))
        elif self.leased and random.random() < 0.3:
            number, size = random.choice(list(self.leased.items()))
            used = self.leased[number] = random.choice([size // 2, size, size + 5 * MB])
            self._say(m.ModelLoaded(**who, number=number, name=random.choice("ab"), bytes=used, within_bytes=used // 3))
        elif self.leased and random.random() < 0.2:
            self._say(m.RenewMemory(**who, numbers=list(self.leased)))
        elif self.leased and random.random() < 0.2:
            number, size = self.leased.popitem()
            self._say(m.ModelUnloaded(**who, number=number, name=random.choice("ab"), bytes=size))
        elif random.random() < 0.25:
            self.asked += 1
            size = random.choice([0, 1, 1, 1]) * random.randint(1, 90) * MB
            within = random.choice([0, 0, 20 * MB])
            least = random.choice([0, size // 2, size])
            self._say(
                m.RequestMemory(
                    **who,
                    number=self.asked,
                    purpose="test",
                    bytes=size,
                    at_least=least,
                    item=item,
                    within_bytes=within,
                    patience_seconds=random.choice([0.0, 0.0, 0.3]),
                )
            )

    def _work(self, grant: m.Grant, granted: m.Granted) -> None:
        world, random = self.world, self.world.random
        kind = granted.stem.split("-")[0]
        again = world.tried.get(granted.stem, 0)
        world.tried[granted.stem] = again + 1
        seconds = random.uniform(0.0005, 0.03)
        needs = {"medium": MEDIUM_BYTES, "large": LARGE_BYTES, "giant": GIANT_BYTES}.get(kind, 0)
        if granted.shunned is not None:
            return world.later(seconds, lambda: self._end(m.ItemReport(id=granted.id, outcome="shunned", seconds=0.0)))
        prior = needs or random.randint(4, 7) * MB  # the smallest budget leaves a worker eight
        self.factor = next((each.factor for each in grant.factors or ()), self.factor)
        predicted = int(prior * self.factor) if not needs else prior
        if predicted > grant.memory_bytes:
            report = m.ItemReport(id=granted.id, outcome="deferred", seconds=0.0, needs_bytes=predicted)
            return world.later(0.0005, lambda: self._end(report))
        held = self.rss_bytes()
        report = m.ItemReport(
            id=granted.id,
            outcome="done",
            seconds=seconds,
            written=[granted.stem],
            peak_bytes=held + int(prior * random.uniform(0.5, 1.0)),
            weighed=m.Weighed("jpeg", "", "vips", prior, predicted, held),
        )
        if grant.cache and random.random() < 0.95:
            report = msgspec.structs.replace(report, made=MADE, content_hash=content_of(granted.stem))
        if kind == "crash" or (kind == "once" and not again):
            return world.later(seconds, lambda: self.die(-11))
        if kind == "exit":
            return world.later(seconds, lambda: self.die(3))
        if kind == "hang":
            self.frozen = True
            return None
        if kind == "hog":
            self.ramp = (world.now, world.now + 0.6, HOG_BYTES)
            if random.random() < 0.3:
                return world.later(random.uniform(0.05, 0.4), lambda: self.die(-9, oom_kills=1))
            return world.later(2.0, lambda: self.die(-9, oom_kills=1))
        if kind == "slow":
            seconds = random.uniform(0.2, 0.8)
        if kind == "leak":
            self.leaked_bytes += random.randint(5, 25) * MB
        if needs:
            self.ramp = (world.now, world.now + seconds, needs)
        if kind == "corrupt":
            report = m.ItemReport(
                id=granted.id, outcome="failed", seconds=seconds, error=m.ItemError(kind="corrupt", message="bad")
            )
        if kind == "outside":
            report = m.ItemReport(id=granted.id, outcome="outside", seconds=0.0)
        if kind == "machine" and again < 3:
            report = m.ItemReport(id=granted.id, outcome="machine", seconds=seconds)
        return world.later(seconds, lambda: self._end(report))

    def _end(self, report: m.ItemReport) -> None:
        if not self.alive or self.frozen:
            return
        self.ramp = None
        self.page.item = 0
        if report.outcome == "done" and self.world.outputs_full():
            report = m.ItemReport(id=report.id, outcome="machine", seconds=report.seconds)
        self.done.append(report)
        self.at += 1
        self._next()

    def _misbehave(self) -> bool:
        """Lies, or lets go of the machine; tells whether the worker's life goes on otherwise."""
        grant = self.grant
        assert grant is not None
        good = m.ItemReport(id=grant.items[0].id, outcome="done", seconds=0.0)
        lies: list[tuple[list[m.ItemReport], list[int], bool]] = [
            ([*self.done, m.ItemReport(id=10**9, outcome="done", seconds=0.0)], [], False),
            ([*self.done, good, good], [], False),
            (self.done, [], True),
            (self.done, [grant.items[-1].id, grant.items[-1].id], True),
            ([], [10**9], False),
        ]
        choice = self.world.random.randrange(9)
        if choice < len(lies):
            items, back, finished = lies[choice]
            self.frozen = True
            self._say(self._reported(grant.lease, items, back, finished))
        elif choice == 5:
            self.frozen = True
            babble = e.WorkerBabbled(slot=self.slot, incarnation=self.incarnation, fault="no JSON")
            self.world.later(0.001, lambda: babble)
        elif choice == 6:
            self.frozen = True
        elif choice == 7:
            self.die(-11)
        else:
            self._say(self._reported(grant.lease - 1, [good], [], True))
            return False
        return True

    # ---- what is said ----------------------------------------------------------------------------

    def _memory(self) -> m.Memory:
        rss = self.rss_bytes()
        return m.Memory(rss, rss // 4, rss // 8)

    def _reported(self, lease: int, items: list[m.ItemReport], back: list[int], finished: bool) -> m.Report:
        return m.Report(
            slot=self.slot,
            incarnation=self.incarnation,
            lease=lease,
            items=items,
            handed_back=back,
            finished=finished,
            memory=self._memory(),
        )

    def _report(self, lease: int, back: list[int], *, finished: bool) -> None:
        done, self.done = self.done, []
        self._say(self._reported(lease, done, back, finished))

    def _say(self, message: m.AnyFromWorker) -> None:
        slow = self.world.random.random() < 0.02
        delay = self.world.random.uniform(0.0, 0.2 if slow else 0.003)
        self._said_at = max(self._said_at, self.world.now + delay)
        said = e.WorkerSaid(slot=self.slot, incarnation=self.incarnation, message=message)
        self.world.later(self._said_at - self.world.now, lambda: said)


def draw_names(random: Random, count: int) -> list[str]:
    """Draws images; the same name may come again in another batch."""
    kinds = random.choices(list(KINDS), list(KINDS.values()), k=count)
    return list(dict.fromkeys(f"{kind}-{random.randrange(30)}" for kind in kinds))
