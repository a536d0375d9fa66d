"""Where the total and each worker are heading, when they reach their thresholds, and a warning before they do."""

from collections import deque
from collections.abc import Sequence

from protocol.messages import Trend
from supervisor.policy.commands import Command, Note
from supervisor.policy.levels import Level
from supervisor.policy.sizes import human
from supervisor.policy.state import PoolState
from supervisor.policy.steadiness import SURE, steady

KEPT_SECONDS = 1.0
_LOOKED_AT_SECONDS = 150.0
WARN_WITHIN_SECONDS, WARN_AGAIN_SECONDS, _JUDGE_SECONDS = 60.0, 300.0, 5.0


def take_in(state: PoolState, now: float) -> list[Command]:
    """Adds the look that the state has just taken in; returns a warning where a threshold will soon be crossed."""
    watch = state.trends
    _note(watch.total, now, state.used_bytes)
    for slot, rows in zip(state.slots, watch.workers, strict=True):
        worker = slot.worker
        if worker is None or worker.incarnation != watch.incarnations[slot.index]:
            rows.clear()
        if worker is not None and worker.baseline_bytes:
            watch.incarnations[slot.index] = worker.incarnation
            _note(rows, now, worker.rss_bytes)
    if now < watch.judge_at:
        return []
    watch.judge_at = now + _JUDGE_SECONDS
    return _warning(state, now)


def _note(rows: deque[tuple[float, float]], now: float, value: float) -> None:
    if rows and now - rows[-1][0] < KEPT_SECONDS:
        if value < rows[-1][1]:
            rows[-1] = (rows[-1][0], value)
    else:
        rows.append((now, value))


def _warning(state: PoolState, now: float) -> list[Command]:
    total = _total(state, now)
    if total.confidence < SURE:
        return []
    for name in ("critical", "warning"):
        seconds = total.seconds_to.get(name)
        last = state.trends.warned_at.get(name, -WARN_AGAIN_SECONDS)
        if seconds is None or not 0.0 < seconds <= WARN_WITHIN_SECONDS or now - last < WARN_AGAIN_SECONDS:
            continue
        state.trends.warned_at[name] = now
        message = (
            f"memory will reach level {name} in about {seconds:.0f} s: {human(state.used_bytes)} are used, growing by "
            f"{human(int(total.bytes_per_second))} a second (confidence {total.confidence:.2f})"
        )
        figures = {"seconds": seconds, "bytes_per_second": total.bytes_per_second, "used_bytes": state.used_bytes}
        return [Note(kind="trend", message=message, figures=figures)]
    return []


def trends(state: PoolState, now: float) -> list[Trend]:
    """Returns the trend of the total and of every worker that lives. Two minutes are looked at; what is older is in
    the history."""
    found = [_total(state, now)]
    for slot, rows in zip(state.slots, state.trends.workers, strict=True):
        if slot.worker is None or not slot.worker.baseline_bytes:
            continue
        limits = state.limits(slot)
        marks = {"soft": limits.soft_bytes, "recycle": limits.recycle_bytes, "hard": limits.hard_bytes}
        found.append(_trend(f"worker {slot.index}", rows, slot.worker.rss_bytes, marks, now))
    return found


def _total(state: PoolState, now: float) -> Trend:
    watch = state.settings.watch
    marks = {
        level.word: int(getattr(watch, f"{level.word}_share") * state.budget_bytes)
        for level in Level
        if level is not Level.NORMAL
    }
    return _trend("total", state.trends.total, state.used_bytes, marks, now)


def _trend(subject: str, rows: Sequence[tuple[float, float]], value: int, marks: dict[str, int], now: float) -> Trend:
    fresh = [row for row in rows if now - row[0] <= _LOOKED_AT_SECONDS]
    line = steady(fresh)
    growing = line.slope > 0 and line.confidence > 0
    seconds: dict[str, float | None] = {
        name: 0.0 if value >= mark else round((mark - value) / line.slope, 1) if growing else None
        for name, mark in marks.items()
    }
    return Trend(
        subject=subject,
        bytes_per_second=round(line.slope, 1),
        confidence=round(line.confidence, 3),
        samples=len(fresh),
        seconds_to=seconds,
    )
