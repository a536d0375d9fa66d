"""The note that emergency protection leaves in the state directory: when it stopped supervisors there.

It is decided on at the very end of a run, when the threads that write have little time left. So it is written in the
chores thread while that serves, and by whoever closes where it was not: the next start depends on it.
"""

import contextlib
import os
import threading
import time
from collections.abc import Callable
from typing import NamedTuple

import msgspec

from supervisor.policy.protection_note import in_a_row

NOTE_NAME = "protection.json"
STOPS_MAX = 20
"""More stops in a row than halve any number of workers to one."""


class ProtectionNote(msgspec.Struct, frozen=True, kw_only=True):
    """`stops` are seconds since the epoch, in order."""

    stops: list[float] = []


def read_note(state_directory: str) -> ProtectionNote:
    """Returns what earlier runs left; nothing where there is no note, or none that can be read."""
    try:
        with open(os.path.join(state_directory, NOTE_NAME), "rb") as file:
            return msgspec.json.decode(file.read(64 * 1024), type=ProtectionNote)
    except (OSError, msgspec.DecodeError):
        return ProtectionNote()


class Stops(NamedTuple):
    """When emergency protection stopped supervisors here, one after the other (since the epoch), and how many workers
    there would be but for that."""

    at: list[float]
    workers_configured: int


def stops_before(state_directory: str, workers: int, within_seconds: float) -> Stops:
    """Returns the stops that count for this start, and the number of workers it was configured with. A note of which
    nothing counts any more (too old, or from a clock that was set back) is removed. Raises OSError."""
    noted = read_note(state_directory).stops
    stops = in_a_row(noted, time.time(), within_seconds)
    if noted and not stops:
        write_note(state_directory, [])
    return Stops(stops, workers)


def note_of(stops: Stops, workers: int) -> list[str]:
    """Returns what the start screen says of them, where this start is a smaller one for that."""
    if workers >= stops.workers_configured:
        return []
    reason = f"emergency protection stopped this supervisor {len(stops.at)} times in a row"
    smaller = f"it starts with {workers} workers instead of {stops.workers_configured}"
    return [f"{reason}: {smaller}; a calm run, or 'supervisor emergency reset --confirm', ends that"]


def write_note(state_directory: str, stops: list[float]) -> None:
    """Leaves a note, synced, or removes it where there is nothing to say. Raises OSError."""
    path = os.path.join(state_directory, NOTE_NAME)
    if not stops:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)
        return
    unfinished = f"{path}.new"
    with open(unfinished, "wb") as file:
        file.write(msgspec.json.encode(ProtectionNote(stops=stops[-STOPS_MAX:])))
        file.flush()
        os.fsync(file.fileno())
    os.replace(unfinished, path)


class NoteKeeper:
    """Has the last note asked for written, whatever becomes of the thread that was to do it."""

    def __init__(self, state_directory: str, complain: Callable[[str], None]) -> None:
        self._state_directory, self._complain = state_directory, complain
        self._wanted: list[float] | None = None
        self._lock = threading.Lock()

    def want(self, stops: list[float]) -> Callable[[], None]:
        """Takes a note over and returns the chore that writes it. Never blocks on the disk."""
        self._wanted = stops
        return self._write

    def close(self) -> None:
        """Writes what is not written yet; a disk that refuses is told."""
        try:
            self._write()
        except OSError as error:
            self._complain(f"the note of emergency protection cannot be written: {error}")

    def _write(self) -> None:
        with self._lock:
            stops = self._wanted
            if stops is None:
                return
            write_note(self._state_directory, stops)
            if self._wanted is stops:  # else a newer one came meanwhile, and has a chore of its own
                self._wanted = None
