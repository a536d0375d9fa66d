"""Looks groups of items up, and puts what is found where it belongs.

The whole group costs one statement. An item whose file is known by its stat, and whose outputs stand in place
just as they were left, is settled by a handful of stat(2) calls: no file is opened. Where outputs are gone they
are delivered; everything an item needs is opened and checked before the first of its outputs is, so that an item
is delivered whole or left to a worker.

A file that is not known by its stat may be a moved or copied one. It is worth reading only where a known image
has exactly its size; `hash_later` of the answer names those, and `resolve` goes on once they are hashed.
"""

import hashlib
import os
import sqlite3
import stat
from collections import Counter
from collections.abc import Iterable, Sequence

import msgspec

from protocol import paths
from supervisor.mechanism.cache.delivering import Deliverer
from supervisor.mechanism.cache.index import FoundStep, entry_key
from supervisor.mechanism.cache.places import Places, in_place, output_stem, place_key
from supervisor.mechanism.cache.records import Record, unpack
from supervisor.mechanism.cache.schema import is_damage
from supervisor.mechanism.cache.store import Store
from supervisor.policy.cache.asked import CacheHit, CacheMiss, FileStamp, LookUpItems, Wanted
from supervisor.policy.cache.entry import Entry
from supervisor.policy.cache.keys import CacheStep

_encode = msgspec.json.Encoder().encode
RENEW_SECONDS = 86_400
"""A shortcut or place that is used has its age renewed once a day: a write per read would be too much."""


class HashLater(msgspec.Struct, frozen=True):
    """An item whose file must be read to know whether it is found."""

    command: LookUpItems
    wanted: Wanted
    stamp: FileStamp


class Answers(msgspec.Struct):
    """What a group came to."""

    hits: list[CacheHit]
    misses: list[CacheMiss]
    hash_later: list[HashLater]


class _Step(msgspec.Struct, frozen=True):
    """A step's entry of one content, not yet looked into."""

    number: int
    record: Record
    in_blobs: bool
    cost_us: int


class _Ready(msgspec.Struct):
    """An output that was opened or read, and checked."""

    final: bytes
    size_bytes: int
    content: bytes | None
    source: int | None
    blob: bytes


class Finder:
    """Answers look-ups from a store; not thread safe."""

    def __init__(self, store: Store, deliverer: Deliverer) -> None:
        self._store = store
        self._deliverer = deliverer
        self._places = Places(store)

    def look_up(self, command: LookUpItems) -> Answers:
        """Looks a whole group up. Raises sqlite3.Error where the index refuses."""
        answers = Answers([], [], [])
        numbers = [self._store.index.known_step(step.key) for step in command.steps]
        known = [number for number in numbers if number is not None and number not in self._store.retired]
        items, stamps, asked = [], [], []
        for wanted in command.items:
            stamp = stamp_of(wanted.path)
            if stamp is None:
                answers.misses.append(CacheMiss(wanted.id, "", _identity(wanted.path, command)))
                continue
            items.append(wanted)
            stamps.append(stamp)
            asked.append((stamp.device, stamp.inode, place_key(command.out, wanted.stem, command.steps)))
        if not items:
            return answers
        rows: list[list[FoundStep]] = [[] for _ in items]
        for row in self._store.index.look_up(asked, known):
            rows[row.number].append(row)
        strangers = [at for at, found in enumerate(rows) if not _same_file(found[0], stamps[at])]
        sizes = self._store.index.known_sizes(stamps[at].size_bytes for at in strangers) if strangers else set()
        twins = _more_than_once(stamps[at].size_bytes for at in strangers)
        complete = len(known) == len(command.steps)
        now = int(self._store.clock())
        for at, (wanted, stamp, found) in enumerate(zip(items, stamps, rows, strict=True)):
            if not _same_file(found[0], stamp):
                # Of one size with an image in the cache, or with another new one: worth a look at its bytes.
                may_be_copy = (complete and stamp.size_bytes in sizes) or stamp.size_bytes in twins
                self._stranger(command, wanted, stamp, answers, may_be_copy=may_be_copy)
                continue
            content = bytes.fromhex(found[0].content)
            self._places.renew(asked[at], found[0], now, RENEW_SECONDS)
            steps = self._steps_of(command, numbers, found) if complete else None
            placed = bytes.fromhex(found[0].placed)
            self._settle(command, wanted, content, steps, numbers, asked[at][2], placed, answers)
        self._write_places()
        return answers

    def resolve(self, later: HashLater, content: bytes | None) -> Answers:
        """Goes on with an item whose content is now known (None: its file could not be read, or changed)."""
        answers = Answers([], [], [])
        command, wanted = later.command, later.wanted
        numbers = [self._store.index.known_step(step.key) for step in command.steps]
        if content is None:
            self._count_misses(None, command)
            answers.misses.append(CacheMiss(wanted.id, "", _identity(wanted.path, command)))
            return answers
        known = [number for number in numbers if number is not None and number not in self._store.retired]
        steps: list[_Step] | None = []
        rows = self._store.index.entries_of(content, known)
        for number in numbers:
            row = rows.get(number) if number is not None else None
            if row is None or number is None or steps is None:
                steps = None
                break
            steps.append(_Step(number, unpack(row.record), row.value is None, row.cost_us))
        if steps is not None and command.strict and any(step.record.warnings != b"[]" for step in steps):
            steps = None
        self._places.note_shortcut(later.stamp, content)
        key = place_key(command.out, wanted.stem, command.steps)
        self._settle(command, wanted, content, steps, numbers, key, b"", answers)
        self._write_places()
        return answers

    def _write_places(self) -> None:
        """What is found is found, whether or not the disk takes a note of it."""
        try:
            self._places.write()
        except sqlite3.Error as error:
            if is_damage(error):
                raise
            self._store.roll_back()

    def _stranger(
        self, command: LookUpItems, wanted: Wanted, stamp: FileStamp, answers: Answers, *, may_be_copy: bool
    ) -> None:
        if may_be_copy:
            answers.hash_later.append(HashLater(command, wanted, stamp))
            return
        self._count_misses(None, command)
        answers.misses.append(CacheMiss(wanted.id, "", _identity(_encode(stamp), command)))

    def _steps_of(
        self, command: LookUpItems, numbers: Sequence[int | None], found: Sequence[FoundStep]
    ) -> list[_Step] | None:
        """Returns the entries of all steps in order, None unless each is there and may be used."""
        by_number = {row.step: row for row in found}
        steps = []
        for number in numbers:
            row = by_number.get(number)
            if number is None or row is None or row.made is None or row.bytes is None or row.cost_us is None:
                return None
            entry = Entry(b"", row.bytes, 0.0, row.made, row.made)
            record = unpack(bytes.fromhex(row.record))
            if self._store.policy.expired(entry, self._store.clock()):
                return None
            if command.strict and record.warnings != b"[]":
                return None
            steps.append(_Step(number, record, not row.inline, row.cost_us))
        return steps

    def _settle(
        self,
        command: LookUpItems,
        wanted: Wanted,
        content: bytes,
        steps: list[_Step] | None,
        numbers: Sequence[int | None],
        place: int,
        placed: bytes,
        answers: Answers,
    ) -> None:
        written = self._outputs(command, wanted, content, steps, place, placed) if steps is not None else None
        if steps is None or written is None:
            self._count_misses(content, command)
            answers.misses.append(CacheMiss(wanted.id, content.hex(), _identity(content, command)))
            return
        for step in steps:
            self._store.note_hit(entry_key(content, step.number), step.number)
        detail = self._detail(command, wanted, steps)
        seconds = sum(step.cost_us for step in steps) / 1e6
        answers.hits.append(CacheHit(wanted.id, detail, written, seconds))

    def _outputs(
        self, command: LookUpItems, wanted: Wanted, content: bytes, steps: list[_Step], place: int, placed: bytes
    ) -> list[str] | None:
        """Sees to it that every output stands in place; returns the tokens of those written, None for a miss."""
        count = sum(len(step.record.outputs) for step in steps)
        if count == 0:
            return []
        stem = output_stem(command.out, wanted.stem)
        if stem is None:
            return None
        finals = [b"%b.%b" % (stem, output.suffix.encode()) for step in steps for output in step.record.outputs]
        if in_place(finals, content, placed):
            return []
        written = self._deliver(content, steps, finals, replace=command.overwrite or wanted.owned)
        if written is not None:
            self._places.note(place, content, finals)
        return written

    def _deliver(self, content: bytes, steps: list[_Step], finals: list[bytes], *, replace: bool) -> list[str] | None:
        ready = self._make_ready(content, steps, finals)
        if ready is None:
            return None
        new: list[bytes] = []
        try:
            for one in ready:
                outcome = self._deliverer.deliver(
                    one.final, one.content, one.source, one.size_bytes, replace=replace, link=one.blob
                )
                if outcome == "occupied":
                    self._take_back(new, replace=replace)
                    return None
                if outcome == "written":
                    new.append(one.final)
        except OSError:
            # The output's disk refuses, or its directory: a worker meets the same and says it as it should be said.
            self._take_back(new, replace=replace)
            return None
        finally:
            for one in ready:
                if one.source is not None:
                    os.close(one.source)
        return [paths.to_token(one.final) for one in ready]

    def _make_ready(self, content: bytes, steps: list[_Step], finals: list[bytes]) -> list[_Ready] | None:
        ready: list[_Ready] = []
        for step in steps:
            rest = finals[len(ready) :]
            more = self._ready_step(content, step, rest)
            if more is None:
                for one in ready:
                    if one.source is not None:
                        os.close(one.source)
                return None
            ready += more
        return ready

    def _ready_step(self, content: bytes, step: _Step, finals: list[bytes]) -> list[_Ready] | None:
        store, outputs = self._store, step.record.outputs
        if not step.in_blobs:
            parts = store.inline_parts(content, step.number, step.record)
            if parts is None:
                return None
            return [_Ready(final, len(part), part, None, b"") for final, part in zip(finals, parts, strict=False)]
        ready: list[_Ready] = []
        key = store.index.steps[step.number].key
        for at, output in enumerate(outputs):
            found = store.open_blob(content, step.number, at, output)
            if found is None:
                for one in ready:
                    os.close(one.source or -1)
                return None
            blob = os.fsencode(store.blobs.path(store.blobs.name(content, key, at)))
            link = blob if store.settings.hard_links else b""
            ready.append(_Ready(finals[at], output.size_bytes, found[1], found[0], link))
        return ready

    def _take_back(self, new: list[bytes], *, replace: bool) -> None:
        """Removes what was delivered of an item that a worker will now do; where it may replace, it will."""
        for final in new:
            if not replace:
                try:
                    os.unlink(final)
                except OSError:
                    pass  # somebody was faster: the worker compares what stands there

    def _detail(self, command: LookUpItems, wanted: Wanted, steps: list[_Step]) -> bytes:
        outputs: list[dict[str, object]] = []
        values: dict[str, bytes] = {}
        warnings: list[bytes] = []
        base = paths.join(command.out or "", wanted.stem)
        plain = paths.is_plain(base)
        for asked, step in zip(command.steps, steps, strict=True):
            for output in step.record.outputs:
                path = f"{base}.{output.suffix}" if plain else _suffixed(base, output.suffix)
                outputs.append({
                    "step": asked.operation, **paths.describe(path), "width": output.width,
                    "height": output.height, "bytes": output.size_bytes,
                })  # fmt: skip
            if step.record.values != b"{}":
                values[asked.operation] = _merged(values.get(asked.operation), step.record.values)
            if step.record.warnings != b"[]" and step.record.warnings not in warnings:
                warnings.append(step.record.warnings)
        told = b",".join(b"%b:%b" % (_encode(name), value) for name, value in values.items())
        said = warnings[0] if len(warnings) == 1 else _encode(_all_of(warnings))
        return b'{"error":null,"outputs":%b,"values":{%b},"warnings":%b}' % (_encode(outputs), told, said)

    def _count_misses(self, content: bytes | None, command: LookUpItems) -> None:
        for step in command.steps:
            number = self._numbered(step)
            if number is not None:
                self._store.note_miss(entry_key(content, number) if content is not None else None, number)

    def _numbered(self, step: CacheStep) -> int | None:
        """Returns a step's number, made if need be: its misses count before anything of it is kept."""
        try:
            return self._store.index.step_number(step)
        except sqlite3.Error as error:
            if is_damage(error):
                raise
            self._store.roll_back()
            return None  # a full disk, where a look-up that finds nothing is no news


def _more_than_once(sizes: Iterable[int]) -> set[int]:
    return {size for size, count in Counter(sizes).items() if count > 1}


def stamp_of(path: bytes) -> FileStamp | None:
    """Returns what stat(2) says of a regular file, None for anything else."""
    try:
        found = os.stat(path)
    except (OSError, ValueError):
        return None
    if not stat.S_ISREG(found.st_mode):
        return None
    return FileStamp(found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)


def _same_file(row: FoundStep, stamp: FileStamp) -> bool:
    return row.size == stamp.size_bytes and row.mtime_ns == stamp.mtime_ns and row.ctime_ns == stamp.ctime_ns


def _identity(what: bytes, command: LookUpItems) -> bytes:
    """The same bytes for the same image under the same steps."""
    return hashlib.blake2b(b"".join([what, *(step.key for step in command.steps)]), digest_size=16).digest()


def _suffixed(base: str, suffix: str) -> str:
    return paths.to_token(paths.from_token(base) + b"." + suffix.encode())


def _merged(before: bytes | None, more: bytes) -> bytes:
    """Two steps of one operation: their values together, the later one's where both have a name."""
    if before is None:
        return more
    return _encode({**msgspec.json.decode(before), **msgspec.json.decode(more)})


def _all_of(lists: list[bytes]) -> list[object]:
    return list(dict.fromkeys(warning for each in lists for warning in msgspec.json.decode(each)))
