"""EXIF, read with a few unpacks: whole parsers cost as much as a small decode, and take every count for true.

Layout: TIFF 6.0 (directories of 12-byte entries) and Exif 2.32 (0x8769 points to the Exif directory, 0x8825 to that of
the place; the second directory describes the thumbnail). Broken EXIF is common in good photos; it is never an error,
only unknown.
"""

import struct
from typing import Any

import msgspec

_ORIENTATION, _DATE, _EXIF, _GPS, _DATE_ORIGINAL = 0x0112, 0x0132, 0x8769, 0x8825, 0x9003
_MAKE, _MODEL, _LENS_MAKE, _LENS = 0x010F, 0x0110, 0xA433, 0xA434
_THUMBNAIL, _THUMBNAIL_BYTES = 0x0201, 0x0202
_ASCII, _SHORT = 2, 3
_MAX_ENTRIES = 512
"""Entries looked at in a directory: real ones have some dozens; a hostile count costs no time."""
_MAX_VALUES = 4096
_KINDS = {1: "B", 2: "s", 3: "H", 4: "I", 5: "II", 6: "b", 7: "s", 8: "h", 9: "i", 10: "ii", 11: "f", 12: "d"}
"""struct letters of the types of TIFF 6.0; a rational is two."""


class Exif(msgspec.Struct, frozen=True):
    """`orientation` 1 to 8 (1 when unknown); `taken` as "2024-05-31T18:20:00" without zone, or None."""

    orientation: int = 1
    taken: str | None = None


class Place(msgspec.Struct, frozen=True):
    """Degrees, north and east positive; metres above the sea or None."""

    latitude: float
    longitude: float
    altitude: float | None = None


def parse(raw: bytes) -> Exif:
    """Returns what a block of EXIF says (with or without its "Exif" heading)."""
    block, order = _opened(raw)
    if not order:
        return Exif()
    try:
        found = _directory(block, order, struct.unpack_from(order + "I", block, 4)[0])[0]
        inner = _directory(block, order, _number(found.get(_EXIF), order))[0] if _EXIF in found else {}
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


def directories(raw: bytes) -> dict[str, dict[int, Any]]:
    """Returns all tags of `image`, `exif`, `gps` and `thumbnail`: numbers, texts, bytes, or tuples of numbers.

    Rationals are numbers (None where they divide by zero); what is broken is left out.
    """
    found: dict[str, dict[int, Any]] = {"image": {}, "exif": {}, "gps": {}, "thumbnail": {}}
    block, order = _opened(raw)
    if not order:
        return found
    first, following = _safely(block, order, struct.unpack_from(order + "I", block, 4)[0])
    found["image"] = _values(block, order, first)
    for name, pointer in (("exif", _EXIF), ("gps", _GPS)):
        if pointer in first:
            found[name] = _values(block, order, _safely(block, order, _number(first[pointer], order))[0])
            found["image"].pop(pointer, None)
    if following:
        found["thumbnail"] = _values(block, order, _safely(block, order, following)[0])
    return found


def thumbnail(raw: bytes) -> bytes:
    """Returns the JPEG that the camera put into the EXIF, empty where there is none."""
    block, _ = _opened(raw)
    tags = directories(raw)["thumbnail"]
    at, length = tags.get(_THUMBNAIL), tags.get(_THUMBNAIL_BYTES)
    if not isinstance(at, int) or not isinstance(length, int):
        return b""
    found = block[at : at + length]
    return found if found[:3] == b"\xff\xd8\xff" else b""


def camera(tags: dict[str, dict[int, Any]]) -> tuple[str | None, str | None]:
    """Returns the names of camera and lens."""
    return _named(tags["image"], _MAKE, _MODEL), _named(tags["exif"], _LENS_MAKE, _LENS)


def _named(tags: dict[int, Any], maker: int, model: int) -> str | None:
    make, name = (value.strip() if isinstance(value := tags.get(tag), str) else "" for tag in (maker, model))
    known = name.lower().startswith(make.lower().split(" ")[0]) if make and name else False
    return (name if known else f"{make} {name}".strip()) or None


def place(tags: dict[int, Any]) -> Place | None:
    """Returns where the GPS directory says that it was, None where it does not or cannot be right."""
    latitude, longitude = _degrees(tags.get(2), tags.get(1), "S", 90), _degrees(tags.get(4), tags.get(3), "W", 180)
    if latitude is None or longitude is None:
        return None
    altitude = tags.get(6)
    below = tags.get(5) in (1, b"\1")
    metres = round(-altitude if below else altitude, 2) if isinstance(altitude, int | float) else None
    return Place(latitude, longitude, metres)


def _degrees(value: object, side: object, negative: str, most: int) -> float | None:
    if not isinstance(value, tuple) or len(value) != 3 or not all(isinstance(part, int | float) for part in value):
        return None
    degrees: float = value[0] + value[1] / 60 + value[2] / 3600
    if not 0 <= degrees <= most:
        return None
    return round(-degrees if isinstance(side, str) and side.upper().startswith(negative) else degrees, 7)


def block(tags: dict[int, Any]) -> bytes:
    """Returns EXIF of these tags alone: texts, and numbers as 16 bits."""
    entries, texts, at = b"", b"", 8 + 2 + 12 * len(tags) + 4
    for tag in sorted(tags):
        value = tags[tag]
        if isinstance(value, int):
            entries += struct.pack("<HHIHH", tag, _SHORT, 1, value, 0)
            continue
        text = str(value).encode("utf-8") + b"\0"
        stored = text.ljust(4, b"\0") if len(text) <= 4 else struct.pack("<I", at + len(texts))
        entries += struct.pack("<HHI", tag, _ASCII, len(text)) + stored
        texts += text + b"\0" * (len(text) % 2) if len(text) > 4 else b""
    return b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + bytes(4) + texts


def upright(raw: bytes) -> bytes:
    """Returns the same EXIF for a picture that was turned upright and made smaller: orientation 1, no thumbnail."""
    found, order = _opened(raw)
    if not order:
        return b""
    edited = bytearray(found)
    try:
        at = struct.unpack_from(order + "I", found, 4)[0]
        count = struct.unpack_from(order + "H", found, at)[0]
        for number in range(min(count, _MAX_ENTRIES)):
            start = at + 2 + 12 * number
            if struct.unpack_from(order + "H", found, start)[0] == _ORIENTATION:
                struct.pack_into(order + "HIHH", edited, start + 2, _SHORT, 1, 1, 0)
        struct.pack_into(order + "I", edited, at + 2 + 12 * count, 0)  # no directory after it
        old = thumbnail(raw)
        if old and (place_of_old := found.find(old)) > 0:
            edited[place_of_old : place_of_old + len(old)] = bytes(len(old))
            if place_of_old + len(old) == len(edited):
                del edited[place_of_old:]
    except struct.error:
        return b""
    return bytes(edited)


# ---- the layout ------------------------------------------------------------------------------------

_Entry = tuple[int, int, bytes]


def _opened(raw: bytes) -> tuple[bytes, str]:
    """The TIFF block and its byte order ("" when it is none)."""
    found = raw[6:] if raw[:6] in (b"Exif\0\0", b"Exif\0\xff") else raw
    order = {b"II": "<", b"MM": ">"}.get(found[:2], "")
    return found, order if len(found) >= 8 else ""


def _safely(block: bytes, order: str, at: int) -> tuple[dict[int, _Entry], int]:
    try:
        return _directory(block, order, at)
    except struct.error:
        return {}, 0


def _directory(block: bytes, order: str, at: int) -> tuple[dict[int, _Entry], int]:
    stated = struct.unpack_from(order + "H", block, at)[0]
    found: dict[int, _Entry] = {}
    for number in range(min(stated, _MAX_ENTRIES)):
        start = at + 2 + 12 * number
        if start + 12 > len(block):
            return found, 0
        tag, kind, values = struct.unpack_from(order + "HHI", block, start)
        found.setdefault(tag, (kind, values, block[start + 8 : start + 12]))
    end = at + 2 + 12 * stated
    return found, struct.unpack_from(order + "I", block, end)[0] if end + 4 <= len(block) else 0


def _values(block: bytes, order: str, entries: dict[int, _Entry]) -> dict[int, Any]:
    found = {tag: _value(block, order, entry) for tag, entry in entries.items()}
    return {tag: value for tag, value in found.items() if value is not None}


def _value(block: bytes, order: str, entry: _Entry) -> object:
    kind, count, stored = entry
    letters = _KINDS.get(kind)
    if letters is None or not 0 < count <= (len(block) if letters == "s" else _MAX_VALUES):
        return None
    size = struct.calcsize("=" + letters) * count
    if size > 4:
        at = struct.unpack(order + "I", stored)[0]
        stored = block[at : at + size]
    if len(stored) < min(size, 4) or (size > 4 and len(stored) < size):
        return None
    if letters == "s":
        return stored[:count] if kind != _ASCII else stored[:count].split(b"\0")[0].decode("utf-8", "replace").strip()
    numbers = struct.unpack(f"{order}{letters * count}", stored[:size])
    if len(letters) == 2:
        numbers = tuple(
            round(over / under, 9) if under else None for over, under in zip(numbers[::2], numbers[1::2], strict=True)
        )
    return numbers[0] if count == 1 else numbers


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
