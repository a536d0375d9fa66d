"""How much a header may hold, counted before a decoder walks through it.

Pillow reads headers in Python, a segment, a chunk or a block at a time, keeps what it reads, and of an icon decodes
the picture while it opens it: all of that before the header's dimensions can be asked for. A file of a few megabytes
that is nothing but header keeps it busy for minutes, or takes hundreds of megabytes. Each walk here looks at some
dozens of bytes of a sound file and stops at bounds that no sound file comes near.
"""

import os
from collections.abc import Callable
from struct import calcsize, iter_unpack, unpack
from typing import BinaryIO, Final

from PIL import Image

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
TAGS: Final = 5_000
STRIPS: Final = 250_000
"""Of a TIFF, or tiles. A slide of 100,000 x 100,000 in tiles of 256 has 153,000, a strip for each row 100,000."""
TAG_BYTES: Final = 64 * 1024 * 1024
_TIFF_PLACES: Final = (273, 279, 324, 325)
_TIFF_SIZES: Final = {3: 2, 4: 4, 5: 8, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}
RESOURCES: Final = 10_000
RESOURCE_BYTES: Final = 64 * 1024 * 1024
_CLAIMED_PIXELS: Final = 1_000_000
_PLAIN_FORMATS: Final = ("BMP", "DIB", "TGA", "PPM", "PSD", "PCX", "SGI", "SUN")
_PIXELS_A_BYTE: Final = {
    "raw": 1, "ppm": 1, "ppm_plain": 1, "PNM": 1, "bmp_rle": 128, "tga_rle": 64, "pcx": 32, "sgi_rle": 64, "SGI16": 1,
    "sun_rle": 86, "packbits": 64, "PSD-DEEP": 64,
}  # fmt: skip
"""By the name of Pillow's decoder: how many samples of eight bits repetition can make of a byte."""
_NO_LENGTH: Final = (0x01, *range(0xD0, 0xD9))
_START_OF_SCAN, _END, _SCAN = 0xDA, 0xD9, b"\xff\xda"
_PROGRESSIVE: Final = (0xC2, 0xCA)
_PNG_MAGIC: Final = b"\x89PNG"


def check(path: str, file: BinaryIO, kind: formats.Format, file_bytes: int) -> None:
    """Raises Verdict where the header holds more than it may. The file's position is left anywhere."""
    walk = _WALKS.get(kind)
    if walk is not None and (told := walk(file, file_bytes)):
        raise Verdict("too_many_pixels" if kind is formats.ICO else "corrupt", f"{path} {told}")


def claims(image: Image.Image, file_bytes: int) -> str:
    """Returns what is wrong with a header, as Pillow read it, of so many pixels that the file has room for a hundredth
    of them at most; "" of others, and of what is packed by more than repetition."""
    width, height = image.size
    codec = image.tile[0][0] if getattr(image, "tile", ()) else ""  # type: ignore[attr-defined]
    if codec not in _PIXELS_A_BYTE or width * height < _CLAIMED_PIXELS or image.format not in _PLAIN_FORMATS:
        return ""
    deep = (
        8
        if (image.mode in ("1", "P") and codec not in ("bmp_rle", "tga_rle"))
        or (codec, image.mode) == ("PSD-DEEP", "L")
        else 1
    )
    if image.format == "SGI" and codec != "raw":
        most = width * file_bytes // (8 * len(image.getbands()))  # a table of its rows comes first
    else:
        most = file_bytes * _PIXELS_A_BYTE[codec] * deep
    if most * 100 >= width * height:
        return ""
    told = f"{width:,} x {height:,} = {width * height:,} pixels"
    return f"its header tells {told}, its {file_bytes:,} bytes can hold {most:,} at most"


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


def _tiff(file: BinaryIO, file_bytes: int) -> str:
    file.seek(0)
    head = file.read(16).ljust(16, b"\0")
    order = "<" if head[:2] == b"II" else ">"
    big = head[2:4] in (b"+\0", b"\0+")
    entry, place = (">HHQ8x", "Q") if big else (">HHI4x", "I")
    file.seek(min(unpack(order + place, head[8:16] if big else head[4:8])[0], file_bytes))
    entries = unpack(order + ("Q" if big else "H"), file.read(8 if big else 2).ljust(8 if big else 2, b"\0"))[0]
    size = calcsize(order + entry[1:])
    directory = file.read(min(entries, TAGS + 1) * size)
    if len(directory) > TAGS * size:
        return f"is a broken TIFF: more than {TAGS:,} tags"
    total = 0
    for tag, kind, count in iter_unpack(order + entry[1:], directory[: len(directory) // size * size]):
        held = min(count * _TIFF_SIZES.get(kind, 1), file_bytes)
        total += held
        if tag in _TIFF_PLACES and count > STRIPS:
            return f"is a broken TIFF: {count:,} strips or tiles; {STRIPS:,} are the most"
    if total > TAG_BYTES + 2 * file_bytes:
        return f"is a broken TIFF: {total:,} bytes of tags; {TAG_BYTES + 2 * file_bytes:,} are the most"
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
    formats.TIFF: _tiff,
}  # fmt: skip
