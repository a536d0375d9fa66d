"""`submit`: gives images to a running supervisor."""

import argparse
import time

from protocol.client import OpenedBatch, is_over
from protocol.errors import NoSupervisor, WaitedTooLong
from supervisor.cli.find import connect
from supervisor.cli.options import Verb, client_settings
from supervisor.cli.output import print_json, say
from supervisor.cli.submission import Submitted, add_job_arguments, read_job, submit
from supervisor.cli.tell import Bar, exit_code_of, images, other_files, say_summary, summary_row
from supervisor.values import parse_duration

_EXAMPLES = """  supervisor submit photos --out thumbs --wait
  find photos -name '*.jpg' -print0 | supervisor submit -0 - --base photos --out thumbs
  supervisor submit @list.txt extra.png --out thumbs --recipe web --json"""


def duration(text: str) -> float:
    """Returns the seconds of a --timeout, for argparse."""
    try:
        seconds = parse_duration(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
    if seconds is None:
        raise argparse.ArgumentTypeError("'none' is no duration; leave --timeout away")
    return seconds


def _configure(parser: argparse.ArgumentParser) -> None:
    add_job_arguments(parser)
    parser.add_argument("--batch", metavar="ID", help="name of the batch; submitting it again is then harmless")
    parser.add_argument("--wait", action="store_true", help="wait until it is finished, with a bar on a terminal")
    parser.add_argument("--timeout", type=duration, metavar="DURATION", help="with --wait: give up waiting, exit 5")


def _run(arguments: argparse.Namespace) -> int:
    reading = client_settings(arguments)
    job = read_job(arguments, reading.values["recipe"])
    opened: list[OpenedBatch] = []

    def tell_opened(batch: OpenedBatch) -> None:
        opened.append(batch)
        if arguments.json:
            print_json({"batch": batch.name})

    with connect(arguments) as client:
        try:
            done = submit(client, client.hello(), job, batch=arguments.batch, opened=tell_opened)
        except (KeyboardInterrupt, NoSupervisor):
            if opened:
                say(_incomplete(opened[0].name))
            raise
        _tell(arguments, done)
        if not arguments.wait:
            return 0
        deadline = None if arguments.timeout is None else time.monotonic() + arguments.timeout
        with Bar() as bar:
            for progress in client.iter_progress(done.batch):
                bar.show(progress)
                if not is_over(progress) and deadline is not None and time.monotonic() > deadline:
                    raise WaitedTooLong(f"batch {done.batch} is not finished after {arguments.timeout:g} s; it goes on")
        if arguments.json:
            print_json(summary_row(progress))
        say_summary(client, progress)
        return exit_code_of(progress)


def _tell(arguments: argparse.Namespace, done: Submitted) -> None:
    if arguments.json:
        print_json({"batch": done.batch, "items": done.items, "ignored": done.ignored})
    else:
        print(done.batch)
    say(f"batch {done.batch}: {images(done.items)} accepted, {other_files(done.ignored)}")


def _incomplete(batch: str) -> str:
    return (
        f"batch {batch} is not complete: submit the same again with --batch {batch}, "
        f"or drop it with 'supervisor cancel {batch}'"
    )


VERBS = {"submit": Verb(_configure, _run, frozenset({"state", "socket", "recipe"}), examples=_EXAMPLES)}
