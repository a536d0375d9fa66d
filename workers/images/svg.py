"""SVG is a program for a renderer: what may reach it.

librsvg is handed the content, never a place: without a base it loads nothing from outside, neither files nor
addresses (pictures inside, as `data:`, it does). Here are the limits before that: bytes, also of a packed one, and
entities declared in the document, which can multiply a few bytes into gigabytes.
"""

import re
import zlib
from collections.abc import Callable
from typing import BinaryIO, Final

from workers.errors import Verdict

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


def checked(shown: str, file: BinaryIO, file_bytes: int, warn: Callable[[str], None]) -> bytes:
    """Returns the document, unpacked. Raises Verdict when it is too large or may not be rendered."""
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
    return content


def _unpacked(shown: str, content: bytes) -> bytes:
    try:
        unpacker = zlib.decompressobj(31)  # 31: gzip
        unpacked = unpacker.decompress(content, BYTES + 1)
    except zlib.error as error:
        raise Verdict("corrupt", f"{shown} is a broken SVGZ: {error}") from error
    if len(unpacked) > BYTES:
        raise Verdict("too_large", f"{shown} unpacks to an SVG of more than {BYTES:,} bytes, the most that is rendered")
    return unpacked
