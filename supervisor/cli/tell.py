"""The story of a batch: a bar while it runs, rows for JSON, a summary in words."""

import os
import sys
import time
from collections import deque
from typing import Any

import msgspec

from protocol.messages import BatchProgress, BatchRow, Counts
from protocol.paths import from_token
from supervisor.cli.find import Answerer, iter_results
from supervisor.cli.output import path_fields, say, shown
from supervisor.policy.sizes import human
from supervisor.values import show_duration

RATE_SECONDS = 10.0
SHORTEST_RATE_SECONDS = 0.3
"""Over less a rate jumps with every lease that is reported."""
FAILURES_TOLD = 5
FAILURES_COUNTED = 10_000
"""Failures read for the count by kind; a batch that fails as a whole needs no longer list."""


class Bar:
    """A progress bar on a terminal; elsewhere a line where work stands still, with the reason. A context manager."""

    def __init__(self) -> None:
        self._bar: Any = None
        self._line = ProgressLine()
        self._told: str | None = None
        if sys.stderr.isatty():
            from tqdm import tqdm

            self._bar = tqdm(dynamic_ncols=True, file=sys.stderr, bar_format="{bar:16} {desc}")

    def show(self, progress: BatchProgress) -> None:
        """Shows how far the batch is."""
        if self._bar is None:
            # A pause after an error of the machine ends and comes back with the same reason, which is told once.
            if progress.paused is not None and progress.paused != self._told:
                self._told = progress.paused
                say(f"batch {progress.batch} waits: {progress.paused}")
            return
        self._bar.total = max(total_of(progress), 1)
        self._bar.n = settled_of(progress.counts)
        self._bar.set_description_str(self._line.text(progress, time.monotonic()), refresh=True)

    def close(self) -> None:
        """Leaves the terminal as it was."""
        if self._bar is not None:
            self._bar.leave = False
            self._bar.close()

    def __enter__(self) -> "Bar":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class ProgressLine:
    """The line that people read while they wait:

    456 / 43 257 (1.1 %) · 12.3 img/s · 48 MB/s · ETA 58 min · 3 failed · 312/512 MB · batch 8→4
    """

    def __init__(self) -> None:
        self._seen: deque[tuple[float, int, int]] = deque()
        """(when, settled, read bytes) within RATE_SECONDS: a rate over the whole run would hide what is now."""
        self._batch_size: str | None = None
        self._before: str | None = None

    def text(self, progress: BatchProgress, now: float) -> str:
        """Returns the line; `now` is any clock in seconds."""
        counts, total, settled = progress.counts, total_of(progress), settled_of(progress.counts)
        parts = [f"{_spaced(settled)} / {_spaced(total)} ({settled / total:.1%})".replace("%", " %") if total else "0"]
        rate, read = self._rates(settled, progress.read_bytes, now)
        if rate:
            parts.append(f"{rate:,.1f} img/s" if rate < 100 else f"{_spaced(round(rate))} img/s")
            parts += [f"{human(read)}/s"] if read >= 1 else []
            parts += [f"ETA {_eta((total - settled) / rate)}"] if total > settled else []
        if failed := counts.failed + counts.quarantined:
            parts.append(f"{_spaced(failed)} failed")
        parts.append(_of(progress.used_bytes, progress.summary.budget_bytes))
        if progress.batch_sizes:
            parts.append(f"batch {self._size(progress.batch_sizes)}")
        if progress.paused:
            parts.append(f"paused: {progress.paused}")
        return " · ".join(parts)

    def _rates(self, settled: int, read_bytes: int, now: float) -> tuple[float, float]:
        self._seen.append((now, settled, read_bytes))
        while now - self._seen[0][0] > RATE_SECONDS and len(self._seen) > 2:
            self._seen.popleft()
        before, images, size = self._seen[0]
        if now - before < SHORTEST_RATE_SECONDS:
            return 0.0, 0.0
        return (settled - images) / (now - before), max(0, read_bytes - size) / (now - before)

    def _size(self, sizes: list[int]) -> str:
        low, high = min(sizes), max(sizes)
        found = str(low) if low == high else f"{low}-{high}"
        if found != self._batch_size:
            self._before, self._batch_size = self._batch_size, found
        return found if self._before is None else f"{self._before}→{found}"


def total_of(progress: BatchProgress) -> int:
    """Returns how many items are known so far; a batch that is still being submitted grows."""
    counts = progress.counts
    return max(progress.items, settled_of(counts) + counts.pending + counts.leased)


def _spaced(number: int) -> str:
    return f"{number:,}".replace(",", " ")


def _of(used: int, budget: int) -> str:
    """`312/512 MB`: the unit once where it is the same."""
    (mine, unit), (whole, other) = (human(size).rsplit(" ", 1) for size in (used, budget))
    return f"{mine}/{whole} {unit}" if unit == other else f"{mine} {unit}/{whole} {other}"


def _eta(seconds: float) -> str:
    if seconds < 100:
        return f"{seconds:.0f} s"
    if seconds < 100 * 60:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h" if seconds < 48 * 3600 else f"{seconds / 86400:.1f} days"


def settled_of(counts: Counts) -> int:
    """Returns how many items have their final state."""
    return counts.done + counts.cached + counts.failed + counts.quarantined + counts.cancelled


def exit_code_of(progress: BatchProgress) -> int:
    """Returns 0 when all is well, 1 when items failed or were quarantined."""
    return 1 if progress.counts.failed or progress.counts.quarantined else 0


def summary_row(progress: BatchProgress) -> dict[str, Any]:
    """Returns the last line of `run --json`."""
    counts, summary = progress.counts, progress.summary
    return {
        "batch": progress.batch,
        "items": progress.items,
        "done": counts.done,
        "cached": counts.cached,
        "failed": counts.failed,
        "quarantined": counts.quarantined,
        "cancelled": counts.cancelled,
        "ignored": progress.ignored,
        "seconds": round(summary.seconds, 6),
        "items_per_second": round(summary.items_per_second, 3),
        "peak_bytes": summary.peak_bytes,
        "budget_bytes": summary.budget_bytes,
        "recycles": summary.recycles,
        "restarts": summary.restarts,
        "kills": summary.kills,
        "batch_shrinks": summary.batch_shrinks,
        "oom_kills": summary.oom_kills,
        **path_fields(progress.out, "out"),
    }


def progress_row(progress: BatchProgress) -> dict[str, Any]:
    """Returns a batch as `show --json` prints it: the summary, and where it stands."""
    return {
        **summary_row(progress),
        "state": progress.state,
        "open": progress.open,
        "recipe": progress.recipe,
        "paused": progress.paused,
        "pending": progress.counts.pending,
        "leased": progress.counts.leased,
        "used_bytes": progress.used_bytes,
        "batch_sizes": progress.batch_sizes,
        "abandoned_at": progress.abandoned_at,
    }


def batch_row(row: BatchRow) -> dict[str, Any]:
    """Returns a line of `batches --json`."""
    fields = {name: getattr(row, name) for name in row.__struct_fields__ if name not in ("counts", "out")}
    return {**fields, **path_fields(row.out, "out"), **msgspec.to_builtins(row.counts)}


def images(count: int) -> str:
    """Returns `1 image`, `1,234 images`."""
    return f"{count:,} image{'' if count == 1 else 's'}"


def other_files(ignored: int) -> str:
    """Returns `1 other file ignored`, `0 other files ignored`."""
    return f"{ignored:,} other file{'' if ignored == 1 else 's'} ignored"


def describe_counts(counts: Counts) -> str:
    """Returns the states that occur: `12 done, 1 failed`."""
    parts = [f"{getattr(counts, name):,} {name}" for name in counts.__struct_fields__ if getattr(counts, name)]
    return ", ".join(parts) or "no images"


def say_summary(answerer: Answerer, progress: BatchProgress, *, resumed: bool = False) -> None:
    """Tells on standard error how a batch ended, with its first failures and how to see them all."""
    counts, summary = progress.counts, progress.summary
    again = " (resumed)" if resumed else ""
    say(f"{images(progress.items)}: {describe_counts(counts)}; {other_files(progress.ignored)}{again}")
    if summary.seconds:
        took = f"{show_duration(summary.seconds)}, {summary.items_per_second:,.1f} images/s"
        # A batch may be over before memory was looked at for the first time.
        peak = f"; memory at most {human(summary.peak_bytes)} of {human(summary.budget_bytes)}"
        say(took + peak * bool(summary.peak_bytes))
    if progress.abandoned_at is not None:
        say(
            f"it is not complete: its client was heard of no more, and it was closed as it was; submit the same again "
            f"with --batch {progress.batch}"
        )
    events = [f"{n} recycled ({reason})" for reason, n in sorted(summary.recycles.items()) if n]
    for name in ("restarts", "kills", "oom_kills", "batch_shrinks"):
        if number := getattr(summary, name):
            events.append(f"{number} {name.replace('_', ' ')}")
    if events:
        say("workers: " + ", ".join(events))
    if counts.failed or counts.quarantined:
        _say_failures(answerer, progress)
    if progress.out is not None and os.path.isdir(from_token(progress.out)):
        say(f"outputs below {shown(progress.out)}")


def _say_failures(answerer: Answerer, progress: BatchProgress) -> None:
    kinds: dict[str, int] = {}
    first: list[str] = []
    seen = 0
    for raw in iter_results(answerer, progress.batch, ["failed", "quarantined"]):
        result = msgspec.json.decode(raw)
        error = result.get("error") or {}
        kind = error.get("kind") or result["state"]
        kinds[kind] = kinds.get(kind, 0) + 1
        if len(first) < FAILURES_TOLD:
            first.append(f"  {failure_text(result)}")
        seen += 1
        if seen >= FAILURES_COUNTED:
            break
    say("not done: " + ", ".join(f"{number:,} {kind}" for kind, number in sorted(kinds.items())))
    for line in first:
        say(line)
    if seen > len(first):
        say(f"  all of them: supervisor results {progress.batch} --failed")


def result_path(result: dict[str, Any]) -> str:
    """Returns the path of a result for people."""
    raw = result.get("path_b64")
    return shown(f"//base64:{raw}" if raw else result["path"])


def failure_text(result: dict[str, Any]) -> str:
    """Returns why an item has no result, with its path (which most messages name themselves)."""
    error, path = result.get("error") or {}, result_path(result)
    kind, message = error.get("kind") or result["state"], error.get("message") or "no reason is known"
    return f"{kind}: {message}" if path in message else f"{kind}: {path}: {message}"
