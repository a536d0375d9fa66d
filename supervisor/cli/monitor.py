"""`monitor`: memory, live. A line a second; on a terminal a table that stays in its place."""

import argparse
import sys
import time
from collections.abc import Iterator

from protocol.messages import MemoryReport
from supervisor.cli.find import connect
from supervisor.cli.memory import memory_row, size
from supervisor.cli.options import Verb, at_least
from supervisor.cli.output import print_json, table
from supervisor.policy.sizes import human
from supervisor.values import parse_duration

EVERY_SECONDS = 1.0
SHORTEST_SECONDS = 0.1
_HOME_AND_CLEAR = "\x1b[H\x1b[J"
_BAR_CELLS = 40
_EXAMPLES = """  supervisor monitor
  supervisor monitor --every 5s | tee memory.log
  supervisor monitor --count 10 --json"""


def _configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--every", default=EVERY_SECONDS, type=_interval, metavar="TIME", help="how often [1s]")
    parser.add_argument(
        "--count", type=at_least(1), metavar="N", help="so many looks, then the end [until interrupted]"
    )


def _interval(text: str) -> float:
    try:
        found = parse_duration(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    if found is None or found < SHORTEST_SECONDS:
        raise argparse.ArgumentTypeError(f"{text} is too short, at least {SHORTEST_SECONDS:g}s is needed")
    return found


def _monitor(arguments: argparse.Namespace) -> int:
    live = sys.stdout.isatty() and not arguments.json
    looks = 0
    with connect(arguments) as client:
        while True:
            report = client.memory()
            if arguments.json:
                print_json({"at": time.time(), **memory_row(report)})
            elif live:
                print(_HOME_AND_CLEAR + picture(report), flush=True)
            else:
                print(time.strftime("%H:%M:%S"), line(report), flush=True)
            looks += 1
            if arguments.count is not None and looks >= arguments.count:
                return 0
            time.sleep(arguments.every)


def line(report: MemoryReport) -> str:
    """Returns one line: the whole, the level, and every process."""
    each = " ".join(
        f"{process.role if process.slot is None else process.slot}:{size(process.rss_bytes)}"
        for process in report.processes
        if process.pid is not None
    )
    return (
        f"{human(report.used_bytes)} of {human(report.budget_bytes)} ({report.pressure:.0%}) {report.level}, "
        f"{human(report.available_bytes)} available | {each}"
    )


def picture(report: MemoryReport) -> str:
    """Returns the whole as a bar, every process as a row with its way to the hard limit."""
    return "\n".join(_rows(report))


def _rows(report: MemoryReport) -> Iterator[str]:
    yield f"{_bar(report.pressure)} {human(report.used_bytes)} of {human(report.budget_bytes)}, level {report.level}"
    swapping = human(int(report.swap_in_bytes_per_second))
    yield f"{human(report.available_bytes)} available on the machine, swapping in {swapping} a second\n"
    rows = []
    for process in report.processes:
        share = process.rss_bytes / process.hard_bytes if process.hard_bytes else None
        rows.append(
            (
                process.role if process.slot is None else f"{process.role} {process.slot}",
                process.state or "",
                size(process.rss_bytes),
                size(process.private_bytes),
                size(process.heap_bytes),
                size(process.hard_bytes),
                "" if share is None else _bar(share, _BAR_CELLS // 2),
                "" if process.batch_size is None else process.batch_size,
            )
        )
    head = ("PROCESS", "STATE", "RSS", "PRIVATE", "HEAP", "HARD", "TO THE HARD LIMIT", "BATCH")
    yield table(head, rows, right="RSS PRIVATE HEAP HARD BATCH")


def _bar(share: float, cells: int = _BAR_CELLS) -> str:
    full = round(min(1.0, max(0.0, share)) * cells)
    return f"[{'#' * full}{'.' * (cells - full)}] {share:4.0%}"


VERBS = {"monitor": Verb(_configure, _monitor, examples=_EXAMPLES)}
