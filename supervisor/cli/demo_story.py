"""What the demo tells: a promise, whether it was kept, and the figures that show it.

Pure: from what was seen (results, decisions, files on disk) to sentences. A promise without evidence counts as
broken, so that the demo cannot praise what did not happen.
"""

import os
import textwrap
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import msgspec

from protocol.messages import BatchProgress, Decision, WorkerStatus
from supervisor.cli.tell import describe_counts, failure_text, settled_of, summary_row
from supervisor.policy.sizes import human
from supervisor.values import show_duration

BAD = {"corrupt.png": "corrupt", "empty.jpg": "corrupt", "text.jpg": "unsupported"}
"""Files of the demo's gallery that are no whole images, and the kind of error each has to end with."""
HALF, GIANT = "truncated.jpg", "giant.png"
THUMBNAILS = 2
LEAKING = ("memory", "trim_useless")
"""Reasons of a recycle that a leak leads to: too much is held, or nothing comes back from a trim."""
COLUMNS = 118


class Seen(msgspec.Struct, frozen=True, kw_only=True):
    """What is known after the run. `missing` and `strange` are paths below the output directory."""

    gallery: str
    files: list[str]
    results: list[dict[str, Any]]
    decisions: list[Decision]
    progress: BatchProgress
    killed: WorkerStatus | None
    largest_batch: int
    """The largest batch size that any worker came to."""
    workers: int
    crashing: str
    missing: list[str]
    strange: list[str]

    def name(self, path: str | None) -> str:
        """Returns a file's name below the gallery."""
        return os.path.relpath(path, self.gallery) if path else "(nothing)"

    def result(self, name: str) -> dict[str, Any]:
        """Returns the result of a file; empty where there is none."""
        return next((row for row in self.results if self.name(row["path"]) == name), {})

    def decided(self, kind: str) -> list[Decision]:
        """Returns the decisions of a kind, oldest first."""
        return [decision for decision in self.decisions if decision.kind == kind]

    def short(self, text: str) -> str:
        """Returns a message without the temporary directory in its paths."""
        return text.replace(self.gallery + os.sep, "")


class Promise(msgspec.Struct, frozen=True):
    """One promise; `details` are the figures, a line each."""

    name: str
    kept: bool
    text: str
    details: list[str] = []


class Story:
    """The promises, judged."""

    def __init__(self, seen: Seen) -> None:
        self._seen = seen
        self.promises = [check(seen) for check in CHECKS]

    @property
    def kept(self) -> bool:
        """Whether all promises were kept."""
        return all(promise.kept for promise in self.promises)

    def row(self) -> dict[str, Any]:
        """Returns `demo --json`."""
        return {
            "kept": self.kept,
            "promises": [msgspec.to_builtins(promise) for promise in self.promises],
            "summary": summary_row(self._seen.progress),
        }

    def lines(self) -> Iterator[str]:
        """Yields the page."""
        seen, summary = self._seen, self._seen.progress.summary
        yield f"What happened, in {show_duration(summary.seconds)} ({summary.items_per_second:,.1f} images/s):"
        yield ""
        for promise in self.promises:
            yield f"  {'ok  ' if promise.kept else 'FAIL'}  {promise.text}"
            for detail in promise.details:
                yield from textwrap.wrap(
                    seen.short(detail), COLUMNS, initial_indent=" " * 8, subsequent_indent=" " * 10
                )
        broken = sum(not promise.kept for promise in self.promises)
        yield ""
        if broken:
            yield f"{broken} of {len(self.promises)} promises were NOT kept."
        else:
            yield f"All {len(self.promises)} promises were kept; nothing was lost."


def unsound_outputs(out: str, results: list[dict[str, Any]]) -> tuple[list[str], list[str]]:
    """Returns the outputs that are named in results but missing or not whole, and the files that no result names."""
    named = {output["path"] for row in results for output in row["outputs"]}
    found = {os.path.join(folder, name) for folder, _, names in os.walk(out) for name in names}
    missing = [path for path in named if path not in found or not is_whole_webp(path)]
    return _relative(missing, out), _relative(found - named, out)


def _relative(paths: Iterable[str], out: str) -> list[str]:
    return [os.path.relpath(path, out) for path in sorted(paths)]


def is_whole_webp(path: str) -> bool:
    """Tells whether a file is as long as its WebP header says: a file cut short or begun twice is not."""
    with open(path, "rb") as file:
        head = file.read(12)
        size = os.fstat(file.fileno()).st_size
    return head[:4] == b"RIFF" and head[8:] == b"WEBP" and int.from_bytes(head[4:8], "little") + 8 == size


def _verdicts(seen: Seen) -> Promise:
    counts = seen.progress.counts
    told = {seen.name(row["path"]) for row in seen.results}
    lost = sorted(set(seen.files) - told)
    kept = not lost and len(seen.results) == len(seen.files) == settled_of(counts)
    details = [f"{describe_counts(counts)}, one result for each"]
    details += [f"lost: {', '.join(lost[:10])}"] if lost else []
    return Promise("verdicts", kept, f"Every file has a verdict: {len(told):,} of {len(seen.files):,}.", details)


def _outputs(seen: Seen) -> Promise:
    good = [row for row in seen.results if row["state"] == "done"]
    short = [seen.name(row["path"]) for row in good if len(row["outputs"]) != THUMBNAILS]
    number = sum(len(row["outputs"]) for row in good)
    faults = [
        f"{what}: {', '.join(names[:10])}"
        for what, names in (
            ("missing or not whole", seen.missing),
            ("left over", seen.strange),
            ("too few outputs", short),
        )
        if names
    ]
    text = f"Outputs are whole or not there at all: {number:,} thumbnails of {len(good):,} images, nothing else."
    return Promise("outputs", not faults and bool(good), text, faults)


def _bad_files(seen: Seen) -> Promise:
    details, kept = [], True
    for name, kind in BAD.items():
        row = seen.result(name)
        kept &= row.get("state") == "failed" and (row.get("error") or {}).get("kind") == kind
        details.append(failure_text(row) if row.get("error") else f"{name}: {row.get('state', 'no verdict')}")
    half = seen.result(HALF)
    kept &= half.get("state") == "done" and bool(half.get("warnings"))
    details.append(f"{half.get('state', 'no verdict')}: {HALF}: {'; '.join(map(str, half.get('warnings', [])))}")
    return Promise("bad_files", kept, "Bad files get a reason; the half of one that is there is used.", details)


def _crash(seen: Seen) -> Promise:
    quarantined = [seen.name(row["path"]) for row in seen.results if row["state"] == "quarantined"]
    deaths = [d for d in seen.decided("death") if d.path and seen.name(d.path) == seen.crashing]
    notes = [d.message for d in seen.decided("charged") + seen.decided("quarantined") if d.path == _path(seen)]
    kept = quarantined == [seen.crashing] and bool(notes) and len(deaths) > 1
    text = f"An image that crashes its worker is put in quarantine, after {len(deaths)} workers; no other image is."
    innocent = [f"also in quarantine: {name}" for name in quarantined if name != seen.crashing]
    return Promise("crash", kept, text, notes + innocent)


def _path(seen: Seen) -> str:
    return os.path.join(seen.gallery, seen.crashing)


def _killed(seen: Seen) -> Promise:
    text = "A worker killed from outside costs no image anything."
    victim = seen.killed
    if victim is None:
        return Promise("killed", False, text, ["no worker was busy when one was to be killed"])
    deaths = [d for d in seen.decided("death") if d.slot == victim.slot and f"(pid {victim.pid})" in d.message]
    if not deaths:
        return Promise("killed", False, text, [f"worker {victim.slot} (pid {victim.pid}): its death was not noticed"])
    death = deaths[0]
    after = [d for d in seen.decisions if d.number > death.number and d.slot == victim.slot]
    back = next((d for d in after if d.kind == "returned" and d.path == death.path), None)
    others = next((d.figures.get("returned", 0) for d in after if d.kind == "lease_lost"), 0)
    details = [f"SIGKILL to worker {victim.slot} (pid {victim.pid}), seen as {death.figures.get('cause')}"]
    kept = death.figures.get("cause") == "killed_outside"
    if death.path:
        row = seen.result(seen.name(death.path))
        kept &= back is not None and row.get("state") == "done"
        details.append(
            f"{seen.name(death.path)}, in progress, went back {'un' if back else ''}charged"
            + (f" with {others} more of its lease" if others else "")
            + f"; in the end: {row.get('state', 'no verdict')}, by worker {row.get('worker')}"
        )
    return Promise("killed", kept, text, details)


def _memory(seen: Seen) -> Promise:
    summary, giant = seen.progress.summary, seen.result(GIANT)
    text = f"Memory stays within the budget: at most {human(summary.peak_bytes)} of {human(summary.budget_bytes)}."
    kept = 0 < summary.peak_bytes <= summary.budget_bytes and giant.get("state") == "done" and not summary.oom_kills
    details = [f"{GIANT}: {giant.get('state', 'no verdict')}, took at most {human(giant.get('peak_bytes') or 0)}"]
    return Promise("memory", kept, text, details)


def _shrunk(seen: Seen) -> Promise:
    shrinks = seen.decided("shrunk")
    details = _times("batch size", shrinks, lambda one: f"{one.figures.get('before')} to {one.figures.get('after')}")
    before = [d for d in seen.decided("soft_limit") if shrinks and d.number <= shrinks[0].number]
    details += [f"first: {before[-1].message}"] if before else []
    if not shrinks and seen.largest_batch <= 1:
        # Half a second's work a lease: where an image takes that long, nothing is left to shrink.
        return Promise("shrunk", True, "Under pressure batches shrink: here they were of one image all along.", details)
    return Promise("shrunk", bool(shrinks), f"Under pressure batches shrink: {len(shrinks)} times.", details)


def _times(what: str, decisions: list[Decision], figure: Callable[[Decision], str]) -> list[str]:
    said: dict[str, int] = {}
    for decision in decisions:
        said[figure(decision)] = said.get(figure(decision), 0) + 1
    return [f"{what}: " + ", ".join(f"{text} ({number}x)" for text, number in said.items())] if said else []


def _recycled(seen: Seen) -> Promise:
    recycles = seen.progress.summary.recycles
    number = sum(recycles.get(reason, 0) for reason in LEAKING)
    asked = [d for d in seen.decided("recycle") if d.figures.get("reason") in LEAKING]
    text = f"Workers that leak are replaced before they are a danger: {number} times."
    details = [f"first: {asked[0].message}"] if asked else []
    kills = seen.decided("hard_limit")
    details += [f"killed at the hard limit: {len(kills)} ({kills[0].message})"] if kills else []
    retried = [seen.name(d.path) for d in kills if d.path and seen.result(seen.name(d.path)).get("state") == "done"]
    details += [f"their images were tried again, and done: {', '.join(retried)}"] if retried else []
    return Promise("recycled", bool(asked) and number > 0, text, details)


def _replaced(seen: Seen) -> Promise:
    summary = seen.progress.summary
    kinds = sorted(summary.recycles.items())
    details = [", ".join([f"{n} recycled ({reason.replace('_', ' ')})" for reason, n in kinds if n]
                         + [f"{summary.restarts} restarted after a death"])]  # fmt: skip
    stuck = seen.decided("start_failed")
    details += [stuck[0].message] if stuck else []
    number = sum(summary.recycles.values()) + summary.restarts
    text = f"Every worker that goes is followed by a new one: {seen.workers} places, {number} replacements."
    return Promise("replaced", summary.restarts > 0 and not stuck, text, details)


CHECKS = (_verdicts, _outputs, _bad_files, _crash, _killed, _memory, _shrunk, _recycled, _replaced)
