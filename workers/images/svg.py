"""SVG is a program for a renderer: what may reach it.

librsvg is handed the content, never a place: without a base it loads nothing from outside, neither files nor
addresses (pictures inside, as `data:`, it does). Here are the limits before that: bytes, also of a packed one, and
entities declared in the document, which can multiply a few bytes into gigabytes.
"""

import base64
import re
import struct
import zlib
from collections.abc import Callable
from typing import BinaryIO, Final

from workers.errors import Verdict
from workers.images import drawing
from workers.images.drawing import Drawing

BYTES: Final = 32 * 1024 * 1024
"""Largest document, unpacked. The largest map of a country in a public collection has some 10 MB."""
_ENTITY = re.compile(rb"<!ENTITY\s+(%|\S+\s+(SYSTEM|PUBLIC))", re.IGNORECASE)
_ENTITIES: Final = 64
"""Illustrator declares a dozen, one for each name space; a bomb needs two that are nested and long."""
_ENTITY_VALUE = re.compile(rb"<!ENTITY\s+\S+\s+(\"[^\"]*\"|'[^']*')", re.IGNORECASE)
_OUTSIDE = re.compile(
    rb"<(?:\w+:)?(?:image|use|feImage)\b[^>]*?href\s*=\s*[\"']\s*(?!#|data:)"
    rb"|@import|<\?xml-stylesheet|\burl\(\s*[\"']?\s*(?!#|data:)"
)

_DATA = re.compile(rb"data:image/[\w.+-]+;base64,\s*([A-Za-z0-9+/\s]+)")
_FRAME = re.compile(rb"\xff[\xc0-\xc2]..\x08(....)", re.DOTALL)
_HEAD_CHARACTERS: Final = 65_536
_BYTES_A_BYTE: Final = 60
"""What librsvg takes for each byte of a document (a path of 12 MB: 780 MB)."""
_BYTES_A_PIXEL: Final = 9
"""And for each pixel of a picture inside of it (400 megapixels: 3.6 GB)."""


def checked(shown: str, file: BinaryIO, file_bytes: int, warn: Callable[[str], None]) -> tuple[bytes, Drawing]:
    """Returns the document, unpacked, and what drawing it takes. Raises Verdict when that is too much or may not be."""
    if file_bytes > BYTES:
        raise Verdict(
            "too_large", f"{shown} is an SVG of {file_bytes:,} bytes; {BYTES:,} are the most that is rendered"
        )
    file.seek(0)
    content = file.read(BYTES + 1)
    if content[:2] == b"\x1f\x8b":
        content = _unpacked(shown, content)
    values = _ENTITY_VALUE.findall(content)
    if _ENTITY.search(content) or len(values) > _ENTITIES or any(b"&" in value for value in values):
        raise Verdict("unsupported", f"{shown} is an SVG that declares nested or external entities; it is not rendered")
    if _OUTSIDE.search(content):
        warn("refers to files or addresses outside of it; they were not loaded")
    return content, drawing.read(shown, content)


def size_drawn(
    shown: str, told: Drawing | None, size: tuple[int, int], warn: Callable[[str], None] | None = None
) -> tuple[int, int]:
    """Returns the pixels to draw a page at that is to be `size`: fewer, with a warning, where its filters and layers
    would take too long. Raises Verdict too_large where even a quarter of the sides would."""
    found = told.fitted(size) if told is not None else size
    if told is not None and found is None:
        limits = f"the limits are {drawing.DRAWING_NS / 1e9} s and {drawing.LAYERS_BYTES:,} bytes of them"
        raise Verdict("too_large", f"{shown} is an SVG of {told.told(size)}, at {size[0]:,} x {size[1]:,}; {limits}")
    if told is not None and found is not None and found != size and warn is not None:
        warn(f"drawn at {found[0]:,} x {found[1]:,} and enlarged: at its full size it has {told.told(size)}")
    return found or size


def inside_bytes(content: bytes) -> int:
    """Returns what the document takes while it is drawn, beside the picture: its elements and the pictures in it."""
    pixels = 0
    for found in _DATA.finditer(content):
        pixels += _pixels(found[1][:_HEAD_CHARACTERS])
    return len(content) * _BYTES_A_BYTE + pixels * _BYTES_A_PIXEL


def _pixels(encoded: bytes) -> int:
    """How many pixels a PNG, JPEG or GIF has, by its beginning; 0 of others."""
    try:
        head = base64.b64decode(encoded.replace(b"%0A", b"")[: len(encoded) // 4 * 4])
    except ValueError:
        return 0
    if head.startswith(b"\x89PNG"):
        width, height = struct.unpack(">II", head[16:24].ljust(8, b"\0"))
    elif head.startswith(b"GIF8"):
        width, height = struct.unpack("<HH", head[6:10].ljust(4, b"\0"))
    elif (frame := _FRAME.search(head)) is not None:
        height, width = struct.unpack(">HH", frame[1])
    else:
        return 0
    return int(width) * int(height)


def _unpacked(shown: str, content: bytes) -> bytes:
    try:
        unpacker = zlib.decompressobj(31)  # 31: gzip
        unpacked = unpacker.decompress(content, BYTES + 1)
    except zlib.error as error:
        raise Verdict("corrupt", f"{shown} is a broken SVGZ: {error}") from error
    if len(unpacked) > BYTES:
        raise Verdict("too_large", f"{shown} unpacks to an SVG of more than {BYTES:,} bytes, the most that is rendered")
    return unpacked
