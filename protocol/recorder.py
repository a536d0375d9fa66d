"""The flight recorder: which image a worker touches, written before it is touched.

One file in the state directory, one page of RECORD_BYTES a slot, mapped shared by the worker that owns
the slot and by the supervisor. It outlives both (the page cache holds it), so the culprit of a crash is
read, not guessed. A record is written under a sequence number that is odd while it is being changed; a
record whose number stays odd (the worker died inside the update) still names the item, because the item
is written before anything else.

Layout of a page, little-endian:
    0  u64 sequence    8  u64 incarnation   16  i64 item (0: none)   24  f64 started (CLOCK_MONOTONIC)
   32  i32 step       36  u32 path length   40  u32 partial length   44  u32 items done
   48  u64 size in bytes    56  i64 mtime in ns (both of the image, once it was looked at)
   64  path token (UTF-8, at most 3,968 bytes)      4032  recipe version (UTF-8, NUL-padded, 64 bytes)
 4096  path of the partial output (at most 4,096 bytes)
"""

import mmap
import os
import struct

import msgspec

RECORD_BYTES = 8192
READS_AT_MOST = 8
"""A change takes a worker a microsecond, a read no longer."""
_HEADER = struct.Struct("<QQqdiIIIQq")
_PATH_AT, _PATH_LIMIT = 64, 3968
_VERSION_AT, _VERSION_LIMIT = 4032, 64
_PARTIAL_AT, _PARTIAL_LIMIT = 4096, 4096
_SEQUENCE = struct.Struct("<Q")
_BEGIN = struct.Struct("<qdiII")
_STEP = struct.Struct("<i")
_PARTIAL_LENGTH = struct.Struct("<I")
_DONE = struct.Struct("<I")
_STAT = struct.Struct("<Qq")


class Record(msgspec.Struct, frozen=True):
    """What a page says. `item` is 0 when none is in progress."""

    incarnation: int
    item: int
    started: float
    step: int
    path: str
    partial: bytes
    items_done: int
    size_bytes: int = 0
    mtime_ns: int = 0
    version: str = ""


def create(path: str, slots: int) -> None:
    """Makes the file, or makes it long enough for `slots`; keeps what earlier workers recorded."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        if os.fstat(descriptor).st_size < slots * RECORD_BYTES:
            os.ftruncate(descriptor, slots * RECORD_BYTES)
    finally:
        os.close(descriptor)


class _Mapping:
    def __init__(self, path: str, length: int, offset: int) -> None:
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        try:
            self._map = mmap.mmap(descriptor, length, offset=offset)
        finally:
            os.close(descriptor)

    def close(self) -> None:
        self._map.close()


class Recorder(_Mapping):
    """The worker's side: writes its own page."""

    def __init__(self, path: str, slot: int, incarnation: int) -> None:
        super().__init__(path, RECORD_BYTES, slot * RECORD_BYTES)
        self._sequence = 0
        self._items_done = 0
        _HEADER.pack_into(self._map, 0, 0, incarnation, 0, 0.0, -1, 0, 0, 0, 0, 0)

    def begin(self, item: int, path: str, now: float) -> None:
        """Names the image about to be touched; `now` is CLOCK_MONOTONIC, in seconds."""
        raw = path.encode("utf-8")[:_PATH_LIMIT]
        self._sequence += 2
        _SEQUENCE.pack_into(self._map, 0, self._sequence - 1)
        _BEGIN.pack_into(self._map, 16, item, now, 0, len(raw), 0)
        _STAT.pack_into(self._map, 48, 0, 0)
        self._map[_PATH_AT : _PATH_AT + len(raw)] = raw
        _SEQUENCE.pack_into(self._map, 0, self._sequence)

    def recipe(self, version: str) -> None:
        """Names the operation versions of the lease's recipe."""
        raw = version.encode("utf-8")[:_VERSION_LIMIT]
        self._map[_VERSION_AT : _VERSION_AT + _VERSION_LIMIT] = raw.ljust(_VERSION_LIMIT, b"\0")

    def stat(self, size_bytes: int, mtime_ns: int) -> None:
        """Keeps what the image looked like before it was opened: a quarantine holds for just that."""
        _STAT.pack_into(self._map, 48, size_bytes, mtime_ns)

    def step(self, number: int) -> None:
        """Names the step of the recipe that begins."""
        _STEP.pack_into(self._map, 32, number)

    def partial(self, path: bytes) -> None:
        """Names the unfinished output about to be created; empty when it has its final name."""
        raw = path[:_PARTIAL_LIMIT]
        self._map[_PARTIAL_AT : _PARTIAL_AT + len(raw)] = raw
        _PARTIAL_LENGTH.pack_into(self._map, 40, len(raw))

    def end(self) -> None:
        """Says that no image is in progress."""
        self._items_done += 1
        self._sequence += 2
        _SEQUENCE.pack_into(self._map, 0, self._sequence - 1)
        _BEGIN.pack_into(self._map, 16, 0, 0.0, -1, 0, 0)
        _DONE.pack_into(self._map, 44, self._items_done)
        _SEQUENCE.pack_into(self._map, 0, self._sequence)


class RecorderReader(_Mapping):
    """The supervisor's side: reads any page, also of the dead and of the run before."""

    def __init__(self, path: str, slots: int) -> None:
        self.slots = max(slots, os.stat(path).st_size // RECORD_BYTES)
        super().__init__(path, self.slots * RECORD_BYTES, 0)

    def progress(self, slot: int) -> tuple[int, int, float, int, int]:
        """Returns (incarnation, item, started, step, items done) of a slot, without its strings: cheap.

        The worker goes on meanwhile: what was read while it changed the page is read again. A page that stays in
        change (the worker was put aside by the kernel in the middle of it) says that no item is known: half of one
        item and half of the next would be a start in the distant past."""
        at = slot * RECORD_BYTES
        for _ in range(READS_AT_MOST):
            sequence, incarnation, item, started, step, _, _, done, _, _ = _HEADER.unpack_from(self._map, at)
            if sequence % 2 == 0 and _SEQUENCE.unpack_from(self._map, at)[0] == sequence:
                return incarnation, item, started, step, done
        return incarnation, 0, 0.0, -1, done

    def read(self, slot: int) -> Record:
        """Returns the whole record of a slot; strings cut by a death in mid-write are read as far as they go."""
        at = slot * RECORD_BYTES
        fields = _HEADER.unpack_from(self._map, at)
        _, incarnation, item, started, step, path_length, partial_length, done, size_bytes, mtime_ns = fields
        path = self._map[at + _PATH_AT : at + _PATH_AT + min(path_length, _PATH_LIMIT)]
        partial = self._map[at + _PARTIAL_AT : at + _PARTIAL_AT + min(partial_length, _PARTIAL_LIMIT)]
        version = self._map[at + _VERSION_AT : at + _VERSION_AT + _VERSION_LIMIT].rstrip(b"\0")
        return Record(
            incarnation=incarnation,
            item=item,
            started=started,
            step=step,
            path=path.decode("utf-8", "replace"),
            partial=bytes(partial),
            items_done=done,
            size_bytes=size_bytes,
            mtime_ns=mtime_ns,
            version=version.decode("utf-8", "replace"),
        )

    def clear(self, slot: int) -> None:
        """Forgets what a slot recorded, once it has been acted on."""
        self._map[slot * RECORD_BYTES : slot * RECORD_BYTES + _PATH_AT] = bytes(_PATH_AT)
