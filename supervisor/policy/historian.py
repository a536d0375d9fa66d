"""What of the pool is kept for later: each look at memory, and the decisions that explain its course."""

from collections.abc import Sequence

from protocol.messages import History, HistoryPage, MarkKind
from supervisor.policy.commands import Command, KeepHistory, Note
from supervisor.policy.rings import Row
from supervisor.policy.state import PoolState

_MARKED: dict[str, MarkKind] = {
    "level": "level", "recycle": "recycle", "death": "death", "hard_limit": "kill", "emergency": "kill",
    "timeout": "kill", "shrunk": "shrink", "cleanup": "cleanup", "leak": "leak", "paused": "pause", "drain": "stop",
}  # fmt: skip
"""Kinds of notes that are marked, and as what."""


def begin(state: PoolState, image: bytes, now: float) -> None:
    """Goes on with what the file of the run before holds, if anything; and marks this run's start."""
    state.history.restore(image)
    state.history.mark(state.epoch(now), "start")


def take_in(state: PoolState, now: float) -> None:
    """Adds the look that the state has just taken in."""
    workers = [slot.worker for slot in state.slots]
    row = Row(
        at=state.epoch(now),
        used_bytes=state.used_bytes,
        used_low_bytes=state.used_bytes,
        budget_bytes=state.budget_bytes,
        level=int(state.level),
        rss_bytes=[worker.rss_bytes if worker is not None else None for worker in workers],
        batch_sizes=[slot.batch_size.size for slot in state.slots],
    )
    state.history.note(row, resting=all(worker is None or worker.state == "IDLE" for worker in workers))


def keep(state: PoolState, commands: Sequence[Command], now: float) -> list[Command]:
    """Marks what was decided; returns what the file is to be given, if anything."""
    for command in commands:
        if isinstance(command, Note) and (kind := _MARKED.get(command.kind)) is not None:
            state.history.mark(state.epoch(now), kind, command.slot, _figure(state, kind, command))
    unsaved = state.history.unsaved()
    return [KeepHistory(pieces=unsaved)] if unsaved else []


def _figure(state: PoolState, kind: MarkKind, note: Note) -> int:
    if kind == "level":
        return int(state.level)
    after = note.figures.get("after")
    return after if kind == "shrink" and isinstance(after, int) else 0


def page(state: PoolState, request: History, now: float) -> HistoryPage:
    """Answers a client."""
    return state.history.page(request.id, request.since, request.resolution, request.limit, state.epoch(now))
