"""What the cache does in quiet moments, a bounded piece at a time.

* `Rebuild`: a lost index is made again from what the first blob of each entry says
* `Sweep`: entries that expired or whose operation has another version now; blobs without an entry
* old shortcuts and places, the free pages of the file

Each `turn` does a little and tells whether there is more. Blobs are never swept while a rebuild is under way:
until then they are all there is.
"""

import time
from collections.abc import Iterator

from supervisor.mechanism.cache.blobs import ABOUT_ENDING, parse_name
from supervisor.mechanism.cache.index import Row, entry_key
from supervisor.mechanism.cache.records import About, pack, unpack, unpack_about
from supervisor.mechanism.cache.store import Store
from supervisor.policy.cache.entry import Entry, Key
from supervisor.policy.cache.keys import CacheStep

DIRECTORIES_A_TURN = 16
VACUUM_PAGES_A_TURN = 256
_REBUILD = "rebuild"


class Rebuild:
    """Makes entries from blobs; harmless to repeat."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._places: Iterator[str] = store.blobs.directories()
        self.restored = 0

    @property
    def needed(self) -> bool:
        """Whether the index is younger than the blobs."""
        return self._store.index.fact(_REBUILD) is not None

    def turn(self) -> bool:
        """Reads a few directories; False when all are read. Raises sqlite3.Error."""
        for _ in range(DIRECTORIES_A_TURN):
            place = next(self._places, None)
            if place is None:
                self._finish()
                return False
            for name, _ in self._store.blobs.names_in(place):
                self._restore(name)
        return True

    def _finish(self) -> None:
        index = self._store.index
        index.forget_fact(_REBUILD)
        if self.restored:
            self._store.complain(f"the cache's index was made anew: {self.restored:,} entries from their blobs")

    def _restore(self, name: str) -> None:
        parsed = parse_name(name)
        if parsed is None or parsed[2] != 0:
            return
        raw = self._store.blobs.description(name)
        about = unpack_about(raw) if raw is not None else None
        if about is None or about.step_key.hex()[:16] != parsed[1]:
            return
        self._insert(parsed[0], about)

    def _insert(self, content: bytes, about: About) -> None:
        store, record = self._store, about.record
        number = store.index.step_number(CacheStep(about.operation, about.version, about.step_key))
        if number is None or store.index.get(content, number) is not None:
            return
        size_bytes = record.output_bytes + len(record.values) + len(record.warnings)
        now = int(store.clock())
        entry = Entry(entry_key(content, number), size_bytes, about.cost_us / 1e6, about.made, now)
        if not store.make_room(size_bytes, 1) or not store.policy.admit(entry, now):
            return
        store.index.insert(content, number, Row(pack(record), None, size_bytes, about.cost_us, about.made), now)
        store.index.add_size(about.image_bytes)
        self.restored += 1


class Sweep:
    """Goes round and round over entries and blobs."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._after: Key = b""
        self._directories: Iterator[str] = iter(())
        self._walking_entries = True
        self.orphans_removed = 0

    def turn(self) -> bool:
        """Does a piece; False at the end of a round. Raises sqlite3.Error, OSError."""
        if self._walking_entries:
            if not self._sweep_entries():
                self._walking_entries = False
                self._directories = self._store.blobs.directories()
            return True
        for _ in range(DIRECTORIES_A_TURN):
            place = next(self._directories, None)
            if place is None:
                self._walking_entries = True
                self._round_off()
                return False
            self.orphans_removed += sweep_directory(self._store, place, self._store.settings.orphan_age_seconds)
        return True

    def _sweep_entries(self) -> bool:
        store, settings = self._store, self._store.settings
        now = store.clock()
        entries = store.index.walk(self._after, settings.sweep_rows_a_turn)
        culled = 0
        for entry in entries:
            if culled >= settings.culls_a_turn:
                return True
            self._after = entry.key
            if int.from_bytes(entry.key[-2:], "big") in store.retired or store.policy.expired(entry, now):
                store.cull(entry.key)
                culled += 1
        if len(entries) < settings.sweep_rows_a_turn:
            self._after = b""
            return False
        return True

    def _round_off(self) -> None:
        index, settings = self._store.index, self._store.settings
        before = int(self._store.clock() - settings.shortcut_age_seconds)
        for table in ("shortcuts", "placed"):
            index.drop_old(table, before, settings.limit_entries)
        index.drop_sizes(2 * settings.limit_entries)
        self._store.save_policy()
        self._store.commit()
        index.shrink_file(VACUUM_PAGES_A_TURN)


def sweep_directory(store: Store, place: str, age_seconds: float, *, keep: bool = False) -> int:
    """Deletes the blobs of a directory that no entry owns and that are older; returns how many there were.

    With `keep` they are only counted. Unfinished and foreign files go the same way.
    """
    found = 0
    # The files' own times are on the wall clock, whatever clock the store runs on.
    before = time.time() - age_seconds
    for file, mtime in store.blobs.names_in(place):
        if mtime > before or _owned(store, file):
            continue
        found += 1
        if not keep:
            store.blobs.remove_stray(place, file)
    return found


def _owned(store: Store, file: str) -> bool:
    name = file.removesuffix(ABOUT_ENDING)
    parsed = parse_name(name)
    if parsed is None:
        return False
    content, digits, at = parsed
    for number in store.index.steps_named(digits):
        row = store.index.get(content, number)
        if row is not None and row.value is None and at < len(unpack(row.record).outputs):
            return True
    return False
