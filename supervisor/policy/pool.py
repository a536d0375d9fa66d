"""The pool: events in, commands out. Everything the supervisor decides passes here, and nothing else does.

    commands = pool.handle(event, now)      a pure function of (state, event, now)
    deadline = pool.next_deadline()         when to call again if nothing happens

`handle` lets the service that owns the event act, then what follows from any event: workers that are overdue,
starts that are due, pauses that are over, windows to fill, leases to grant, the end. A service is a module of
functions over the state; see the package's docstring for the list.
"""

from random import Random
from typing import assert_never

from protocol.messages import ChangeSettings, Counts
from supervisor.policy import (
    alerts,
    caching,
    care,
    cleanup,
    deaths,
    filling,
    historian,
    idle,
    intake,
    kernel_limits,
    lending,
    memory_leases,
    parts,
    profiling,
    protection,
    replay,
    reports,
    stopping,
)
from supervisor.policy import events as e
from supervisor.policy.blame import UNCLEAN_STOPS_ALLOWED, Death
from supervisor.policy.cache.asked import LookedUp, Stored
from supervisor.policy.commands import (
    ChargeItems,
    Command,
    Note,
    Reconfigure,
    SweepRetention,
    TakeSample,
)
from supervisor.policy.counted import counted
from supervisor.policy.items import Item, Settlement
from supervisor.policy.live import SettingsChanged, on_settings_changed
from supervisor.policy.prediction import keeping
from supervisor.policy.queue import Batch
from supervisor.policy.state import PoolSettings, PoolState

AnyEvent = e.AnyEvent | LookedUp | Stored | SettingsChanged


class Pool:
    """The supervisor's policy as one object."""

    def __init__(self, settings: PoolSettings, random: Random, now: float) -> None:
        self.state = PoolState(settings, random, now)

    @property
    def running(self) -> bool:
        """Whether the loop should go on."""
        return self.state.exit_code is None

    @property
    def draining(self) -> bool:
        """Whether the end has begun."""
        return self.state.draining

    def handle(self, event: AnyEvent, now: float) -> list[Command]:
        """Decides. Raises nothing for whatever clients, workers or the machine do."""
        state = self.state
        commands = self._dispatch(event, now)
        commands += deaths.overdue(state, now)
        commands += idle.rest_or_wake(state, now)
        commands += deaths.start_due(state, now)
        commands += parts.attend(state, now)
        commands += protection.attend(state, now)
        commands += cleanup.attend(state, now)
        commands += intake.pauses_over(state, now)
        commands += filling.attend(state, now)
        commands += memory_leases.attend(state, now)
        commands += profiling.attend(state, now)
        commands += intake.sweep_returned(state)
        lent = lending.lend(state, now)
        commands += [*kernel_limits.follow(state), *lent]  # before the grants that count on them
        commands += _idle_exit(state, now)
        commands += stopping.finish(state, now)
        commands += _sweep_retention(state, now)
        commands += keeping.keep(state, now)
        if now >= state.sample_at:
            state.sample_at = now + state.settings.watch.interval_idle_seconds
            commands.append(TakeSample())
        commands += alerts.watch(state, commands, now)
        return commands + historian.keep(state, commands, now)

    def next_deadline(self) -> float | None:
        """Returns when something is due if nothing happens before, on the loop's clock."""
        state = self.state
        deadlines = [state.sample_at]
        for slot in state.slots:
            if slot.worker is not None and slot.worker.deadline is not None:
                deadlines.append(slot.worker.deadline)
            elif slot.worker is None and slot.start_at is not None:
                deadlines.append(slot.start_at)
        if state.resume_at is not None:
            deadlines.append(state.resume_at)
        if (expiry := memory_leases.next_expiry(state)) is not None:
            deadlines.append(expiry)
        if (rests_at := idle.idle_deadline(state)) is not None:
            deadlines.append(rests_at)
        if state.sweep_at is not None and state.journal_stalled is None:
            deadlines.append(state.sweep_at)
        due = (
            parts.next_deadline(state.parts.values(), state.draining),
            cleanup.next_deadline(state),
            profiling.next_deadline(state),
            filling.next_deadline(state),
        )
        deadlines += [at for at in due if at is not None]
        deadlines += [batch.resume_at for batch in state.queue.batches.values() if batch.resume_at is not None]
        return min(deadlines)

    def _dispatch(self, event: AnyEvent, now: float) -> list[Command]:
        state = self.state
        match event:
            case e.WorkerSaid():
                return reports.on_said(state, event, now)
            case e.ItemsCommitted():
                return _on_committed(state, event, now)
            case e.Sampled():
                kept = replay.keep_look(state, event, now)
                return kept + care.on_sampled(state, event, now)
            case e.TasksStalled():
                return care.on_stalled(state, now)
            case e.Tick():
                return []
            case e.RequestReceived():
                return intake.on_request(state, event, now)
            case e.ItemsInserted():
                return filling.on_inserted(state, event, now)
            case e.ItemsFetched():
                return _on_fetched(state, event, now)
            case e.WorkerStarted():
                return deaths.on_started(state, event, now)
            case e.StartFailed():
                return deaths.on_start_failed(state, event, now)
            case e.WorkerBabbled():
                return reports.on_babble(state, event, now)
            case e.WorkerExited():
                return deaths.on_exited(state, event, now)
            case e.TemplateDied():
                return deaths.on_template_died(state, event, now)
            case e.StopAsked():
                return stopping.drain_pool(state, now, event.now, event.reason)
            case e.ReloadAsked():
                return [Reconfigure(peer=None, request=ChangeSettings())]
            case SettingsChanged():
                return on_settings_changed(state, event, now)
            case e.BatchCreated():
                return filling.on_created(state, event, now)
            case e.JournalRefused():
                return filling.on_refused(state, event, now)
            case e.BatchSealed():
                return filling.on_sealed(state, event, now)
            case e.BatchChanged():
                return _on_changed(state, event, now)
            case e.ItemsCancelled():
                return intake.on_cancelled(state, event, now)
            case e.ItemsRetried():
                return intake.on_retried(state, event, now)
            case e.QuarantineForgotten():
                return intake.on_forgotten(state, event)
            case e.JournalStalled() | e.JournalRecovered() | e.TempFilled() | e.TempEased():
                return _on_disk(state, event, now)
            case e.Remembered():
                return keeping.on_remembered(state, event)
            case e.Recovered():
                return _on_recovered(state, event, now)
            case LookedUp():
                return caching.on_looked_up(state, event)
            case Stored():
                return caching.on_stored(state, event, now)
            case e.BatchesDropped():
                return _on_dropped(event)
            case e.CleanedUp():
                return cleanup.on_cleaned_up(state, event, now)
            case e.PartStarted():
                return parts.on_started(state, event, now)
            case e.PartExited():
                return parts.on_exited(state, event, now)
        assert_never(event)


def _on_disk(
    state: PoolState, event: e.JournalStalled | e.JournalRecovered | e.TempFilled | e.TempEased, now: float
) -> list[Command]:
    """A disk refuses, or takes again."""
    match event:
        case e.JournalStalled():
            state.journal_stalled = event.reason
            return [Note(kind="journal_stalled", message=f"paused: the journal cannot be written: {event.reason}")]
        case e.JournalRecovered():
            state.journal_stalled = None
            filling.hear_all(state, now)
            return [Note(kind="journal_recovered", message="the journal is written again; work goes on")]
        case e.TempFilled():
            state.temp_full = event.reason
            return [Note(kind="temp_full", message=f"the temp disk is nearly full: {event.reason}")]
        case e.TempEased():
            state.temp_full = None
            return [Note(kind="temp_eased", message="the disk of the temp directory has room again; work goes on")]
    assert_never(event)


def _on_dropped(event: e.BatchesDropped) -> list[Command]:
    dropped = [
        Note(kind="retention", batch=batch, message=f"batch {batch} is forgotten: {reason}")
        for batch, reason in event.dropped
    ]
    thinned = [
        Note(kind="retention", batch=batch, message=f"batch {batch}: its large results are dropped, its verdicts stay")
        for batch in event.thinned
    ]
    return [*dropped, *thinned]


def _sweep_retention(state: PoolState, now: float) -> list[Command]:
    retention = state.settings.retention
    if retention is None or state.sweep_at is None or now < state.sweep_at or state.journal_stalled is not None:
        return []
    state.sweep_at = now + retention.sweep_seconds
    return [SweepRetention(retention=retention)]


def _on_fetched(state: PoolState, event: e.ItemsFetched, now: float) -> list[Command]:
    batch = state.queue.batches.get(event.batch)
    if batch is not None:
        ordinary = batch.fetched(event.items, event.exhausted)
        if caching.steps_of(state, batch):
            return caching.look_up(state, batch, ordinary, now)
        batch.ready.extend(ordinary)
    return []


def _on_committed(state: PoolState, event: e.ItemsCommitted, now: float) -> list[Command]:
    touched: dict[str, tuple[Batch, list[Settlement]]] = {}
    for settlement in event.settlements:
        batch = state.queue.batches.get(settlement.batch)
        if batch is None or not batch.committed(settlement.id):
            continue
        batch.counts[settlement.state] += 1
        if settlement.state != "cancelled":
            state.totals[settlement.state] += 1
        state.tallies.settled(batch.record.recipe, settlement)
        if settlement.state == "done":
            batch.machine_pauses, batch.short_since = 0, None
        if settlement.identity or settlement.made is not None:
            touched.setdefault(batch.name, (batch, []))[1].append(settlement)
        else:
            touched.setdefault(batch.name, (batch, []))
    commands: list[Command] = []
    for batch, settlements in touched.values():
        commands += caching.on_committed(state, batch, settlements, now)
        commands += reports.end_if_complete(state, batch, now)
    return commands


def _on_changed(state: PoolState, event: e.BatchChanged, now: float) -> list[Command]:
    state.changes -= 1
    batch = state.queue.batches.get(event.batch)
    if batch is None:
        return []
    batch.changing -= 1
    if not batch.closing or batch.changing:
        return []
    state.queue.remove(batch.name)
    counts: Counts = batch.live_counts()
    if not state.queue.batches:
        state.cleanups.work_over_at = now
    return [
        Note(
            kind="finished",
            batch=batch.name,
            message=f"batch {batch.name} is over: {counts.done} done, {counts.cached} cached, {counts.failed} failed, "
            f"{counts.quarantined} quarantined, {counts.cancelled} cancelled",
        ),
    ]


def _on_recovered(state: PoolState, event: e.Recovered, now: float) -> list[Command]:
    commands = replay.keep_head(state)
    historian.begin(state, event.history, now)
    for record in event.records:
        batch = state.queue.add(record)
        commands += reports.end_if_complete(state, batch, now)
    filling.hear_all(state, now)
    if event.records:
        waiting = state.queue.pending
        how = "stopped cleanly" if event.clean else "was killed"
        what = f"{counted(len(event.records), 'batch')} with {counted(waiting, 'item')}"
        message = f"resuming {what}; the supervisor before {how}"
        commands.append(Note(kind="resumed", message=message, figures={"in_progress": len(event.in_progress)}))
    by_batch: dict[str, list[Item]] = {}
    for item in event.in_progress:
        by_batch.setdefault(item.batch, []).append(item)
    for name, items in by_batch.items():
        commands += _suspects_of_unclean_stop(state, name, items)
    return commands


def _suspects_of_unclean_stop(state: PoolState, name: str, items: list[Item]) -> list[Command]:
    batch = state.queue.batches.get(name)
    if batch is None:
        return []
    commands: list[Command] = []
    batch.away = {item.id for item in items}
    for item in items:
        if item.unclean_stops > UNCLEAN_STOPS_ALLOWED:
            evidence: dict[str, object] = {"unclean_stops": item.unclean_stops}
            commands += deaths.quarantine(state, None, batch, item, Death(cause="unclean_stop"), evidence)
            continue
        batch.special.append(item)
        commands.append(
            Note(
                kind="suspect",
                batch=name,
                path=batch.path(item),
                message=f"{batch.path(item)} was in progress when the supervisor was stopped uncleanly "
                f"({item.unclean_stops} in a row); it goes first, alone",
                figures={"unclean_stops": item.unclean_stops},
            )
        )
    return [*commands, ChargeItems(charges=[deaths.charge_row(item) for item in items])]


def _idle_exit(state: PoolState, now: float) -> list[Command]:
    limit = state.settings.exit_when_idle_seconds
    if limit is None or state.draining:
        return []
    if state.queue.batches or state.creating:
        state.heard_at = now
        return []
    if now - state.heard_at < limit:
        return []
    return stopping.drain_pool(state, now, False, f"nothing to do for {limit:.0f} s")
