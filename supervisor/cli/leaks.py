"""`leaks`: who grows and does not shrink again, where memory is heading, what giving it back has given."""

import argparse

from protocol.messages import Collection, Leak, LeaksReport, LeaksRequest, Trend
from supervisor.cli.find import ask, connect
from supervisor.cli.options import Verb
from supervisor.cli.output import bare, print_json, table
from supervisor.policy.sizes import human
from supervisor.values import show_duration

UNSURE = 0.5
"""A trend less sure than this is shown without a direction."""


def _nothing(parser: argparse.ArgumentParser) -> None:
    """It has no arguments of its own."""


def _leaks(arguments: argparse.Namespace) -> int:
    with connect(arguments) as client:
        report = ask(client, LeaksRequest(), LeaksReport)
    if arguments.json:
        print_json(bare(report))
        return 0
    print("\n\n".join(part for part in (_found(report), _trends(report.trends), _collection(report)) if part))
    return 0


def _found(report: LeaksReport) -> str:
    if not report.leaks:
        return f"no leak found in {report.items_watched:,} items watched"
    head = ("WHAT", "WHO", "WHERE", "PER ITEM", "PER SECOND", "ITEMS", "CONFIDENCE")
    rows = table(head, [_leak(leak) for leak in report.leaks], right="PER ITEM SECOND ITEMS CONFIDENCE")
    return "\n".join([rows, *(leak.message for leak in report.leaks)])


def _leak(leak: Leak) -> tuple[str, ...]:
    return (
        leak.subject_kind, leak.subject, leak.where, human(int(leak.bytes_per_item)), human(int(leak.bytes_per_second)),
        f"{leak.items:,}", f"{leak.confidence:.2f}",
    )  # fmt: skip


def _trends(trends: list[Trend]) -> str:
    return table(("TREND", "A MINUTE", "CONFIDENCE", "REACHES"), [_trend(trend) for trend in trends])


def _trend(trend: Trend) -> tuple[str, ...]:
    if trend.confidence < UNSURE:
        return trend.subject, "steady", f"{trend.confidence:.2f}", ""
    speed = human(abs(int(trend.bytes_per_second * 60)))
    ahead = [f"{name} in {show_duration(seconds)}" for name, seconds in trend.seconds_to.items() if seconds]
    sign = "-" if trend.bytes_per_second < 0 else "+"
    return trend.subject, f"{sign}{speed}", f"{trend.confidence:.2f}", ", ".join(ahead)


def _collection(report: LeaksReport) -> str:
    if not report.collection:
        return ""
    head = ("SLOT", "MEANS", "RUNS", "GAVE BACK", "OF", "")
    return table(head, [_means(one) for one in report.collection], right="SLOT RUNS")


def _means(one: Collection) -> tuple[str, ...]:
    verdict = "useless: the worker is replaced instead" if one.useless and one.means == "all" else ""
    return str(one.slot), one.means, f"{one.runs:,}", human(one.freed_bytes), human(one.held_bytes), verdict


VERBS = {"leaks": Verb(_nothing, _leaks)}
