"""`memory`: who holds what, what it means, and what was done about it."""

import argparse
from collections.abc import Iterator
from typing import Any

import msgspec

from protocol.errors import BadMessage, UsageError
from protocol.messages import MemoryProfile, MemoryReport, ProcessMemory, ProfileReport, Store
from supervisor.cli.find import connect
from supervisor.cli.leaks import UNSURE
from supervisor.cli.options import Verb
from supervisor.cli.output import path_fields, print_json, say, shown, table, when
from supervisor.policy.counted import counted
from supervisor.policy.levels import level_words
from supervisor.policy.sizes import human
from supervisor.values import show_duration

PROFILE_PATIENCE_SECONDS = 120.0
"""Beyond the time of tracing: the image in progress is finished first."""
_EXAMPLES = """  supervisor memory
  supervisor memory -v        every store, lease, model, clean-up and prediction
  supervisor memory --json
  supervisor memory profile 0 --seconds 30 --top 10"""


def _configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("what", nargs="?", choices=("show", "profile"), default="show", help="[show]")
    parser.add_argument("slot", nargs="?", type=int, metavar="SLOT", help="for profile: the worker of this slot")
    parser.add_argument("--seconds", type=float, default=10.0, metavar="S", help="for profile: how long [10]")
    parser.add_argument("--top", type=int, default=20, metavar="N", help="for profile: so many lines of code [20]")
    parser.add_argument("-v", "--verbose", action="store_true", help="everything that is known")


def _run(arguments: argparse.Namespace) -> int:
    if (arguments.what == "profile") != (arguments.slot is not None):
        raise UsageError("memory profile takes a slot, e.g. 'supervisor memory profile 0'; memory alone takes none")
    if arguments.what == "profile":
        return _profile(arguments)
    with connect(arguments) as client:
        report = client.memory()
    if arguments.json:
        print_json(memory_row(report))
        return 0
    for part in _parts(report, arguments.verbose):
        print(part)
    return 0


def _profile(arguments: argparse.Namespace) -> int:
    request = MemoryProfile(slot=max(0, arguments.slot), seconds=arguments.seconds, top=max(0, arguments.top))
    say(f"profiling worker {arguments.slot} for {arguments.seconds:g} s; its Python code runs some times slower")
    with connect(arguments) as client:
        report = client.request(request, arguments.seconds + PROFILE_PATIENCE_SECONDS)
    if not isinstance(report, ProfileReport):
        raise BadMessage(f"a profile was answered with {type(report).__name__}")
    if arguments.json:
        lines = [{"place": one.place, "bytes": one.bytes, "blocks": one.blocks} for one in report.lines]
        print_json({**envelope_off(msgspec.to_builtins(report)), "lines": lines})
        return 0
    print(
        f"worker {report.slot} (pid {report.pid}): {counted(report.items, 'image')} in {report.seconds:.1f} s; Python "
        f"holds {human(report.grown_bytes)} more in {report.grown_blocks:,} blocks; "
        f"tracing took {human(report.tracer_bytes)}"
    )
    rows = [(human(one.bytes), f"{one.blocks:,}", one.place) for one in report.lines]
    print(table(("BYTES", "BLOCKS", "ALLOCATED AT"), rows, right="BYTES BLOCKS"))
    return 0


def envelope_off(row: dict[str, Any]) -> dict[str, Any]:
    """Returns a message as JSON without what only the wire needs."""
    return {key: value for key, value in row.items() if key not in ("type", "v", "id")}


def memory_row(report: MemoryReport) -> dict[str, Any]:
    """Returns `memory --json`."""
    row = envelope_off(msgspec.to_builtins(report))
    for process, built in zip(report.processes, row["processes"], strict=True):
        built.update(path_fields(process.current, "current"))
    for lease, built in zip(report.memory_leases.leases, row["memory_leases"]["leases"], strict=True):
        built.update(path_fields(lease.path))
    return row


def size(count: int | None) -> str:
    """Returns a size for people; a dash where it is not known."""
    return "-" if count is None else human(count)


def _parts(report: MemoryReport, verbose: bool) -> Iterator[str]:
    yield from _whole(report)
    head = ("PROCESS", "PID", "STATE", "RSS", "PRIVATE", "SHARED", "SWAP", "HEAP", "NATIVE", "BASELINE", "SOFT",
            "RECYCLE", "HARD", "BATCH", "NOW")  # fmt: skip
    right = "PID RSS PRIVATE SHARED SWAP HEAP NATIVE BASELINE SOFT RECYCLE HARD BATCH"
    yield "\n" + table(head, map(_process, report.processes), right=right)
    yield from _findings(report)
    if verbose:
        yield from _details(report)


def _whole(report: MemoryReport) -> Iterator[str]:
    yield (
        f"memory     {human(report.used_bytes)} of {human(report.budget_bytes)} "
        f"({report.pressure:.0%}), level {level_words(report.level, report.level_held)}"
    )
    yield f"budget     {report.budget_source or 'not looked at yet'}; used: {report.used_source or '-'}"
    stall = "not told here" if report.stall_share is None else f"{report.stall_share:.1%} of the time"
    stall += ", so leases are of one image" if report.stalled else ""
    swapping = f"{human(int(report.swap_in_bytes_per_second))} a second"
    yield f"machine    {human(report.available_bytes)} available; swapping in {swapping}; waiting for memory {stall}"
    levels = ", ".join(
        f"{name.removesuffix('_share')} {share:.0%} ({size(_whole_number(report.thresholds.get(_bytes_of(name))))})"
        for name, share in report.thresholds.items()
        if _bytes_of(name) in report.thresholds and share is not None
    )
    yield f"levels     {levels}"


def _bytes_of(name: str) -> str:
    return name.removesuffix("_share") + "_bytes" if name.endswith("_share") else ""


def _whole_number(value: float | None) -> int | None:
    return None if value is None else int(value)


def _process(process: ProcessMemory) -> tuple[Any, ...]:
    name = process.role if process.slot is None else f"{process.role} {process.slot}"
    sizes = (process.rss_bytes, process.private_bytes, process.shared_bytes, process.swap_bytes, process.heap_bytes,
             process.native_bytes, process.baseline_bytes, process.soft_bytes, process.recycle_bytes,
             process.hard_bytes)  # fmt: skip
    now = shown(process.current) if process.current else ""
    batch = "" if process.batch_size is None else process.batch_size
    return (name, process.pid or "-", process.state or "", *map(size, sizes), batch, now)


def _findings(report: MemoryReport) -> Iterator[str]:
    """What a person should see without asking for more: leaks, and where things are heading."""
    for leak in report.leaks:
        yield f"leak       {leak.message} (confidence {leak.confidence:.0%})"
    for trend in report.trend:
        ahead = {name: left for name, left in trend.seconds_to.items() if left is not None}
        soon = [f"{name} in {show_duration(round(left))}" for name, left in ahead.items()]
        if soon and trend.confidence >= UNSURE:
            speed = human(int(trend.bytes_per_second))
            yield f"trend      {trend.subject}: {speed} a second (confidence {trend.confidence:.0%}): {', '.join(soon)}"


def _details(report: MemoryReport) -> Iterator[str]:
    leases = report.memory_leases
    yield (
        f"\nmemory leases: {human(leases.granted_bytes)} of {human(leases.limit_bytes)} granted; in all "
        f"{leases.granted_total:,} granted, {leases.refused_total:,} refused, {leases.expired_total:,} expired"
    )
    if leases.last_refusal:
        yield f"last refusal: {leases.last_refusal}"
    rows: list[tuple[Any, ...]] = [
        (lease.number, lease.slot, lease.purpose, human(lease.bytes), when(lease.granted_at)) for lease in leases.leases
    ]
    yield from _table("", ("LEASE", "SLOT", "FOR", "BYTES", "SINCE"), rows)
    rows = [(one.slot, one.name, human(one.bytes), one.uses, when(one.used_at)) for one in report.models]
    yield from _table("models", ("SLOT", "MODEL", "BYTES", "USES", "LAST USED"), rows)
    rows = [
        (one.number, when(one.at), one.tier, human(max(0, one.before_bytes - one.after_bytes)),
         {None: "not verified yet", True: "yes", False: "no"}[one.recovered], one.reason)
        for one in report.cleanups
    ]  # fmt: skip
    yield from _table("clean-ups", ("NUMBER", "AT", "TIER", "FREED", "BACK TO BASELINE", "WHY"), rows)
    rows = [
        (one.slot, one.means, one.runs, human(one.freed_bytes),
         f"{one.freed_bytes / one.held_bytes:.0%}" if one.held_bytes else "-", "yes" if one.useless else "")
        for one in report.collection
    ]  # fmt: skip
    yield from _table("collection", ("SLOT", "MEANS", "RUNS", "FREED", "EFFICIENCY", "USELESS"), rows)
    rows = [
        (one.operation, one.format, one.kind, one.decoder, one.items, f"{one.factor:.2f}", f"{one.ratio_median:.2f}",
         f"{one.ratio_p95:.2f}", one.under_predicted)
        for one in report.predictions
    ]  # fmt: skip
    head = ("OPERATION", "FORMAT", "KIND", "DECODER", "ITEMS", "FACTOR", "MEDIAN", "P95", "UNDER")
    yield from _table("predictions (predicted / measured)", head, rows)
    rows = [(one.name, one.owner, f"{one.count:,}", _limit(one), size(one.bytes), size(one.limit_bytes))
            for one in report.stores]  # fmt: skip
    yield from _table("stores", ("STORE", "OWNER", "COUNT", "LIMIT", "BYTES", "LIMIT BYTES"), rows)
    rows = [(name, _value(name, value)) for name, value in report.thresholds.items()]
    yield from _table("thresholds", ("THRESHOLD", "VALUE"), rows)


def _limit(store: Store) -> str:
    return "-" if store.limit_count is None else f"{store.limit_count:,}"


def _value(name: str, value: float | None) -> str:
    if value is None:
        return "none"
    return f"{value:.0%}" if name.endswith("_share") else human(int(value))


def _table(title: str, head: tuple[str, ...], rows: list[tuple[Any, ...]]) -> Iterator[str]:
    if rows:
        yield f"\n{title}" if title else ""
        yield table(head, rows)


VERBS = {"memory": Verb(_configure, _run, examples=_EXAMPLES)}
