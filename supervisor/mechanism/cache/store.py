"""The store: index, blobs, memory level and policy as one. Synchronous, for one thread.

The order of every change is what makes a death harmless. To keep: room is made, blobs are published, the entry is
inserted, the group is committed. To cull: the entry is deleted, the group is committed, then the blobs go. So a
death leaves at worst blobs without an entry, which the upkeep sweeps; an entry whose blob is gone or altered is
found on use and dropped. The limits hold at every moment: room is made before anything comes.
"""

import os
import sqlite3
import time
from collections.abc import Callable
from random import Random

import msgspec

from protocol import faults
from supervisor.mechanism.cache import schema
from supervisor.mechanism.cache.blobs import Blobs
from supervisor.mechanism.cache.copying import Cloner, read_whole
from supervisor.mechanism.cache.index import Index, Row, entry_key, split_key
from supervisor.mechanism.cache.memory import MemoryLevel, TrimLevel
from supervisor.mechanism.cache.records import Record, StoredOutput, check_of, parts_of, split, unpack
from supervisor.mechanism.cache.values import NewValue, publish_value
from supervisor.policy.cache.entry import Entry, Key
from supervisor.policy.cache.keys import CacheStep
from supervisor.policy.cache.settings import (
    DEFAULT_POLICY,
    POLICY_NAMES,
    CacheSettings,
    PolicyName,
    default_limit_bytes,
    make_policy,
)
from supervisor.policy.cache.sketch import SeenBefore
from supervisor.policy.cache.stats import CacheStats, StepTally, step_tallies

BLOB_DIRECTORY = "blobs"
MEMORY_READ_BYTES = 8 << 20
"""A blob up to this size is checked and copied from one read; a larger one is read twice, in pieces."""
_ROOM_ROUNDS = 64
_SAMPLES_FOR_LARGE = 4


class Got(msgspec.Struct, frozen=True):
    """An entry: inline with its outputs' bytes in `parts`, or with the `paths` of its blobs (not yet looked at)."""

    record: Record
    parts: list[bytes] | None
    paths: list[str]


def default_limit(directory: str, held_bytes: int = 0) -> int:
    """Returns 5 % of the free space of the file system that holds `directory`, at most 10 GB."""
    found = os.statvfs(directory)
    return default_limit_bytes(found.f_bavail * found.f_frsize, held_bytes)


class Store:
    """The cache in `directory` (made if need be). Open, use, commit in groups, close.

    Methods raise sqlite3.Error and OSError where the disk refuses. `complain` is told, as a sentence, what a
    person should know.
    """

    def __init__(
        self,
        directory: str,
        settings: CacheSettings,
        complain: Callable[[str], None],
        clock: Callable[[], float] = time.time,
        random: Random | None = None,
    ) -> None:
        os.makedirs(directory, mode=0o700, exist_ok=True)
        self.directory, self.settings, self.complain, self.clock = directory, settings, complain, clock
        self.random = random or Random()
        self.cloner = Cloner()
        self.blobs = Blobs(os.path.join(directory, BLOB_DIRECTORY), self.cloner)
        self.memory = MemoryLevel(settings.memory_bytes)
        self.damaged_found = 0
        self._condemned: set[str] = set()
        self.retired: set[int] = set()
        self._open()

    # ---- opening and closing

    def _open(self) -> None:
        path = os.path.join(self.directory, schema.INDEX_FILE)
        try:
            connection = schema.open_index(path)
        except schema.Damaged as damaged:
            aside = schema.set_aside(path, self.clock())
            self.complain(f"the cache's index was damaged ({damaged}): set aside as {aside}, made anew from the blobs")
            connection = schema.open_index(path)
        try:
            self.index = Index(connection, self.random)
            if self.index.fact("made") is None:  # new, whatever became of the one before
                self.index.keep("made", int(self.clock()))
                self.index.keep("rebuild", "from blobs")
            self._load_policy()
            self.index.commit()
        except BaseException:
            connection.close()
            raise

    def reopen_damaged(self, reason: str) -> None:
        """Sets the index aside while running, because a statement found it damaged, and begins anew."""
        self.index.abandon()
        path = os.path.join(self.directory, schema.INDEX_FILE)
        aside = schema.set_aside(path, self.clock())
        self.complain(f"the cache's index is damaged ({reason}): set aside as {aside}, made anew from the blobs")
        self.memory.trim("emergency")
        self._condemned.clear()
        self._open()

    def commit(self) -> None:
        """Ends a group: commits, then deletes the blobs of what was culled."""
        try:
            self.index.commit()
        except sqlite3.Error:
            self._condemned.clear()
            raise
        if self._condemned:
            faults.at("cull.committed")
            for name in self._condemned:
                self.blobs.remove(name)
            self._condemned.clear()

    def roll_back(self) -> None:
        """Undoes the group; blobs published meanwhile are orphans."""
        self._condemned.clear()
        self.index.roll_back()

    def close(self) -> None:
        """Writes hits and what the policy learned, closes the index."""
        try:
            self.index.write_touched()
            self.save_policy()
            self.commit()
        finally:
            self.index.close()

    # ---- reading

    def get(self, content: bytes, step: CacheStep) -> Got | None:
        """Returns an entry and counts the look-up. What turns out damaged is dropped and counts as a miss."""
        number = self.index.known_step(step.key)
        if number is None:
            return None
        key = entry_key(content, number)
        row = self.memory.get(key)
        got: Got | None = None
        if row is not None and row.value is not None:  # it was checked when it was taken in
            record = unpack(row.record)
            got = Got(record, split(record, row.value), [])
        elif (row := self.index.get(content, number)) is not None:
            got = self._read(content, number, row)
        if got is None:
            self.note_miss(key, number)
        else:
            self.note_hit(key, number)
        return got

    def inline_parts(self, content: bytes, number: int, record: Record) -> list[bytes] | None:
        """Returns the outputs of an inline entry by its record; None, and the entry dropped, where they are damaged."""
        key = entry_key(content, number)
        row = self.memory.get(key)
        if row is not None and row.value is not None:
            return split(record, row.value)
        row = self.index.get(content, number)
        parts = parts_of(record, row.value) if row is not None and row.value is not None else None
        if row is None or parts is None:
            self.drop_damaged(content, number)
            return None
        self.memory.put(key, row)
        return parts

    def open_blob(self, content: bytes, number: int, at: int, output: StoredOutput) -> tuple[int, bytes | None] | None:
        """Returns a descriptor of a blob that was just found sound, and its bytes unless it is very large.

        None, and the entry dropped, where it is missing, truncated or altered.
        """
        name = self.blobs.name(content, self.index.steps[number].key, at)
        try:
            descriptor = self.blobs.open(name, output.size_bytes)
        except ValueError:
            self.drop_damaged(content, number)
            return None
        try:
            if output.size_bytes <= MEMORY_READ_BYTES:
                whole = b"".join(read_whole(descriptor, output.size_bytes, MEMORY_READ_BYTES))
                if check_of(whole) == output.check:
                    return descriptor, whole
            elif self.blobs.sound(name, output.size_bytes, output.check):
                return descriptor, None
        except ValueError:
            pass  # cut while it was read
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)
        self.drop_damaged(content, number)
        return None

    def note_hit(self, key: Key, number: int) -> None:
        """Counts a hit, without a write."""
        now = self.clock()
        if self.index.touch(key, int(now)):
            self.index.write_touched()
        self.policy.hit(key, now)
        self.index.tally(number, self.policy.name).hits += 1

    def note_miss(self, key: Key | None, number: int) -> None:
        """Counts a miss: of something seen before, or a first sight (always one where the content is not known)."""
        tally = self.index.tally(number, self.policy.name)
        if key is None:
            tally.first_sights += 1
            return
        self.policy.missed(key, self.clock())
        if self.seen_before.test_and_add(key):
            tally.missed_again += 1
        else:
            tally.first_sights += 1

    # ---- keeping

    def put(self, content: bytes, step: CacheStep, new: NewValue) -> bool:
        """Keeps what a step made; False where there is no room for it or the policy wants none of it.

        Raises OSError, sqlite3.Error where the disk refuses, ValueError where an output is not what was said.
        """
        number = self.index.step_number(step)
        if number is None:
            return False
        if self.index.get(content, number) is not None:
            return True
        now = int(self.clock())
        size_bytes = new.size_bytes
        inline = size_bytes <= self.settings.inline_bytes
        entry = Entry(entry_key(content, number), size_bytes, new.cost_seconds, now, now, 0, inline)
        if not self.make_room(size_bytes, 1) or not self.policy.admit(entry, now):
            return False
        try:
            row = publish_value(self.blobs, self._condemned, content, step, new, now, inline=inline)
            self.index.insert(content, number, row, now)
            self.index.add_size(new.image_bytes)
        except BaseException:
            self.policy.forget(entry.key)
            raise
        self.seen_before.test_and_add(entry.key)
        self.index.tally(number, self.policy.name).stored += 1
        self.memory.put(entry.key, row)
        return True

    # ---- going

    def make_room(self, more_bytes: int, more_entries: int) -> bool:
        """Culls until so much more can be kept; False where that would take more than a turn's culling."""
        limit = self.settings
        if more_bytes > limit.limit_bytes or more_entries > limit.limit_entries:
            return False
        left = limit.culls_a_turn
        for _ in range(_ROOM_ROUNDS):
            bytes_needed = self.index.bytes + more_bytes - limit.limit_bytes
            entries_needed = self.index.entries + more_entries - limit.limit_entries
            if bytes_needed <= 0 and entries_needed <= 0:
                return True
            if left <= 0:
                return False
            victims = self.policy.victims(self._sample(), bytes_needed, entries_needed, self.clock())[:left]
            left -= len(victims)
            for key in victims:
                self.cull(key)
        return False

    def cull(self, key: Key) -> None:
        """Lets an entry go, for room or for its age."""
        content, number = split_key(key)
        if self._delete(content, number):
            self.seen_before.test_and_add(key)  # told again: it may have come before the filters' memory reaches
            self.index.tally(number, self.policy.name).culled += 1
        faults.at("cull.deleted")

    def drop_damaged(self, content: bytes, number: int) -> None:
        """Lets an entry go that is not what it was."""
        self.damaged_found += 1
        self._delete(content, number)

    def _delete(self, content: bytes, number: int) -> bool:
        key = entry_key(content, number)
        self.memory.drop(key)
        self.policy.forget(key)
        gone = self.index.delete(content, number)
        if gone is None:
            return False
        raw, in_blobs = gone
        if in_blobs:
            step = self.index.steps[number]
            count = len(unpack(raw).outputs)
            self._condemned.update(self.blobs.name(content, step.key, at) for at in range(count))
        return True

    def _sample(self) -> list[Entry]:
        """A sample with a large entry in it, if one is found soon: small values are kept."""
        sample = self.index.sample(self.settings.sample_entries)
        for _ in range(_SAMPLES_FOR_LARGE):
            if any(not entry.small for entry in sample):
                break
            known = {entry.key for entry in sample}
            more = self.index.sample(self.settings.sample_entries)
            sample += [entry for entry in more if entry.key not in known]
        return sample

    # ---- policy and figures

    def save_policy(self) -> None:
        """Writes what the policy learned."""
        self.index.keep(f"policy {self.policy.name}", self.policy.dump())
        self.index.keep("seen before", self.seen_before.dump())

    def forget_learned(self) -> None:
        """Begins the policy anew, as for an empty cache."""
        self.index.forget_fact(f"policy {self.policy.name}")
        self.index.forget_fact("seen before")
        self._load_policy()
        self.commit()

    def _load_policy(self) -> None:
        chosen = self.settings.policy or self.index.fact("policy")
        name: PolicyName = chosen if chosen in POLICY_NAMES else DEFAULT_POLICY
        self.policy = make_policy(name, self.settings)
        if isinstance(state := self.index.fact(f"policy {name}"), bytes):
            self.policy.load(state)
        self.seen_before = SeenBefore()
        if isinstance(state := self.index.fact("seen before"), bytes):
            self.seen_before.load(state)

    def choose(self, name: PolicyName) -> None:
        """Takes another policy from now on, also after a restart; what the one before learned is kept for its return.

        A policy that the settings name goes before it.
        """
        self.save_policy()
        self.index.keep("policy", name)
        self._load_policy()
        self.index.commit()

    def retire(self, versions: dict[str, int]) -> None:
        """Says which version each operation has now: entries of any other one are found no more and swept."""
        self.retired = {
            number
            for number, step in self.index.steps.items()
            if versions.get(step.operation, step.version) != step.version
        }

    def trim_memory(self, level: TrimLevel) -> int:
        """Shrinks the memory level to what the clean-up tier leaves; returns the bytes given back."""
        return self.memory.trim(level)

    def stats(self) -> CacheStats:
        """Returns the figures of `cache stats --json`."""
        tallies = self.index.tallies.values()
        hits, misses = sum(tally.hits for tally in tallies), sum(tally.misses for tally in tallies)
        return CacheStats(
            entries=self.index.entries,
            bytes=self.index.bytes,
            limit_bytes=self.settings.limit_bytes,
            hits=hits,
            misses=misses,
            hit_rate=round(hits / max(1, hits + misses), 4),
            policy=self.policy.name,
            culled=sum(tally.culled for tally in tallies),
            memory_entries=len(self.memory),
            memory_bytes=self.memory.bytes,
        )

    def step_tallies(self) -> list[StepTally]:
        """Returns the counts of every step under every policy it met."""
        return step_tallies(self.index.steps, self.index.tallies)

    def _read(self, content: bytes, number: int, row: Row) -> Got | None:
        try:
            record = unpack(row.record)
        except msgspec.DecodeError:
            self.drop_damaged(content, number)
            return None
        if row.value is None:
            key = self.index.steps[number].key
            names = [self.blobs.name(content, key, at) for at in range(len(record.outputs))]
            return Got(record, None, [self.blobs.path(name) for name in names])
        parts = parts_of(record, row.value)
        if parts is None:
            self.drop_damaged(content, number)
            return None
        self.memory.put(entry_key(content, number), row)
        return Got(record, parts, [])
