"""`status`: the supervisor and its workers at this moment."""

import argparse
from typing import Any

import msgspec

from protocol.messages import Status, WorkerStatus
from supervisor.cli.find import connect
from supervisor.cli.options import Verb
from supervisor.cli.output import path_fields, print_json, shown, table, when
from supervisor.policy.levels import level_words
from supervisor.policy.sizes import human
from supervisor.values import show_duration


def _nothing(parser: argparse.ArgumentParser) -> None:
    """It has no arguments of its own."""


def status_row(status: Status) -> dict[str, Any]:
    """Returns `status --json`."""
    row: dict[str, Any] = msgspec.to_builtins(status)
    for envelope in ("type", "v", "id"):
        row.pop(envelope, None)
    for worker, built in zip(status.workers, row["workers"], strict=True):
        built.update(path_fields(worker.current, "current"))
    return row


def _status(arguments: argparse.Namespace) -> int:
    with connect(arguments) as client:
        status = client.status()
    if arguments.json:
        print_json(status_row(status))
        return 0
    state = "draining" if status.draining else f"paused ({status.paused})" if status.paused else "serving"
    print(
        f"supervisor {status.version}, pid {status.pid}, up {show_duration(status.uptime_seconds)}, {state}\n"
        f"memory   {human(status.used_bytes)} of {human(status.budget_bytes)} "
        f"({status.pressure:.0%}), level {level_words(status.level, status.level_held)}\n"
        f"queue    {status.queue.pending:,} pending, {status.queue.leased:,} leased"
    )
    totals = status.totals
    print(
        f"so far   {totals.done:,} done, {totals.cached:,} cached, {totals.failed:,} failed, "
        f"{totals.quarantined:,} quarantined\n"
        f"workers  {totals.recycles:,} recycled, {totals.restarts:,} restarted, {totals.kills:,} killed by us, "
        f"batches shrunk {totals.batch_shrinks:,} times\n"
    )
    head = ("SLOT", "PID", "STATE", "MEMORY", "SOFT", "HARD", "BATCH", "DONE", "NOW")
    print(table(head, [_worker(worker) for worker in status.workers], right="SLOT PID MEMORY SOFT HARD BATCH DONE"))
    levels = sorted({worker.sandbox for worker in status.workers if worker.sandbox is not None})
    if levels:
        print(f"sandbox  {', '.join(levels)}")
    for worker in status.workers:
        if worker.last_death is not None:
            print(f"slot {worker.slot}: last death {when(worker.last_death.at)}: {worker.last_death.cause}")
        if worker.note:
            print(f"slot {worker.slot}: {worker.note}")
    return 0


def _worker(worker: WorkerStatus) -> tuple[Any, ...]:
    sizes = (worker.rss_bytes, worker.soft_bytes, worker.hard_bytes)
    return (
        worker.slot, worker.pid or "-", worker.state, *(human(size) if size else "-" for size in sizes),
        worker.batch_size, f"{worker.items_done:,}", shown(worker.current) if worker.current else "",
    )  # fmt: skip


VERBS = {"status": Verb(_nothing, _status)}
