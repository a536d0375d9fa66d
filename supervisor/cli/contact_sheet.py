"""`contact-sheet`: one picture for each directory of outputs, with all its thumbnails; needs no supervisor."""

import argparse
import os
import subprocess
import sys

from protocol.errors import MachineError, UsageError
from supervisor.cli.options import Verb
from supervisor.cli.output import print_json, say
from supervisor.cli.own import child_environment
from supervisor.policy.counted import counted


def _configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("directory", metavar="OUT", help="the outputs of a run")


def _run(arguments: argparse.Namespace) -> int:
    directory = arguments.directory
    if not os.path.isdir(directory):
        raise UsageError(f"{directory} is no directory; name the --out of a run that made thumbnails")
    command = [sys.executable, "-P", "-m", "workers.contact_sheet", os.path.abspath(directory)]
    made = subprocess.run(command, capture_output=True, env=child_environment())
    sheets = [line.split(b"\t", 1) for line in made.stdout.splitlines()]
    if made.returncode != 0:
        last = made.stderr.decode("utf-8", "replace").strip().splitlines()[-1:] or ["it said nothing"]
        raise MachineError(f"the contact sheets could not be made: {last[0]}")
    if not sheets:
        raise UsageError(f"there are no thumbnails below {directory}; name the --out of a run that made some")
    if arguments.json:
        print_json({"sheets": [{"path": os.fsdecode(path), "images": int(count)} for count, path in sheets]})
        return 0
    for count, path in sheets:
        say(f"{counted(int(count), 'image'):>11}  {os.fsdecode(path)}")
    return 0


VERBS = {"contact-sheet": Verb(_configure, _run, examples="  supervisor contact-sheet THUMBS")}
