"""`why` and `events`: decisions, with the figures they were taken on."""

import argparse
import os
from typing import TYPE_CHECKING, Any

import msgspec

from protocol.errors import UsageError
from protocol.messages import Decision, Decisions, Events, Why
from protocol.paths import to_token
from supervisor.cli.find import ask, connect, connect_or_read
from supervisor.cli.options import Verb, at_least
from supervisor.cli.output import path_fields, print_json, say, shown, when
from supervisor.naming import absolute

if TYPE_CHECKING:
    from supervisor.policy.replay import Replayed

_EXAMPLES = """  supervisor why worker 2
  supervisor why photos/huge.png"""


def image_token(path: str) -> str:
    """Returns the token of an image named on the command line: absolute, as it was submitted."""
    return to_token(absolute(os.fsencode(path), os.getcwdb()))


def decision_row(decision: Decision) -> dict[str, Any]:
    """Returns a decision as JSON."""
    return {**msgspec.to_builtins(decision), **path_fields(decision.path)}


def decision_text(decision: Decision) -> str:
    """Returns a decision as lines for people: when, about what, why, on which figures."""
    about = [f"worker {decision.slot}"] if decision.slot is not None else []
    about += [f"batch {decision.batch}"] if decision.batch else []
    about += [shown(decision.path)] if decision.path else []
    lines = [f"{when(decision.at)}  {decision.kind}  {decision.message}"]
    facts = [", ".join(about)] if about else []
    facts += [" ".join(f"{key}={_figure(value)}" for key, value in decision.figures.items())] * bool(decision.figures)
    return "\n".join([*lines, *(f"{'':19}  {fact}" for fact in facts)])


def _figure(value: object) -> str:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value)
    return f"{value:,}" if isinstance(value, int) else f"{value:,.3f}"


def _configure_why(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("what", nargs="*", metavar="WHAT", help="'worker N', or the path of an image")
    parser.add_argument(
        "--limit", type=at_least(1), default=200, metavar="N", help="at most so many, the last ones [200]"
    )
    parser.add_argument("--replay", metavar="TRACE", help="decide again what a trace (setting trace) has seen")


def _why(arguments: argparse.Namespace) -> int:
    what = arguments.what
    if len(what) == 1 and what[0].isdecimal() and not os.path.lexists(what[0]):
        what = ["worker", what[0]]
    if arguments.replay is not None:
        return _replay(arguments)
    if len(what) == 2 and what[0] == "worker":
        if not what[1].isdecimal():
            raise UsageError(f"'worker {what[1]}': the number of a slot is needed, as 'supervisor status' shows it")
        request = Why(slot=int(what[1]), limit=arguments.limit)
    elif len(what) == 1:
        request = Why(path=image_token(what[0]), limit=arguments.limit)
    else:
        raise UsageError(f"one image at a time, or 'worker N'; got {' '.join(what)!r}")
    with connect_or_read(arguments) as answerer:
        found = ask(answerer, request, Decisions).decisions
    return _print(arguments, found, f"no decision about {' '.join(what)} is known")


def _replay(arguments: argparse.Namespace) -> int:
    from supervisor.policy.replay import read_line, replay

    if arguments.what:
        raise UsageError(f"--replay takes a trace alone, not {' '.join(arguments.what)!r} beside it")
    with open(arguments.replay, "rb") as file:
        try:
            found = [_decision(number, each) for number, each in enumerate(replay(map(read_line, file)), 1)]
        except ValueError as error:
            raise UsageError(f"{arguments.replay}: {error}") from error
    return _print(arguments, found, "nothing would have been decided", lines=True)


def _decision(number: int, replayed: "Replayed") -> Decision:
    note = replayed.note
    return Decision(
        number=number,
        at=replayed.at,
        kind=note.kind,
        message=note.message,
        slot=note.slot,
        batch=None,
        path=None,
        figures=note.figures,
    )


def _configure_events(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--follow", "-f", action="store_true", help="go on with those to come, until interrupted")
    parser.add_argument("--topic", action="append", metavar="PREFIX", help="with --follow: worker.N, batch.ID or pool")
    parser.add_argument("--limit", type=at_least(0), default=20, metavar="N", help="so many of the last ones [20]")


def _events(arguments: argparse.Namespace) -> int:
    if not arguments.follow:
        with connect_or_read(arguments) as answerer:
            found = ask(answerer, Events(limit=arguments.limit), Decisions).decisions
        return _print(arguments, found, "no decision has been taken so far", lines=True)
    with connect(arguments) as client:
        for decision in client.follow(arguments.topic or [""], backlog=arguments.limit):
            if decision is not None:
                _print(arguments, [decision], "", lines=True)
    return 0


def _print(arguments: argparse.Namespace, found: list[Decision], nothing: str, *, lines: bool = False) -> int:
    if arguments.json and not lines:
        print_json([decision_row(decision) for decision in found])
        return 0
    for decision in found:
        if arguments.json:
            print_json(decision_row(decision))
        else:
            print(decision_text(decision), flush=True)
    if not found and not arguments.json:
        say(nothing)
    return 0


VERBS = {
    "why": Verb(_configure_why, _why, examples=_EXAMPLES),
    "events": Verb(_configure_events, _events, examples="  supervisor events --follow --topic pool --json"),
}
