"""All that the supervisor can do, behind two verbs: wait for events, execute commands.

One poll point for sockets, signals, exits, and the mailbox of the journal and chores threads. Each turn reads a
bounded amount from each, workers' reports before workers' exits: what a dead worker still said is heard.
"""

import math
import time
from collections.abc import Callable
from functools import partial

import msgspec

from protocol import sockets
from protocol.errors import Fault
from protocol.messages import AnyAnswer, CacheReport, Decision, MemoryReport, Problem, Status, Store
from protocol.paths import describe
from supervisor.mechanism.alerts import AlertTeller
from supervisor.mechanism.cache import CacheThread
from supervisor.mechanism.cache.verbs import report as verb_report
from supervisor.mechanism.chores import Chores
from supervisor.mechanism.cleaning import Cleaner
from supervisor.mechanism.crew import Arrived, Crew
from supervisor.mechanism.history_file import HistoryFile
from supervisor.mechanism.journal import Answered, Journal
from supervisor.mechanism.log import Log
from supervisor.mechanism.mailbox import Mailbox
from supervisor.mechanism.memory import give_back, own_heap_bytes
from supervisor.mechanism.parts import PartArrived, PartProcesses
from supervisor.mechanism.protection import NoteKeeper
from supervisor.mechanism.reconfigure import Reconfigurer
from supervisor.mechanism.remains import remove_partial
from supervisor.mechanism.router import Router
from supervisor.mechanism.signals import Signals
from supervisor.mechanism.temp import Keeper
from supervisor.mechanism.trace_file import TraceFile
from supervisor.mechanism.turns import TurnTimes
from supervisor.policy import commands as c
from supervisor.policy.cache.asked import LookUpItems, StoreItems
from supervisor.policy.events import ItemsCommitted, ItemsFetched, TasksStalled, TemplateDied, Tick
from supervisor.policy.live import SettingsChanged
from supervisor.policy.memory_report import VERDICTS
from supervisor.policy.pool import AnyEvent

EXIT_STATUS_POLL_SECONDS = 0.002
"""How soon to ask again for the status of a worker that is dead: the template tells within a millisecond or two."""

LETTERS_UNASKED = 1_024
"""Exits of processes, states of the disks, changes of settings: a few for each process."""
ITEMS_A_TURN = 500
"""Verdicts and fetched items in the letters of one turn, beyond which the next ones wait; some µs each."""

Letter = AnyEvent | Answered | Arrived | PartArrived


class Hands:
    """Executes commands and gathers events. One thread, the loop's."""

    def __init__(
        self,
        *,
        router: Router,
        journal: Journal,
        crew: Crew,
        chores: Chores,
        mailbox: Mailbox[Letter],
        signals: Signals,
        log: Log,
        temp: Keeper,
        cache: CacheThread | None,
        parts: PartProcesses,
        history: HistoryFile,
        cleaner: Cleaner,
        alerts: AlertTeller,
        trace: TraceFile,
        stops: NoteKeeper,
        state_token: str,
        keep_learned: Callable[[bytes], None],
        turns: TurnTimes,
        reconfigurer: Reconfigurer,
    ) -> None:
        self._router = router
        self._journal = journal
        self._crew = crew
        self._chores = chores
        self._mailbox = mailbox
        self._signals = signals
        self._log = log
        self._temp = temp
        self._cache = cache
        self._parts = parts
        self._history = history
        self._cleaner = cleaner
        self._alerts = alerts
        self._trace = trace
        self._stops = stops
        self._state_token = state_token
        self._reconfigurer = reconfigurer
        self._keep_learned = keep_learned
        self._told = 0
        self.stopped: int | None = None
        self.turns = turns
        self._sampled: list[AnyEvent] = []
        self._crew_polled: set[int] = set()
        self._poller = sockets.Poller()
        for source in (router.frontend, router.backend, router.publisher, mailbox.fileno(), signals.fileno()):
            self._poller.register(source, sockets.POLLIN)
        self._stall_polled: int | None = None
        self._arm_stall_trigger()

    # ---- waiting ---------------------------------------------------------------------------------

    def wait(self, until: float | None) -> list[AnyEvent]:
        """Waits until something happens or the time `until` (on the loop's clock) has come; returns what did."""
        if self._sampled:
            sampled, self._sampled = self._sampled, []
            self.turns.begin()
            return sampled
        self._poll_crew()
        ready = dict(self._poller.poll(self._timeout_milliseconds(until)))
        self.turns.begin()
        events: list[AnyEvent] = []
        if self._router.backend in ready:
            events += self._router.reports()
        if self._mailbox.fileno() in ready:
            events += self._letters()
        if self._signals.fileno() in ready:
            events += self._signals.take()
        # While a worker's reports are left to be read, nobody is told dead: what a dead one said comes first.
        unheard = self._router.backend in ready and self._router.more_reports
        if not unheard and (self._crew.dying() or not self._crew_polled.isdisjoint(ready)):
            events += self._crew.exits(ready, time.monotonic())
            if self._crew.template_gone():
                events.append(TemplateDied(reason="it was killed or crashed"))
        events += self._parts.take(ready)
        if self._router.frontend in ready:
            events += self._router.requests()
        if self._router.publisher in ready:
            self._router.subscriptions()
        if self._stall_polled in ready:
            events += self._stalled(ready[self._stall_polled])
        return events or [Tick()]

    def _poll_crew(self) -> None:
        """Keeps the poller in step with who lives."""
        wanted = self._crew.descriptors() | self._parts.descriptors()
        if wanted == self._crew_polled:
            return
        for descriptor in self._crew_polled - wanted:
            self._poller.unregister(descriptor)
        for descriptor in wanted - self._crew_polled:
            self._poller.register(descriptor, sockets.POLLIN)
        self._crew_polled = wanted

    def _arm_stall_trigger(self) -> None:
        """Has the kernel wake the loop when tasks wait for memory, where it can."""
        trigger = self._crew.stall_trigger
        if self._stall_polled is not None:
            self._poller.unregister(self._stall_polled)
        trigger.arm(self._reconfigurer.config.watch.stall_share_brake)
        self._stall_polled = trigger.fileno()
        if self._stall_polled is not None:
            self._poller.register(self._stall_polled, sockets.POLLPRI)

    def _stalled(self, told: int) -> list[AnyEvent]:
        if not told & sockets.POLLERR:
            return [TasksStalled()]
        self._crew.stall_trigger.lost()
        self._arm_stall_trigger()
        self._log.line(f"not told any more when tasks wait for memory ({self._crew.stall_trigger.missing})")
        return []

    def _timeout_milliseconds(self, until: float | None) -> int | None:
        if until is None:
            return None
        seconds = until - time.monotonic()
        if self._crew.dying():
            seconds = min(seconds, EXIT_STATUS_POLL_SECONDS)
        return max(0, math.ceil(seconds * 1000))

    def _letters(self) -> list[AnyEvent]:
        events: list[AnyEvent] = []
        for letter in self._mailbox.take(_items_in, ITEMS_A_TURN):
            if isinstance(letter, Answered):
                self._answer(letter.peer, letter.answer)
            elif isinstance(letter, Arrived):
                events.append(self._crew.arrived(letter.process))
            elif isinstance(letter, PartArrived):
                events.append(self._parts.arrived(letter))
            else:
                if isinstance(letter, SettingsChanged) and letter.settings is not None:
                    self._take_settings()
                events.append(letter)
        return events

    def _take_settings(self) -> None:
        """What the policy does not decide with goes to those who act on it."""
        config = self._reconfigurer.config
        self._crew.override_budget(config.memory_bytes)
        self._arm_stall_trigger()
        self._journal.keep_decisions(config.decisions_kept)
        self._temp.change(config.reaper)
        if self._cache is not None:
            self._cache.change(config.cache_bytes, config.cache_memory_bytes)

    def _reconfigure(self, command: c.Reconfigure) -> None:
        def chore() -> None:
            self._mailbox.post(self._reconfigurer.change(command.peer, command.request))

        self._chores.submit(chore)

    # ---- acting ----------------------------------------------------------------------------------

    def execute(self, command: c.Command) -> None:
        """Carries a command out; its outcome comes back as an event."""
        match command:
            case c.TellWorker():
                self._router.tell(command.slot, command.incarnation, command.message)
            case c.Reply():
                self._answer(command.peer, command.answer)
            case c.Note():
                self._note(command)
            case c.TakeSample():
                now = time.monotonic()
                self._sampled.append(self._crew.sample(now, self._parts.sample))
                if self._cache is not None:
                    self._sampled += self._cache.give_up(now)
            case c.StartWorker():
                self._crew.start(command.slot, command.incarnation, command.roots_read, command.roots_write)
            case c.TerminateWorker():
                self._crew.terminate(command.slot, command.incarnation)
            case c.KillWorker():
                self._crew.kill(command.slot, command.incarnation)
            case c.LimitWorker():
                self._crew.limit(command.slot, command.incarnation, command.limit_bytes)
            case c.BuryWorker():
                self._bury(command)
            case c.StartPart():
                self._parts.start(command.name, command.incarnation)
            case c.StopPart():
                self._parts.stop(command.name, command.incarnation, command.kill)
            case c.AskTemp():
                self._temp.ask(command.peer, command.request)
            case LookUpItems() | StoreItems() | c.CacheVerb() | c.TrimCache():
                self._ask_cache(command)
            case c.KeepHistory():
                pieces = command.pieces
                self._chores.submit(lambda: self._history.write(pieces))
            case c.Reconfigure():
                self._reconfigure(command)
            case c.RenewTemplate():
                self._crew.renew_template()
            case c.KeepLearned():
                self._chores.submit(lambda: self._keep(command.content))
            case c.GiveBackMemory():
                self._chores.submit(give_back)
            case c.CleanUp():
                self._cleaner.start(command)
            case c.KeepTrace():
                self._chores.submit(partial(self._trace.write, command.line))
            case c.TellAlert():
                self._alerts.tell(command)
            case c.KeepProtection():
                self._chores.submit(self._stops.want(command.stops))
            case c.StopLoop():
                self.stopped = command.exit_code
            case (
                c.Query()
                | c.CreateBatch()
                | c.InsertItems()
                | c.SealBatch()
                | c.FetchItems()
                | c.SettleItems()
                | c.ChargeItems()
                | c.ChangeBatch()
                | c.CancelItems()
                | c.RetryItems()
                | c.ForgetQuarantine()
                | c.SweepRetention()
            ):
                self._journal.submit(command)
            case _:
                raise AssertionError(f"nobody executes {type(command).__name__}")

    def _ask_cache(self, command: LookUpItems | StoreItems | c.CacheVerb | c.TrimCache) -> None:
        cache = self._cache
        match command:
            case LookUpItems() if cache is not None:
                cache.look_up(command)
            case StoreItems() if cache is not None:
                cache.store(command)
            case c.TrimCache() if cache is not None:
                cache.trim_memory(command.tier)
            case c.CacheVerb():
                self._cache_verb(cache, command)
            case _:
                pass  # the policy asks for nothing where there is no cache, but a level may rise without one

    def _cache_verb(self, cache: CacheThread | None, command: c.CacheVerb) -> None:
        request = command.request

        def problem(code: str, fault: Fault, message: str) -> Problem:
            return Problem(
                id=request.id, code=code, fault=fault, message=message, exit_code=4 if fault != "caller" else 2
            )

        def answer(found: object) -> None:
            told: AnyAnswer
            if isinstance(found, CacheReport):
                told = found
            elif isinstance(found, ValueError):
                told = problem("usage", "caller", str(found))
            else:
                told = problem("cache", "machine", f"the cache could not do it: {found}")
            self._mailbox.post(Answered(peer=command.peer, answer=told))

        if cache is None:
            answer(ValueError("there is no cache: it is turned off by the setting cache"))
        elif not cache.ask(lambda store: verb_report(store, request), answer):
            refused = problem("busy", "machine", "too many wait for the cache already; try again in a moment")
            self._answer(command.peer, refused)

    def _keep(self, content: bytes) -> None:
        """In the chores thread."""
        try:
            self._keep_learned(content)
        except OSError as error:
            self._log.line(f"what was learned of memory cannot be written down: {error}")

    def _bury(self, command: c.BuryWorker) -> None:
        self._temp.bury(command.slot, command.incarnation)
        if command.partial:
            token = self._state_token
            self._chores.submit(lambda: remove_partial(command.partial, token))

    def _answer(self, peer: bytes, answer: AnyAnswer) -> None:
        if isinstance(answer, Status):
            answer = msgspec.structs.replace(
                answer,
                loop_turn_p99_seconds=self.turns.p99_seconds(),
                loop_turn_max_seconds=self.turns.longest_seconds(),
            )
        elif isinstance(answer, MemoryReport):
            answer = self._with_own(answer)
        self._router.answer(peer, answer)

    def _with_own(self, report: MemoryReport) -> MemoryReport:
        """Adds what only this process can see of itself: its heap, and what its threads hold."""
        (verdicts,) = (store for store in report.stores if store.name == VERDICTS)
        waiting = [*self._journal.stores(verdicts), *self._chores.stores(), *self._temp.stores()]
        stores = [*report.stores, *waiting]
        if self._cache is not None:
            stores += self._cache.stores()
        # A letter is the answer to something that was counted in a store before; nobody else posts any number of them.
        most = sum(store.limit_count or 0 for store in stores if store.owner != "policy") + LETTERS_UNASKED
        stores.append(
            Store(name="letters for the loop", owner="loop", count=len(self._mailbox), limit_count=most, bytes=None,
                  limit_bytes=None)
        )  # fmt: skip
        heap = own_heap_bytes()
        processes = [
            msgspec.structs.replace(process, heap_bytes=heap, native_bytes=max(0, process.private_bytes - heap))
            if process.role == "supervisor"
            else process
            for process in report.processes
        ]
        return msgspec.structs.replace(report, stores=stores, processes=processes)

    def _note(self, note: c.Note) -> None:
        self._told += 1
        decision = Decision(
            number=self._told,
            at=time.time(),
            kind=note.kind,
            message=note.message,
            slot=note.slot,
            batch=note.batch,
            path=describe(note.path)["path"] if note.path is not None else None,
            figures=note.figures,
        )
        self._log.decision(decision)
        if note.slot is not None:
            topic = f"worker.{note.slot}"
        elif note.batch is not None:
            topic = f"batch.{note.batch}"
        else:
            topic = "pool"
        self._router.publish(topic, decision)
        self._journal.submit(note)


def _items_in(letter: Letter) -> int:
    if isinstance(letter, ItemsCommitted):
        return len(letter.settlements)
    if isinstance(letter, ItemsFetched):
        return len(letter.items)
    return 1
