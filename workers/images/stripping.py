"""Metadata out of a file without decoding it: the pixels stay bit for bit what they were.

Kept is what changes how the image looks: the colour profile, gamma, transparency, the frames of an animation, and the
orientation, which goes into an EXIF of its own with nothing else but, where asked for, artist and copyright. What lies
behind the end of the image (a film, a gain map, further pictures of an MPO) goes.
"""

import struct
import zlib
from collections.abc import Callable

from workers.images import exif, formats

_ORIENTATION, _ARTIST, _COPYRIGHT = 0x0112, 0x013B, 0x8298
_PNG_KEPT = frozenset(
    b"IHDR PLTE IDAT IEND tRNS gAMA cHRM sRGB iCCP cICP mDCV cLLI sBIT bKGD pHYs acTL fcTL fdAT".split()
)
_WEBP_KEPT = frozenset((b"VP8 ", b"VP8L", b"VP8X", b"ALPH", b"ANIM", b"ANMF", b"ICCP"))
_VP8X_EXIF, _VP8X_XMP = 0x08, 0x04


class NotUnderstood(ValueError):
    """The file's structure is broken, or needs more than this."""


def stripped(content: bytes, kind: formats.Format, block: bytes, *, copyright_too: bool) -> bytes:
    """Returns the file without metadata; `block` is its EXIF. Raises NotUnderstood."""
    directories = exif.directories(block)
    tags = {
        tag: value
        for tag, value in directories["image"].items()
        if (tag == _ORIENTATION and isinstance(value, int) and 2 <= value <= 8)
        or (copyright_too and tag in (_ARTIST, _COPYRIGHT) and isinstance(value, str))
    }
    kept = exif.block(tags) if tags else b""
    try:
        return WAYS[kind.name](content, kept)
    except (struct.error, IndexError) as error:
        raise NotUnderstood("it ends inside a segment") from error


def _jpeg(content: bytes, kept: bytes) -> bytes:
    """JPEG, annex B: segments up to the scans; then scans, with tables between them, up to the end of image."""
    parts = [b"\xff\xd8"]
    if kept:
        parts.append(_segment(0xE1, b"Exif\0\0" + kept))
    at = 2
    while True:
        if content[at] != 0xFF:
            raise NotUnderstood(f"no marker at byte {at:,}")
        marker = content[at + 1]
        if marker == 0xFF:
            at += 1
            continue
        if marker == 0xD9:
            return b"".join([*parts, b"\xff\xd9"])
        end = at + 2 + struct.unpack_from(">H", content, at + 2)[0]
        if end > len(content):
            raise NotUnderstood("it ends inside a segment")
        if _jpeg_keeps(marker, content[at + 4 : end]):
            parts.append(content[at:end])
        at = end
        if marker == 0xDA:
            at = _scan_end(content, at)
            parts.append(content[end:at])


def _jpeg_keeps(marker: int, body: bytes) -> bool:
    if marker == 0xE2:
        return body.startswith(b"ICC_PROFILE\0")
    if 0xE0 <= marker <= 0xEF:
        return (marker == 0xE0 and body.startswith(b"JFIF")) or (marker == 0xEE and body.startswith(b"Adobe"))
    return marker != 0xFE


def _scan_end(content: bytes, at: int) -> int:
    """Where the marker stands that ends a scan: not a stuffed zero, not a restart."""
    while True:
        at = content.find(b"\xff", at)
        if at < 0 or at + 1 >= len(content):
            raise NotUnderstood("it has no end of image")
        if content[at + 1] != 0 and not 0xD0 <= content[at + 1] <= 0xD7 and content[at + 1] != 0xFF:
            return at
        at += 1 if content[at + 1] == 0xFF else 2


def _segment(marker: int, body: bytes) -> bytes:
    return struct.pack(">BBH", 0xFF, marker, len(body) + 2) + body


def _png(content: bytes, kept: bytes) -> bytes:
    """PNG, section 5: a signature, then chunks."""
    parts, at = [content[:8]], 8
    while True:
        length, name = struct.unpack_from(">I4s", content, at)
        end = at + 12 + length
        if end > len(content):
            raise NotUnderstood("it ends inside a chunk")
        if name in _PNG_KEPT:
            parts.append(content[at:end])
        if name == b"IHDR" and kept:
            parts.append(struct.pack(">I", len(kept)) + b"eXIf" + kept + struct.pack(">I", zlib.crc32(b"eXIf" + kept)))
        if name == b"IEND":
            return b"".join(parts)
        at = end


def _webp(content: bytes, kept: bytes) -> bytes:
    """RFC 9649: RIFF chunks of even length; VP8X tells in bits which others there are."""
    parts, at, end = [], 12, min(len(content), 8 + struct.unpack_from("<I", content, 4)[0])
    extended = content[12:16] == b"VP8X"
    if kept and not extended:
        raise NotUnderstood("a simple WebP has no place for an orientation")
    while at + 8 <= end:
        name, length = content[at : at + 4], struct.unpack_from("<I", content, at + 4)[0]
        if at + 8 + length > end:
            raise NotUnderstood("it ends inside a chunk")
        body = content[at + 8 : at + 8 + length]
        if name == b"VP8X":
            flags = body[0] & ~(_VP8X_EXIF | _VP8X_XMP) | (_VP8X_EXIF if kept else 0)
            body = bytes((flags,)) + body[1:]
        if name in _WEBP_KEPT:
            parts.append(_riff(name, body))
        at += 8 + length + length % 2
    if kept:
        parts.append(_riff(b"EXIF", kept))
    body = b"WEBP" + b"".join(parts)
    return b"RIFF" + struct.pack("<I", len(body)) + body


def _riff(name: bytes, body: bytes) -> bytes:
    return name + struct.pack("<I", len(body)) + body + b"\0" * (len(body) % 2)


WAYS: dict[str, Callable[[bytes, bytes], bytes]] = {"jpeg": _jpeg, "png": _png, "webp": _webp}
"""The formats that can be stripped."""
