"""One simulated world: a Pool, its journal, workers, clients, and everything that can go wrong, from one seed.

Time is a number; what is to happen lies in a heap. Every event the Pool is given is followed by a check of all
invariants (`invariants`). After FAULTS_SECONDS nothing goes wrong any more but what images themselves do, and
then every batch must come to its end and every item to exactly one verdict.
"""

import heapq
from collections import deque
from collections.abc import Callable
from random import Random

import msgspec

from protocol import messages as m
from supervisor.policy import commands as c
from supervisor.policy import events as e
from supervisor.policy.cache.asked import LookUpItems, StoreItems
from supervisor.policy.lease_book import LeaseSettings
from supervisor.policy.pool import AnyEvent, Pool
from supervisor.policy.sizes import MB
from supervisor.policy.state import PoolSettings
from supervisor.policy.watch_settings import WatchSettings
from tests.simulation.cache import STEPS, Cache
from tests.simulation.clients import Client, meddle
from tests.simulation.crew import SHARED_BYTES, Page, Worker
from tests.simulation.disks import Disks
from tests.simulation.invariants import check, check_commands, check_end
from tests.simulation.journal import Journal, Violation

FAULTS_SECONDS = 8.0
EVENTS_AT_MOST = 40_000
SIMULATED_SECONDS_AT_MOST = 900.0
OWN_BYTES = 60 * MB
KEPT_EVENTS = 40
WATCH = WatchSettings(interval_min_seconds=0.05, interval_max_seconds=0.25, level_hold_seconds=0.5)


class World:
    """Everything there is."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.random = Random(seed)
        self.now = 100.0
        self.faults = True
        self.deaths: dict[int, int] = {}
        """How often an item was in progress when its worker died of something that an item may do."""
        self.unclean: dict[int, int] = {}
        """How often it was in progress when the supervisor was killed."""
        self.tried: dict[str, int] = {}
        self.workers = self.random.choice([1, 2, 2, 3, 4])
        self.budget_bytes = OWN_BYTES + (40 + 90) * self.workers * MB + 30 * MB
        self.journal = Journal()
        self.pages = [Page() for _ in range(self.workers)]
        self.crew: dict[int, Worker] = {}
        self.life = 0
        self.events = 0
        self.stalled = False
        self.committing = False
        self.news: dict[str, int] = {}
        """Batches about which the journal has news that the pool has not heard, and how many."""
        self.log: deque[str] = deque(maxlen=KEPT_EVENTS)
        self._heap: list[tuple[float, int, int | None, Callable[[], AnyEvent | None]]] = []
        self._order = 0
        self._synced_at = 0.0
        self.clients = [
            Client(f"b{number}", self.random, self._request) for number in range(self.random.choice([1, 2, 3, 5]))
        ]
        self.settings = PoolSettings(
            workers=self.workers,
            recipes={"r": m.Recipe(name="r", steps=[m.Step("noop")])},
            watch=WATCH,
            leases=LeaseSettings(stale_seconds=2.0, answer_seconds=0.5),
            budget_bytes=self.budget_bytes,
            item_timeout_seconds=2.0,
            timeout_tries=1 + seed % 3 // 2,
            start_timeout_seconds=1.0,
            drain_seconds=1.0,
            terminate_seconds=0.5,
            kill_seconds=0.5,
            batch_size_max=self.random.choice([1, 4, 16, 64]),
            queue_max_items=self.random.choice([40, 5_000]),
            inserts_max=self.random.choice([1, 64]),
            window_items=self.random.choice([12, 30, 10_000]),
            fetch_items=self.random.choice([4, 10]),
        )
        self.cache: Cache | None = None
        if seed % 2:
            # Drawn last: worlds without a cache stay what they were.
            self.cache = Cache(Random(seed), self.later)
            self.settings = msgspec.structs.replace(self.settings, cache_steps={"r": STEPS})
        self.disks: Disks | None = None
        if seed % 3 == 2:
            self.disks = Disks(Random(seed), self.later)
        self.pool = self._new_pool()

    # ---- time ------------------------------------------------------------------------------------

    def later(self, seconds: float, act: Callable[[], AnyEvent | None], *, for_ever: bool = False) -> None:
        """Lets something happen; it is forgotten when the supervisor dies before, unless it is `for_ever`."""
        self._order += 1
        life = None if for_ever else self.life
        heapq.heappush(self._heap, (self.now + seconds, self._order, life, act))

    def budget(self) -> int:
        """The budget of the moment."""
        return self.budget_bytes

    def outputs_full(self) -> bool:
        """Whether nothing can be published now."""
        return self.disks is not None and self.disks.outputs_full

    def run(self) -> None:
        """Lives until everything is done. Raises Violation."""
        self._recover()
        self.later(FAULTS_SECONDS, self._calm_down, for_ever=True)
        self._trouble()
        self._fill()
        self._meddle()
        self._talk()
        end = self.now + SIMULATED_SECONDS_AT_MOST
        while not self._over():
            self._step()
            if self.events > EVENTS_AT_MOST or self.now > end:
                raise Violation(f"not over after {self.events} events and {self.now - 100:.0f} s: {self._remaining()}")
        check_end(self)

    def _over(self) -> bool:
        records = self.journal.records.values()
        return (
            not self.faults
            and all(client.finished for client in self.clients)
            and all(record.finished_at is not None for record in records)
            and not self.pool.state.queue.batches
        )

    def _remaining(self) -> str:
        names = [name for name, record in self.journal.records.items() if record.finished_at is None]
        items = [(self.journal.rows[n].item.stem, n) for name in names for n in self.journal.pending(name)]
        speaking = [client.name for client in self.clients if not client.finished]
        return f"batches {names}, items {items[:8]}, clients {speaking}, held {list(self.pool.state.queue.batches)}"

    def _step(self) -> None:
        due = self.pool.next_deadline()
        if self._heap and self._heap[0][0] <= (self.now if due is None else max(due, self.now)):
            when, _, life, act = heapq.heappop(self._heap)
            self.now = max(self.now, when)
            if life is not None and life != self.life:
                return
            event = act()
            if event is not None:
                self.hand(event)
        else:
            assert due is not None, "nothing is due and nothing is coming"
            self.now = max(self.now, due)
            self.hand(e.Tick())
            after = self.pool.next_deadline()
            if after is not None and after <= self.now and self.pool.running:
                raise Violation(f"the deadline {after} stays in the past (it is {self.now})")

    def hand(self, event: AnyEvent) -> None:
        """Gives the pool an event, checks everything, and executes what it decided."""
        self.events += 1
        if self.faults and self.random.random() < 0.01:
            self.now += self.random.choice([0.01, 0.1, 0.5, 4.0])
        for name in _batches_of(event):
            self.news[name] = self.news.get(name, 1) - 1
        if isinstance(event, e.WorkerExited) and event.item:
            self._count_death(event)
        if self.disks is not None:
            self.disks.heard(event)
        states = {slot.index: slot.worker.state for slot in self.pool.state.slots if slot.worker is not None}
        self.log.append(f"{self.now - 100:9.4f} {_short(event)}")
        commands = self.pool.handle(event, self.now)
        self.log[-1] += "".join(f"\n{'':14}-> {_short(command)}" for command in commands)
        check_commands(self, states, commands)
        check(self)
        for command in commands:
            self._execute(command)

    def _count_death(self, event: e.WorkerExited) -> None:
        mine, theirs = self.pool.state.slots[event.slot].worker, self.crew[event.slot]
        if theirs.blamed or (mine is not None and mine.cause in ("timeout", "hard_limit", "emergency")):
            self.deaths[event.item] = self.deaths.get(event.item, 0) + 1

    # ---- the supervisor --------------------------------------------------------------------------

    def _new_pool(self) -> Pool:
        return Pool(self.settings, Random(self.random.random()), self.now)

    def _recover(self) -> None:
        in_progress = [page.item for page in self.pages if page.item]
        for number in in_progress if not self.journal.clean else ():
            self.unclean[number] = self.unclean.get(number, 0) + 1
        for page in self.pages:
            page.item = 0
        self.news.clear()
        if self.disks is not None:
            self.disks.start()
        self.hand(self.journal.recover(in_progress))

    def crash(self) -> None:
        """kill -9 of the supervisor: its workers die with it, the recorder stays; a new one starts."""
        self.log.append(f"{self.now - 100:9.4f} ---- the supervisor is killed")
        self.journal.crash()
        self._restart()

    def _stopped(self) -> None:
        self.log.append(f"{self.now - 100:9.4f} ---- the supervisor has stopped")
        self.journal.commit()
        self._restart()

    def _restart(self) -> None:
        for worker in self.crew.values():
            worker.alive = False
        self.crew.clear()
        self.life += 1
        self.stalled = self.committing = False
        self.now += self.random.uniform(0.01, 0.5)
        self.pool = self._new_pool()
        self._recover()

    # ---- what goes wrong -------------------------------------------------------------------------

    def _trouble(self) -> None:
        """Something goes wrong every now and then."""
        if not self.faults:
            return
        self.later(self.random.expovariate(4.0), self._one_fault, for_ever=True)

    def _one_fault(self) -> AnyEvent | None:
        self._trouble()
        if not self.faults:
            return None
        alive = [worker for worker in self.crew.values() if worker.alive]
        match self.random.randrange(10):
            case 0 | 1 | 2 if alive:
                self.random.choice(alive).die(self.random.choice([-9, -9, -11, 1, None]), self.random.choice([0, 0, 1]))
            case 3:
                self.crash()
            case 4:
                return e.StopAsked(now=self.random.random() < 0.3, reason="test")
            case 5 if not self.stalled:
                self.stalled = True
                self.later(self.random.uniform(0.05, 1.5), self._unstall)
                return e.JournalStalled(reason="disk full")
            case 6:
                for worker in alive:
                    worker.die(None, blamed=False)
                return e.TemplateDied(reason="killed")
            case 7:
                self.budget_bytes = int(self.settings.budget_bytes * self.random.choice([0.6, 0.8, 1.0, 1.3]))
        return None

    def _fill(self) -> None:
        """A disk fills, or has room again."""
        if self.faults and self.disks is not None:
            again = self.disks.trouble()
            if self.cache is not None:
                self.cache.full = self.disks.cache_full
            self.later(again, self._fill, for_ever=True)

    def _meddle(self) -> None:
        """Somebody asks for whatever comes to mind."""
        if self.faults:
            self.later(self.random.expovariate(10.0), self._meddle, for_ever=True)
            if self.journal.records:
                names = list(self.journal.records)
                paths = [self.journal.path(row.item) for row in self.journal.rows.values()] or ["/in/good-1"]
                self._request(b"meddler", meddle(self.random, names, paths))

    def _unstall(self) -> AnyEvent | None:
        self.stalled = False
        self._commit_later()
        return e.JournalRecovered()

    def _calm_down(self) -> None:
        """From here on only images misbehave; what people paused or left open is ended."""
        self.faults = False
        self.budget_bytes = self.settings.budget_bytes
        if self.disks is not None:
            self.disks.clear_up()
        if self.cache is not None:
            self.cache.full = False
        for worker in self.crew.values():
            worker.deaf_to_term = False
        self.later(0.1, self._tidy_up, for_ever=True)

    def _tidy_up(self) -> None:
        requests: list[m.AnyRequest] = [m.ResumeWork(id=1)]
        for name, record in self.journal.records.items():
            if record.finished_at is None:
                requests.append(m.ResumeWork(id=2, batch=name))
                if record.open and all(client.finished for client in self.clients):
                    requests.append(m.CloseBatch(id=3, batch=name))
        for request in requests:
            self._request(b"keeper", request)
        self.later(1.0, self._tidy_up, for_ever=True)

    # ---- clients ---------------------------------------------------------------------------------

    def _talk(self) -> None:
        for client in self.clients:
            client.due(self.now)
        if not all(client.finished for client in self.clients):
            self.later(self.random.uniform(0.01, 0.1), self._talk, for_ever=True)

    def _request(self, peer: bytes, request: m.AnyRequest) -> None:
        received = e.RequestReceived(peer=peer, request=request)
        self.later(self.random.uniform(0.0, 0.002), lambda: received)

    def _answer(self, peer: bytes, answer: m.AnyAnswer) -> None:
        client = next((client for client in self.clients if client.peer == peer), None)
        if client is not None:
            self.later(0.001, lambda: client.hear(answer, self.now))

    # ---- commands --------------------------------------------------------------------------------

    def _execute(self, command: c.Command) -> None:
        match command:
            case c.Note():
                pass
            case c.TellWorker():
                worker = self._worker(command.slot, command.incarnation)
                if worker is not None and not (self.faults and self.random.random() < 0.002):
                    worker.tell(command.message)
            case c.TakeSample():
                if not (self.faults and self.random.random() < 0.05):
                    self.later(0.0, self._sample)
            case c.StartWorker():
                self.later(self.random.uniform(0.001, 0.02), lambda: self._start(command))
            case c.TerminateWorker() | c.KillWorker():
                self._signal(command)
            case c.BuryWorker() | c.GiveBackMemory() | c.TrimCache() | c.KeepHistory() | c.KeepLearned():
                pass
            case c.CleanUp() | c.KeepProtection() | c.KeepTrace() | c.TellAlert():
                pass
            case LookUpItems() | StoreItems():
                self._ask_cache(command)
            case c.Reply():
                self._answer(command.peer, command.answer)
            case c.Query():
                pass  # it only reads
            case c.StopLoop():
                self._stopped()
            case c.SettleItems() if any(each.written for each in command.settlements):
                self._synced_at = max(self._synced_at, self.now + self.random.uniform(0.0, 0.02))
                self.later(self._synced_at - self.now, lambda: self._submit(command))
            case _:
                self._submit(command)

    def _ask_cache(self, command: LookUpItems | StoreItems) -> None:
        assert self.cache is not None, f"there is no cache for {command}"
        if isinstance(command, LookUpItems):
            self.cache.look_up(command)
        else:
            self.cache.store(command)

    def _worker(self, slot: int, incarnation: int) -> Worker | None:
        worker = self.crew.get(slot)
        return worker if worker is not None and worker.incarnation == incarnation and worker.alive else None

    def _start(self, command: c.StartWorker) -> AnyEvent:
        if self.faults and self.random.random() < 0.05:
            return e.StartFailed(slot=command.slot, incarnation=command.incarnation, reason="no memory")
        worker = Worker(self, self.pages[command.slot], command.slot, command.incarnation)
        self.crew[command.slot] = worker
        return worker.begin()

    def _signal(self, command: c.TerminateWorker | c.KillWorker) -> None:
        """A worker that does not exist yet is killed when it does."""
        worker = self._worker(command.slot, command.incarnation)
        if worker is not None and isinstance(command, c.KillWorker):
            worker.kill(self.random.choice([0.001, 0.001, 0.05, 0.8]))
        elif worker is not None:
            worker.terminate()
        elif command.slot not in self.crew or self.crew[command.slot].incarnation < command.incarnation:
            self.later(0.03, lambda: self._signal(c.KillWorker(slot=command.slot, incarnation=command.incarnation)))

    def _sample(self) -> AnyEvent:
        blind = self.faults and self.random.random() < 0.03
        samples = [
            e.WorkerSample(
                slot=slot,
                incarnation=worker.incarnation,
                rss_bytes=None if blind else int(worker.rss_bytes() * self.random.uniform(0.99, 1.01)),
                shared_bytes=0 if blind else SHARED_BYTES,
                item=worker.page.item,
                item_started=worker.page.started if worker.page.item else 0.0,
                items_done=worker.at,
            )
            for slot, worker in self.crew.items()
            if worker.alive and not (self.faults and self.random.random() < 0.02)
        ]
        return e.Sampled(
            workers=samples,
            own_bytes=OWN_BYTES,
            cgroup_used_bytes=None,
            budget_bytes=self.budget_bytes,
            available_bytes=50 * MB if self.faults and self.random.random() < 0.02 else 10_000 * MB,
        )

    def _submit(self, command: c.Command) -> None:
        self.journal.submit(command)  # type: ignore[arg-type]  # every other command was dealt with
        self._commit_later()

    def _commit_later(self) -> None:
        if not self.committing and not self.stalled:
            self.committing = True
            self.later(self.random.choice([0.0005, 0.003, 0.02]), self._commit)

    def _commit(self) -> None:
        self.committing = False
        if self.stalled:
            return
        for event in self.journal.commit():
            for name in _batches_of(event):
                self.news[name] = self.news.get(name, 0) + 1
            self._tell(event)

    def _tell(self, event: AnyEvent) -> None:
        self.later(0.0005, lambda: event)


def _batches_of(event: AnyEvent) -> list[str]:
    """The batches whose rows an event of the journal tells to have changed."""
    match event:
        case e.ItemsRetried(record=record):
            return [record.batch]
        case e.QuarantineForgotten(records=records):
            return [record.batch for record in records]
        case e.ItemsCommitted(settlements=settlements):
            return list({settlement.batch for settlement in settlements})
        case e.ItemsCancelled(batch=batch) | e.ItemsInserted(batch=batch):
            return [batch]
    return []


def _short(value: msgspec.Struct) -> str:
    text = repr(value)
    return text if len(text) <= 420 else f"{text[:400]}... ({len(text)})"
