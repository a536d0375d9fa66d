"""`quarantine list|show|retry|drop`: images that killed their workers, with the evidence."""

import argparse
import os
from typing import Any

import msgspec

from protocol.errors import UsageError
from protocol.messages import QuarantineEntries, QuarantineEntry, QuarantineList
from supervisor.cli.find import ask, connect, connect_or_read
from supervisor.cli.options import Verb
from supervisor.cli.output import path_fields, print_json, say, shown, table, when
from supervisor.cli.why import image_token
from supervisor.policy.sizes import human

_EXAMPLES = """  supervisor quarantine list
  supervisor quarantine show photos/bad.tif
  supervisor quarantine retry photos/bad.tif"""


def _configure(parser: argparse.ArgumentParser) -> None:
    verbs = ("list", "show", "retry", "drop")
    parser.add_argument(
        "what", nargs="?", default="list", choices=verbs, help="retry also puts its items back to work [list]"
    )
    parser.add_argument("path", nargs="?", metavar="IMAGE")


def _run(arguments: argparse.Namespace) -> int:
    if arguments.what == "list":
        return _list(arguments)
    if arguments.path is None:
        raise UsageError(f"quarantine {arguments.what}: name the image, as 'supervisor quarantine list' shows it")
    if arguments.what == "show":
        return _show(arguments)
    with connect(arguments) as client:
        message = client.drop_quarantine(image_token(arguments.path), retry=arguments.what == "retry")
    if arguments.json:
        print_json({"message": message})
    say(message or "done")
    return 0


def _row(entry: QuarantineEntry) -> dict[str, Any]:
    return {**msgspec.to_builtins(entry), **path_fields(entry.path)}


def _list(arguments: argparse.Namespace) -> int:
    with connect_or_read(arguments) as answerer:
        entries = ask(answerer, QuarantineList(), QuarantineEntries).entries
    if arguments.json:
        print_json([_row(entry) for entry in entries])
    elif entries:
        rows = [(when(e.at), e.kind, human(e.size_bytes), e.recipe, shown(e.path)) for e in entries]
        print(table(("SINCE", "KIND", "SIZE", "RECIPE", "IMAGE"), rows, right="SIZE"))
    else:
        say("quarantine is empty")
    return 0


def _show(arguments: argparse.Namespace) -> int:
    token = image_token(arguments.path)
    with connect_or_read(arguments) as answerer:
        entries = ask(answerer, QuarantineList(path=token), QuarantineEntries).entries
    if not entries:
        raise UsageError(f"{os.fsdecode(os.fsencode(arguments.path))} is not in quarantine")
    if arguments.json:
        print_json([_row(entry) for entry in entries])
        return 0
    for entry in entries:
        print(f"{shown(entry.path)}\n  {entry.kind}: {entry.message}\n  since {when(entry.at)}, recipe {entry.recipe}")
        print(f"  file of {human(entry.size_bytes)}, changed {when(entry.mtime_ns / 1e9)}")
        for key, value in entry.evidence.items():
            print(f"  {evidence_line(key, value)}")
    return 0


def evidence_line(key: str, value: Any) -> str:
    """Returns one piece of evidence for people: sizes in their units, steps counted from one as in the messages."""
    if key == "rss_curve":
        return "memory before its end: " + ", ".join(f"{human(size)} at {seconds:g} s" for seconds, size in value)
    if key == "step":
        return f"step: {value + 1}"
    if key.endswith("_bytes"):
        return f"{key.removesuffix('_bytes').replace('_', ' ')}: {human(value)}"
    return f"{key.replace('_', ' ')}: {value}"


VERBS = {"quarantine": Verb(_configure, _run, examples=_EXAMPLES)}
