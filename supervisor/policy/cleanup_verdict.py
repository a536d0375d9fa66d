"""Whether a clean-up helped: memory came back to within a tenth of the baseline (all workers warm and idle), or below
the level that called for it.

The verdict is written down, told to whoever waits for it, and kept as the reason for the next tier where it is no.
"""

from protocol.messages import Cleanup, CleanupReport
from supervisor.policy.cleanup_actions import note_action
from supervisor.policy.cleanup_state import Running
from supervisor.policy.commands import Command, Note, Reply
from supervisor.policy.levels import Level
from supervisor.policy.sizes import human
from supervisor.policy.state import PoolState


def finish(state: PoolState, running: Running, now: float, cut_short: bool = False) -> list[Command]:
    """Writes the clean-up down, with whether memory came back, and tells whoever waits for it. One that was cut short
    had no time to help: nobody is named for it, and it is no reason for the next tier."""
    record = state.cleanups
    record.running = None
    seconds = now - running.began
    for index, _ in sorted(running.awaits if not cut_short else ()):
        late = f"has not answered within {seconds:.1f} s: its item goes on (its time limit ends it)"
        note_action(running, "trim workers", 0, f"worker {index}", late)
    if running.own_awaited and not cut_short:
        note_action(running, "supervisor", 0, "supervisor", f"has not ended within {seconds:.1f} s")
    baseline = state.rest_bytes()
    back = state.used_bytes <= baseline * state.settings.cleanup.recovered_share
    below = running.level > Level.NORMAL and state.levels.acute < running.level
    cleanup = Cleanup(
        number=running.number,
        at=running.at,
        tier=running.tier,
        reason=running.reason,
        before_bytes=running.before_bytes,
        after_bytes=state.used_bytes,
        baseline_bytes=baseline,
        recovered=back or below,
        actions=running.actions,
    )
    record.history.append(cleanup)
    if running.cause in ("level", "protection") and (cleanup.recovered or not cut_short):
        record.failed = None if cleanup.recovered else running.tier
    return [_note(cleanup, seconds), *(_report(cleanup, peer, number) for peer, number in running.to)]


def _note(cleanup: Cleanup, seconds: float) -> Note:
    freed = cleanup.before_bytes - cleanup.after_bytes
    back = "memory came back" if cleanup.recovered else "memory did not come back"
    failed = [f"{action.owner}: {action.name}: {action.error}" for action in cleanup.actions if action.error]
    wrong = f"; failed: {'; '.join(failed[:3])}" if failed else ""
    return Note(
        kind="cleanup" if cleanup.recovered else "cleanup_short",
        message=f"clean-up {cleanup.number} ({cleanup.tier}; {cleanup.reason}): {human(max(0, freed))} less than "
        f"before, {human(cleanup.after_bytes)} used, {human(cleanup.baseline_bytes)} at rest: {back}{wrong}",
        figures={
            "tier": cleanup.tier,
            "before_bytes": cleanup.before_bytes,
            "after_bytes": cleanup.after_bytes,
            "baseline_bytes": cleanup.baseline_bytes,
            "recovered": cleanup.recovered,
            "seconds": round(seconds, 3),
            "failed": len(failed),
        },
    )


def _report(cleanup: Cleanup, peer: bytes, request_id: int | str) -> Reply:
    return Reply(peer=peer, answer=CleanupReport(id=request_id, cleanup=cleanup))
