"""An entry's value as the index holds it: a small record, and beside it the outputs' bytes when they are few.

The record names the outputs (what their file names end in, their size in pixels and bytes, a checksum) and
carries the values and warnings. A value up to the inline limit is one string of bytes, its outputs one after
the other; of a larger one every output is a blob. `About` is what a blob's file carries so that a lost index can
be made again from the blobs alone.
"""

import hashlib

import msgspec

CHECK_BYTES = 16
"""Of a SHA-256: against accidents, not against attackers, who could write the index as well."""
ABOUT_FORMAT = 1


class StoredOutput(msgspec.Struct, frozen=True, array_like=True):
    """One output. Its file is `OUT/STEM.suffix`."""

    suffix: str
    width: int
    height: int
    size_bytes: int
    check: bytes


class Record(msgspec.Struct, frozen=True, array_like=True):
    """What a step made. `values` and `warnings` are JSON."""

    outputs: list[StoredOutput]
    values: bytes = b"{}"
    warnings: bytes = b"[]"

    @property
    def output_bytes(self) -> int:
        """All outputs together."""
        return sum(output.size_bytes for output in self.outputs)


class About(msgspec.Struct, frozen=True, array_like=True):
    """A whole entry but its outputs' bytes, as its first blob carries it."""

    format: int
    operation: str
    version: int
    step_key: bytes
    cost_us: int
    made: int
    image_bytes: int
    record: Record


_encoder = msgspec.msgpack.Encoder()
_records = msgspec.msgpack.Decoder(Record)
_abouts = msgspec.msgpack.Decoder(About)


def check_of(content: bytes | memoryview) -> bytes:
    """Returns the checksum of an output."""
    return hashlib.sha256(content).digest()[:CHECK_BYTES]


def pack(value: Record | About) -> bytes:
    """Returns the bytes of a record."""
    return _encoder.encode(value)


def unpack(raw: bytes) -> Record:
    """Returns the record. Raises msgspec.DecodeError for bytes that are none."""
    return _records.decode(raw)


def unpack_about(raw: bytes) -> About | None:
    """Returns what a blob says of its entry, None where it says nothing we know."""
    try:
        about = _abouts.decode(raw)
    except msgspec.DecodeError:
        return None
    return about if about.format == ABOUT_FORMAT else None


def parts_of(record: Record, value: bytes) -> list[bytes] | None:
    """Returns the outputs' bytes of an inline value, None where it is not what the record says."""
    parts = split(record, value)
    sound = all(check_of(part) == output.check for part, output in zip(parts, record.outputs, strict=True))
    return parts if sound and len(value) == record.output_bytes else None


def split(record: Record, value: bytes) -> list[bytes]:
    """Returns the outputs' bytes of an inline value that is known to be sound."""
    if len(record.outputs) == 1:
        return [value]
    parts, at = [], 0
    for output in record.outputs:
        parts.append(value[at : at + output.size_bytes])
        at += output.size_bytes
    return parts
