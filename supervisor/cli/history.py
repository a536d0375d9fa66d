"""`history`: memory over time, as rows, as JSON columns, as a picture. Works where no supervisor runs, too."""

import argparse
import time
from collections import Counter

from protocol.errors import UsageError
from protocol.messages import History, HistoryPage
from supervisor.cli.find import ask, connect_or_read
from supervisor.cli.options import Verb
from supervisor.cli.output import bare, print_json, say, table, when
from supervisor.policy.sizes import human
from supervisor.values import parse_duration

_EXAMPLES = """  supervisor history --since 10m
  supervisor history --since 6h --plot memory.png"""
_ROWS, _ROWS_OF_A_PLOT = 40, 2_000


def _configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--since", metavar="TIME", help="how far back, e.g. 90s, 10m, 6h, 2d [all that is kept]")
    parser.add_argument("--resolution", metavar="TIME", help="rows at least so far apart [as fine as is kept]")
    parser.add_argument("--limit", type=int, metavar="N", help="at most so many rows [40; 2000 with --json or --plot]")
    parser.add_argument("--plot", metavar="FILE", help="draw a picture (.png, .svg or .pdf) instead; needs matplotlib")


def _seconds(text: str | None, flag: str) -> float | None:
    if text is None:
        return None
    try:
        return parse_duration(text)
    except ValueError as error:
        raise UsageError(f"flag {flag}: {error}") from error


def _history(arguments: argparse.Namespace) -> int:
    back = _seconds(arguments.since, "--since")
    resolution = _seconds(arguments.resolution, "--resolution") or 0.0
    if arguments.limit is not None and arguments.limit < 1:
        raise UsageError(f"flag --limit: {arguments.limit} rows are none; at least 1")
    limit = arguments.limit or (_ROWS_OF_A_PLOT if arguments.plot or arguments.json else _ROWS)
    since = None if back is None else time.time() - back
    with connect_or_read(arguments) as answerer:
        page = ask(answerer, History(since=since, resolution=resolution, limit=limit), HistoryPage)
    if arguments.plot is not None:
        _plot(page, arguments.plot)
    if arguments.json:
        print_json(bare(page))
    elif arguments.plot is None:
        _tell(page)
    return 0


def _plot(page: HistoryPage, path: str) -> None:
    if not page.at:
        raise UsageError("there is no history to draw in that time yet")
    from supervisor.cli.history_plot import draw  # matplotlib is loaded only where a picture is wanted

    draw(page, path)
    say(f"{path}: memory from {when(page.at[0])} to {when(page.at[-1])}")


def _tell(page: HistoryPage) -> None:
    if not page.at:
        say("no memory history is kept of that time")
        return
    print(table(("TIME", "USED", "LOWEST", "BUDGET", "LEVEL", "WORKERS", "BATCH"), _rows(page)))
    marks = Counter(mark.kind for mark in page.marks)
    if marks:
        print("meanwhile: " + ", ".join(f"{count:,} {kind}" for kind, count in sorted(marks.items())))


def _rows(page: HistoryPage) -> list[tuple[str, ...]]:
    return [
        (
            when(at),
            human(page.used_bytes[n]),
            human(page.used_low_bytes[n]),
            human(page.budget_bytes[n]),
            page.levels[page.level[n]],
            " ".join(_cell(worker.rss_bytes[n], human) for worker in page.workers),
            " ".join(_cell(worker.batch_size[n], str) for worker in page.workers),
        )
        for n, at in enumerate(page.at)
    ]


def _cell(value: int | None, show: type[str] | object) -> str:
    return "-" if value is None else human(value) if show is human else str(value)


VERBS = {"history": Verb(_configure, _history, examples=_EXAMPLES)}
