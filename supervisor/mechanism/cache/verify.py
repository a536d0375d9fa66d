"""`cache verify`, `cache trim` and `cache clear`: the whole cache, a piece at a time, for a person who waits."""

from collections.abc import Generator
from typing import TypeVar

import msgspec

from supervisor.mechanism.cache.index import split_key
from supervisor.mechanism.cache.records import parts_of, unpack
from supervisor.mechanism.cache.store import Store
from supervisor.mechanism.cache.upkeep import Rebuild, sweep_directory
from supervisor.policy.cache.entry import Key
from supervisor.policy.cache.stats import Verification

ENTRIES_A_TURN = 256
T = TypeVar("T")


class Verifier:
    """Reads everything there is, in turns. With `repair`, what is damaged is dropped and orphans are deleted."""

    def __init__(self, store: Store, *, repair: bool) -> None:
        self._store, self._repair = store, repair
        self._after: Key = b""
        self._places = store.blobs.directories()
        self._entries_left = True
        self._entries = self._blobs = self._bytes = self._damaged = self._orphans = 0
        self._index = store.index.check()

    def turn(self) -> bool:
        """Does a piece; False when all was read. Raises sqlite3.Error."""
        if self._entries_left:
            entries = self._store.index.walk(self._after, ENTRIES_A_TURN)
            for entry in entries:
                self._after = entry.key
                self._check(entry.key, entry.size_bytes)
            self._entries_left = len(entries) == ENTRIES_A_TURN
            return True
        place = next(self._places, None)
        if place is None:
            if self._repair:
                self._store.index.recount()
                self._store.commit()
            return False
        # A blob without an entry is one that a running store may just be publishing: not before its age.
        age = self._store.settings.orphan_age_seconds
        self._orphans += sweep_directory(self._store, place, age, keep=not self._repair)
        return True

    def result(self) -> Verification:
        """Returns what was found."""
        return Verification(
            entries=self._entries,
            blobs=self._blobs,
            bytes=self._bytes,
            damaged=self._damaged,
            orphans=self._orphans,
            index=self._index,
            repaired=self._repair and bool(self._damaged or self._orphans),
        )

    def _check(self, key: Key, size_bytes: int) -> None:
        content, number = split_key(key)
        self._entries += 1
        self._bytes += size_bytes
        if self._sound(content, number):
            return
        self._damaged += 1
        if self._repair:
            self._store.drop_damaged(content, number)

    def _sound(self, content: bytes, number: int) -> bool:
        row = self._store.index.get(content, number)
        if row is None:
            return True  # culled meanwhile
        try:
            record = unpack(row.record)
        except msgspec.DecodeError:
            return False
        if row.value is not None:
            return parts_of(record, row.value) is not None
        step = self._store.index.steps.get(number)
        if step is None:
            return False
        blobs = self._store.blobs
        self._blobs += len(record.outputs)
        return all(
            blobs.sound(blobs.name(content, step.key, at), output.size_bytes, output.check)
            for at, output in enumerate(record.outputs)
        )


Verb = Generator[None, None, T]
"""A verb that gives way between its pieces; its return value is the answer."""


def verifying(store: Store, *, repair: bool) -> Verb[Verification]:
    """Verifies everything; a rebuild that is due is done first. Raises sqlite3.Error, OSError."""
    rebuild = Rebuild(store)
    while rebuild.needed and rebuild.turn():
        store.commit()
        yield
    verifier = Verifier(store, repair=repair)
    while verifier.turn():
        store.commit()
        yield
    store.commit()
    return verifier.result()


def trimming(store: Store, size_bytes: int) -> Verb[int]:
    """Culls by the policy until at most `size_bytes` are kept; returns the bytes that went. Raises sqlite3.Error."""
    before = store.index.bytes
    while store.index.bytes > size_bytes:
        entries = store.index.entries
        if not store.make_room(store.settings.limit_bytes - size_bytes, 0) and store.index.entries == entries:
            break
        store.commit()
        yield
    store.commit()
    return before - store.index.bytes


def clearing(store: Store) -> Verb[int]:
    """Empties the cache; returns the bytes that went. Raises sqlite3.Error, OSError."""
    before = store.index.bytes
    store.memory.trim("emergency")
    store.index.clear()
    store.commit()
    for place in store.blobs.directories():
        sweep_directory(store, place, age_seconds=0.0)
        yield
    store.forget_learned()
    store.index.shrink_file(1 << 30)
    return before


def run(verb: Verb[T]) -> T:
    """Does a verb at once and returns its answer: for a cache that nobody else uses."""
    while True:
        try:
            next(verb)
        except StopIteration as stop:
            answer: T = stop.value
            return answer
