"""The ring file of the memory history: a fixed size, written in place by the chores thread.

It is written without a sync: what the page cache holds survives the supervisor's death, and after a power cut the
last half minute of a curve is nothing that anybody was promised. A disk that refuses costs the file, not the history
in memory: it is said once.
"""

import os
import time
from collections.abc import Callable, Sequence

from protocol.errors import StateDirectoryUnusable
from protocol.messages import History as HistoryRequest
from protocol.messages import HistoryPage
from supervisor.policy.history import read_image


class HistoryFile:
    """The file at `path`. `complain` takes a sentence for people."""

    def __init__(self, path: str, complain: Callable[[str], None]) -> None:
        self._path = path
        self._complain = complain
        self._failed = False
        self._descriptor: int | None = None
        try:
            self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        except OSError as error:
            self._give_up(error)

    def read(self) -> bytes:
        """Returns what the run before left; nothing where it cannot be read."""
        return read_history(self._path)

    def write(self, pieces: Sequence[tuple[int, bytes]]) -> None:
        """Writes each piece at its place. What begins at 0 is all of it: the file gets that length."""
        if self._descriptor is None or self._failed:
            return
        try:
            for place, data in pieces:
                os.pwrite(self._descriptor, data, place)
                if place == 0:
                    os.ftruncate(self._descriptor, len(data))
        except OSError as error:
            self._give_up(error)

    def close(self) -> None:
        """Ends it."""
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            os.close(descriptor)

    def _give_up(self, error: OSError) -> None:
        self._failed = True
        self._complain(
            f"the memory history is kept in memory only: {self._path} cannot be written ({error.strerror or error}); "
            "after mending that, a restart keeps it on the disk again"
        )


def read_history(path: str) -> bytes:
    """Returns the bytes of a history file, none where there is none or it cannot be read."""
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError:
        return b""


def page_offline(path: str, request: HistoryRequest) -> HistoryPage:
    """Answers from the file, where no supervisor runs. Raises StateDirectoryUnusable: there is no history in it."""
    found = read_image(read_history(path))
    if found is None:
        raise StateDirectoryUnusable(
            f"no memory history here: {path} is missing, cannot be read or is none of ours; a supervisor makes it "
            "while it runs"
        )
    return found.page(request.id, request.since, request.resolution, request.limit, time.time())
