"""Batches: `wait batches show cancel retry pause resume`."""

import argparse
import time

from protocol.client import Client, is_over
from protocol.errors import UsageError, WaitedTooLong
from protocol.messages import Batches, BatchProgress, BatchRow, ListBatches, Progress, Summary
from supervisor.cli.find import ask, connect, connect_or_read
from supervisor.cli.options import Verb, at_least
from supervisor.cli.output import print_json, say, shown, table, when
from supervisor.cli.submit import duration
from supervisor.cli.tell import (
    Bar,
    batch_row,
    describe_counts,
    exit_code_of,
    images,
    other_files,
    progress_row,
    say_summary,
    settled_of,
    summary_row,
)
from supervisor.policy.sizes import human
from supervisor.values import show_duration


def _one_batch(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("batch", metavar="BATCH")


# ---- wait ----------------------------------------------------------------------------------------


def _configure_wait(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("batches", nargs="*", metavar="BATCH", help="which ones [all that are not finished]")
    parser.add_argument("--timeout", type=duration, metavar="DURATION", help="give up waiting after it, exit 5")


def _wait(arguments: argparse.Namespace) -> int:
    deadline = None if arguments.timeout is None else time.monotonic() + arguments.timeout
    code = 0
    with connect(arguments) as client:
        unfinished = ("accepted", "running", "paused")
        names = arguments.batches or [row.batch for row in client.batches() if row.state in unfinished]
        for name in names:
            progress = _wait_for(client, name, deadline, arguments.timeout)
            if arguments.json:
                print_json(summary_row(progress))
            say_summary(client, progress)
            code = max(code, exit_code_of(progress))
    return code


def _wait_for(client: Client, name: str, deadline: float | None, timeout: float | None) -> BatchProgress:
    with Bar() as bar:
        for progress in client.iter_progress(name):
            bar.show(progress)
            if is_over(progress):
                break
            if deadline is not None and time.monotonic() > deadline:
                raise WaitedTooLong(f"batch {name} is not finished after {timeout:g} s: {_what_remains(progress)}")
    return progress


def _what_remains(progress: BatchProgress) -> str:
    left = progress.counts.pending + progress.counts.leased
    text = f"{images(left)} to do"
    if progress.paused:
        text += f"; it waits: {progress.paused}"
    if progress.open and not left:
        text += "; it still takes images: who fills it has not closed it ('supervisor cancel' ends it)"
    return text


# ---- batches, show -------------------------------------------------------------------------------


def _configure_batches(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--limit", type=at_least(1), default=100, metavar="N", help="at most so many, newest first [100]"
    )
    parser.add_argument("--sizes", action="store_true", help="about what each takes in the journal, its last use")


def _batches(arguments: argparse.Namespace) -> int:
    with connect_or_read(arguments) as answerer:
        found = ask(answerer, ListBatches(limit=arguments.limit, sizes=arguments.sizes), Batches).batches
    if arguments.json:
        print_json([batch_row(row) for row in found])
        return 0
    if arguments.sizes:
        sizes = [(r.batch, _state(r), r.kind, r.items, human(r.bytes or 0), when(r.used_at)) for r in found]
        print(table(("BATCH", "STATE", "KIND", "IMAGES", "SIZE", "USED"), sizes, right="IMAGES SIZE"))
        return 0
    head = ("BATCH", "STATE", "RECIPE", "SETTLED", "IMAGES", "FAILED", "OPENED", "OUT")
    rows = [
        (
            r.batch, _state(r), r.recipe, settled_of(r.counts), r.items, r.counts.failed + r.counts.quarantined,
            when(r.opened_at), shown(r.out) if r.out else "",
        )
        for r in found
    ]  # fmt: skip
    print(table(head, rows, right="SETTLED IMAGES FAILED"))
    return 0


def _show(arguments: argparse.Namespace) -> int:
    with connect_or_read(arguments) as answerer:
        progress = ask(answerer, Progress(batch=arguments.batch), BatchProgress)
    _print_batch(arguments, progress)
    return 0


def _print_batch(arguments: argparse.Namespace, progress: BatchProgress) -> None:
    if arguments.json:
        print_json(progress_row(progress))
        return
    summary = progress.summary
    state = progress.state + (f" ({progress.paused})" if progress.paused else "")
    facts = [
        ("batch", progress.batch),
        ("state", state + _filling(progress)),
        ("recipe", progress.recipe),
        ("out", shown(progress.out) if progress.out else "none"),
        ("images", f"{progress.items:,}: {describe_counts(progress.counts)}; {other_files(progress.ignored)}"),
        ("time", f"{show_duration(summary.seconds)}, {summary.items_per_second:,.1f} images/s"),
        ("memory", f"at most {human(summary.peak_bytes)} of {human(summary.budget_bytes)}"),
        ("workers", _worker_facts(summary)),
    ]
    print("\n".join(f"{name:<8} {text}" for name, text in facts))


def _state(row: BatchRow) -> str:
    return row.state + (", abandoned" if row.abandoned_at is not None else "")


def _filling(progress: BatchProgress) -> str:
    if progress.open:
        return ", still taking images"
    if progress.abandoned_at is None:
        return ""
    return f", abandoned by its client at {when(progress.abandoned_at)}"


def _worker_facts(summary: Summary) -> str:
    return (
        f"{sum(summary.recycles.values())} recycled, {summary.restarts} restarted, {summary.kills} killed by us, "
        f"{summary.oom_kills} by the kernel; batches shrunk {summary.batch_shrinks} times"
    )


# ---- cancel, retry, pause, resume ----------------------------------------------------------------


def _cancel(arguments: argparse.Namespace) -> int:
    with connect(arguments) as client:
        progress = client.cancel(arguments.batch)
    if arguments.json:
        print_json(progress_row(progress))
    say(f"batch {progress.batch} is cancelled; images in progress are finished")
    return 0


def _configure_retry(parser: argparse.ArgumentParser) -> None:
    _one_batch(parser)
    parser.add_argument("--quarantined", action="store_true", help="quarantined images too")


def _retry(arguments: argparse.Namespace) -> int:
    with connect(arguments) as client:
        progress = client.retry(arguments.batch, arguments.quarantined)
    if arguments.json:
        print_json(progress_row(progress))
    say(f"batch {progress.batch}: {images(progress.counts.pending + progress.counts.leased)} to do")
    return 0


def _configure_pause(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("batch", nargs="?", metavar="BATCH", help="[all work]")
    parser.add_argument("--reason", default="asked by the user", help="told by status and show")
    parser.add_argument("--for", dest="seconds", type=duration, metavar="DURATION", help="resume by itself after it")


def _pause(arguments: argparse.Namespace) -> int:
    if arguments.seconds is not None and arguments.seconds <= 0:
        raise UsageError("--for 0: a pause takes more than no time")
    with connect(arguments) as client:
        return _done(arguments, client.pause(arguments.batch, arguments.reason, arguments.seconds))


def _configure_resume(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("batch", nargs="?", metavar="BATCH", help="[all work]")


def _resume(arguments: argparse.Namespace) -> int:
    with connect(arguments) as client:
        return _done(arguments, client.resume(arguments.batch))


def _done(arguments: argparse.Namespace, message: str) -> int:
    if arguments.json:
        print_json({"message": message})
    say(message or "done")
    return 0


VERBS = {
    "wait": Verb(_configure_wait, _wait, examples="  supervisor wait --timeout 10m"),
    "batches": Verb(_configure_batches, _batches),
    "show": Verb(_one_batch, _show),
    "cancel": Verb(_one_batch, _cancel),
    "retry": Verb(_configure_retry, _retry),
    "pause": Verb(_configure_pause, _pause, examples="  supervisor pause --for 2h --reason 'backup runs'"),
    "resume": Verb(_configure_resume, _resume),
}
