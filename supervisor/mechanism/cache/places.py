"""Which outputs stand where, so that a second run over a gallery reads nothing.

A place is an item's outputs together: the output directory, the stem and the steps, as one number. What is kept
of it: the content they were made from, and size and modification time of each output as it was left.
"""

import hashlib
import os
import stat
import struct
from collections.abc import Sequence

from protocol import faults, paths
from supervisor.mechanism.cache.index import FoundStep
from supervisor.mechanism.cache.store import Store
from supervisor.policy.cache.asked import FileStamp
from supervisor.policy.cache.keys import CacheStep

PLACE_STAT = struct.Struct("<qq")
_CONTENT_BYTES = 8
"""Enough to tell one content from another at the same place."""


def place_key(out: str | None, stem: str, steps: Sequence[CacheStep]) -> int:
    """Returns the number of a place, at least 0 and below 2^63."""
    text = b"\0".join([(out or "").encode(), stem.encode(), *(step.key for step in steps)])
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "big") >> 1


def output_stem(out: str | None, stem: str) -> bytes | None:
    """Returns the path that outputs are named after; None where there is no such, or it leads outside `out`."""
    if out is None:
        return None
    try:
        base, raw = paths.from_token(out), paths.from_token(stem)
    except ValueError:
        return None
    parts = raw.split(b"/")
    if not base or b"\0" in base + raw or any(part in (b"", b".", b"..") for part in parts):
        return None
    return os.path.join(base, raw)


def in_place(finals: Sequence[bytes], content: bytes, placed: bytes) -> bool:
    """Tells whether every output is there, as it was left, made from this content."""
    if len(placed) != _CONTENT_BYTES + PLACE_STAT.size * len(finals) or not placed.startswith(content[:_CONTENT_BYTES]):
        return False
    stats = PLACE_STAT.iter_unpack(placed[_CONTENT_BYTES:])
    return all(_stat(final) == left for final, left in zip(finals, stats, strict=True))


def _stat(final: bytes) -> tuple[int, int] | None:
    try:
        found = os.lstat(final)
    except OSError:
        return None
    return (found.st_size, found.st_mtime_ns) if stat.S_ISREG(found.st_mode) else None


class Places:
    """Gathers what is to be written of a group's places and shortcuts."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._noted: list[tuple[int, bytes, int]] = []
        self._shortcuts: list[tuple[int, int, int]] = []
        self._seen: list[tuple[int, int]] = []
        self._new_shortcuts: list[tuple[FileStamp, bytes]] = []

    def note(self, place: int, content: bytes, finals: Sequence[bytes]) -> None:
        """Keeps how the outputs were left; where one is gone again already, nothing is kept."""
        stats = [_stat(final) for final in finals]
        found = [one for one in stats if one is not None]
        if len(found) == len(stats) and found:
            packed = content[:_CONTENT_BYTES] + b"".join(PLACE_STAT.pack(*one) for one in found)
            self._noted.append((place, packed, int(self._store.clock())))

    def note_shortcut(self, stamp: FileStamp, content: bytes) -> None:
        """Keeps which content a file has."""
        self._new_shortcuts.append((stamp, content))

    def renew(self, asked: tuple[int, int, int], row: FoundStep, now: int, after_seconds: int) -> None:
        """Keeps that a shortcut and a place were of use, unless that is known well enough."""
        if row.shortcut_seen is not None and now - row.shortcut_seen > after_seconds:
            self._shortcuts.append((now, asked[0], asked[1]))
        if row.placed_seen is not None and now - row.placed_seen > after_seconds:
            self._seen.append((now, asked[2]))

    def write(self) -> None:
        """Writes what was gathered into the store's open group; it is gathered no more, whether or not that worked."""
        noted, new, shortcuts, seen = self._noted, self._new_shortcuts, self._shortcuts, self._seen
        self._noted, self._new_shortcuts, self._shortcuts, self._seen = [], [], [], []
        index, now = self._store.index, int(self._store.clock())
        for stamp, content in new:
            index.add_shortcut(stamp, content, now)
        if noted:
            index.add_placed(noted)
            faults.at("placed.noted")
        if shortcuts or seen:
            index.see_again(shortcuts, seen)
