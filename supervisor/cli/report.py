"""`report`: what running a batch was like, on one page: text, JSON, or HTML that needs nothing but itself.

Everything is gathered in one pass over the results, in bounded memory, from the supervisor or, where none runs, from
its journal. The curve of memory is the supervisor's own history; what it no longer knows is left out and said so.
"""

import argparse
import heapq
import os
from typing import Any

import msgspec

from protocol.errors import GalleryError, UsageError
from protocol.messages import (
    Batches,
    BatchProgress,
    BatchRow,
    History,
    HistoryPage,
    ListBatches,
    Progress,
)
from supervisor.cli.duplicates import DEFAULT_BITS, Asked, Look, pictures_of
from supervisor.cli.find import Answerer, ask, connect_or_read, iter_results
from supervisor.cli.options import Verb
from supervisor.cli.output import path_fields, print_json, say, shown, table, when
from supervisor.cli.tell import describe_counts, failure_text, other_files, progress_row, result_path
from supervisor.policy.alike import group_hashes
from supervisor.policy.duplicates import Group, group_of, most_first
from supervisor.policy.sizes import human
from supervisor.values import show_duration

MOST = 10
"""The slowest and the fattest that are named."""
SHORT = ("path", "path_b64", "state", "seconds", "peak_bytes")
FAILURES_LISTED = 200
GROUPS_LISTED = 50
BATCHES_LOOKED_AT = 100_000
HISTORY_ROWS = 600
"""As many as a plot of a page's width shows."""
MARGIN_SECONDS = 2.0
_EXAMPLES = """  supervisor report b1
  supervisor report b1 --html report.html"""


class Report(msgspec.Struct, kw_only=True):
    """What is reported of a batch. `row` tells when it was, None where that is not known; `history` is None where none
    is kept of that time."""

    progress: BatchProgress
    row: BatchRow | None = None
    history: HistoryPage | None = None
    slowest: list[dict[str, Any]] = []
    fattest: list[dict[str, Any]] = []
    failures: list[dict[str, Any]] = []
    failures_by_kind: dict[str, int] = {}
    failures_count: int = 0
    outputs: int = 0
    outputs_bytes: int = 0
    hashed: int = 0
    groups: list[Group] = []


def _configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("batch", metavar="BATCH")
    parser.add_argument("--html", metavar="FILE", help="write one self-contained page there")


def _run(arguments: argparse.Namespace) -> int:
    with connect_or_read(arguments) as answerer:
        report = gather(answerer, arguments.batch)
    if arguments.html is not None:
        from supervisor.cli.report_page import page

        _write(arguments.html, page(report))
        say(f"written: {arguments.html}")
    if arguments.json:
        print_json(report_row(report))
    elif arguments.html is None:
        print(text(report))
    return 0


def gather(answerer: Answerer, batch: str) -> Report:
    """Returns the report of a batch. Raises UnknownBatch."""
    report = Report(progress=ask(answerer, Progress(batch=batch), BatchProgress))
    rows = ask(answerer, ListBatches(limit=BATCHES_LOOKED_AT), Batches).batches
    report.row = next((row for row in rows if row.batch == batch), None)
    report.history = _history(answerer, report.row)
    _read_results(answerer, report)
    _find_duplicates(answerer, report)
    return report


def _history(answerer: Answerer, row: BatchRow | None) -> HistoryPage | None:
    if row is None:
        return None
    try:
        found = ask(answerer, History(since=row.opened_at - MARGIN_SECONDS, limit=HISTORY_ROWS), HistoryPage)
    except GalleryError:
        return None  # nobody runs who remembers
    end = (row.finished_at or found.until) + MARGIN_SECONDS
    return _until(found, end) if found.at and found.at[0] <= end else None


def _until(page: HistoryPage, end: float) -> HistoryPage:
    """Returns what of a page lies before a date."""
    count = sum(1 for at in page.at if at <= end + page.rest_seconds)
    workers = [
        msgspec.structs.replace(each, rss_bytes=each.rss_bytes[:count], batch_size=each.batch_size[:count])
        for each in page.workers
    ]
    return msgspec.structs.replace(
        page,
        at=page.at[:count],
        used_bytes=page.used_bytes[:count],
        used_low_bytes=page.used_low_bytes[:count],
        budget_bytes=page.budget_bytes[:count],
        level=page.level[:count],
        workers=workers,
        marks=[mark for mark in page.marks if mark.at <= end],
    )


def _read_results(answerer: Answerer, report: Report) -> None:
    slowest: list[tuple[float, int, dict[str, Any]]] = []
    fattest: list[tuple[float, int, dict[str, Any]]] = []
    for number, raw in enumerate(iter_results(answerer, report.progress.batch)):
        result = msgspec.json.decode(raw)
        outputs = result.get("outputs") or []
        report.outputs += len(outputs)
        report.outputs_bytes += sum(output.get("bytes") or 0 for output in outputs)
        short = {name: result[name] for name in SHORT if name in result}
        if result["state"] != "cached":
            _keep(slowest, result.get("seconds") or 0.0, number, short)
            _keep(fattest, result.get("peak_bytes") or 0, number, short)
        if result["state"] in ("failed", "quarantined"):
            _count_failure(report, result)
    report.slowest = [short for _, _, short in sorted(slowest, reverse=True)]
    report.fattest = [short for _, _, short in sorted(fattest, reverse=True)]


def _keep(found: list[tuple[float, int, dict[str, Any]]], figure: float, number: int, short: dict[str, Any]) -> None:
    if figure > 0:
        heapq.heappush(found, (figure, -number, short))
        if len(found) > MOST:
            heapq.heappop(found)


def _count_failure(report: Report, result: dict[str, Any]) -> None:
    error = result.get("error") or {}
    kind = error.get("kind") or result["state"]
    report.failures_count += 1
    report.failures_by_kind[kind] = report.failures_by_kind.get(kind, 0) + 1
    if len(report.failures) < FAILURES_LISTED:
        names = ("path", "path_b64", "state", "error", "attempts")
        report.failures.append({name: result[name] for name in names if name in result})


def _find_duplicates(answerer: Answerer, report: Report) -> None:
    asked = Asked("phash", report.progress.batch, None, DEFAULT_BITS, 0.0)
    pictures = pictures_of(answerer, asked)
    report.hashed = len(pictures)
    look = Look()
    sets = group_hashes([each.hash or 0 for each in pictures], DEFAULT_BITS)
    there = [look.at([pictures[place] for place in places]) for places in sets]
    report.groups = most_first([group_of(each) for each in there if len(each) > 1])


def report_row(report: Report) -> dict[str, Any]:
    """Returns `report --json`."""
    row = report.row
    history = None if report.history is None else msgspec.to_builtins(report.history)
    for name in ("type", "v", "id"):
        (history or {}).pop(name, None)
    return {
        **progress_row(report.progress),
        "opened_at": row.opened_at if row is not None else None,
        "finished_at": row.finished_at if row is not None else None,
        "outputs": report.outputs,
        "outputs_bytes": report.outputs_bytes,
        "slowest": report.slowest,
        "fattest": report.fattest,
        "failures": {
            "count": report.failures_count,
            "by_kind": report.failures_by_kind,
            "listed": report.failures,
        },
        "near_duplicates": {
            "images": report.hashed,
            "groups": [[path_fields(each.path) for each in group.pictures] for group in report.groups[:GROUPS_LISTED]],
            "groups_count": len(report.groups),
        },
        "history": history,
    }


def facts(report: Report) -> list[tuple[str, str]]:
    """Returns the summary as (name, text)."""
    progress, summary, row = report.progress, report.progress.summary, report.row
    recycles = ", ".join(f"{count} {reason}" for reason, count in sorted(summary.recycles.items()) if count)
    found = [
        ("batch", progress.batch),
        ("state", progress.state + (f" ({progress.paused})" if progress.paused else "")),
        ("recipe", progress.recipe),
        ("out", shown(progress.out) if progress.out else "none"),
        ("images", f"{progress.items:,}: {describe_counts(progress.counts)}; {other_files(progress.ignored)}"),
        ("outputs", f"{report.outputs:,} files, {human(report.outputs_bytes)}"),
        ("time", f"{show_duration(summary.seconds)}, {summary.items_per_second:,.1f} images/s"),
        ("memory", f"at most {human(summary.peak_bytes)} of {human(summary.budget_bytes)}"),
        ("recycled", f"{sum(summary.recycles.values())} workers" + (f": {recycles}" if recycles else "")),
        (
            "deaths",
            f"{summary.restarts} workers restarted; {summary.kills} killed by us, {summary.oom_kills} by the kernel",
        ),
        ("shrunk", f"batch sizes {summary.batch_shrinks:,} times"),
    ]
    if row is not None:
        end = when(row.finished_at) or "not over"
        found.insert(2, ("when", f"{when(row.opened_at)} to {end}"))
    return found


def text(report: Report) -> str:
    """Returns the report as text."""
    parts = ["\n".join(f"{name:<9} {value}" for name, value in facts(report))]
    for title, results in (("slowest", report.slowest), ("fattest", report.fattest)):
        if results:
            rows = [(show_duration(r["seconds"] or 0.0), human(r["peak_bytes"] or 0), result_path(r)) for r in results]
            parts.append(f"{title}\n" + table(("TIME", "MEMORY", "IMAGE"), rows, right="TIME MEMORY"))
    if report.failures:
        kinds = ", ".join(f"{number:,} {kind}" for kind, number in sorted(report.failures_by_kind.items()))
        left = report.failures_count - len(report.failures)
        more = [f"... and {left:,} more: supervisor results {report.progress.batch} --failed"] if left else []
        parts.append("\n".join([f"failures  {kinds}", *map(failure_text, report.failures), *more]))
    if report.groups:
        images = sum(len(group.pictures) for group in report.groups)
        parts.append(
            f"alike     {len(report.groups):,} groups of {images:,} images among {report.hashed:,}: "
            f"supervisor duplicates {report.progress.batch}"
        )
    return "\n\n".join(parts)


def _write(path: str, content: str) -> None:
    """Writes a file whole or not at all."""
    unfinished = f"{path}.new"
    try:
        with open(unfinished, "w", encoding="utf-8", errors="replace") as file:
            file.write(content)
        os.replace(unfinished, path)
    except OSError as error:
        raise UsageError(f"{path} cannot be written: {error.strerror}; name another file") from error


VERBS = {"report": Verb(_configure, _run, examples=_EXAMPLES)}
