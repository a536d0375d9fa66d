"""The three things asked of EXIF, read with a few unpacks: whole parsers cost as much as a small decode.

Layout: TIFF 6.0 (directories of 12-byte entries) and Exif 2.32 (0x8769 points to the Exif directory).
Broken EXIF is common in good photos; it is never an error, only unknown.
"""

import struct

import msgspec

_ORIENTATION, _DATE, _EXIF, _DATE_ORIGINAL = 0x0112, 0x0132, 0x8769, 0x9003
_ASCII, _SHORT = 2, 3
_MAX_ENTRIES = 512
"""Entries looked at in a directory: real ones have some dozens; a hostile count costs no time."""


class Exif(msgspec.Struct, frozen=True):
    """`orientation` 1 to 8 (1 when unknown); `taken` as "2024-05-31T18:20:00" without zone, or None."""

    orientation: int = 1
    taken: str | None = None


def parse(raw: bytes) -> Exif:
    """Returns what a block of EXIF says (with or without its "Exif" heading)."""
    block = raw[6:] if raw[:6] in (b"Exif\0\0", b"Exif\0\xff") else raw
    order = {b"II": "<", b"MM": ">"}.get(block[:2])
    if order is None or len(block) < 8:
        return Exif()
    try:
        found = _directory(block, order, struct.unpack_from(order + "I", block, 4)[0])
        inner = _directory(block, order, _number(found.get(_EXIF), order)) if _EXIF in found else {}
    except struct.error:
        return Exif()
    orientation = _number(found.get(_ORIENTATION), order)
    date = _text(block, inner.get(_DATE_ORIGINAL), order) or _text(block, found.get(_DATE), order)
    return Exif(orientation if 1 <= orientation <= 8 else 1, date_of(date))


def date_of(text: str | None) -> str | None:
    """Returns an EXIF date ("2024:05:31 18:20:00") in ISO form, None when it is none."""
    if not text or len(text) < 19 or not text[:4].isdigit() or text[:4] == "0000":
        return None
    iso = f"{text[:4]}-{text[5:7]}-{text[8:10]}T{text[11:13]}:{text[14:16]}:{text[17:19]}"
    return iso if all(part.isdigit() for part in (iso[5:7], iso[8:10], iso[11:13], iso[14:16], iso[17:19])) else None


_Entry = tuple[int, int, bytes]


def _directory(block: bytes, order: str, at: int) -> dict[int, _Entry]:
    count = min(struct.unpack_from(order + "H", block, at)[0], _MAX_ENTRIES)
    found: dict[int, _Entry] = {}
    for number in range(count):
        start = at + 2 + 12 * number
        if start + 12 > len(block):
            break
        tag, kind, values = struct.unpack_from(order + "HHI", block, start)
        found.setdefault(tag, (kind, values, block[start + 8 : start + 12]))
    return found


def _number(entry: _Entry | None, order: str) -> int:
    if entry is None:
        return 0
    kind, _, value = entry
    number: int = struct.unpack_from(order + ("H" if kind == _SHORT else "I"), value)[0]
    return number


def _text(block: bytes, entry: _Entry | None, order: str) -> str | None:
    if entry is None or entry[0] != _ASCII or entry[1] < 19:
        return None
    at = struct.unpack(order + "I", entry[2])[0]
    return block[at : at + 19].decode("ascii", "replace")
