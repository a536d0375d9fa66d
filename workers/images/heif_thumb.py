"""The thumbnail that a HEIF or AVIF file carries, by naming it the file's picture (ISO/IEC 23008-12).

A file of items says in `pitm` which of them is the picture; a reference `thmb` in `iref` goes from a thumbnail to what
it shows. With the picture's number replaced by the thumbnail's, and the reference's type made one that nobody knows,
any decoder reads the thumbnail: with its own size, turn and colours, and without a pixel of the picture decoded.
"""

from collections.abc import Iterator
from struct import error as StructError
from struct import unpack_from

_MOST_BOXES = 4096
_NO_REFERENCE = b"skip"


def by_thumbnail(content: bytes) -> bytes | None:
    """Returns the file with its first thumbnail as its picture; None where it has none, or is no such file."""
    try:
        return _swapped(content)
    except (StructError, IndexError, ValueError):
        return None


def _swapped(content: bytes) -> bytes | None:
    meta = _find(content, b"meta", 0, len(content))
    if meta is None:
        return None
    pitm, iref = (_find(content, kind, meta[0] + 4, meta[1]) for kind in (b"pitm", b"iref"))
    if pitm is None or iref is None:
        return None
    at, short = pitm[0] + 4, content[pitm[0]] == 0
    width = 2 if short else 4
    picture = unpack_from(">H" if short else ">I", content, at)[0]
    number, item = ("H", 2) if content[iref[0]] == 0 else ("I", 4)
    for kind, begin, end in _boxes(content, iref[0] + 4, iref[1]):
        if kind != b"thmb":
            continue
        thumbnail, count = unpack_from(f">{number}H", content, begin)
        shown = unpack_from(f">{count}{number}", content[:end], begin + item + 2)
        if picture not in shown or thumbnail >= 1 << 8 * width:
            continue
        swapped = bytearray(content)
        swapped[at : at + width] = thumbnail.to_bytes(width, "big")
        swapped[begin - 4 : begin] = _NO_REFERENCE
        return bytes(swapped)
    return None


def _find(content: bytes, wanted: bytes, begin: int, end: int) -> tuple[int, int] | None:
    return next(((start, stop) for kind, start, stop in _boxes(content, begin, end) if kind == wanted), None)


def _boxes(content: bytes, begin: int, end: int) -> Iterator[tuple[bytes, int, int]]:
    """The boxes between two places: type, where its content begins, where it ends (ISO/IEC 14496-12, 4.2)."""
    for _ in range(_MOST_BOXES):
        if begin + 8 > end:
            return
        size, kind = unpack_from(">I4s", content, begin)
        start = begin + 8
        if size == 1:
            size, start = unpack_from(">Q", content, start)[0], start + 8
        stop = end if size == 0 else begin + size
        if not start <= stop <= end:
            return
        yield kind, start, stop
        begin = stop
