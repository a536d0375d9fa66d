"""What libraries mutter while they work on an item: collected for its report, never printed, never carried on.

Python warnings, and the log records of Pillow and libvips (pyvips passes libvips's warnings to logging).
"""

import logging
import warnings
from types import TracebackType
from typing import Final

MOST: Final = 20
"""Distinct warnings kept of an item: a broken TIFF makes a thousand."""
_LENGTH: Final = 300


class Heard(logging.Handler):
    """Collects warnings between `with` and its end; `said` holds them in order, each once."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.said: dict[str, None] = {}
        self._python = warnings.catch_warnings(record=True)
        for name in ("PIL", "pyvips"):
            logger = logging.getLogger(name)
            logger.propagate = False  # else the interpreter prints them raw as a last resort
            logger.addHandler(self)

    def __enter__(self) -> "Heard":
        self.said = {}
        self._python = warnings.catch_warnings(record=True)
        self._log = self._python.__enter__()
        warnings.simplefilter("always")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for warning in self._log or ():
            self.say(str(warning.message))
        self._python.__exit__(kind, error, trace)

    def say(self, sentence: str) -> None:
        """Adds a warning of our own."""
        if len(self.said) < MOST:
            self.said[" ".join(sentence.split())[:_LENGTH]] = None

    def emit(self, record: logging.LogRecord) -> None:
        """Takes a log record of a library."""
        message = record.getMessage().removeprefix("VIPS: ")
        if not message.startswith("error in tile"):  # the sequel of a read that failed and was told already
            self.say(message)
