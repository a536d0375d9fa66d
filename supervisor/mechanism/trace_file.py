"""The trace of the memory watch, for `why --replay`: lines appended to a file, up to a limit."""

from collections.abc import Callable

from supervisor.policy.sizes import MB, human

LIMIT_BYTES = 200 * MB
"""A busy pool makes some 10 KB a second: five hours. Then it is told once, and no more is kept."""


class TraceFile:
    """Appends lines; called by one thread. A file that cannot be written is told once."""

    def __init__(self, path: str | None, complain: Callable[[str], None], limit_bytes: int = LIMIT_BYTES) -> None:
        self._path, self._complain, self._limit_bytes = path, complain, limit_bytes

    def write(self, line: bytes) -> None:
        """Appends a line. Raises nothing."""
        if self._path is None:
            return
        try:
            with open(self._path, "ab") as file:
                if file.tell() + len(line) >= self._limit_bytes:
                    self._give_up(f"has reached {human(self._limit_bytes)}")
                    return
                file.write(line + b"\n")
        except OSError as error:
            self._give_up(f"cannot be written: {error.strerror}")

    def _give_up(self, why: str) -> None:
        self._complain(f"the trace {self._path} {why}: no more is kept")
        self._path = None
