"""The small picture that a camera puts into its JPEG, found without decoding anything: offsets, checked, in bytes.

A JPEG is a row of segments; the one of EXIF holds a TIFF structure of two directories; the second one names where the
thumbnail lies, itself a JPEG (Exif 2.3, 4.5.5). Every offset is untrusted: one that leads outside the segment means
none.
"""

import struct

_START, _SCAN, _APP1 = 0xD8, 0xDA, 0xE1
_OFFSET, _LENGTH = 0x0201, 0x0202
THUMBNAIL_BYTES = 60_000
ENTRIES_MOST = 100


def thumbnail_of(head: bytes) -> bytes | None:
    """Returns the thumbnail in the first bytes of a JPEG, None where there is none."""
    exif = _exif_of(head)
    if exif is None:
        return None
    try:
        return _second_picture(exif)
    except struct.error:
        return None


def _exif_of(head: bytes) -> bytes | None:
    if not head.startswith(b"\xff\xd8\xff"):
        return None
    at = 2
    while at + 4 <= len(head) and head[at] == 0xFF:
        marker, size = head[at + 1], int.from_bytes(head[at + 2 : at + 4], "big")
        if marker == _SCAN or size < 2:
            return None
        if marker == _APP1 and head[at + 4 : at + 10] == b"Exif\0\0":
            return head[at + 10 : at + 2 + size]
        at += 2 + size
    return None


def _second_picture(exif: bytes) -> bytes | None:
    order = {b"II": "<", b"MM": ">"}.get(exif[:2])
    if order is None:
        return None
    (first,) = struct.unpack_from(f"{order}I", exif, 4)
    (count,) = struct.unpack_from(f"{order}H", exif, first)
    (second,) = struct.unpack_from(f"{order}I", exif, first + 2 + 12 * count)
    if not second:
        return None
    (count,) = struct.unpack_from(f"{order}H", exif, second)
    found: dict[int, int] = {}
    for number in range(min(count, ENTRIES_MOST)):
        tag, _, _, value = struct.unpack_from(f"{order}HHII", exif, second + 2 + 12 * number)
        found[tag] = value
    offset, length = found.get(_OFFSET, 0), found.get(_LENGTH, 0)
    picture = exif[offset : offset + length]
    sound = 0 < length <= THUMBNAIL_BYTES and len(picture) == length and picture.startswith(b"\xff\xd8")
    return picture if sound else None
