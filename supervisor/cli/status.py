"""`status` and `health`: the supervisor and its workers at this moment."""

import argparse
from typing import Any

import msgspec

from protocol.errors import NoSupervisor
from protocol.messages import Status, WorkerStatus
from supervisor.cli.find import connect
from supervisor.cli.options import Verb
from supervisor.cli.output import path_fields, print_json, say, shown, table, when
from supervisor.policy.sizes import human
from supervisor.values import show_duration

HEALTH_SECONDS = 5.0
"""A supervisor that takes longer to answer is not ready: a turn of its loop takes milliseconds."""


def _nothing(parser: argparse.ArgumentParser) -> None:
    """These verbs have no arguments of their own."""


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
        f"({status.pressure:.0%}, level {status.level})\n"
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
    return (
        worker.slot, worker.pid or "-", worker.state, human(worker.rss_bytes), human(worker.soft_bytes),
        human(worker.hard_bytes), worker.batch_size, f"{worker.items_done:,}",
        shown(worker.current) if worker.current else "",
    )  # fmt: skip


def _health(arguments: argparse.Namespace) -> int:
    with connect(arguments, HEALTH_SECONDS) as client:
        try:
            status = client.status()
        except NoSupervisor as error:
            # It listens, so it is there; but it does not answer.
            return _tell_health(arguments, [str(error)])
    return _tell_health(arguments, _reasons(status))


def _reasons(status: Status) -> list[str]:
    reasons = []
    if status.draining:
        reasons.append("it is draining")
    if not any(worker.state in ("IDLE", "BUSY") for worker in status.workers):
        reasons.append("no worker is ready")
    if status.level in ("emergency", "protection"):
        reasons.append(f"memory level {status.level}")
    return reasons


def _tell_health(arguments: argparse.Namespace, reasons: list[str]) -> int:
    if arguments.json:
        print_json({"ready": not reasons, "reasons": reasons})
    say("not ready: " + "; ".join(reasons) if reasons else "ready")
    return 1 if reasons else 0


VERBS = {"status": Verb(_nothing, _status), "health": Verb(_nothing, _health)}
