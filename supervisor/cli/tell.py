"""The story of a batch: a bar while it runs, rows for JSON, a summary in words."""

import os
import sys
from typing import Any

import msgspec

from protocol.messages import BatchProgress, BatchRow, Counts
from protocol.paths import from_token
from supervisor.cli.find import Answerer, iter_results
from supervisor.cli.output import path_fields, say, shown
from supervisor.policy.sizes import human
from supervisor.values import show_duration

FAILURES_TOLD = 5
FAILURES_COUNTED = 10_000
"""Failures read for the count by kind; a batch that fails as a whole needs no longer list."""


class Bar:
    """A progress bar on a terminal; elsewhere nothing. A context manager."""

    def __init__(self, wanted: bool = True) -> None:
        self._bar: Any = None
        self._began_with: int | None = None
        if wanted and sys.stderr.isatty():
            from tqdm import tqdm

            self._bar = tqdm(unit=" images", dynamic_ncols=True, file=sys.stderr, smoothing=0.1)

    def show(self, progress: BatchProgress) -> None:
        """Shows how far the batch is."""
        if self._bar is None:
            return
        counts = progress.counts
        settled = settled_of(counts)
        if self._began_with is None:
            # A resumed batch: what was settled before is no measure of the rate.
            self._began_with = self._bar.initial = self._bar.n = settled
        self._bar.total = max(progress.items, settled + counts.pending + counts.leased)
        self._bar.n = settled
        facts = [f"failed {counts.failed + counts.quarantined}"] if counts.failed + counts.quarantined else []
        facts.append(f"memory {human(progress.used_bytes)} of {human(progress.summary.budget_bytes)}")
        if progress.batch_sizes:
            facts.append(f"batch size {_span(progress.batch_sizes)}")
        if progress.paused:
            facts.append(f"paused: {progress.paused}")
        self._bar.set_postfix_str(", ".join(facts), refresh=True)

    def close(self) -> None:
        """Leaves the terminal as it was."""
        if self._bar is not None:
            self._bar.leave = False
            self._bar.close()

    def __enter__(self) -> "Bar":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


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
    }


def batch_row(row: BatchRow) -> dict[str, Any]:
    """Returns a line of `batches --json`."""
    fields = {name: getattr(row, name) for name in row.__struct_fields__ if name not in ("counts", "out")}
    return {**fields, **path_fields(row.out, "out"), **msgspec.to_builtins(row.counts)}


def describe_counts(counts: Counts) -> str:
    """Returns the states that occur: `12 done, 1 failed`."""
    parts = [f"{getattr(counts, name):,} {name}" for name in counts.__struct_fields__ if getattr(counts, name)]
    return ", ".join(parts) or "no images"


def say_summary(answerer: Answerer, progress: BatchProgress, *, resumed: bool = False) -> None:
    """Tells on standard error how a batch ended, with its first failures and how to see them all."""
    counts, summary = progress.counts, progress.summary
    again = " (resumed)" if resumed else ""
    say(f"{progress.items:,} images: {describe_counts(counts)}; {progress.ignored:,} other files ignored{again}")
    if summary.seconds:
        say(
            f"{show_duration(summary.seconds)}, {summary.items_per_second:,.1f} images/s; memory at most "
            f"{human(summary.peak_bytes)} of {human(summary.budget_bytes)}"
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


def _span(sizes: list[int]) -> str:
    low, high = min(sizes), max(sizes)
    return str(low) if low == high else f"{low}-{high}"
