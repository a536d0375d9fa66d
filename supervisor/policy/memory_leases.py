"""Memory leases: who may take a large piece of memory, and who may not now.

An operation asks before it loads a model or runs an inference. What it asks for beyond its item's own reservation comes
from a bounded pool, and only as far as the budget has it: what all leases, all items and all that is in use above the
baselines take together never exceeds the room. It may say what is the least that helps: then it is granted what there
is between that and what it would like. A refusal has its reason and its figures.

A lease ends when it is released, with its holder, or when it was not renewed for `stale_seconds`.
"""

from protocol import messages as m
from protocol.errors import Refused
from supervisor.policy.commands import Command, Note, Reply, TellWorker
from supervisor.policy.lease_book import CLIENT, MOST_OF_A_HOLDER, HeldLease, HeldModel, WaitingRequest
from supervisor.policy.levels import Level
from supervisor.policy.sizes import MB, human
from supervisor.policy.state import PoolState, Slot
from supervisor.policy.worker import Worker

SMALLEST_POOL_BYTES = 50 * MB
"""FEATURES A6: the pool at the smallest budget; above, it is a share of the budget."""
LEFT_TO_OTHERS_SECONDS = 30.0
"""So long a worker leaves a recipe to those that have its model; then it asks again."""
NOTE_EVERY_SECONDS = 10.0
"""Refusals are told at most so often; all are counted."""


def limit_bytes(state: PoolState) -> int:
    """Returns what all memory leases together may take."""
    settings = state.settings.leases
    if settings.pool_bytes is not None:
        return settings.pool_bytes
    return max(SMALLEST_POOL_BYTES, int(settings.pool_share * state.budget_bytes))


def free_bytes(state: PoolState) -> int:
    """Returns what could be granted now: of the pool, and of the budget."""
    in_pool = limit_bytes(state) - state.memory_leases.reserved_bytes()
    return max(0, min(in_pool, state.unreserved_bytes()))


# ---- workers -------------------------------------------------------------------------------------


def on_request(state: PoolState, slot: Slot, worker: Worker, asked: m.RequestMemory, now: float) -> list[Command]:
    """Grants or refuses what a worker asks for."""
    book = state.memory_leases
    if asked.patience_seconds > 0 and state.level < Level.CRITICAL and _worth_waiting(state, slot, asked.bytes):
        until = now + min(asked.patience_seconds, state.settings.leases.patience_seconds)
        book.waiting = [waiting for waiting in book.waiting if waiting.slot != slot.index]
        waits = WaitingRequest(slot=slot.index, incarnation=worker.incarnation, asked=asked, until=until)
        book.waiting.append(waits)
        return []
    return _answer(state, slot, worker, asked, now)


def _worth_waiting(state: PoolState, slot: Slot, wanted: int) -> bool:
    """Tells whether there is less than is wanted (or somebody waits already), and what is missing will come back."""
    book = state.memory_leases
    missing = wanted - free_bytes(state)
    behind = any(waiting.slot != slot.index for waiting in book.waiting)
    return (missing > 0 or behind) and missing <= book.passing_bytes(slot.index)


def _answer(state: PoolState, slot: Slot, worker: Worker, asked: m.RequestMemory, now: float) -> list[Command]:
    path = _path_of(state, worker, asked.item)
    granted: int | None = 0
    why, for_ever = "", False
    if asked.bytes:
        granted, why, for_ever = _judge(state, slot.index, asked.bytes, asked.at_least, now, asked.within_bytes)
    if granted is not None:
        if _count(state, slot.index) < MOST_OF_A_HOLDER:
            size = granted + asked.within_bytes
            lease = _keep(state, slot.index, worker.incarnation, asked.number, asked.purpose, size, path, now)
            lease.within_bytes = asked.within_bytes
        return [_tell(slot, worker, m.MemoryGranted(number=asked.number, bytes=granted))] if asked.bytes else []
    reason = f"{asked.purpose}: {why}"
    told = _refused(state, reason, asked.bytes, slot.index, path, now)
    refusal = m.MemoryRefused(number=asked.number, reason=reason, for_ever=for_ever)
    return [_tell(slot, worker, refusal), *told]


def on_release(state: PoolState, worker: Worker, said: m.ReleaseMemory) -> list[Command]:
    """Takes a lease back."""
    book = state.memory_leases
    lease = book.of(worker.slot, worker.incarnation, said.number)
    if lease is not None:
        del book.held[lease.number]
    book.waiting = [one for one in book.waiting if (one.slot, one.asked.number) != (worker.slot, said.number)]
    return []


def on_renew(state: PoolState, worker: Worker, said: m.RenewMemory, now: float) -> list[Command]:
    """The worker still wants these."""
    wanted = set(said.numbers)
    for lease in state.memory_leases.held.values():
        if (lease.slot, lease.incarnation) == (worker.slot, worker.incarnation) and lease.request in wanted:
            lease.renewed_at = now
    return []


def on_model(state: PoolState, worker: Worker, said: m.ModelLoaded, now: float) -> list[Command]:
    """A model is there, or was used: its lease becomes what it was measured to take."""
    book = state.memory_leases
    key = (worker.slot, said.name)
    known = book.models.get(key)
    if known is not None and known.request == said.number:
        known.used_at, known.uses = now, said.uses
        return []
    if known is None and sum(slot == worker.slot for slot, _ in book.models) >= MOST_OF_A_HOLDER:
        return []
    book.models[key] = HeldModel(
        slot=worker.slot,
        incarnation=worker.incarnation,
        request=said.number,
        name=said.name,
        bytes=said.bytes,
        loaded_at=now,
        used_at=now,
        uses=said.uses,
        early=not worker.boundary_bytes,
    )
    lease = book.of(worker.slot, worker.incarnation, said.number)
    if lease is not None:
        # It is there, so it is reckoned with, even where it turned out larger than the pool: nothing more is granted.
        lease.bytes, lease.within_bytes = said.bytes, 0
    lent = state.lease_of(worker)
    if lent is not None:
        lent.reserved_bytes = max(0, lent.reserved_bytes - min(said.within_bytes, said.bytes))
    figures: dict[str, object] = {"bytes": said.bytes, "free_bytes": free_bytes(state)}
    message = f"worker {worker.slot} loaded the model {said.name}: {human(said.bytes)}"
    return [Note(kind="model_loaded", slot=worker.slot, message=message, figures=figures)]


def on_model_gone(state: PoolState, worker: Worker, said: m.ModelUnloaded) -> list[Command]:
    """A model was unloaded; a baseline that contained it does so no more."""
    book = state.memory_leases
    lease = book.of(worker.slot, worker.incarnation, said.number)
    if lease is not None:
        del book.held[lease.number]
    model = book.models.get((worker.slot, said.name))
    if model is None or model.request != said.number:
        return []
    del book.models[worker.slot, said.name]
    if model.in_baseline:
        worker.baseline_bytes = max(1, worker.baseline_bytes - min(said.bytes, model.bytes))
    because = f" ({said.reason})" if said.reason else ""
    freed = f"{human(said.bytes)} came back of {human(model.bytes)}{because}"
    message = f"worker {worker.slot} unloaded the model {said.name}: {freed}"
    figures: dict[str, object] = {"bytes": model.bytes, "freed_bytes": said.bytes}
    return [Note(kind="model_unloaded", slot=worker.slot, message=message, figures=figures)]


def leave_to_others(state: PoolState, slot: Slot, recipe: str, now: float) -> list[Command]:
    """A model was refused to this worker, and another one has it: that one goes on, and the batch with it."""
    again = waits_for_model(state, slot, recipe, now)
    slot.refused_recipe, slot.refused_until = recipe, now + LEFT_TO_OTHERS_SECONDS
    message = (
        f"worker {slot.index} leaves recipe {recipe} to the workers that have the model: there is no room for another"
    )
    figures: dict[str, object] = {"free_bytes": free_bytes(state)}
    return [] if again else [Note(kind="model_waits", slot=slot.index, message=message, figures=figures)]


def waits_for_model(state: PoolState, slot: Slot, recipe: str, now: float) -> bool:
    """Tells whether a recipe is left to others, who still have the model."""
    return slot.refused_recipe == recipe and now < slot.refused_until and model_elsewhere(state, slot)


def model_elsewhere(state: PoolState, slot: Slot) -> bool:
    """Tells whether another worker has a model."""
    return any(model.slot != slot.index for model in state.memory_leases.models.values())


def baseline_known(state: PoolState, worker: Worker) -> None:
    """The worker's baseline was measured: it contains the models loaded before, which need no reservation beside it."""
    for model in state.memory_leases.models.values():
        if model.slot == worker.slot and model.incarnation == worker.incarnation and model.early:
            model.in_baseline = True
            lease = state.memory_leases.of(worker.slot, worker.incarnation, model.request)
            if lease is not None:
                lease.in_baseline = True


def forget_worker(state: PoolState, slot: int) -> list[Command]:
    """The worker is gone, and its leases and models with it."""
    book = state.memory_leases
    commands: list[Command] = [
        Note(
            kind="model_unloaded",
            slot=slot,
            message=f"worker {slot} ended, and the model {model.name} with it: {human(model.bytes)}",
            figures={"bytes": model.bytes, "freed_bytes": model.bytes},
        )
        for model in book.models.values()
        if model.slot == slot
    ]
    book.held = {number: lease for number, lease in book.held.items() if lease.slot != slot}
    book.models = {key: model for key, model in book.models.items() if model.slot != slot}
    book.waiting = [waiting for waiting in book.waiting if waiting.slot != slot]
    return commands


# ---- clients -------------------------------------------------------------------------------------


def on_client(state: PoolState, peer: bytes, asked: m.LeaseMemory, now: float) -> list[Command]:
    """Answers a client that asks for memory of its own. Raises Refused."""
    what = asked.purpose or "a client"
    granted: int | None = asked.bytes
    why = f"clients hold {MOST_OF_A_HOLDER} memory leases already"
    if _count(state, CLIENT) >= MOST_OF_A_HOLDER:
        granted = None
    elif not asked.track:
        least = asked.bytes if asked.at_least is None else asked.at_least
        granted, why, _ = _judge(state, CLIENT, asked.bytes, least, now)
    if granted is None:
        _refused(state, f"{what}: {why}", asked.bytes, None, None, now)
        raise Refused(f"{what}: {why}")
    lease = _keep(state, CLIENT, 0, 0, asked.purpose or "client", granted, None, now)
    lease.tracked = asked.track
    answer = m.MemoryLeased(
        id=asked.id, lease=lease.number, bytes=granted, stale_after_seconds=state.settings.leases.stale_seconds
    )
    return [Reply(peer=peer, answer=answer)]


def on_client_renews(state: PoolState, peer: bytes, asked: m.RenewMemoryLease, now: float) -> list[Command]:
    """Keeps a client's lease. Raises Refused where there is none."""
    _of_client(state, asked.lease).renewed_at = now
    return [Reply(peer=peer, answer=m.Done(id=asked.id, message=f"memory lease {asked.lease} is renewed"))]


def on_client_ends(state: PoolState, peer: bytes, asked: m.EndMemoryLease) -> list[Command]:
    """Takes a client's lease back. Raises Refused where there is none."""
    lease = _of_client(state, asked.lease)
    del state.memory_leases.held[lease.number]
    message = f"memory lease {lease.number} is ended: {human(lease.bytes)}"
    return [Reply(peer=peer, answer=m.Done(id=asked.id, message=message))]


def _of_client(state: PoolState, number: int) -> HeldLease:
    lease = state.memory_leases.held.get(number)
    if lease is None or lease.slot != CLIENT:
        raise Refused(f"there is no memory lease {number} of a client (any more): it ended, or became stale")
    return lease


# ---- time ----------------------------------------------------------------------------------------


def attend(state: PoolState, now: float) -> list[Command]:
    """Answers who has waited for room, as far as there is some or it is time; takes stale leases back."""
    return _serve_waiting(state, now) + expire(state, now)


def _serve_waiting(state: PoolState, now: float) -> list[Command]:
    book, commands = state.memory_leases, []
    first = True
    for waiting in list(book.waiting):
        slot = state.slots[waiting.slot]
        room = first and waiting.asked.bytes <= free_bytes(state)
        first = False if not room else first
        if slot.worker is None or not (room or now >= waiting.until or state.level >= Level.CRITICAL):
            continue
        book.waiting.remove(waiting)
        commands += _answer(state, slot, slot.worker, waiting.asked, now)
    return commands


def expire(state: PoolState, now: float) -> list[Command]:
    """Takes back the leases that nobody renewed."""
    book, stale = state.memory_leases, state.settings.leases.stale_seconds
    commands: list[Command] = []
    for lease in [lease for lease in book.held.values() if now >= lease.renewed_at + stale]:
        del book.held[lease.number]
        book.expired_total += 1
        whose = "a client" if lease.slot == CLIENT else f"worker {lease.slot}"
        message = (
            f"memory lease {lease.number} ({lease.purpose}, {human(lease.bytes)}) of {whose} is taken back:"
            f" not renewed for {stale:.0f} s"
        )
        slot = None if lease.slot == CLIENT else lease.slot
        commands.append(Note(kind="lease_stale", slot=slot, message=message, figures={"bytes": lease.bytes}))
    return commands


def next_expiry(state: PoolState) -> float | None:
    """Returns when the next lease becomes stale, or somebody has waited long enough, on the loop's clock."""
    book, stale = state.memory_leases, state.settings.leases.stale_seconds
    due = [lease.renewed_at + stale for lease in book.held.values()] + [waiting.until for waiting in book.waiting]
    return min(due, default=None)


# ---- what there is -------------------------------------------------------------------------------


def memory_leases(state: PoolState) -> m.MemoryLeases:
    """Returns the pool and the leases that are out, oldest first."""
    book = state.memory_leases
    return m.MemoryLeases(
        limit_bytes=limit_bytes(state),
        granted_bytes=book.reserved_bytes(),
        granted_total=book.granted_total,
        refused_total=book.refused_total,
        expired_total=book.expired_total,
        leases=[
            m.MemoryLease(
                number=lease.number,
                slot=lease.slot,
                purpose=lease.purpose,
                bytes=lease.bytes,
                granted_at=state.epoch(lease.granted_at),
                path=lease.path,
                reserved_bytes=lease.reserved_bytes,
            )
            for lease in book.held.values()
        ],
        last_refusal=book.last_refusal,
    )


def models(state: PoolState) -> list[m.ModelMemory]:
    """Returns the models that workers hold."""
    return [
        m.ModelMemory(
            slot=model.slot,
            name=model.name,
            bytes=model.bytes,
            loaded_at=state.epoch(model.loaded_at),
            used_at=state.epoch(model.used_at),
            uses=model.uses,
        )
        for model in state.memory_leases.models.values()
    ]


# ---- the judgement -------------------------------------------------------------------------------


def _judge(
    state: PoolState, holder: int, wanted: int, at_least: int, now: float, within: int = 0
) -> tuple[int | None, str, bool]:
    """Returns what is granted, else None with the reason and whether it holds for ever. `within` more are the item's
    own."""
    least = min(at_least, wanted)
    limit, free = limit_bytes(state), free_bytes(state)
    if least > limit:
        return None, f"{human(least)} are asked for, all memory leases together may take {human(limit)}", True
    most = state.most_room_bytes()
    if holder != CLIENT and least + within > most and state.memory_known(now):
        budget = human(state.budget_bytes)
        return None, f"{human(least + within)} are needed, {human(most)} are all there can be under {budget}", True
    if state.level >= Level.CRITICAL:
        return None, f"{human(least)} are asked for, and the memory level is {state.level.word}", False
    if not state.memory_known(now):
        return None, f"{human(least)} are asked for, and how much memory is in use is not known", False
    if _count(state, holder) >= MOST_OF_A_HOLDER:
        return None, f"{MOST_OF_A_HOLDER} memory leases are held already", False
    if least > free:
        taken = state.memory_leases.reserved_bytes()
        why = (
            f"{human(least)} are asked for, {human(free)} are free: {human(taken)} of the leases' {human(limit)} are"
            f" granted, {human(state.unreserved_bytes())} of the budget of {human(state.budget_bytes)} are unreserved"
        )
        return None, why, False
    return min(wanted, free), "", False


def _count(state: PoolState, holder: int) -> int:
    return sum(lease.slot == holder for lease in state.memory_leases.held.values())


def _keep(
    state: PoolState,
    slot: int,
    incarnation: int,
    request: int,
    purpose: str,
    size: int,
    path: str | None,
    now: float,
) -> HeldLease:
    book = state.memory_leases
    book.number += 1
    book.granted_total += 1
    lease = HeldLease(
        number=book.number,
        slot=slot,
        incarnation=incarnation,
        request=request,
        purpose=purpose,
        bytes=size,
        granted_at=now,
        renewed_at=now,
        path=path,
    )
    book.held[lease.number] = lease
    return lease


def _refused(state: PoolState, reason: str, size: int, slot: int | None, path: str | None, now: float) -> list[Command]:
    book = state.memory_leases
    book.refused_total += 1
    book.last_refusal = reason
    if now - book.noted_at < NOTE_EVERY_SECONDS:
        return []
    book.noted_at = now
    figures: dict[str, object] = {"asked_bytes": size, "refused_total": book.refused_total}
    return [Note(kind="lease_refused", slot=slot, path=path, message=f"no memory lease for {reason}", figures=figures)]


def _tell(slot: Slot, worker: Worker, message: m.MemoryGranted | m.MemoryRefused) -> Command:
    return TellWorker(slot=slot.index, incarnation=worker.incarnation, message=message)


def _path_of(state: PoolState, worker: Worker, item: int) -> str | None:
    lease = state.lease_of(worker)
    if lease is None or item not in lease.items:
        return None
    return state.path_of(lease.batch, lease.items[item])
