"""Thumbnails inside JPEGs are found by offsets that may lie."""

import struct

from hypothesis import given
from hypothesis import strategies as st

from supervisor.gateway.exif import thumbnail_of

THUMBNAIL = b"\xff\xd8 a small picture \xff\xd9"


def jpeg(order: str = "<", offset: int | None = None, length: int | None = None) -> bytes:
    """Returns the first segments of a JPEG whose EXIF has a thumbnail."""
    first, second = 8, 14
    data = second + 2 + 12 * 2 + 4
    tiff = b"II" if order == "<" else b"MM"
    tiff += struct.pack(f"{order}HI", 42, first)
    tiff += struct.pack(f"{order}HI", 0, second)
    tiff += struct.pack(f"{order}H", 2)
    tiff += struct.pack(f"{order}HHII", 0x0201, 4, 1, data if offset is None else offset)
    tiff += struct.pack(f"{order}HHII", 0x0202, 4, 1, len(THUMBNAIL) if length is None else length)
    tiff += struct.pack(f"{order}I", 0) + THUMBNAIL
    segment = b"Exif\0\0" + tiff
    other = b"\xff\xe0" + struct.pack(">H", 6) + b"JFIF"
    return b"\xff\xd8" + other + b"\xff\xe1" + struct.pack(">H", len(segment) + 2) + segment + b"\xff\xda\0\2"


def test_it_is_found_in_either_byte_order() -> None:
    assert thumbnail_of(jpeg("<")) == THUMBNAIL
    assert thumbnail_of(jpeg(">")) == THUMBNAIL


def test_offsets_that_lead_elsewhere_mean_none() -> None:
    assert thumbnail_of(jpeg(offset=10_000)) is None
    assert thumbnail_of(jpeg(offset=3)) is None, "no JPEG begins there"
    assert thumbnail_of(jpeg(length=2**31)) is None
    assert thumbnail_of(jpeg(length=0)) is None
    assert thumbnail_of(b"") is None and thumbnail_of(b"\x89PNG") is None


@given(st.binary(max_size=200), st.integers(0, 120))
def test_garbage_finds_nothing_and_breaks_nothing(garbage: bytes, at: int) -> None:
    found = thumbnail_of(jpeg()[:at] + garbage)
    assert found is None or found.startswith(b"\xff\xd8")
