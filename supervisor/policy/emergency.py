"""The requests of `emergency`: clean up, collect, tell, reset, protection on and off."""

from protocol import messages as m
from protocol.errors import Refused, UsageError
from supervisor.policy import cleanup, parts
from supervisor.policy.cleanup_actions import ACTIONS
from supervisor.policy.commands import Command, KeepProtection, Note, Reply
from supervisor.policy.state import PoolState

CYCLES_MAX = 100
"""A collection finds nothing after a few; a hundred hold a worker up for seconds."""
SHOWN = 10
"""Clean-ups that the status shows."""

EmergencyRequest = (
    m.EmergencyCleanup | m.EmergencyCollect | m.EmergencyStatusRequest | m.EmergencyReset | m.EmergencyProtection
)


def on_request(state: PoolState, peer: bytes, request: EmergencyRequest, now: float) -> list[Command]:
    """Answers, or begins what is answered when it is done. Raises Refused, UsageError."""
    match request:
        case m.EmergencyCleanup():
            _must_serve(state)
            return cleanup.begin(state, request.tier, "asked by a client", "asked", now, (peer, request.id))
        case m.EmergencyCollect():
            _must_serve(state)
            if not 1 <= request.cycles <= CYCLES_MAX:
                raise UsageError(f"{request.cycles} cycles; 1 to {CYCLES_MAX} are possible")
            reason = f"gc, {request.cycles} cycles, asked by a client"
            return cleanup.begin(state, "gentle", reason, "asked", now, (peer, request.id), request.cycles)
        case m.EmergencyStatusRequest():
            return [_told(state, peer, request.id, now)]
        case m.EmergencyReset():
            return [*_reset(state, now), _told(state, peer, request.id, now)]
        case m.EmergencyProtection():
            state.protection.enabled = request.enabled
            message = f"emergency protection is turned {'on' if request.enabled else 'off'} by a client"
            return [Note(kind="protection_set", message=message), _told(state, peer, request.id, now)]


def _must_serve(state: PoolState) -> None:
    if state.draining:
        raise Refused("the supervisor is draining: its memory is given back at its end")


def _reset(state: PoolState, now: float) -> list[Command]:
    record, protection = state.cleanups, state.protection
    record.ran_at, record.failed = {}, None
    protection.attempts, protection.given_up, protection.stops = 0, False, []
    note = Note(kind="emergency_reset", message="attempts, cooldowns and earlier stops are forgotten, as asked")
    return [note, KeepProtection(stops=[]), *parts.release(state, now)]


def _told(state: PoolState, peer: bytes, request_id: int | str, now: float) -> Reply:
    protection, record, settings = state.protection, state.cleanups, state.settings
    answer = m.EmergencyStatus(
        id=request_id,
        level=state.level.word,
        pressure=round(state.levels.pressure, 4),
        used_bytes=state.used_bytes,
        budget_bytes=state.budget_bytes,
        tiers=[
            m.TierState(
                tier=tier,
                actions=[action.name for action in ACTIONS if action.tier == tier],
                runs=record.runs.get(tier, 0),
                last_at=state.epoch(record.ran_at[tier]) if tier in record.ran_at else None,
                cooldown_seconds=settings.cleanup.cooldown_seconds(tier),
                rests_seconds=round(cleanup.rests_seconds(state, tier, now), 3),
            )
            for tier in m.TIERS
        ],
        cleanups=cleanup.cleanups(state)[-SHOWN:],
        parts=parts.states(state.parts.values()),
        protection=m.ProtectionState(
            enabled=protection.enabled,
            attempts=protection.attempts,
            attempts_max=settings.cleanup.attempts_max,
            stopping=protection.stopping,
            stops=protection.stops,
            workers=settings.workers,
            workers_configured=settings.workers_configured or settings.workers,
        ),
    )
    return Reply(peer=peer, answer=answer)
