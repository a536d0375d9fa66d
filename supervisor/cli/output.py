"""What is printed: JSON and tables on standard output, words on standard error."""

import os
import sys
import time
from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from protocol.messages import Answer
from protocol.paths import describe, from_token, is_plain


def print_json(value: object) -> None:
    """Prints one JSON document as a line, at once."""
    import orjson

    sys.stdout.flush()
    sys.stdout.buffer.write(orjson.dumps(value, option=orjson.OPT_APPEND_NEWLINE))
    sys.stdout.buffer.flush()


def bare(answer: Answer) -> dict[str, Any]:
    """Returns an answer as JSON, without its envelope."""
    row: dict[str, Any] = msgspec.to_builtins(answer)
    for envelope in ("type", "v", "id"):
        row.pop(envelope, None)
    return row


def say(text: str) -> None:
    """Prints a line for people on standard error."""
    print(text, file=sys.stderr, flush=True)


def shown(token: str) -> str:
    """Returns a path token as people and terminals take it: the name's own bytes, control characters escaped."""
    name = os.fsdecode(from_token(token))
    if name.isprintable():
        return name
    return "".join(c if c.isprintable() or "\udc80" <= c <= "\udcff" else repr(c)[1:-1] for c in name)


def path_fields(token: str | None, name: str = "path") -> dict[str, str | None]:
    """Returns the JSON fields of a path token: `path`, and `path_b64` where it is not UTF-8."""
    if token is None or is_plain(token):
        return {name: token}
    return {name + key.removeprefix("path"): value for key, value in describe(token).items()}


def table(head: Sequence[str], rows: Iterable[Sequence[Any]], right: str = "") -> str:
    """Returns a table as text; the columns named in `right` (space separated) are set flush right."""
    cells = [list(head), *([("" if cell is None else str(cell)) for cell in row] for row in rows)]
    widths = [max(len(row[i]) for row in cells) for i in range(len(head))]
    flush_right = [name in right.split() for name in head]
    lines = []
    for row in cells:
        padded = (c.rjust(w) if r else c.ljust(w) for c, w, r in zip(row, widths, flush_right, strict=True))
        lines.append("  ".join(padded).rstrip())
    return "\n".join(lines)


def when(seconds: float | None) -> str:
    """Returns a date (seconds since the epoch) in local time; empty for None."""
    return "" if seconds is None else time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(seconds))
