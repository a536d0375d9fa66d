"""The command line: a client like any other, save for `start`.

A contract that others script against: exit codes, JSON on standard output, words and bars on standard
error. Each verb is imported when it is asked for, so that `supervisor status` in a loop stays cheap; what
is heavy (progress bars, SQLite) is imported by the verb that needs it.

* `options`    flags that several verbs share, made from the table of settings
* `output`     JSON, tables and one-line errors
* `find`       the supervisor of a state directory, or its journal where none runs
* `sources`, with `supervisor.walk` and `supervisor.naming`   which files are meant, and what their outputs are called
* `submission` a job given to a supervisor
* `tell`       the story of a batch: bar, rows, summary
* the others   one verb or a family of verbs each
"""

import os
import sys
from collections.abc import Sequence
from importlib import import_module

from protocol.errors import GalleryError
from supervisor import __version__

VERBS = {
    "demo": ("demo", "see it work, on a gallery and with trouble made for it"),
    "start": ("start", "run a supervisor in the foreground"),
    "stop": ("stop", "drain and stop the supervisor"),
    "run": ("run", "process images, from start to summary"),
    "submit": ("submit", "give images to a running supervisor"),
    "wait": ("batches", "wait until batches are finished"),
    "batches": ("batches", "list the batches"),
    "show": ("batches", "show one batch"),
    "results": ("results", "what became of each image of a batch"),
    "report": ("report", "what running a batch was like: text, JSON or one HTML page"),
    "cancel": ("batches", "cancel what a batch has not started"),
    "retry": ("batches", "put failed images of a batch back to work"),
    "pause": ("batches", "pause a batch, or all work"),
    "resume": ("batches", "end a pause"),
    "status": ("status", "the supervisor and its workers at this moment"),
    "top": ("top", "the same, live, with keys to act"),
    "health": ("health", "exit 0 when ready, 1 when not, 3 when nobody is there"),
    "monitor": ("monitor", "memory, live: a line a second"),
    "stress": ("stress", "fill memory on purpose and see what the supervisor does about it"),
    "leak-test": ("leak_test", "run many images and judge whether memory grows"),
    "memory": ("memory", "who holds what, thresholds, leases, leaks, stores"),
    "emergency": ("emergency", "clean-ups by hand: cleanup, gc, status, reset, protection"),
    "why": ("why", "the decisions about a worker or an image, with their figures"),
    "events": ("why", "the last decisions; --follow for those to come"),
    "leaks": ("leaks", "what grows: operations, workers; where memory is heading; what trimming gives"),
    "history": ("history", "memory over time, also as a picture"),
    "quarantine": ("quarantine", "images that killed their workers"),
    "temp": ("temp", "the workers' temp files: stats, reap"),
    "cache": ("cache", "results kept by content: stats, trim, clear, verify, policy"),
    "contact-sheet": ("contact_sheet", "a picture of all thumbnails for each directory of outputs"),
    "duplicates": ("duplicates", "groups of near-duplicate images"),
    "recipes": ("settings", "list the recipes"),
    "config": ("settings", "show or check the settings"),
    "doctor": ("doctor", "check this machine and installation"),
    "help": ("topics", "a section of the manual: memory, cache, recipes, wire, deployment ..."),
    "completion": ("topics", "a completion script for bash, zsh or tcsh"),
}
"""Verb: (module that has it, what it does)."""

_HELP = """usage: supervisor VERB [...]        'supervisor VERB --help' tells more, 'supervisor help' explains

Runs image work over large galleries in small memory. Begin with
  supervisor demo
  supervisor run PHOTOS --out THUMBS

{verbs}

Every setting is a flag, a variable SUPERVISOR_* and a key of supervisor.toml, in that order.
Exit codes: 0 well, 1 some images failed, 2 wrong use, 3 no supervisor, 4 refused, 5 waited too long,
70 our fault, 75 stopped by emergency protection, 130 interrupted."""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one verb and returns its exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="surrogateescape" if stream is sys.stdout else "backslashreplace")
    try:
        code = _dispatch(words)
        sys.stdout.flush()
        return code
    except BrokenPipeError:
        # Whoever read us (head, less) has seen enough; the interpreter must not complain when it flushes.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    except GalleryError as error:
        return _failed(words, error, str(error), error.exit_code)
    except OSError as error:
        return _failed(words, error, f"{error.strerror or error}: {error.filename or ''}".rstrip(": "), 70)
    except Exception as error:
        return _failed(words, error, f"a fault of ours, {type(error).__name__}: {error} (--debug tells where)", 70)


def _dispatch(words: list[str]) -> int:
    if not words or words[0] in ("-h", "--help"):
        width = max(map(len, VERBS))
        verbs = "\n".join(f"  {verb:<{width}}  {text}" for verb, (_, text) in VERBS.items())
        print(_HELP.format(verbs=verbs), file=sys.stdout if words else sys.stderr)
        return 0 if words else 2
    if words[0] in ("-V", "--version"):
        print(f"supervisor {__version__}")
        return 0
    if words[0] not in VERBS:
        print(f"supervisor: there is no verb {words[0]!r}{_nearest(words[0])}", file=sys.stderr)
        return 2
    module, text = VERBS[words[0]]
    verb = import_module(f"supervisor.cli.{module}").VERBS[words[0]]
    parser = verb.parser(words[0], text)
    try:
        arguments = parser.parse_args(words[1:])
    except SystemExit as leaving:
        return int(leaving.code or 0)
    result: int = verb.run(arguments)
    return result


def _nearest(word: str) -> str:
    import difflib

    near = difflib.get_close_matches(word, VERBS, 1)
    return f"; do you mean {near[0]!r}?" if near else "; 'supervisor --help' lists them"


def _failed(words: list[str], error: Exception, message: str, code: int) -> int:
    if "--debug" in words:
        import traceback

        traceback.print_exception(error)
    for line in message.splitlines():
        print(f"supervisor: {line}", file=sys.stderr)
    return code
