"""How much a header may hold, counted before a decoder walks through it.

Pillow reads headers in Python, a segment, a chunk or a block at a time, keeps what it reads, and of an icon decodes
the picture while it opens it: all of that before the header's dimensions can be asked for. A file of a few megabytes
that is nothing but header keeps it busy for minutes, or takes hundreds of megabytes. Each walk here looks at some
dozens of bytes of a sound file and stops at bounds that no sound file comes near.
"""

import os
from collections.abc import Callable
from struct import unpack
from typing import BinaryIO, Final

from workers.errors import Verdict
from workers.images import formats

SEGMENTS: Final = 5_000
"""Of a JPEG, before its first scan: 255 of a colour profile, and a gigabyte of extended XMP would be 16,000."""
SEGMENT_BYTES: Final = 64 * 1024 * 1024
FILLING_BYTES: Final = 64 * 1024
CHUNKS: Final = 5_000
"""Of a PNG, before its pixels."""
BLOCKS: Final = 200_000
"""Of a GIF, and one for each 64 bytes of the file: encoders fill their blocks, which hold 255."""
SCANS: Final = 250
"""Of a progressive JPEG: encoders write ten, the most patient some sixty; each is decoded into the whole picture."""
_PIECE_BYTES: Final = 1 << 20
ICON_PIXELS: Final = 4_096 * 4_096
ICONS: Final = 256
RESOURCES: Final = 10_000
RESOURCE_BYTES: Final = 64 * 1024 * 1024
_NO_LENGTH: Final = (0x01, *range(0xD0, 0xD9))
_START_OF_SCAN, _END, _SCAN = 0xDA, 0xD9, b"\xff\xda"
_PROGRESSIVE: Final = (0xC2, 0xCA)
_PNG_MAGIC: Final = b"\x89PNG"


def check(path: str, file: BinaryIO, kind: formats.Format, file_bytes: int) -> None:
    """Raises Verdict where the header holds more than it may. The file's position is left anywhere."""
    walk = _WALKS.get(kind)
    if walk is not None and (told := walk(file, file_bytes)):
        raise Verdict("too_many_pixels" if kind is formats.ICO else "corrupt", f"{path} {told}")


def _jpeg(file: BinaryIO, file_bytes: int) -> str:
    at, filling, progressive = 2, 0, False
    for _ in range(SEGMENTS):
        file.seek(at)
        head = file.read(4)
        if len(head) < 4 or head[0] != 0xFF or head[1] in (_START_OF_SCAN, _END):
            return _scans(file) if progressive else ""
        progressive = progressive or head[1] in _PROGRESSIVE
        if head[1] == 0xFF:
            filled = file.read(FILLING_BYTES)
            filling += len(filled) - len(filled.lstrip(b"\xff")) + 2
            if filling > FILLING_BYTES:
                return f"is a broken JPEG: more than {FILLING_BYTES:,} bytes of filling between its segments"
            at += len(filled) - len(filled.lstrip(b"\xff")) + (2 if head[2] == 0xFF else 1)
        elif head[1] in _NO_LENGTH:
            at += 2
        else:
            at += 2 + unpack(">H", head[2:])[0]
        if at > SEGMENT_BYTES:
            return f"is a broken JPEG: more than {SEGMENT_BYTES:,} bytes before its pixels"
    return f"is a broken JPEG: more than {SEGMENTS:,} segments before its pixels"


def _scans(file: BinaryIO) -> str:
    scans = 0
    while piece := file.read(_PIECE_BYTES):
        scans += piece.count(_SCAN)
        if scans > SCANS:
            return f"is a broken JPEG: more than {SCANS:,} scans"
    return ""


def _png(file: BinaryIO, file_bytes: int) -> str:
    at = 8
    for _ in range(CHUNKS):
        file.seek(at)
        head = file.read(8)
        if len(head) < 8 or head[4:] in (b"IDAT", b"IEND"):
            return ""
        at += 12 + unpack(">I", head[:4])[0]
    return f"is a broken PNG: more than {CHUNKS:,} chunks before its pixels"


def _gif(file: BinaryIO, file_bytes: int) -> str:
    most = BLOCKS + file_bytes // 64
    file.seek(10)
    flags = file.read(3)
    if flags and flags[0] & 0x80:
        file.seek(3 << ((flags[0] & 7) + 1), os.SEEK_CUR)
    blocks = 0
    while blocks <= most:
        mark = file.read(1)
        if mark == b",":
            place = file.read(9)
            if len(place) == 9 and place[8] & 0x80:
                file.seek(3 << ((place[8] & 7) + 1), os.SEEK_CUR)
            file.read(1)
        elif mark == b"!":
            file.read(1)
        else:
            return ""
        while blocks <= most and (length := file.read(1)) and length[0]:
            file.seek(length[0], os.SEEK_CUR)
            blocks += 1
        blocks += 1
    return f"is a broken GIF: more than {most:,} blocks in {file_bytes:,} bytes"


def _icon(file: BinaryIO, file_bytes: int) -> str:
    file.seek(4)
    count = min(unpack("<H", file.read(2).ljust(2, b"\0"))[0], ICONS)
    table = file.read(16 * count)
    for entry in range(len(table) // 16):
        place = unpack("<I", table[entry * 16 + 12 : entry * 16 + 16])[0]
        file.seek(place)
        head = file.read(24).ljust(24, b"\0")
        width, height = unpack(">II", head[16:24]) if head.startswith(_PNG_MAGIC) else unpack("<Ii", head[4:12])
        height = abs(height) if head.startswith(_PNG_MAGIC) else abs(height) // 2
        if width * height > ICON_PIXELS:
            return f"holds an icon of {width:,} x {height:,} pixels; {ICON_PIXELS:,} are the most"
    return ""


def _psd(file: BinaryIO, file_bytes: int) -> str:
    file.seek(26)
    file.seek(unpack(">I", file.read(4).ljust(4, b"\0"))[0], os.SEEK_CUR)
    length = unpack(">I", file.read(4).ljust(4, b"\0"))[0]
    if length > RESOURCE_BYTES:
        return f"is a broken PSD: {length:,} bytes of resources; {RESOURCE_BYTES:,} are the most"
    at = file.tell()
    end = at + length
    for _ in range(RESOURCES):
        file.seek(at)
        head = file.read(7)
        if at >= end or len(head) < 7:
            return ""
        at += 6 + (head[6] + 2 & ~1)
        file.seek(at)
        at += 4 + (unpack(">I", file.read(4).ljust(4, b"\0"))[0] + 1 & ~1)
    return f"is a broken PSD: more than {RESOURCES:,} resources"


_WALKS: Final[dict[formats.Format, Callable[[BinaryIO, int], str]]] = {
    formats.JPEG: _jpeg, formats.PNG: _png, formats.GIF: _gif, formats.ICO: _icon, formats.PSD: _psd,
}  # fmt: skip
