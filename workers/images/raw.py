"""Raw files: the largest JPEG that the camera put into it, found by reading directories, not by developing.

Most raw files are TIFF (DNG, NEF, ARW, CR2, PEF, SRW) or nearly so (ORF, RW2), and name their previews in their
directories: as a pair of tags (JPEGInterchangeFormat), as a strip of compression 6 or 7, or in a tag of their own
(RW2). RAF names one in its header, CR3 in a box. A preview is as large as the photo in most cameras of the last
fifteen years; what it is, a lossless JPEG of raw values or a picture, is told by its start-of-frame marker.
"""

import os
import struct

import msgspec

from workers.images import exif
from workers.images.header import Header

_MAX_DIRECTORIES = 64
_MAX_ENTRIES = 1024
_MAX_TRACKS = 8
_MOST_PREVIEWS = 8
TIFF_BEGINS = (b"II*\0", b"MM\0*")
_MAX_PREVIEW_BYTES = 128 * 1024 * 1024
_SUB_DIRECTORIES, _EXIF = 0x014A, 0x8769
_COMPRESSION, _STRIPS, _STRIP_BYTES = 0x0103, 0x0111, 0x0117
_JPEG_AT, _JPEG_BYTES, _JPEG_FROM_RAW = 0x0201, 0x0202, 0x002E
_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 7: 1, 13: 4}
_LETTERS = {1: "B", 2: "B", 3: "H", 4: "I", 7: "B", 13: "I"}
_PICTURE_MARKERS = (0xC0, 0xC1, 0xC2)
"""Start of frame of baseline, extended and progressive JPEG; 0xC3 is lossless: raw values, no picture."""
_EXIF_BYTES = 256 * 1024
"""How far into a raw file its directories are looked for, to know how it was held."""


class Preview(msgspec.Struct, frozen=True):
    """A JPEG inside a raw file: its place, its size in pixels, and how the camera was held."""

    at: int
    length: int
    width: int
    height: int
    told: exif.Exif


def turned(found: Header, preview: Preview, file_bytes: int) -> Header:
    """Returns the header of a preview as that of its raw file, held as the camera was."""
    return msgspec.structs.replace(
        found,
        container="raw",
        file_bytes=file_bytes,
        orientation=found.orientation if found.orientation != 1 else preview.told.orientation,
        taken=found.taken or preview.told.taken,
    )


def previews(descriptor: int, file_bytes: int) -> list[Preview]:
    """Returns the previews that show a picture by their headers, the one with the most pixels first; some at most."""
    head = os.pread(descriptor, _EXIF_BYTES, 0)
    if head.startswith(b"FUJIFILMCCD-RAW"):
        places = [struct.unpack_from(">II", head, 84)] if len(head) >= 92 else []
    elif head[4:8] == b"ftyp":
        places = _boxed(head)
    else:
        places = _of_directories(descriptor, head, file_bytes)
    found: list[Preview] = []
    for at, length in dict.fromkeys(places):
        if not 0 < at < file_bytes or not 0 < length <= min(_MAX_PREVIEW_BYTES, file_bytes - at):
            continue
        size = _size(descriptor, at, length)
        if size is not None:
            found.append(Preview(at, length, *size, exif.parse(_directories(head))))
    return sorted(found, key=lambda each: -each.width * each.height)[:_MOST_PREVIEWS]


def _directories(head: bytes) -> bytes:
    """What says how the camera was held: the file itself, of a CR3 the directory in its box CMT1."""
    if head[4:8] == b"ftyp":
        at = head.find(b"CMT1")
        return head[at + 4 :] if at >= 0 else b""
    return b"II*\0" + head[4:] if head[:2] == b"II" else head


def _boxed(head: bytes) -> list[tuple[int, int]]:
    """CR3: a box PRVW holds width, height and length of a JPEG that follows 16 bytes after its name; one as large as
    the photo is a track of its own, of one sample (ISO/IEC 14496-12: `stsz` tells its length, `co64` its place)."""
    found = []
    at = head.find(b"PRVW")
    if 0 <= at <= len(head) - 20:
        found.append((at + 20, struct.unpack_from(">I", head, at + 16)[0]))
    at = 0
    for _ in range(_MAX_TRACKS):
        size, place = head.find(b"stsz", at), head.find(b"co64", at)
        if min(size, place) < 0 or max(size, place) > len(head) - 20:
            break
        found.append((struct.unpack_from(">Q", head, place + 12)[0], struct.unpack_from(">I", head, size + 8)[0]))
        at = max(size, place) + 4
    return found


def _of_directories(descriptor: int, head: bytes, file_bytes: int) -> list[tuple[int, int]]:
    order = "<" if head[:2] == b"II" else ">"
    places: list[tuple[int, int]] = []
    waiting, seen = [struct.unpack_from(order + "I", head.ljust(8, b"\0"), 4)[0]], set[int]()
    while waiting and len(seen) < _MAX_DIRECTORIES:
        place = waiting.pop()
        if place in seen or not 0 < place < file_bytes:
            continue
        seen.add(place)
        tags, following = _directory(descriptor, order, place)
        waiting += [*tags.get(_SUB_DIRECTORIES, ()), *tags.get(_EXIF, ()), following]
        places += zip(tags.get(_JPEG_AT, ()), tags.get(_JPEG_BYTES, ()), strict=False)
        places += zip(tags.get(_JPEG_FROM_RAW, ())[:1], tags.get(0, ()), strict=False)
        if tags.get(_COMPRESSION, ())[:1] in ((6,), (7,)) and len(tags.get(_STRIPS, ())) == 1:
            places += zip(tags[_STRIPS], tags.get(_STRIP_BYTES, ()), strict=False)
    return places


def _directory(descriptor: int, order: str, place: int) -> tuple[dict[int, tuple[int, ...]], int]:
    """Returns the numbers of the tags looked for, and where the next directory is. Under 0: the length of a preview
    that is a tag's whole value."""
    wanted = (
        _SUB_DIRECTORIES, _EXIF, _COMPRESSION, _STRIPS, _STRIP_BYTES, _JPEG_AT, _JPEG_BYTES, _JPEG_FROM_RAW,
    )  # fmt: skip
    raw = os.pread(descriptor, 2 + _MAX_ENTRIES * 12 + 4, place)
    count = min(struct.unpack_from(order + "H", raw.ljust(2, b"\0"))[0], _MAX_ENTRIES)
    tags: dict[int, tuple[int, ...]] = {}
    for at in range(2, min(2 + count * 12, len(raw) - 11), 12):
        tag, kind, values = struct.unpack_from(order + "HHI", raw, at)
        size = _SIZES.get(kind)
        if tag not in wanted or size is None:
            continue
        if tag == _JPEG_FROM_RAW:
            tags[tag], tags[0] = struct.unpack_from(order + "I", raw, at + 8), (values,)
            continue
        values = min(values, _MAX_DIRECTORIES)
        stored = raw[at + 8 : at + 12]
        if values * size > 4:
            stored = os.pread(descriptor, values * size, struct.unpack(order + "I", stored)[0])
        if len(stored) >= values * size:
            tags[tag] = struct.unpack_from(f"{order}{values}{_LETTERS[kind]}", stored)
    end = 2 + count * 12
    following = struct.unpack_from(order + "I", raw, end)[0] if end + 4 <= len(raw) else 0
    return tags, following


def _size(descriptor: int, at: int, length: int) -> tuple[int, int] | None:
    """Returns width and height of a JPEG that shows a picture, None where there is none (JPEG, annex B)."""
    place, end = at, at + length
    if os.pread(descriptor, 2, place) != b"\xff\xd8":
        return None
    place += 2
    for _ in range(200):
        segment = os.pread(descriptor, 9, place)
        if len(segment) < 9 or segment[0] != 0xFF or place >= end:
            return None
        marker = segment[1]
        if marker == 0xFF:
            place += 1
            continue
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            height, width = struct.unpack_from(">HH", segment, 5)
            return (width, height) if marker in _PICTURE_MARKERS and width and height else None
        place += 2 + struct.unpack_from(">H", segment, 2)[0]
    return None
