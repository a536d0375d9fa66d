"""Decoding with libvips: streams large images in little memory, and knows colours, 16 bits, SVG, HEIF.

A JPEG with a gain map is read as the plain JPEG that it is: twice the memory buys nothing for a thumbnail.
Its error is what the file's bytes made it say, which need not be UTF-8; pyvips then raises UnicodeDecodeError instead.
One thread beside ours (VIPS_CONCURRENCY=1): the pool is the parallelism. No operation cache: no image comes
twice. Loaders that libvips calls untrusted stay blocked, except SVG's. Spill files go to TMPDIR.
"""

import functools
import os
from typing import Any

from PIL import Image

from workers.errors import CannotDecode
from workers.images import exif, formats
from workers.images.header import Header
from workers.images.lent import Lent, lent

_ALLOWED_LOADERS = ("VipsForeignLoadSvg",)
WEBP_LEFT = 1.9
"""What the WebP decoder's own scaling (a half, a third ...) leaves to Lanczos. Left alone libvips has it leave nothing,
which takes 3 to 10 % less time and is 3 to 16 dB farther from the whole image resized by Lanczos."""
_REUSED_BYTES = 4 * 310_000
"""The largest picture that is resized by a pipeline that is kept: above, its work hides what building it costs."""
_STRIP_ROWS = 48
"""Of what is made at once: 640 x 480 pixels to 256 take 0.43 ms, 0.57 in one piece. It fits the processor's cache."""
_STRIP_BYTES = 512 * 1024
_PIPELINES = 32
"""Each 20 KB."""
_MODES = {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}


_warm: list[bool] = []


def warm() -> bool:
    """Tells whether an image was decoded in this process: the first one takes more, and what it took stays."""
    return bool(_warm)


@functools.cache
def library() -> Any:
    """Returns pyvips, loaded and restrained at its first use. Starts no thread: may be called before a fork."""
    os.environ.setdefault("VIPS_CONCURRENCY", "1")
    import pyvips

    pyvips.cache_set_max(0)
    pyvips.block_untrusted_set(True)
    for loader in _ALLOWED_LOADERS:
        pyvips.operation_block_set(loader, False)
    pyvips.operation_block_set("VipsForeignLoadUhdr", True)
    return pyvips


def read_header(where: int | bytes, kind: formats.Format, file_bytes: int) -> Header:
    """Returns the header of an image that Pillow does not read; `where`: a descriptor, or the file's content.

    Raises CannotDecode with libvips's reason.
    """
    vips = library()
    try:
        image = vips.Image.new_from_source(_source(vips, where), "", access="sequential")
        return Header(
            format=kind,
            width=image.width,
            height=image.height,
            mode=str(image.interpretation),
            bands=image.bands,
            plane_bytes=2.0 * image.bands,
            bits={"uchar": 8, "ushort": 16, "short": 16}.get(image.format, 32),
            orientation=image.get("orientation") if image.get_typeof("orientation") else 1,
            taken=exif.parse(image.get("exif-data")).taken if image.get_typeof("exif-data") else None,
            progressive=bool(image.get_typeof("interlaced")),
            frames=image.get("n-pages") if image.get_typeof("n-pages") else 1,
            icc="other" if image.get_typeof("icc-profile-data") else "",
            alpha=bool(image.hasalpha()),
            file_bytes=file_bytes,
            reader="vips",
        )
    except (vips.Error, UnicodeDecodeError) as error:
        raise CannotDecode(_reason(error)) from error


def decode(where: int | bytes, header: Header, target: tuple[int, int], *, lenient: bool) -> Image.Image:
    """Returns the image at `target` pixels (as stored), 8 bits, sRGB; mode L, RGB or RGBA.

    `lenient` takes what there is of a broken file. Raises CannotDecode with libvips's reason, MemoryError.
    """
    vips = library()
    colours: dict[str, str] = {"export_profile": "srgb"} if needs_colour(header) else {}
    fail_on = "none" if lenient else "error"
    size = {"height": target[1], "size": "force", "no_rotate": True}
    try:
        if header.format is formats.WEBP:
            scale = 1 / max(1, int(min(header.width / target[0], header.height / target[1]) / WEBP_LEFT))
            image = vips.Image.webpload_source(_source(vips, where), scale=scale, access="sequential", fail_on=fail_on)
            image = image.thumbnail_image(target[0], **size, **colours)
        else:
            image = vips.Image.thumbnail_source(
                _source(vips, where), target[0], option_string=f"[fail_on={fail_on}]", **size, **colours
            )
        image = _eight_bits(image)
        pixels = image.write_to_memory()
    except (vips.Error, UnicodeDecodeError) as error:
        if "out of memory" in str(error):
            raise MemoryError(_reason(error)) from error
        raise CannotDecode(_reason(error)) from error
    finally:
        _warm[:] = [True]
    mode = _MODES[image.bands]
    decoded = Image.frombytes(mode, (image.width, image.height), pixels)
    return decoded.convert("RGBA") if mode == "LA" else decoded


def resized(picture: Image.Image, size: tuple[int, int]) -> Image.Image:
    """Returns a picture of mode L or RGB at `size` by Lanczos. Raises MemoryError."""
    vips = library()
    pixels = lent(picture) or Lent(memoryview(packed(picture)), len(picture.getbands()), picture.mode, None)
    try:
        if len(pixels.pixels) <= _REUSED_BYTES and size[0] <= picture.width and size[1] <= picture.height:
            found = _again(pixels, picture.size, size)
        else:
            image = vips.Image.new_from_memory(pixels.pixels, *picture.size, pixels.bands, "uchar")
            made = image.resize(size[0] / picture.width, vscale=size[1] / picture.height, kernel="lanczos3")
            found = _exactly(made, size).write_to_memory()
        return Image.frombytes(picture.mode, size, found, "raw", pixels.raw)
    except (vips.Error, UnicodeDecodeError) as error:
        raise MemoryError(_reason(error)) from error


def packed(picture: Image.Image) -> bytes | bytearray:
    """Returns the pixels of a picture of mode L, RGB or RGBA, row by row, as libvips wants them.

    Pillow's `tobytes` holds the pieces and the whole at once: half as much memory in strips that stay in the
    processor's cache, and less than half the time (5 instead of 12 ms for 6 megapixels).
    """
    wide, high = picture.size
    row_bytes = wide * len(picture.getbands())
    rows = max(1, _STRIP_BYTES // row_bytes)
    if rows >= high:
        return picture.tobytes()
    whole = bytearray(row_bytes * high)
    for top in range(0, high, rows):
        strip = picture.crop((0, top, wide, min(high, top + rows))).tobytes()
        whole[top * row_bytes : top * row_bytes + len(strip)] = strip
    return whole


def _again(pixels: Lent, whole: tuple[int, int], size: tuple[int, int]) -> bytes:
    """A small picture takes longer to build a pipeline for (0.3 to 0.5 ms) than to resize (0.15 to 0.35 ms), and those
    of a gallery share a few sizes: pipelines are kept, all read the one buffer, and run in this thread."""
    _reused_buffer()[: len(pixels.pixels)] = pixels.pixels
    region = library().Region.new(_pipeline(whole, size, pixels.bands))
    width, height = size
    return b"".join(
        [region.fetch(0, top, width, min(_STRIP_ROWS, height - top)) for top in range(0, height, _STRIP_ROWS)]
    )


@functools.cache
def _reused_buffer() -> bytearray:
    return bytearray(_REUSED_BYTES)


@functools.lru_cache(maxsize=_PIPELINES)
def _pipeline(whole: tuple[int, int], size: tuple[int, int], bands: int) -> Any:
    pixels = memoryview(_reused_buffer())[: whole[0] * whole[1] * bands]
    image = library().Image.new_from_memory(pixels, *whole, bands, "uchar")
    return _exactly(image.reduce(whole[0] / size[0], whole[1] / size[1], kernel="lanczos3"), size)


def _exactly(image: Any, size: tuple[int, int]) -> Any:
    """libvips rounds by a rule of its own."""
    return image if (image.width, image.height) == size else image.embed(0, 0, *size, extend="copy")


def interesting(picture: Image.Image, size: tuple[int, int], how: str) -> tuple[int, int]:
    """Returns left and top of the part of `size` that catches the eye (`attention`) or has most `entropy`."""
    vips = library()
    plain = picture if picture.mode in ("L", "RGB", "RGBA") else picture.convert("RGB")
    image = vips.Image.new_from_memory(packed(plain), plain.width, plain.height, len(plain.getbands()), "uchar")
    found = image.copy(interpretation="b-w" if plain.mode == "L" else "srgb").smartcrop(*size, interesting=how)
    return -found.xoffset, -found.yoffset


def metadata(where: int | bytes) -> dict[str, bytes]:
    """Returns the blocks `exif`, `xmp`, `iptc` and `icc` that an image has; none of an image that cannot be opened."""
    vips = library()
    try:
        image = vips.Image.new_from_source(_source(vips, where), "", access="sequential")
        names = {"exif": "exif-data", "xmp": "xmp-data", "iptc": "iptc-data", "icc": "icc-profile-data"}
        return {name: image.get(field) for name, field in names.items() if image.get_typeof(field)}
    except (vips.Error, UnicodeDecodeError):
        return {}


def needs_colour(header: Header) -> bool:
    """Tells whether colours must be converted to be sRGB: costs as much as the decode, so only where they must."""
    return header.icc == "other" or header.mode in ("CMYK", "LAB", "cmyk", "lab", "labs")


def _eight_bits(image: Any) -> Any:
    if image.interpretation not in ("srgb", "b-w") or image.format != "uchar":
        image = image.colourspace("b-w" if image.bands <= 2 else "srgb").cast("uchar")
    return image if image.bands <= 4 else image.extract_band(0, n=3)


def _source(vips: Any, where: int | bytes) -> Any:
    if isinstance(where, bytes):
        return vips.Source.new_from_memory(where)
    os.lseek(where, 0, os.SEEK_SET)
    return vips.Source.new_from_descriptor(where)


def _reason(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    told = [line for line in dict.fromkeys(lines) if not line.startswith(("unable to", "source: bad seek"))]
    return "; ".join(told)[:300] or "; ".join(lines)[:300]
