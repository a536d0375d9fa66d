"""Emergency protection: at the level protection, a few verified attempts to free memory, then an orderly stop.

Each attempt is an emergency clean-up. Does one help, its count is forgotten when the level critical has been left.
Does none, the pool drains: everything accepted is on the disk, the exit code (75) tells the service manager, a note
in the state directory the next start. Who stops says whether that can help. Where the workers at rest are all there is,
the next start would come to the same: one of them is let go instead, and the next, each verified. Where that is one
worker and still too much, it would happen again for ever, so it is told once and work goes on, one lease at a time.
"""

from supervisor.policy import cleanup, crowding
from supervisor.policy.commands import Command, KeepProtection, Note
from supervisor.policy.levels import Level
from supervisor.policy.protection_note import forget_after_calm
from supervisor.policy.sizes import human
from supervisor.policy.state import PoolState
from supervisor.policy.stopping import drain_pool

EXIT_CODE = 75
"""EX_TEMPFAIL of sysexits: the same may succeed later."""


def attend(state: PoolState, now: float) -> list[Command]:
    """What protection does after a look."""
    protection = state.protection
    if state.draining or not protection.enabled or state.sampled_at is None:
        return []
    if state.levels.acute < Level.PROTECTION:
        return _calm(state, now)
    if protection.given_up or (now < state.crowding.more_not_before and crowding.leaving(state)):
        return []
    if protection.attempt is not None:
        running = state.cleanups.running
        if running is not None and running.number == protection.attempt:
            return []
        protection.attempt = None
    if protection.attempts < state.settings.cleanup.attempts_max:
        return _attempt(state, now)
    return _stop(state, now)


def _calm(state: PoolState, now: float) -> list[Command]:
    protection = state.protection
    protection.attempt = None
    if state.level >= Level.CRITICAL:
        return []
    protection.given_up = False
    if not protection.attempts:
        return forget_after_calm(state, now)
    message = f"emergency protection: memory is back after {_times(protection.attempts)}"
    note = Note(kind="protection_over", message=message, figures={"attempts": protection.attempts})
    protection.attempts = 0
    return [note]


def _attempt(state: PoolState, now: float) -> list[Command]:
    protection, most = state.protection, state.settings.cleanup.attempts_max
    protection.attempts += 1
    reason = f"emergency protection, attempt {protection.attempts} of {most}"
    note = Note(
        kind="protection",
        message=f"{reason}: {state.levels.reason}",
        figures={"attempt": protection.attempts, "used_bytes": state.used_bytes, "budget_bytes": state.budget_bytes},
    )
    commands = cleanup.begin(state, "emergency", reason, "protection", now)
    protection.attempt = state.cleanups.number
    return [note, *commands]


def _stop(state: PoolState, now: float) -> list[Command]:
    protection = state.protection
    at_rest = state.rest_bytes()
    whole = f"{human(state.used_bytes)} of {human(state.budget_bytes)} are used after {_times(protection.attempts)}"
    workers = f"{state.places} worker{'s' if state.places > 1 else ''}"
    cure = f"{human(at_rest)} are held at rest by {workers}: raise --memory or lower --workers"
    figures: dict[str, object] = {
        "attempts": protection.attempts,
        "used_bytes": state.used_bytes,
        "budget_bytes": state.budget_bytes,
        "at_rest_bytes": at_rest,
    }
    if state.places == 1 and _would_be_the_same(state, at_rest - state.beside_bytes()):
        protection.given_up = True
        message = f"emergency protection: {whole}; one worker cannot be fewer, so work goes on slowly; {cure}"
        return [Note(kind="protection", message=message, figures=figures)]
    if state.places > 1 and _rest_is_all(state, at_rest - state.beside_bytes()):
        protection.attempts -= 1  # what follows is verified as well
        message = f"emergency protection: {whole}; one worker fewer serves; {cure}"
        return [Note(kind="protection", message=message, figures=figures), *crowding.one_fewer(state, now)]
    protection.stopping = True
    protection.stops = [*protection.stops, state.epoch(now)]
    state.stop_code = EXIT_CODE
    message = (
        f"stopped by emergency protection: {whole}; what was accepted is kept and goes on at the next start; {cure}"
    )
    return [
        Note(kind="protection", message=message, figures=figures),
        KeepProtection(stops=protection.stops),
        *drain_pool(state, now, False, "emergency protection"),
    ]


def _would_be_the_same(state: PoolState, at_rest: int) -> bool:
    """Whether the next start would come to the same: rest alone is too much, or there is little beyond it.

    Without what parts hold: one that has grown begins anew with the next start.
    """
    too_much = at_rest >= state.settings.watch.protection_share * state.budget_bytes
    return too_much or _rest_is_all(state, at_rest)


def _rest_is_all(state: PoolState, at_rest: int) -> bool:
    """Whether next to nothing is held beyond rest: no clean-up and no new start would change that, fewer workers do."""
    return state.used_bytes <= at_rest * state.settings.cleanup.recovered_share


def _times(attempts: int) -> str:
    return f"{attempts} emergency clean-up{'s' if attempts > 1 else ''}"
