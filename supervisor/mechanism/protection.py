"""The note that emergency protection leaves in the state directory: when it stopped supervisors there."""

import contextlib
import os
import time
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
    """Returns the stops that count for this start, and the number of workers it was configured with."""
    return Stops(in_a_row(read_note(state_directory).stops, time.time(), within_seconds), workers)


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
