"""The flight recorder: which image a worker touches, written before it is touched.

One file in the state directory, one page of RECORD_BYTES a slot, mapped shared by the worker that owns
the slot and by the supervisor. It outlives both (the page cache holds it), so the culprit of a crash is
read, not guessed. A record is written under a sequence number that is odd while it is being changed; a
record whose number stays odd (the worker died inside the update) still names the item, because the item
is written before anything else.

Layout of a page, little-endian:
    0  u64 sequence    8  u64 incarnation   16  i64 item (0: none)   24  f64 started (CLOCK_MONOTONIC)
   32  i32 step       36  u32 path length   40  u32 partial length   44  u32 items done
   64  path token (UTF-8, at most 4,032 bytes)        4096  path of the partial output (at most 4,096 bytes)
"""

import mmap
import os
import struct

import msgspec

RECORD_BYTES = 8192
_HEADER = struct.Struct("<QQqdiIII")
_PATH_AT, _PATH_LIMIT = 64, 4032
_PARTIAL_AT, _PARTIAL_LIMIT = 4096, 4096
_SEQUENCE = struct.Struct("<Q")
_BEGIN = struct.Struct("<qdiII")
_STEP = struct.Struct("<i")
_PARTIAL_LENGTH = struct.Struct("<I")
_DONE = struct.Struct("<I")


class Record(msgspec.Struct, frozen=True):
    """What a page says. `item` is 0 when none is in progress."""

    incarnation: int
    item: int
    started: float
    step: int
    path: str
    partial: bytes
    items_done: int


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
        _HEADER.pack_into(self._map, 0, 0, incarnation, 0, 0.0, -1, 0, 0, 0)

    def begin(self, item: int, path: str, now: float) -> None:
        """Names the image about to be touched; `now` is CLOCK_MONOTONIC, in seconds."""
        raw = path.encode("utf-8")[:_PATH_LIMIT]
        self._sequence += 2
        _SEQUENCE.pack_into(self._map, 0, self._sequence - 1)
        _BEGIN.pack_into(self._map, 16, item, now, 0, len(raw), 0)
        self._map[_PATH_AT : _PATH_AT + len(raw)] = raw
        _SEQUENCE.pack_into(self._map, 0, self._sequence)

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
        _DONE.pack_into(self._map, 44, self._items_done)
        _BEGIN.pack_into(self._map, 16, 0, 0.0, -1, 0, 0)


class RecorderReader(_Mapping):
    """The supervisor's side: reads any page, also of the dead and of the run before."""

    def __init__(self, path: str, slots: int) -> None:
        self.slots = max(slots, os.stat(path).st_size // RECORD_BYTES)
        super().__init__(path, self.slots * RECORD_BYTES, 0)

    def progress(self, slot: int) -> tuple[int, int, float, int, int]:
        """Returns (incarnation, item, started, step, items done) of a slot, without its strings: cheap."""
        _, incarnation, item, started, step, _, _, done = _HEADER.unpack_from(self._map, slot * RECORD_BYTES)
        return incarnation, item, started, step, done

    def read(self, slot: int) -> Record:
        """Returns the whole record of a slot; strings cut by a death in mid-write are read as far as they go."""
        at = slot * RECORD_BYTES
        _, incarnation, item, started, step, path_length, partial_length, done = _HEADER.unpack_from(self._map, at)
        path = self._map[at + _PATH_AT : at + _PATH_AT + min(path_length, _PATH_LIMIT)]
        partial = self._map[at + _PARTIAL_AT : at + _PARTIAL_AT + min(partial_length, _PARTIAL_LIMIT)]
        return Record(incarnation, item, started, step, path.decode("utf-8", "replace"), bytes(partial), done)

    def clear(self, slot: int) -> None:
        """Forgets what a slot recorded, once it has been acted on."""
        self._map[slot * RECORD_BYTES : slot * RECORD_BYTES + _PATH_AT] = bytes(_PATH_AT)
