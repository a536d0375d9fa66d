"""`health`: is it ready, or with --live, is it there at all. For service managers, probes and scripts."""

import argparse

from protocol.errors import NoSupervisor
from supervisor.cli.find import connect
from supervisor.cli.options import Verb
from supervisor.cli.output import print_json, say
from supervisor.policy.readiness import not_ready

HEALTH_SECONDS = 5.0
"""A supervisor that takes longer to answer is not ready: a turn of its loop takes milliseconds."""
_EXAMPLES = """  supervisor health          exit 0: ready for work, 1: not (and why), 3: nobody is there
  supervisor health --live   exit 0: it answers, whatever it is doing; 1: it listens and does not answer"""


def _configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--live", action="store_true", help="only ask whether it answers")


def _health(arguments: argparse.Namespace) -> int:
    with connect(arguments, HEALTH_SECONDS) as client:
        try:
            status = client.status()
            memory = None if arguments.live else client.memory()
        except NoSupervisor as error:
            # It listens, so it is there; but it does not answer.
            return _tell(arguments, False, [str(error)])
    reasons = not_ready(status, memory)
    return _tell(arguments, True, [] if arguments.live else reasons)


def _tell(arguments: argparse.Namespace, live: bool, reasons: list[str]) -> int:
    if arguments.json:
        told = {"live": live} if arguments.live else {"ready": not reasons, "live": live}
        print_json({**told, "reasons": reasons})
    word = "live" if arguments.live else "ready"
    say(f"not {word}: " + "; ".join(reasons) if reasons else word)
    return 1 if reasons else 0


VERBS = {"health": Verb(_configure, _health, examples=_EXAMPLES)}
