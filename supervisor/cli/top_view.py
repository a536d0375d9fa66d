"""What `top` shows, as lines of (text, style): a pure function of what was asked. The terminal is `top`'s matter."""

from collections import deque
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

from protocol.messages import BatchRow, Decision, Status, TempUsage, WorkerStatus
from supervisor.cli.output import shown, when
from supervisor.cli.tell import describe_counts
from supervisor.policy.sizes import human
from supervisor.values import show_duration

Style = Literal["", "bold", "dim", "good", "warn", "bad", "head"]
Piece = tuple[str, Style]
Line = list[Piece]

RATE_SECONDS = 5.0
BAR_CELLS = 24
BATCHES_SHOWN = 3
LEVEL_STYLES: dict[str, Style] = {
    "normal": "good", "elevated": "good", "warning": "warn", "critical": "bad", "emergency": "bad", "protection": "bad",
}  # fmt: skip
STATE_STYLES: dict[str, Style] = {"BUSY": "good", "IDLE": "dim", "KILLING": "bad", "DRAINING": "warn"}
KEYS = "p pause/resume   d N replace worker N   c clean up   q quit"


class Seen(NamedTuple):
    """What is shown: answers of one moment, the slower ones of a moment before, None where there is none yet."""

    status: Status
    batches: Sequence[BatchRow]
    temp: TempUsage | None
    cache: dict[str, Any] | None
    decisions: Sequence[Decision]


class Rates:
    """Items a second, of the pool and of each slot, over the last RATE_SECONDS."""

    def __init__(self) -> None:
        self._seen: deque[tuple[float, int, dict[int, int]]] = deque()

    def add(self, status: Status, now: float) -> None:
        """Takes note of the counts at `now`, seconds of any clock."""
        totals = status.totals
        settled = totals.done + totals.cached + totals.failed + totals.quarantined
        self._seen.append((now, settled, {worker.slot: worker.items_done for worker in status.workers}))
        while now - self._seen[0][0] > RATE_SECONDS and len(self._seen) > 2:
            self._seen.popleft()

    def whole(self) -> float:
        """Returns the pool's rate."""
        (began, first, _), (ended, last, _) = self._seen[0], self._seen[-1]
        return max(0.0, last - first) / (ended - began) if ended > began else 0.0

    def of(self, slot: int) -> float:
        """Returns the rate of a slot; a successor that counts anew makes it 0 for a moment."""
        (began, _, first), (ended, _, last) = self._seen[0], self._seen[-1]
        if ended <= began:
            return 0.0
        return max(0.0, last.get(slot, 0) - first.get(slot, 0)) / (ended - began)


def screen(seen: Seen, rates: Rates, *, lines: int, note: str = "") -> list[Line]:
    """Returns the whole picture, at most `lines` lines (0: as many as there are)."""
    status = seen.status
    picture: list[Line] = [_first(status), *_whole(status, rates), [("", "")]]
    picture += [[(_HEAD, "head")], *(_worker(worker, rates) for worker in status.workers), [("", "")]]
    picture += _batches(seen.batches)
    picture += _stores(seen)
    room = lines - len(picture) - 2 if lines else len(seen.decisions)
    picture += [_decision(decision) for decision in list(seen.decisions)[-room:]] if room > 0 else []
    if not lines:
        return picture
    picture = picture[: lines - 1]
    picture += [[("", "")]] * (lines - 1 - len(picture))
    return [*picture, [(note or KEYS, "warn" if note else "dim")]]


def plain(picture: Sequence[Line]) -> str:
    """Returns the picture as text."""
    return "\n".join("".join(text for text, _ in line).rstrip() for line in picture)


def bar(value: float, marks: Sequence[float], whole: float, cells: int = BAR_CELLS) -> str:
    """Returns `value` of `whole` as a bar with a tick at each of `marks`: `██████░░|░░!`."""
    if whole <= 0:
        return " " * cells
    full = min(cells, round(cells * value / whole))
    drawn = ["█" if cell < full else "░" for cell in range(cells)]
    for mark in marks:
        if 0 < mark < whole:
            drawn[min(cells - 1, int(cells * mark / whole))] = "│"
    return "".join(drawn)


def _first(status: Status) -> Line:
    state: Piece = ("serving", "good")
    if status.draining:
        state = ("draining", "warn")
    elif status.paused:
        state = (f"paused: {status.paused}", "warn")
    up = show_duration(status.uptime_seconds)
    return [(f"supervisor {status.version}", "bold"), (f"  pid {status.pid}  up {up}  ", ""), state]


def _whole(status: Status, rates: Rates) -> list[Line]:
    share = f"{human(status.used_bytes)} of {human(status.budget_bytes)} ({status.pressure:.0%}) "
    totals = status.totals
    failed = totals.failed + totals.quarantined
    workers = f"{totals.recycles:,} recycled, {totals.restarts:,} restarted, {totals.kills:,} killed"
    return [
        [
            ("memory   ", ""),
            (bar(status.used_bytes, (), status.budget_bytes, 40), LEVEL_STYLES.get(status.level, "")),
            (f"  {share}", ""),
            (f"level {status.level}", LEVEL_STYLES.get(status.level, "")),
        ],
        [
            (f"queue    {status.queue.pending:,} pending, {status.queue.leased:,} leased   ", ""),
            (f"{rates.whole():,.1f} items/s", "bold"),
        ],
        [
            (f"so far   {totals.done:,} done, {totals.cached:,} cached, ", ""),
            (f"{failed:,} failed", "bad" if failed else ""),
            (f"; workers {workers}; batches shrunk {totals.batch_shrinks:,} times", ""),
        ],
    ]


_HEAD = (
    f"{'SLOT':>4}  {'STATE':<9} {'MEMORY':>8}  {'to hard limit, │ soft':<{BAR_CELLS}} {'HARD':>8} {'BATCH':>5}"
    f" {'ITEM/S':>7} {'DONE':>8} {'RECYC':>5}  NOW"
)


def _worker(worker: WorkerStatus, rates: Rates) -> Line:
    over = worker.soft_bytes and worker.rss_bytes >= worker.soft_bytes
    drawn = bar(worker.rss_bytes, (worker.soft_bytes,), worker.hard_bytes)
    now = shown(worker.current) if worker.current else worker.note or ""
    return [
        (f"{worker.slot:>4}  ", "bold"),
        (f"{worker.state:<9} ", STATE_STYLES.get(worker.state, "")),
        (f"{human(worker.rss_bytes):>8}  ", ""),
        (drawn, "warn" if over else "good"),
        (f" {human(worker.hard_bytes):>8} {worker.batch_size:>5} {rates.of(worker.slot):>7.1f}", ""),
        (f" {worker.items_done:>8,} {worker.recycles:>5}  ", ""),
        (now, "" if worker.current else "dim"),
    ]


def _batches(batches: Sequence[BatchRow]) -> list[Line]:
    live = [row for row in batches if row.state in ("accepted", "running", "paused")]
    lines: list[Line] = [
        [("batch    ", ""), (f"{row.batch}  {row.recipe}  {row.state}  ", ""), (describe_counts(row.counts), "")]
        for row in live[:BATCHES_SHOWN]
    ]
    if len(live) > BATCHES_SHOWN:
        lines.append([(f"         and {len(live) - BATCHES_SHOWN:,} more", "dim")])
    return lines


def _stores(seen: Seen) -> list[Line]:
    lines: list[Line] = []
    if seen.temp is not None:
        lines.append([(f"temp     {seen.temp.files:,} files, {human(seen.temp.bytes)}", "")])
    if seen.cache is not None:
        cache = seen.cache
        text = f"cache    {cache['entries']:,} entries, {human(cache['bytes'])} of {human(cache['limit_bytes'])}"
        asked = cache["hits"] + cache["misses"]
        lines.append([(text + (f", {cache['hits'] / asked:.0%} hits of {asked:,}" if asked else ""), "")])
    return [*lines, [("", "")]]


def _decision(decision: Decision) -> Line:
    bad = decision.kind in ("death", "quarantined", "hard_limit", "emergency", "start_failed")
    return [(f"{when(decision.at)[11:]} ", "dim"), (decision.message, "bad" if bad else "")]
