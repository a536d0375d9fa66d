"""What an image is, from its header: everything that is decided before a pixel is decoded."""

import io
import os
import re
from collections.abc import Iterator
from struct import error as StructError
from struct import unpack
from typing import Any, BinaryIO, Literal
from zlib import crc32

import msgspec
from PIL import Image, UnidentifiedImageError

from protocol.launch import ImageLimits
from workers.errors import CannotDecode, Verdict
from workers.images import bounds, exif, formats, heif, pnm, psd
from workers.images.drawing import Drawing

Image.MAX_IMAGE_PIXELS = None  # the limits here are checked on the header, are configurable, and name themselves

pnm.register()
psd.register()
_MORE_READERS = {formats.PPM: (pnm.NAME,), formats.PSD: (psd.NAME,)}
"""Readers of ours, asked before Pillow's own."""

REFUSALS = (OSError, SyntaxError, ValueError, TypeError, KeyError, IndexError, EOFError, OverflowError, AttributeError,
            ZeroDivisionError, NotImplementedError, AssertionError, RuntimeError, StructError)  # fmt: skip
"""What Pillow's readers raise on broken files. MemoryError is not among them."""

_BITS_PER_SAMPLE = 258
_TAIL_BYTES = 65_536
_EXPECTED = {
    ".jpg": "jpeg",
    ".jpeg": "jpeg",
    ".png": "png",
    ".gif": "gif",
    ".webp": "webp",
    ".tif": "tiff",
    ".tiff": "tiff",
}


class Header(msgspec.Struct, frozen=True, kw_only=True):
    """What the header says; `width` and `height` in pixels as stored (before the orientation is applied)."""

    format: formats.Format
    width: int
    height: int
    mode: str
    bands: int
    bits: int
    orientation: int = 1
    taken: str | None = None
    frames: int = 1
    progressive: bool = False
    """Progressive JPEG, interlaced PNG: held whole while it is decoded."""
    plane_bytes: float = 6.0
    """Bytes a pixel in what a codec holds of the whole image where it does: the coefficients of a progressive JPEG (2 a
    sample; 1.5 samples a pixel where the colours have a quarter of the pixels), the planes of an AVIF, a lossless
    WebP."""
    icc: str = ""
    """"" (none), "srgb" (nothing to convert) or "other"."""
    alpha: bool = False
    file_bytes: int = 0
    inside_bytes: int = 0
    """What drawing an SVG takes beside its picture, by its length and by the pictures in it."""
    drawing: Drawing | None = None
    """What an SVG's elements take, by the size it is drawn at."""
    reader: Literal["pillow", "vips"] = "pillow"
    """Whose header it is: what Pillow cannot open it cannot decode either."""
    container: str = ""
    """What the image was found in when that is another format: a raw file, an EXIF thumbnail."""

    @property
    def pixels(self) -> int:
        """How many pixels one frame has."""
        return self.width * self.height

    @property
    def kind(self) -> str:
        """`progressive` or `interlaced` where it is; its memory is another class then."""
        if not self.progressive:
            return ""
        return "progressive" if self.format is formats.JPEG else "interlaced"

    @property
    def streams(self) -> bool:
        """Whether a decoder can go through it in rows."""
        return self.format.streams and not self.progressive

    @property
    def upright(self) -> tuple[int, int]:
        """Width and height once the orientation is applied."""
        return (self.height, self.width) if self.orientation >= 5 else (self.width, self.height)


def identify(file: BinaryIO, head: bytes, path: str, name: bytes, file_bytes: int) -> formats.Format:
    """Returns the format of a file. Raises Verdict: corrupt when it is empty or its header holds too much,
    unsupported when it is none of ours."""
    found = formats.sniff(head, name) or _rare(file)
    if found is not None:
        bounds.check(path, file, found, file_bytes)
        return found
    if not file_bytes:
        raise Verdict("corrupt", f"{path} is empty (0 bytes)")
    if (rare := formats.broken(head)) is not None:
        raise Verdict("corrupt", f"{path} is a broken {rare}: its header cannot be read")
    raise Verdict("unsupported", f"{path} {formats.describe(head)}; read are {formats.READABLE}")


def _rare(file: BinaryIO) -> formats.Format | None:
    """The format of a file that Pillow knows and that is not common; its header is small and read twice."""
    Image.init()
    try:
        file.seek(0)
        with Image.open(file, formats=formats.RARE) as image:
            kind = image.format or ""
    except REFUSALS:
        return None
    return formats.Format(kind.lower(), kind, False)


def read_with_pillow(file: BinaryIO, kind: formats.Format, file_bytes: int) -> tuple[Header, Image.Image]:
    """Returns the header and Pillow's opened (not decoded) image. Raises CannotDecode with Pillow's reason."""
    if kind is formats.HEIF and not heif.register():
        raise CannotDecode(heif.MISSING)
    if kind is formats.AVIF:
        heif.restrain_avif()
    try:
        image = Image.open(file, formats=(*_MORE_READERS.get(kind, ()), kind.pillow))
        if kind is formats.PNG and "exif" not in image.info:
            image.info.update(_late_exif(file, file_bytes))
        if told := bounds.claims(image, file_bytes):
            raise CannotDecode(told)
        return _header(image, kind, file, file_bytes), image
    except REFUSALS as error:
        raise CannotDecode(reason(error)) from error


def reason(error: BaseException) -> str:
    """Returns a decoder's own words in one line, without the object that it could not read."""
    words = " ".join(str(error).split())
    if isinstance(error, UnidentifiedImageError):
        return "its header cannot be read"
    return words[:300] or type(error).__name__


def _header(image: Image.Image, kind: formats.Format, file: BinaryIO, file_bytes: int) -> Header:
    told = image.info
    oriented = _tiff_exif(image) if kind is formats.TIFF else exif.parse(_bytes(told.get("exif")))
    # Pillow tells the size of a TIFF as it will be once it is turned.
    stored = image.size[::-1] if kind is formats.TIFF and oriented.orientation >= 5 else image.size
    turned = kind is formats.HEIF  # by its decoder; the EXIF tag is a copy that says so once more
    return Header(
        format=kind,
        width=stored[0],
        height=stored[1],
        mode=image.mode,
        bands=len(image.getbands()),
        bits=_bits(image),
        orientation=1 if turned else oriented.orientation,
        taken=oriented.taken,
        frames=_frames(image, kind, file, file_bytes),
        progressive=bool(told.get("progressive") or told.get("progression") or told.get("interlace")),
        plane_bytes=_plane_bytes(image, kind, file),
        icc=_icc(_bytes(told.get("icc_profile"))),
        alpha=image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in told,
        file_bytes=file_bytes,
    )


def _late_exif(file: BinaryIO, file_bytes: int) -> dict[str, bytes]:
    """The EXIF of a PNG whose program appended it behind the pixels, where Pillow sees it too late."""
    place = file.tell()
    file.seek(max(0, file_bytes - _TAIL_BYTES))
    tail = file.read(_TAIL_BYTES)
    file.seek(place)
    at = tail.rfind(b"eXIf")
    if at < 4:
        return {}
    length = unpack(">I", tail[at - 4 : at])[0]
    whole, check = tail[at : at + 4 + length], tail[at + 4 + length : at + 8 + length]
    return {"exif": whole[4:]} if check == crc32(whole).to_bytes(4, "big") else {}


def _bytes(value: object) -> bytes:
    return value if isinstance(value, bytes) else b""


def _samples(image: Image.Image) -> float:
    """Samples a pixel as the sampling factors of a JPEG's components tell (T.81, A.1.1); else the number of bands."""
    factors = [(wide, high) for _, wide, high, _ in getattr(image, "layer", ())]
    if not factors:
        return float(len(image.getbands()))
    most = max(wide for wide, _ in factors) * max(high for _, high in factors)
    return sum(wide * high for wide, high in factors) / most if most else float(len(factors))


def _plane_bytes(image: Image.Image, kind: formats.Format, file: BinaryIO) -> float:
    if kind is formats.AVIF:
        return _av1_plane_bytes(file)
    if kind is formats.WEBP:
        file.seek(0)
        return 4.0 if b"VP8L" in file.read(formats.HEAD_BYTES) else 0.0
    return 2 * _samples(image)


def _av1_plane_bytes(file: BinaryIO) -> float:
    """Bytes a pixel in the frame of an AVIF, as its `av1C` box tells (AV1 in ISO-BMFF 2.3.3); the most of several."""
    file.seek(0)
    head = file.read(_AVIF_HEAD_BYTES)
    found = [box[2] for box in re.findall(rb"av1C(...)", head, re.DOTALL)]
    return max((_of_av1(flags) for flags in found), default=_of_av1(0))


def _of_av1(flags: int) -> float:
    deep, grey, half_wide, half_high = (bool(flags & bit) for bit in (0x40, 0x10, 0x08, 0x04))
    return (2 if deep else 1) * (1 if grey else 1 + 2 / (1 + half_wide) / (1 + half_high))


def _bits(image: Image.Image) -> int:
    if image.mode == "1":
        return 1
    if image.format == "TIFF" and (told := _told_bits(image)):
        return told
    if image.mode.startswith("I;16"):
        return 16
    if image.mode in ("I", "F"):
        return 32
    modes = image.tile[0].args if image.tile else ()  # type: ignore[attr-defined]
    raw = modes if isinstance(modes, str) else modes[0] if isinstance(modes, tuple) and modes else ""
    return 16 if isinstance(raw, str) and ";16" in raw else 8


def _told_bits(image: Image.Image) -> int:
    """What a TIFF says itself, 0 where it does not: the raw mode of one that keeps its planes apart does not tell."""
    told = image.tag_v2.get(_BITS_PER_SAMPLE, ())  # type: ignore[attr-defined]
    return max((bits for bits in (told if isinstance(told, tuple) else (told,)) if isinstance(bits, int)), default=0)


def _icc(profile: bytes) -> str:
    if not profile:
        return ""
    return "srgb" if b"sRGB" in profile or "sRGB".encode("utf-16-be") in profile else "other"


def _tiff_exif(image: Image.Image) -> exif.Exif:
    tags: Any = image.tag_v2  # type: ignore[attr-defined]
    orientation = tags.get(0x0112, 1)
    date = tags.get(0x0132)
    return exif.Exif(
        orientation if isinstance(orientation, int) and 1 <= orientation <= 8 else 1,
        exif.date_of(date if isinstance(date, str) else None),
    )


# ---- frames: counted without decoding them, and never further than any limit would let them be -----

_AVIF_HEAD_BYTES = 64 * 1024
"""The properties of an image stand before its pixels, behind at most a colour profile of some KB."""
_MOST_FRAMES = 100_000


def _frames(image: Image.Image, kind: formats.Format, file: BinaryIO, file_bytes: int) -> int:
    if kind not in (formats.GIF, formats.TIFF):
        frames = getattr(image, "n_frames", 1) if kind in (formats.WEBP, formats.PNG, formats.AVIF) else 1
        return frames if isinstance(frames, int) else 1
    position = file.tell()
    try:
        count = sum(1 for _ in (_gif_frames(file) if kind is formats.GIF else _tiff_frames(file, file_bytes)))
    finally:
        file.seek(position)
    return max(1, count)


def _gif_frames(file: BinaryIO) -> Iterator[None]:
    """GIF89a, section 12 on: blocks that begin with ',' (an image), '!' (an extension) or ';' (the end)."""
    file.seek(10)
    flags = file.read(3)
    if flags and flags[0] & 0x80:
        file.seek(3 << ((flags[0] & 7) + 1), io.SEEK_CUR)
    for _ in range(_MOST_FRAMES * 4):
        mark = file.read(1)
        if mark == b",":
            yield
            place = file.read(9)
            if len(place) == 9 and place[8] & 0x80:
                file.seek(3 << ((place[8] & 7) + 1), io.SEEK_CUR)
            file.read(1)
        elif mark == b"!":
            file.read(1)
        else:
            return
        while (length := file.read(1)) and length[0]:
            file.seek(length[0], io.SEEK_CUR)


def _tiff_frames(file: BinaryIO, file_bytes: int) -> Iterator[None]:
    """TIFF 6.0, section 2 (and its 64-bit form): directories, each ending with the place of the next."""
    file.seek(0)
    start = file.read(16)
    order = "<" if start[:2] == b"II" else ">"
    big = start[2:4] in (b"+\0", b"\0+")
    count_bytes, entry_bytes, place_bytes = (8, 20, 8) if big else (2, 12, 4)
    place = unpack(order + ("Q" if big else "I"), start[8:16] if big else start[4:8])[0]
    seen: set[int] = set()
    while 0 < place < file_bytes and place not in seen and len(seen) < _MOST_FRAMES:
        seen.add(place)
        yield
        file.seek(place)
        raw = file.read(count_bytes)
        if len(raw) < count_bytes:
            return
        file.seek(unpack(order + ("Q" if big else "H"), raw)[0] * entry_bytes, io.SEEK_CUR)
        raw = file.read(place_bytes)
        if len(raw) < place_bytes:
            return
        place = unpack(order + ("Q" if big else "I"), raw)[0]


# ---- limits ----------------------------------------------------------------------------------------


def check_size(path: str, file_bytes: int, limits: ImageLimits) -> None:
    """Raises Verdict too_large when the file is."""
    if file_bytes > limits.file_bytes:
        raise Verdict("too_large", f"{path} has {file_bytes:,} bytes; the limit file_bytes is {limits.file_bytes:,}")


def check(path: str, header: Header, limits: ImageLimits) -> None:
    """Raises Verdict when the image has too many pixels or frames to be decoded."""
    size = f"{header.width:,} x {header.height:,} = {header.pixels:,} pixels"
    name = "pixels_streamed" if header.streams else "pixels_whole"
    limit = limits.pixels_streamed if header.streams else limits.pixels_whole
    if header.width < 1 or header.height < 1:
        raise Verdict("corrupt", f"{path} has no pixels ({header.width} x {header.height})")
    if header.pixels > limit:
        how = "" if header.streams else f", and {_whole(header)} must be held whole"
        raise Verdict("too_many_pixels", f"{path} has {size}{how}; the limit {name} is {limit:,}")
    if max(header.width, header.height) > limits.side:
        raise Verdict("too_many_pixels", f"{path} has {size}; the limit of a side, side, is {limits.side:,}")
    if header.frames > limits.frames:
        raise Verdict("too_large", f"{path} has {header.frames:,} frames; the limit frames is {limits.frames:,}")


def _whole(header: Header) -> str:
    progressive = {"jpeg": "a progressive JPEG", "png": "an interlaced PNG"}
    return progressive.get(header.format.name, header.format.name.upper())


def check_gif(path: str, file: BinaryIO, limits: ImageLimits) -> None:
    """Raises Verdict when the first frame of a GIF makes it too large: Pillow would make room while it opens it."""
    file.seek(6)
    width, height = unpack("<HH", file.read(4).ljust(4, b"\0"))
    if next(iter(_gif_frames(file)), True) is None:
        left, top, wide, high = unpack("<HHHH", file.read(8).ljust(8, b"\0"))
        width, height = max(width, left + wide), max(height, top + high)
    if width * height > limits.pixels_whole:
        size = f"{width:,} x {height:,} = {width * height:,} pixels, and GIF must be held whole"
        raise Verdict("too_many_pixels", f"{path} has {size}; the limit pixels_whole is {limits.pixels_whole:,}")


def looks_cut(file: BinaryIO, kind: formats.Format, file_bytes: int) -> bool:
    """Tells whether the file ends before its image does: asked only after a decoder refused it."""
    file.seek(max(0, file_bytes - 65536))
    tail = file.read(65536)
    if kind is formats.JPEG:
        return b"\xff\xd9" not in tail
    if kind is formats.PNG:
        return b"IEND" not in tail
    if kind is formats.GIF:
        return not tail.rstrip(b"\0").endswith(b";")
    if kind is formats.WEBP:
        file.seek(4)
        return file_bytes < int.from_bytes(file.read(4), "little") + 8
    return False


JPEG_HEAD_BYTES = 1 << 20
"""The frame header stands behind the metadata."""
_JPEG_NO_FRAME = (0xC4, 0xC8, 0xCC)


def jpeg_bits(head: bytes) -> int:
    """Returns how many bits a sample of a JPEG has by its frame header (T.81, B.2.2), 0 where none is found."""
    at = 2
    while at + 4 < len(head) and head[at] == 0xFF:
        marker = head[at + 1]
        if 0xC0 <= marker <= 0xCF and marker not in _JPEG_NO_FRAME:
            return head[at + 4]
        at += 2 + int.from_bytes(head[at + 2 : at + 4], "big")
    return 0


def misnamed(name: bytes, kind: formats.Format) -> str | None:
    """Returns a warning when the name promises another format than the file has."""
    extension = os.path.splitext(name)[1].lower().decode("ascii", "replace")
    promised = _EXPECTED.get(extension)
    return f"named {extension} but is {kind.name}" if promised and promised != kind.name else None
