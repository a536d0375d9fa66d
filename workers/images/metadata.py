"""Metadata as JSON, and the part of it that may go with a copy.

EXIF is read by our own few unpacks (`images.exif`): a bound on everything, no reader of pixels. XMP is XML from
strangers: a document with entities is not parsed. IPTC is the IIM records in Photoshop's resource 0x0404. Whatever is
broken is left out; metadata is never a reason to fail.
"""

import functools
import re
import struct
import xml.etree.ElementTree as ElementTree
from typing import Any, Final

import msgspec
from PIL import ExifTags

from workers.images import exif
from workers.images.encode import NOTHING, Kept

_XMP_BYTES: Final = 1024 * 1024
_VALUES: Final = 1000
_TEXT: Final = 1000
"""Characters kept of one value: a JSON row is no place for a maker's kilobytes."""
_RDF = "{http://www.w3.org/1999/02/22-rdf-syntax-ns#}"
_SPACES = {
    "http://purl.org/dc/elements/1.1/": "dc",
    "http://ns.adobe.com/xap/1.0/": "xmp",
    "http://ns.adobe.com/xap/1.0/rights/": "xmpRights",
    "http://ns.adobe.com/xap/1.0/mm/": "xmpMM",
    "http://ns.adobe.com/photoshop/1.0/": "photoshop",
    "http://ns.adobe.com/exif/1.0/": "exif",
    "http://ns.adobe.com/tiff/1.0/": "tiff",
    "http://ns.adobe.com/camera-raw-settings/1.0/": "crs",
    "http://ns.adobe.com/lightroom/1.0/": "lr",
    "http://ns.adobe.com/hdr-gain-map/1.0/": "hdrgm",
    "http://iptc.org/std/Iptc4xmpCore/1.0/xmlns/": "Iptc4xmpCore",
}
_IPTC = {
    5: "object_name", 7: "edit_status", 10: "urgency", 15: "category", 20: "supplemental_category", 25: "keywords",
    40: "special_instructions", 55: "date_created", 60: "time_created", 80: "byline", 85: "byline_title", 90: "city",
    92: "sublocation", 95: "province", 100: "country_code", 101: "country", 103: "original_transmission_reference",
    105: "headline", 110: "credit", 115: "source", 116: "copyright_notice", 118: "contact", 120: "caption",
    122: "caption_writer",
}  # fmt: skip
_LISTS = frozenset({"keywords", "supplemental_category", "byline"})


class Metadata(msgspec.Struct, frozen=True):
    """The raw blocks of an image, empty where it has none: EXIF (TIFF), XMP (a document), IIM records, the profile."""

    exif: bytes = b""
    xmp: bytes = b""
    iptc: bytes = b""
    icc: bytes = b""


def exif_json(block: bytes) -> dict[str, Any]:
    """Returns every tag by its name, the directories one below the other; unknown tags by their number."""
    directories = exif.directories(block)
    names: dict[str, dict[int, str]] = {
        "image": ExifTags.TAGS, "exif": ExifTags.TAGS, "gps": ExifTags.GPSTAGS, "thumbnail": ExifTags.TAGS,
    }  # fmt: skip
    return {
        directory: {names[directory].get(tag, f"0x{tag:04x}"): _plain(value) for tag, value in tags.items()}
        for directory, tags in directories.items()
        if tags
    }


def _plain(value: object) -> object:
    if isinstance(value, bytes):
        return f"{len(value)} bytes"
    if isinstance(value, tuple):
        return [_plain(each) for each in value[:64]]
    return value[:_TEXT] if isinstance(value, str) else value


def xmp_json(document: bytes) -> dict[str, Any]:
    """Returns XMP's properties by their qualified names; bags and sequences as lists, languages by the first."""
    if not document or len(document) > _XMP_BYTES or b"<!" in document:
        return {}
    try:
        root = ElementTree.fromstring(document.strip(b"\0 \r\n\t"))
    except ElementTree.ParseError:
        return {}
    found: dict[str, Any] = {}
    for description in root.iter(f"{_RDF}Description"):
        for name, value in description.attrib.items():
            if not name.startswith(_RDF) and len(found) < _VALUES:
                found[_qualified(name)] = value[:_TEXT]
        for child in description:
            if len(found) < _VALUES:
                found.setdefault(_qualified(child.tag), _property(child))
    return found


def _property(element: ElementTree.Element) -> object:
    items = list(element.iter(f"{_RDF}li"))[:_VALUES]
    if items and element.find(f"{_RDF}Alt") is not None:
        return (items[0].text or "")[:_TEXT]
    if items:
        return [(item.text or "").strip()[:_TEXT] for item in items]
    return (element.text or "").strip()[:_TEXT]


def _qualified(name: str) -> str:
    space, _, local = name[1:].partition("}") if name.startswith("{") else ("", "", name)
    return f"{_SPACES.get(space, space)}:{local}" if space else local


def iptc_json(records: bytes) -> dict[str, Any]:
    """Returns the application record (IIM, record 2) by its data sets' names; keywords and the like as lists."""
    found: dict[str, Any] = {}
    at = 0
    while at + 5 <= len(records) and records[at] == 0x1C and len(found) < _VALUES:
        record, data_set, length = struct.unpack_from(">BBH", records, at + 1)
        raw, at = records[at + 5 : at + 5 + length], at + 5 + length
        name = _IPTC.get(data_set)
        if record != 2 or name is None or length & 0x8000:
            continue
        text = _text(raw)
        if name in _LISTS:
            found.setdefault(name, []).append(text)
        else:
            found.setdefault(name, text)
    return found


def _text(raw: bytes) -> str:
    try:
        return raw[:_TEXT].decode("utf-8")
    except UnicodeDecodeError:
        return raw[:_TEXT].decode("latin-1")


@functools.lru_cache(maxsize=64)
def icc_description(profile: bytes) -> str | None:
    """Returns what a colour profile calls itself (ICC.1, tag `desc`), None where it says nothing."""
    try:
        count = min(struct.unpack_from(">I", profile, 128)[0], 100)
        for number in range(count):
            name, at, length = struct.unpack_from(">4sII", profile, 132 + 12 * number)
            if name == b"desc":
                return _described(profile[at : at + min(length, 4096)])
    except struct.error:
        pass  # a profile cut short says nothing
    return None


def _described(tag: bytes) -> str | None:
    if tag[:4] == b"mluc":
        length, at = struct.unpack_from(">II", tag, 20)
        return tag[at : at + length].decode("utf-16-be", "replace").strip("\0") or None
    length = struct.unpack_from(">I", tag, 8)[0]
    return tag[12 : 12 + length].rstrip(b"\0").decode("latin-1") or None


# ---- what goes with a copy -------------------------------------------------------------------------

_ARTIST, _COPYRIGHT, _ORIENTATION = 0x013B, 0x8298, 0x0112
_TURNED = re.compile(rb"(tiff:Orientation\s*(?:=\s*[\"']|>)\s*)[2-8]")


def kept(policy: str, found: Metadata) -> Kept:
    """Returns what a picture turned upright and converted to sRGB takes along: `keep`, `copyright` or `strip`."""
    if policy == "strip":
        return NOTHING
    directories = exif.directories(found.exif)
    if policy == "copyright":
        named = {
            tag: value
            for tag, value in directories["image"].items()
            if tag in (_ARTIST, _COPYRIGHT) and isinstance(value, str)
        }
        return Kept(exif.block(named) if named else b"", b"")
    return Kept(exif.upright(found.exif), _TURNED.sub(rb"\g<1>1", found.xmp))
