"""`results`: what became of each image of a batch."""

import argparse
import sys
from typing import Any

import msgspec

from protocol.messages import ItemState
from supervisor.cli.find import connect_or_read, iter_results
from supervisor.cli.options import Verb
from supervisor.cli.output import say
from supervisor.cli.tell import failure_text, images, result_path
from supervisor.policy.sizes import human
from supervisor.values import show_duration

SETTLED: tuple[ItemState, ...] = ("done", "cached", "failed", "quarantined", "cancelled")
_EXAMPLES = """  supervisor results b1 --failed
  supervisor results b1 --jsonl | jq -r 'select(.state == "done") | .outputs[].path'"""


def _configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("batch", metavar="BATCH")
    parser.add_argument("--jsonl", "--json", dest="jsonl", action="store_true", help="one JSON object a line")
    parser.add_argument("--failed", action="store_true", help="only images that failed or were quarantined")
    parser.add_argument(
        "--only", dest="states", action="append", choices=SETTLED, help="only this state; may be repeated"
    )


def _run(arguments: argparse.Namespace) -> int:
    states: list[ItemState] = arguments.states or (["failed", "quarantined"] if arguments.failed else [])
    with connect_or_read(arguments) as answerer:
        found = iter_results(answerer, arguments.batch, states)
        if arguments.jsonl:
            out = sys.stdout.buffer
            for raw in found:
                out.write(raw + b"\n")
            out.flush()
            return 0
        number = 0
        for number, raw in enumerate(found, start=1):  # noqa: B007 - the last one is counted
            print(_line(msgspec.json.decode(raw)))
    say(images(number) if number else "no image has been settled so far")
    return 0


def _line(result: dict[str, Any]) -> str:
    state, path = str(result["state"]), result_path(result)
    if result.get("error"):
        return f"{state:<11} {failure_text(result)}"
    outputs, seconds, peak = result.get("outputs"), result.get("seconds"), result.get("peak_bytes")
    facts = [f"{len(outputs)} outputs"] if isinstance(outputs, list) and outputs else []
    if isinstance(seconds, int | float):
        facts.append(show_duration(seconds))
    if isinstance(peak, int) and peak:
        facts.append(human(peak))
    return f"{state:<11} {path}" + (f" ({', '.join(facts)})" if facts else "")


VERBS = {"results": Verb(_configure, _run, json=False, examples=_EXAMPLES)}
