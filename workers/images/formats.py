"""Which files are images, told by their first bytes; the name is believed only where a format has no mark.

Two lists. The common formats are told apart here. What is none of them may be one of the rare formats that Pillow
reads (PCX, SGI, DDS, ...): a gallery of thirty years holds some, and a reader that falls over one is contained by its
worker. Left out are those that start another program (EPS), need Windows (WMF) or hold no pixels (HDF5, GRIB).
"""

import zlib
from typing import Final

import msgspec


class Format(msgspec.Struct, frozen=True):
    """One readable format. `pillow` is its name there ("" where Pillow cannot), `vips` tells whether libvips can.

    `streams`: the decoder holds some rows, not the whole image (unless the header says progressive or
    interlaced).
    """

    name: str
    pillow: str
    vips: bool
    streams: bool = False


JPEG: Final = Format("jpeg", "JPEG", True, streams=True)
PNG: Final = Format("png", "PNG", True, streams=True)
TIFF: Final = Format("tiff", "TIFF", True, streams=True)
WEBP: Final = Format("webp", "WEBP", True)
GIF: Final = Format("gif", "GIF", True)
AVIF: Final = Format("avif", "AVIF", True)
HEIF: Final = Format("heif", "HEIF", True)
RAW: Final = Format("raw", "", False)
"""A camera's raw file: what is read is the largest JPEG that the camera put into it (`images.raw`)."""
SVG: Final = Format("svg", "", True)
JPEG2000: Final = Format("jpeg2000", "JPEG2000", False)
BMP: Final = Format("bmp", "BMP", False)
ICO: Final = Format("ico", "ICO", False)
PPM: Final = Format("ppm", "PPM", False)
PSD: Final = Format("psd", "PSD", False)
TGA: Final = Format("tga", "TGA", False)

HEAD_BYTES: Final = 1024
"""How much of a file `sniff` wants to see; an SVG may begin with a long comment."""

_BEGINNINGS: Final[tuple[tuple[bytes, Format], ...]] = (
    (b"\xff\xd8\xff", JPEG),
    (b"\x89PNG\r\n\x1a\n", PNG),
    (b"GIF87a", GIF),
    (b"GIF89a", GIF),
    (b"II*\0", TIFF),
    (b"MM\0*", TIFF),
    (b"II+\0", TIFF),
    (b"MM\0+", TIFF),
    (b"MM*\0", TIFF),
    (b"II\0*", TIFF),
    (b"IIRO", RAW),
    (b"IIRS", RAW),
    (b"MMOR", RAW),
    (b"IIU\0", RAW),
    (b"FUJIFILMCCD-RAW", RAW),
    (b"\0\0\0\x0cjP  \r\n\x87\n", JPEG2000),
    (b"\xffO\xffQ", JPEG2000),
    (b"8BPS", PSD),
    (b"\0\0\1\0", ICO),
    (b"BM", BMP),
)
_BRANDS: Final = {
    b"avif": AVIF,
    b"avis": AVIF,
    b"heic": HEIF,
    b"heix": HEIF,
    b"hevc": HEIF,
    b"heim": HEIF,
    b"heis": HEIF,
    b"hevx": HEIF,
    b"hevm": HEIF,
    b"hevs": HEIF,
    b"mif2": HEIF,
    b"miaf": HEIF,
    b"crx ": RAW,
    b"mif1": HEIF,
    b"msf1": HEIF,
}
_RAW_EXTENSIONS: Final = frozenset(b"dng nef nrw arw srf sr2 cr2 pef srw rw2 orf 3fr erf mef mos iiq".split())
RARE: Final = (
    "BLP", "CUR", "DCX", "DDS", "DIB", "FITS", "FLI", "FTEX", "GBR", "ICNS", "IM", "IMT", "IPTC", "MCIDAS", "MSP",
    "PCD", "PCX", "PIXAR", "PPM", "QOI", "SGI", "SPIDER", "SUN", "TGA", "XBM", "XPM", "XVTHUMB",
)  # fmt: skip
"""Pillow's names of the formats that are tried when a file is none of the common ones."""

_RARE_MARKS: Final[tuple[tuple[int, bytes, str], ...]] = (
    (4, b"\x11\xaf", "FLI"),
    (4, b"\x12\xaf", "FLI"),
    (0, b"SIMPLE  =", "FITS"),
    (0, b"DDS ", "DDS"),
    (0, b"qoif", "QOI"),
    (0, b"icns", "ICNS"),
    (0, b"\0\0\2\0", "CUR"),
)
_REFUSED: Final[tuple[tuple[int, bytes, str], ...]] = (
    (0, b"%PDF", "PDF"),
    (0, b"%!PS", "PostScript"),
    (0, b"v/1\x01", "OpenEXR"),
    (0, b"#?RADIANCE", "Radiance HDR"),
    (0, b"\x76\x2f\x31\x01", "OpenEXR"),
    (0, b"PK\x03\x04", "ZIP archive"),
    (0, b"\x1f\x8b", "gzip archive"),
)


def sniff(head: bytes, name: bytes) -> Format | None:
    """Returns the format of a file that begins with `head`, None when it is none of ours. `name` is its file name."""
    for mark, found in _BEGINNINGS:
        if head.startswith(mark):
            return RAW if found is TIFF and _is_raw(head, name) else found
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return WEBP
    if head[4:8] == b"ftyp":
        return _of_brands(head)
    if len(head) > 2 and head[:1] == b"P" and head[1:2] in b"1234567" and head[2:3] in b" \t\r\n":
        return PPM
    if (
        head.lstrip(b"\xef\xbb\xbf \t\r\n").startswith((b"<?xml", b"<svg", b"<!--", b"<!DOCTYPE svg"))
        and b"<svg" in head
    ):
        return SVG
    if head[:2] == b"\x1f\x8b" and b"<svg" in _unpacked(head):
        return SVG
    return TGA if name.lower().endswith(b".tga") and head else None


def _of_brands(head: bytes) -> Format | None:
    length = min(int.from_bytes(head[:4], "big"), len(head))
    brands = [head[8:12], *(head[at : at + 4] for at in range(16, length, 4))]
    if any(brand in (b"avif", b"avis") for brand in brands):
        return AVIF
    return next((_BRANDS[brand] for brand in brands if brand in _BRANDS), None)


def _is_raw(head: bytes, name: bytes) -> bool:
    """Raw files are TIFF by their first bytes; Canon marks its own, the others are told by the name."""
    return head[8:10] == b"CR" or name[name.rfind(b".") + 1 :].lower() in _RAW_EXTENSIONS


def _unpacked(head: bytes) -> bytes:
    try:
        return zlib.decompressobj(31).decompress(head, 4096)  # 31: gzip
    except zlib.error:
        return b""


def broken(head: bytes) -> str | None:
    """Returns the name of the rare format that a file seems to be of, though its reader found nothing it can read."""
    return next((name for at, mark, name in _RARE_MARKS if head[at : at + len(mark)] == mark), None)


def describe(head: bytes) -> str:
    """Returns what a file of no readable format seems to be, for its verdict."""
    for at, mark, name in _REFUSED:
        if head[at : at + len(mark)] == mark:
            return f"is of a format that is not read here: {name}"
    if head[4:8] == b"ftyp":
        return f"is of a format that is not read here: {head[8:12].decode('ascii', 'replace')} (ISO media)"
    return f"is no image of a known format: it begins with {head[:16]!r}"


READABLE: Final = (
    "JPEG, PNG, WebP, TIFF, GIF, AVIF, HEIF, JPEG 2000, BMP, ICO, PPM, PSD, TGA, SVG, the previews in CR2, CR3, NEF, "
    "ARW, DNG, ORF, RW2 and RAF, and what else Pillow reads"
)
