"""Decoding with Pillow: scaled (draft) decoding for JPEGs, and every format that libvips does not read."""

import functools
import io
from typing import Any

from PIL import Image, ImageFile

from workers.errors import CannotDecode
from workers.images import formats, progressive, with_vips
from workers.images.cost import box_factor, draft_scale, even_box, is_packed, shrinks_in_strips
from workers.images.header import REFUSALS, Header, read_with_pillow, reason
from workers.images.metadata import Metadata

_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_IIM_RESOURCE, _TIFF_XMP, _TIFF_IPTC, _SAMPLE_FORMAT = 0x0404, 700, 33723, 339
_TAGS_BYTES = 1_000_000
_SMALL_PIXELS = 2_000_000
_READ_BYTES = 1 << 20
"""How much of a JPEG the decoder is given at once: at Pillow's own 64 KB it takes 1 to 3 % longer."""
_STRIP_ROWS = 32
_VIPS_PIXELS = 60_000
"""Measured equal at some 200 x 150 pixels."""
_PLAIN = ("L", "RGB", "RGBA")


def decode(image: Image.Image, header: Header, target: tuple[int, int], *, lenient: bool) -> Image.Image:
    """Returns the image at `target` pixels (as stored), 8 bits, sRGB; mode L, RGB or RGBA.

    `lenient` takes what there is of a file that ends too early. Raises CannotDecode with Pillow's reason.
    """
    scale = draft_scale(header, target)
    try:
        if scale > 1:
            image.draft(None, (header.width // scale, header.height // scale))
        if isinstance(image, ImageFile.ImageFile):
            image.decodermaxblock = max(image.decodermaxblock, _READ_BYTES)
        ImageFile.LOAD_TRUNCATED_IMAGES = lenient
        if (shrunk := _in_strips(image, header, target)) is not None:
            return shrunk
        image.load()
        if header.format is formats.AVIF and header.frames == 1:
            image._decoder = None  # type: ignore[attr-defined]  # its planes: two bytes a pixel while it is shrunk
    except REFUSALS as error:
        raise CannotDecode(reason(error)) from error
    finally:
        ImageFile.LOAD_TRUNCATED_IMAGES = False
    profile = image.info.get("icc_profile") if header.icc == "other" else None
    ready = image.mode in _PLAIN and profile is None and "transparency" not in image.info
    plain = image if ready else _plain(image, profile, header.bits)
    halved = scale if image.width < header.width else 1  # a decoder may leave a draft alone
    return shrink(plain, target, (header.width / halved, header.height / halved))


def shrink(image: Image.Image, size: tuple[int, int], extent: tuple[float, float] | None = None) -> Image.Image:
    """Returns the image at `size` by Lanczos, a box before it where more than four times is to be shrunk.

    `extent`: how many of the image's own pixels `size` stands for, where that is not all: the half of 1,181 rows is
    590.5, and an image stretched by the other half is 3 dB worse.

    Measured on camera photos against Lanczos alone: 53 dB, where the bicubic of Pillow's `thumbnail` has 45; by
    libvips, whose vector code takes a fifth to a third of Pillow's time. Small pictures do not earn its start, and
    transparent ones would have to be multiplied with their opacity first: Pillow does that by itself.
    """
    if image.size == size:
        return image
    wide, high = extent or image.size
    factor = box_factor(wide, high, size)
    vips = image.mode in ("L", "RGB") and image.width * image.height > _VIPS_PIXELS and (wide, high) == image.size
    if vips and is_packed(factor, image.width * image.height):
        return with_vips.resized(image, size)  # it would centre an extent of half pixels, and be off by a quarter
    if vips and (even := even_box(*image.size, factor)) is not None:
        return with_vips.resized(image.reduce(even), size)
    if factor > 1:
        image = image.reduce(factor)
        wide, high = wide / factor, high / factor
    return _by_lanczos(image, size, wide, high)


def _by_lanczos(image: Image.Image, size: tuple[int, int], wide: float, high: float) -> Image.Image:
    return image.resize(size, Image.Resampling.LANCZOS, box=(0, 0, min(wide, image.width), min(high, image.height)))


def _in_strips(image: Image.Image, header: Header, target: tuple[int, int]) -> Image.Image | None:
    """Returns an AVIF image shrunk as `shrink` does, bit for bit, None of what it is not made for.

    Its decoder hands out the whole picture packed. Pillow would unpack all of that into a second, larger one before it
    is shrunk: 24 MB of fresh pages for 6 megapixels, 1 to 3 % of the time. A strip stays in its cache.
    """
    decoder = getattr(image, "_decoder", None)
    wide, high = image.size
    if decoder is None or not shrinks_in_strips(header, target):
        return None
    largest = box_factor(wide, high, target)
    even = even_box(wide, high, largest) if wide * high > _VIPS_PIXELS else None
    factor = even or largest
    pixels = memoryview(decoder.get_frame(0)[0])
    if len(pixels) != wide * high * 3:
        return None
    reduced = Image.new("RGB", (-(-wide // factor), -(-high // factor)))
    rows = factor * max(1, _STRIP_ROWS // factor)
    for top in range(0, high, rows):
        size = wide, min(rows, high - top)
        strip = Image.frombytes("RGB", size, pixels[top * wide * 3 :][: size[0] * size[1] * 3])
        reduced.paste(strip.reduce(factor), (0, top // factor))
    pixels.release()
    if even is not None:
        return with_vips.resized(reduced, target)
    return _by_lanczos(reduced, target, wide / factor, high / factor)


def decode_eighth(content: bytes, header: Header, target: tuple[int, int]) -> Image.Image | None:
    """Returns a progressive JPEG that may be shrunk by eight from the scans that matter; None of others."""
    trimmed = progressive.for_an_eighth(content)
    if trimmed is None:
        return None
    try:
        with read_with_pillow(io.BytesIO(trimmed), header.format, len(trimmed))[1] as image:
            return decode(image, header, target, lenient=False)
    except CannotDecode:
        return None


def decode_item(content: bytes, header: Header, side: int) -> Image.Image | None:
    """Returns a HEIF or AVIF file's thumbnail, None where it is not one of at least `side` pixels and a smaller one."""
    try:
        found, image = read_with_pillow(io.BytesIO(content), header.format, len(content))
        with image:
            if max(image.size) < side or found.pixels >= header.pixels:
                return None
            return decode(image, found, image.size, lenient=False)
    except CannotDecode:
        return None


def decode_small(content: bytes) -> Image.Image | None:
    """Returns a small JPEG decoded (mode L or RGB), None when it is none."""
    try:
        image = Image.open(io.BytesIO(content), formats=("JPEG",))
        if image.width * image.height > _SMALL_PIXELS:
            return None
        image.load()
    except REFUSALS:
        return None
    return image if image.mode in ("L", "RGB") else image.convert("RGB")


def metadata(image: Image.Image) -> Metadata:
    """Returns the blocks that Pillow found in an image it opened."""
    told = image.info
    resources = told.get("photoshop")
    iptc = resources.get(_IIM_RESOURCE) if isinstance(resources, dict) else None
    xmp = told.get("xmp") or told.get("XML:com.adobe.xmp") or b""
    block = told.get("exif") or b""
    if image.format == "TIFF":
        tags: Any = image.tag_v2  # type: ignore[attr-defined]
        block = _tiff_exif(image)
        try:
            xmp, iptc = tags.get(_TIFF_XMP, b""), tags.get(_TIFF_IPTC)
        except REFUSALS:
            xmp = iptc = b""  # a tag is decoded when it is asked for
    profile = told.get("icc_profile")
    return Metadata(
        exif=block if isinstance(block, bytes) else b"",
        xmp=xmp.encode("utf-8", "replace") if isinstance(xmp, str) else xmp if isinstance(xmp, bytes) else b"",
        iptc=iptc if isinstance(iptc, bytes) else b"",
        icc=profile if isinstance(profile, bytes) else b"",
    )


def _tiff_exif(image: Image.Image) -> bytes:
    """A TIFF's own directories hold what EXIF says; written anew, so that offsets fit. Maps and microscopes keep
    megabytes in tags of their own, and Python would take seconds for them: none of it then."""
    stored: dict[int, bytes] = image.tag_v2._tagdata  # type: ignore[attr-defined]
    if sum(map(len, stored.values())) > _TAGS_BYTES:
        return b""
    try:
        block = image.getexif().tobytes()
    except (*REFUSALS, MemoryError):
        return b""  # tags that Pillow reads and cannot write
    return block.removeprefix(b"Exif\0\0")


def is_blank(image: Image.Image) -> bool:
    """Tells whether all pixels are the same: what a decoder makes of a file in which it found nothing."""
    extrema = image.getextrema()
    bands = extrema if isinstance(extrema[0], tuple) else (extrema,)
    return all(low == high for low, high in bands)


def upright(image: Image.Image, orientation: int) -> Image.Image:
    """Returns the image as EXIF wants it seen."""
    return image.transpose(_UPRIGHT[orientation]) if orientation in _UPRIGHT else image


def _plain(image: Image.Image, profile: bytes | None, bits: int) -> Image.Image:
    if profile is not None and image.mode in ("L", "RGB", "RGBA", "CMYK"):
        image = _to_srgb(image, profile)
    if image.mode in _PLAIN and "transparency" not in image.info:
        return image
    if image.mode.startswith("I;16") or image.mode in ("I", "F"):
        return _to_eight_bits(image, bits)
    if image.mode in ("LA", "PA", "La", "RGBa") or "transparency" in image.info:
        return image.convert("RGBA")
    return image.convert("L" if image.mode == "1" else "RGB")


def _to_eight_bits(image: Image.Image, bits: int) -> Image.Image:
    """16 bits (or the 12 that are told) keep their high byte; what has no fixed range (32 bits, floating point) is
    stretched to its own."""
    if image.mode.startswith("I;16"):
        factor = 1 / (1 << max(8, min(bits, 16)) - 8)
        return image.convert("I").point(lambda value: value * factor).convert("L")
    low, high = image.getextrema()
    if not isinstance(low, int | float) or not isinstance(high, int | float):
        return image.convert("L")
    if image.mode == "I" and low < 0 and _unsigned(image):
        return Image.frombytes("L", image.size, image.tobytes()[3::4])  # Pillow has no 32 bits without a sign
    if image.mode == "I" and low >= 0 and high <= 65535:
        low, high = 0, 255 if high <= 255 else 65535
    if not high > low:
        return image.convert("L")
    factor = 255 / (high - low)
    return image.point(lambda value: value * factor - low * factor).convert("L")


def _unsigned(image: Image.Image) -> bool:
    return image.format == "TIFF" and image.tag_v2.get(_SAMPLE_FORMAT, (1,)) in (1, (1,))  # type: ignore[attr-defined]


def _to_srgb(image: Image.Image, profile: bytes) -> Image.Image:
    from PIL import ImageCms

    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        mode = "RGBA" if image.mode == "RGBA" else "RGB"
        converted = ImageCms.profileToProfile(image, source, _srgb(), outputMode=mode)
    except (ImageCms.PyCMSError, OSError, ValueError):
        return image  # a profile that does not fit its image: shown as if it had none, as browsers do
    return converted if converted is not None else image


@functools.cache
def _srgb() -> Any:
    from PIL import ImageCms

    return ImageCms.createProfile("sRGB")
