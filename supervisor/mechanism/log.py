"""The log: one line an event, on standard error, as text for people or JSON for machines, rate-limited by kind.

A thousand images that fail for one reason make a few lines and a count, not a thousand lines; the journal has them
all. What is written is a decision as its Note words it, and nothing else: no settings, no environment, no secret.
"""

import sys
import time
from collections.abc import Callable
from typing import Any, Literal, TextIO

import msgspec

from protocol.messages import Decision

Format = Literal["text", "json"]
Severity = Literal["debug", "info", "warning", "error"]
SEVERITIES: tuple[Severity, ...] = ("debug", "info", "warning", "error")

LINES_A_KIND = 20
"""Lines of one kind within PERIOD_SECONDS; the rest is counted."""
PERIOD_SECONDS = 10.0
SEVERITY_OF: dict[str, Severity] = {
    # Everyday adjustments: for `why` and `events`, not for a terminal.
    "handed_back": "debug", "shrunk": "debug", "trimmed": "debug", "stopped": "debug", "resumed_item": "debug",
    "collection": "debug",
    # Something was lost, refused, or had to be stopped by force: a person may want to know.
    "death": "warning", "charged": "warning", "lease_lost": "warning", "hard_limit": "warning", "timeout": "warning",
    "too_large": "warning", "widened": "warning", "crowded": "warning", "machine_error": "warning",
    "temp_full": "warning", "paused": "warning", "leak": "warning", "part_died": "warning", "part_limit": "warning",
    "alert": "warning",
    # It needs a person.
    "quarantined": "error", "start_failed": "error", "template_died": "error", "journal_stalled": "error",
    "protocol": "error", "stuck": "error", "emergency": "error", "protection": "error",
}  # fmt: skip
"""How much a kind of decision matters; what is not named is `info`."""


class Log:
    """Writes decisions of at least one severity, and lines that are always written."""

    def __init__(
        self,
        stream: TextIO | None = None,
        least: Severity = "info",
        form: Format = "text",
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._stream = stream if stream is not None else sys.stderr
        self._least = SEVERITIES.index(least)
        self._form = form
        self._clock = clock
        self._since: dict[str, float] = {}
        self._lines: dict[str, int] = {}

    def decision(self, decision: Decision) -> None:
        """Writes a decision, unless it matters too little or its kind has had its lines."""
        severity = SEVERITY_OF.get(decision.kind, "info")
        if SEVERITIES.index(severity) < self._least:
            return
        now = self._clock()
        if now - self._since.get(decision.kind, -PERIOD_SECONDS) >= PERIOD_SECONDS:
            held_back = self._lines.get(decision.kind, 0) - LINES_A_KIND
            if held_back > 0:
                text = f"{decision.kind}: {held_back} more like these ('supervisor events' has them all)"
                self._write(text, {"kind": "held_back", "severity": severity, "held_back": held_back})
            self._since[decision.kind] = now
            self._lines[decision.kind] = 0
        self._lines[decision.kind] += 1
        if self._lines[decision.kind] <= LINES_A_KIND:
            self._write(decision.message, _fields(decision, severity))

    def line(self, text: str, severity: Severity = "info") -> None:
        """Writes a line, whatever the least severity is."""
        self._write(text, {"kind": "note", "severity": severity})

    def _write(self, text: str, fields: dict[str, Any]) -> None:
        if self._form == "json":
            line = msgspec.json.encode({"at": round(time.time(), 3), **fields, "message": text}).decode()
        else:
            line = f"{time.strftime('%H:%M:%S')} {_one_line(text)}"
        try:
            self._stream.write(line + "\n")
            self._stream.flush()
        except (OSError, ValueError):
            pass  # nobody reads any more (a closed terminal): the journal has it


def _fields(decision: Decision, severity: Severity) -> dict[str, Any]:
    named = {name: getattr(decision, name) for name in ("slot", "batch", "path")}
    return {
        "kind": decision.kind,
        "severity": severity,
        **{name: value for name, value in named.items() if value is not None},
        "figures": {key: value for key, value in decision.figures.items() if isinstance(value, str | int | float)},
    }


def _one_line(text: str) -> str:
    """Control characters of file names must not act on a terminal."""
    return "".join(character if character.isprintable() else repr(character)[1:-1] for character in text)
