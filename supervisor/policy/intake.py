"""What clients ask for.

A submission is acknowledged when the journal has it, never before; it is refused whole, with the reason, while
the pool drains, the queue is full, the journal cannot write, or memory has run out. What only reads is answered
from the state, or handed to the journal.
"""

from typing import Any, assert_never

from protocol import messages as m
from protocol.errors import GalleryError, Refused, UnknownBatch, UnknownRecipe, UsageError
from supervisor.policy import emergency, historian, leaks_report, memory_leases, profiling, status
from supervisor.policy.commands import (
    AskTemp,
    CacheVerb,
    CancelItems,
    Command,
    CreateBatch,
    ForgetQuarantine,
    InsertItems,
    Note,
    Query,
    Reconfigure,
    Reply,
    RetryItems,
    SealBatch,
)
from supervisor.policy.counted import counted
from supervisor.policy.events import (
    ItemsCancelled,
    ItemsRetried,
    QuarantineForgotten,
    RequestReceived,
)
from supervisor.policy.filling import change_batch, hear, revive
from supervisor.policy.items import BatchRecord
from supervisor.policy.levels import Level
from supervisor.policy.memory_report import memory_report
from supervisor.policy.names import check_names, check_token
from supervisor.policy.queue import Batch
from supervisor.policy.reports import end_if_complete
from supervisor.policy.state import PoolState
from supervisor.policy.stopping import drain_pool, recycle_asked

PRIORITY_LIMIT = 1_000


def on_request(state: PoolState, event: RequestReceived, now: float) -> list[Command]:
    """Answers a request, or sends it on; a fault of the caller is an answer too."""
    state.heard_at = now
    try:
        return _answer(state, event.peer, event.request, now)
    except GalleryError as error:
        return [Reply(peer=event.peer, answer=problem(event.request.id, error))]


def problem(request_id: int | str, error: GalleryError) -> m.Problem:
    """Returns the answer that tells a client what is wrong."""
    return m.Problem(id=request_id, code=error.code, fault=error.fault, message=str(error), exit_code=error.exit_code)


def _answer(state: PoolState, peer: bytes, request: m.AnyRequest, now: float) -> list[Command]:
    match request:
        case m.Hello():
            return [Reply(peer=peer, answer=_welcome(state, request))]
        case m.OpenBatch():
            return _open(state, peer, request, now)
        case m.AddItems():
            return _add(state, peer, request, now)
        case m.CloseBatch():
            hear(state, request.batch, now)
            return [SealBatch(peer=peer, request_id=request.id, batch=request.batch, ignored=request.ignored)]
        case m.Progress():
            return _progress(state, peer, request, now)
        case m.CancelBatch():
            return _cancel(state, peer, request, now)
        case m.RetryBatch():
            _must_take(state)
            return [RetryItems(peer=peer, request_id=request.id, batch=request.batch, quarantined=request.quarantined)]
        case m.PauseWork():
            return _pause(state, peer, request, now)
        case m.ResumeWork():
            return _resume(state, peer, request)
        case m.StatusRequest():
            return [Reply(peer=peer, answer=status.status(state, request.id, now))]
        case m.MemoryRequest():
            return [Reply(peer=peer, answer=memory_report(state, request.id, now))]
        case m.MemoryProfile():
            return profiling.begin(state, peer, request, now)
        case m.ChangeSettings():
            return [Reconfigure(peer=peer, request=request)]
        case m.QuarantineDrop():
            check_token(request.path)
            return [ForgetQuarantine(peer=peer, request_id=request.id, path=request.path, retry=request.retry)]
        case m.TempStats() | m.TempReap():
            return [AskTemp(peer=peer, request=request)]
        case m.History():
            return [Reply(peer=peer, answer=historian.page(state, request, now))]
        case m.LeaksRequest():
            return [Reply(peer=peer, answer=leaks_report.report(state, request.id, now))]
        case m.AskCache():
            return [CacheVerb(peer=peer, request=request)]
        case m.RecycleWorker():
            commands = recycle_asked(state, request.slot, now)
            return [*commands, Reply(peer=peer, answer=m.Done(id=request.id, message="it is replaced"))]
        case m.LeaseMemory():
            return memory_leases.on_client(state, peer, request, now)
        case m.RenewMemoryLease():
            return memory_leases.on_client_renews(state, peer, request, now)
        case m.EndMemoryLease():
            return memory_leases.on_client_ends(state, peer, request)
        case (
            m.EmergencyCleanup()
            | m.EmergencyCollect()
            | m.EmergencyStatusRequest()
            | m.EmergencyReset()
            | m.EmergencyProtection()
        ):
            return emergency.on_request(state, peer, request, now)
        case m.Stop():
            done = Reply(peer=peer, answer=m.Done(id=request.id, message="stopping"))
            return [done, *drain_pool(state, now, request.now, "asked by a client")]
        case m.ListBatches() | m.Results() | m.ImageHashes() | m.Why() | m.Events() | m.QuarantineList():
            if isinstance(request, m.Why | m.QuarantineList) and request.path is not None:
                check_token(request.path)
            live = {name: status.live(batch) for name, batch in state.queue.batches.items()}
            return [Query(peer=peer, request=request, live=live)]
    assert_never(request)


def _welcome(state: PoolState, request: m.Hello) -> m.Welcome:
    settings = state.settings
    return m.Welcome(
        id=request.id,
        version=settings.version,
        pid=settings.pid,
        state_directory=settings.state_directory,
        workers=settings.workers,
        recipes=list(settings.recipes.values()),
        events_endpoint=settings.events_endpoint,
    )


def _must_take(state: PoolState) -> None:
    if state.draining:
        raise Refused("the supervisor is draining and takes no new work; submit again when it has been started anew")
    if state.journal_stalled is not None:
        raise Refused(f"nothing can be accepted: the journal cannot be written ({state.journal_stalled})")
    if state.level >= Level.EMERGENCY:
        raise Refused(
            f"memory has run out ({state.used_bytes:,} of {state.budget_bytes:,} bytes are used); try again later"
        )


def _open(state: PoolState, peer: bytes, request: m.OpenBatch, now: float) -> list[Command]:
    _must_take(state)
    recipe = state.settings.recipes.get(request.recipe)
    if recipe is None:
        raise UnknownRecipe(request.recipe, list(state.settings.recipes))
    if request.out is not None and not request.out.startswith("/"):
        raise UsageError(f"out must be an absolute path, not {request.out!r}")
    if request.out is not None:
        check_token(request.out)
    if abs(request.priority) > PRIORITY_LIMIT:
        raise UsageError(f"priority {request.priority} is out of range: -{PRIORITY_LIMIT} to {PRIORITY_LIMIT}")
    _must_have_room(state, request)
    name = request.batch if request.batch is not None else f"b{state.random.getrandbits(40):010x}"
    record = BatchRecord(
        batch=name,
        recipe=recipe,
        out=request.out,
        overwrite=request.overwrite,
        strict=request.strict,
        priority=request.priority,
        hold=request.hold,
        fingerprint=request.fingerprint,
        kind=request.kind,
        opened_at=state.epoch(now),
    )
    state.creating.add((peer, request.id))
    return [CreateBatch(peer=peer, request_id=request.id, record=record, resume=request.resume)]


def _must_have_room(state: PoolState, request: m.OpenBatch) -> None:
    """Raises Refused for a batch that would be one too many; those that are there may be opened again."""
    batches, limit = state.queue.batches, state.settings.batches_max
    if len(batches) + len(state.creating) < limit or request.batch in batches:
        return
    mine = request.fingerprint if request.resume else None
    if mine is None or all(batch.record.fingerprint != mine for batch in batches.values()):
        raise Refused(
            f"{len(batches):,} batches are unfinished and the limit (batches_max) is {limit:,}; "
            "try again when some are done, or cancel some ('supervisor batches')"
        )


def _add(state: PoolState, peer: bytes, request: m.AddItems, now: float) -> list[Command]:
    hear(state, request.batch, now)
    _must_take(state)
    if len(request.names) > m.MAX_NAMES_A_CHUNK:
        raise UsageError(f"{len(request.names):,} names in one message; the limit is {m.MAX_NAMES_A_CHUNK:,}")
    if not request.root.startswith("/"):
        raise UsageError(f"root must be an absolute path, not {request.root!r}")
    check_names(request)
    batch = state.queue.batches.get(request.batch)
    if batch is not None and batch.record.hold and batch.items + len(request.names) > state.settings.queue_max_items:
        raise UsageError(
            f"batch {batch.name} is held until it is complete, and would have more items than the queue takes "
            f"(queue_max_items is {state.settings.queue_max_items:,}): submit it without hold, or in parts"
        )
    waiting = state.queue.pending
    if waiting + len(request.names) > state.settings.queue_max_items:
        raise Refused(
            f"the queue is full: {waiting:,} items wait and the limit (queue_max_items) is "
            f"{state.settings.queue_max_items:,}; try again when some are done"
        )
    if state.inserts >= state.settings.inserts_max:
        raise Refused(f"{state.inserts} submissions wait for the disk already; try again in a moment")
    state.inserts += 1
    return [
        InsertItems(
            peer=peer,
            request_id=request.id,
            batch=request.batch,
            chunk=request.chunk,
            root=request.root,
            prefix=request.prefix,
            names=request.names,
        )
    ]


def _progress(state: PoolState, peer: bytes, request: m.Progress, now: float) -> list[Command]:
    batch = state.queue.batches.get(request.batch)
    if batch is None:
        return [Query(peer=peer, request=request)]
    return [Reply(peer=peer, answer=status.progress(state, batch, request.id, now))]


def _batch(state: PoolState, name: str) -> Batch:
    batch = state.queue.batches.get(name)
    if batch is None:
        raise UnknownBatch(name, unfinished=True)
    return batch


def _cancel(state: PoolState, peer: bytes, request: m.CancelBatch, now: float) -> list[Command]:
    batch = state.queue.batches.get(request.batch)
    if batch is None:
        return [Query(peer=peer, request=m.Progress(id=request.id, batch=request.batch))]
    if batch.closing or batch.cancelled:
        return [Reply(peer=peer, answer=status.progress(state, batch, request.id, now))]
    batch.cancelled = True
    batch.open = False
    return [
        change_batch(state, batch, "cancelled"),
        sweep(state, batch),
        Note(kind="cancelled", batch=batch.name, message=f"batch {batch.name} is cancelled; what runs is finished"),
        Reply(peer=peer, answer=status.progress(state, batch, request.id, now)),
    ]


def sweep(state: PoolState, batch: Batch) -> CancelItems:
    """Cancels what of a cancelled batch waits; what workers or the journal have in hand is left to its end."""
    batch.rewind(set())
    batch.exhausted = True
    batch.sweeping = True
    return CancelItems(batch=batch.name, except_ids=[*state.away_ids(batch), *batch.settling_ids])


def sweep_returned(state: PoolState) -> list[Command]:
    """Cancels what came back to a cancelled batch after its pending items were cancelled."""
    return [
        sweep(state, batch)
        for batch in state.queue.batches.values()
        if batch.cancelled and not batch.sweeping and (batch.windowed or not batch.exhausted)
    ]


def on_cancelled(state: PoolState, event: ItemsCancelled, now: float) -> list[Command]:
    """So many items will not be done."""
    batch = state.queue.batches.get(event.batch)
    if batch is None:
        return []
    batch.sweeping = False
    batch.counts["cancelled"] += event.count
    state.tallies.outcome(batch.record.recipe, "cancelled", event.count)
    return end_if_complete(state, batch, now)


def on_retried(state: PoolState, event: ItemsRetried, now: float) -> list[Command]:
    """Failed items wait again: their batch is served (again) from its beginning."""
    count = event.failed + event.quarantined
    if not count:
        return [Query(peer=event.peer, request=m.Progress(id=event.request_id, batch=event.record.batch))]
    batch, commands = _reload(state, event.record)
    return [
        *commands,
        Note(kind="retried", batch=batch.name, message=f"batch {batch.name}: trying {counted(count, 'item')} again"),
        Reply(peer=event.peer, answer=status.progress(state, batch, event.request_id, now)),
    ]


def _reload(state: PoolState, record: BatchRecord) -> tuple[Batch, list[Command]]:
    """Takes in a batch whose rows were changed in the journal, window and all."""
    old = state.queue.batches.get(record.batch)
    if old is None:
        return state.queue.add(record), []
    for settled in ("done", "cached", "failed", "quarantined", "cancelled"):
        old.counts[settled] = getattr(record.counts, settled)
    old.items = record.items
    old.cancelled = False
    old.rewind({*state.away_ids(old), *old.settling_ids})
    return old, revive(state, old)


def on_forgotten(state: PoolState, event: QuarantineForgotten) -> list[Command]:
    """An image is out of quarantine."""
    commands: list[Command] = []
    for record in event.records:
        commands += _reload(state, record)[1]
    if not event.known:
        message = "no such image in quarantine; 'supervisor quarantine list' shows them"
        answer: Any = m.Problem(id=event.request_id, code="unknown", fault="caller", message=message, exit_code=2)
    else:
        again = f"; it is tried again in {len(event.records)} batches" if event.records else ""
        answer = m.Done(id=event.request_id, message=f"out of quarantine{again}")
    return [*commands, Reply(peer=event.peer, answer=answer)]


def _pause(state: PoolState, peer: bytes, request: m.PauseWork, now: float) -> list[Command]:
    until = now + request.seconds if request.seconds is not None else None
    done = Reply(peer=peer, answer=m.Done(id=request.id, message="paused; what runs is finished"))
    if request.batch is None:
        state.paused, state.resume_at = request.reason, until
        return [Note(kind="paused", message=f"the pool is paused: {request.reason}"), done]
    batch = _batch(state, request.batch)
    if batch.closing or batch.cancelled:
        raise Refused(f"batch {batch.name} is {'cancelled' if batch.cancelled else 'finished'}: nothing to pause")
    batch.paused, batch.resume_at = request.reason, until
    # A pause with an end is not kept: a restart would not know when it ends.
    kept = [change_batch(state, batch, "paused")] if until is None else []
    return [
        *kept,
        Note(kind="paused", batch=batch.name, message=f"batch {batch.name} is paused: {request.reason}"),
        done,
    ]


def _resume(state: PoolState, peer: bytes, request: m.ResumeWork) -> list[Command]:
    done = Reply(peer=peer, answer=m.Done(id=request.id, message="resumed"))
    if request.batch is None:
        state.paused = state.resume_at = None
        return [Note(kind="resumed", message="the pool goes on"), done]
    batch = _batch(state, request.batch)
    return [*resume_batch(state, batch), done]


def resume_batch(state: PoolState, batch: Batch) -> list[Command]:
    """Ends a batch's pause."""
    batch.paused = batch.resume_at = None
    if batch.closing or batch.cancelled:
        return []
    return [
        change_batch(state, batch, "running"),
        Note(kind="resumed", batch=batch.name, message=f"batch {batch.name} goes on"),
    ]


def pauses_over(state: PoolState, now: float) -> list[Command]:
    """Ends the pauses whose time is over: no pause outlives its reason."""
    commands: list[Command] = []
    if state.resume_at is not None and now >= state.resume_at:
        state.paused = state.resume_at = None
        commands.append(Note(kind="resumed", message="the pause is over: the pool goes on"))
    for batch in state.queue.batches.values():
        if batch.resume_at is not None and now >= batch.resume_at:
            commands += resume_batch(state, batch)
    return commands
