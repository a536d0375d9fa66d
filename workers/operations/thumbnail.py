"""Thumbnails in several sizes from one decode: upright, in sRGB, without metadata.

Rungs never enlarge and are always written, so that a reader of the outputs need not know how large the
image was. Each rung is made from the next larger one that is at least twice its size: as good, and cheaper.
"""

import io
import math
from typing import Any, Literal

from PIL import Image

from workers.images.geometry import Size, parse_size
from workers.images.header import Header
from workers.operations import Operation, Parameters, Work

_EXTENSIONS = {"webp": "webp", "jpeg": "jpg", "png": "png"}
_ENCODER_BYTES_A_PIXEL = {"webp": 11, "jpeg": 5, "png": 6}
"""Measured beside the picture at 2,048 pixels and more; what is constant is in _ENCODER_BYTES."""
_ENCODER_BYTES = 6_000_000
_ROUNDING = 1e-6
"""So that 1,000 x 0.256 asks for 256 pixels, not for 257: one too many would be a resize for nothing."""
_ALPHA_BYTES_A_PIXEL = 14
"""WebP keeps transparency in a lossless picture of its own, beside which the colours are cheap."""


class Thumbnail(Parameters, frozen=True, kw_only=True):
    """`sizes` in pixels or vipsthumbnail's syntax (`workers.images.geometry`); `quality` 1 to 100 (not for PNG)."""

    sizes: tuple[int | str, ...] = (256, 1024)
    format: Literal["webp", "jpeg", "png"] = "webp"
    quality: int = 80


def _sizes(parameters: Thumbnail) -> list[Size]:
    return [parse_size(size) for size in parameters.sizes]


def _check(parameters: Thumbnail) -> None:
    if not 1 <= len(parameters.sizes) <= 32:
        raise ValueError(f"sizes: 1 to 32 of them, not {len(parameters.sizes)}")
    if not 1 <= parameters.quality <= 100:
        raise ValueError(f"quality: 1 to 100, not {parameters.quality}")
    try:
        _sizes(parameters)
    except ValueError as error:
        raise ValueError(f"sizes: {error}") from error


def _writes(parameters: Thumbnail) -> list[str]:
    return [f"{size.label}.{_EXTENSIONS[parameters.format]}" for size in _sizes(parameters)]


def _side(header: Header, parameters: Thumbnail) -> int:
    upright = header.upright
    scale = max(size.scale_needed(*upright) for size in _sizes(parameters))
    return math.ceil(max(upright) * scale - _ROUNDING)


def _beside(header: Header, parameters: Thumbnail) -> int:
    pixels = sorted((w * h for w, h in (size.fit(*header.upright) for size in _sizes(parameters))), reverse=True)
    alpha = pixels[0] * _ALPHA_BYTES_A_PIXEL + min(10_000_000, pixels[0] * 40) if header.alpha else 0
    encoder = pixels[0] * _ENCODER_BYTES_A_PIXEL[parameters.format] + _ENCODER_BYTES
    return encoder + sum(pixels) * 4 + (alpha if parameters.format == "webp" else 0)


def _run(work: Work, parameters: Thumbnail) -> None:
    upright = work.source.header.upright
    made: tuple[tuple[int, int], bytes] | None = None
    rungs = [(size.fit(*upright), size) for size in _sizes(parameters)]
    for (width, height), size in sorted(rungs, key=lambda rung: rung[0][0] * rung[0][1], reverse=True):
        picture = work.source.picture(width, height)
        if made is None or made[0] != (width, height):  # rungs above a small image's size are all the same
            made = (width, height), encode(picture, parameters.format, parameters.quality)
        content = made[1]
        work.publish("thumbnail", size.label, _EXTENSIONS[parameters.format], picture, content)


def encode(picture: Image.Image, kind: Literal["webp", "jpeg", "png"], quality: int) -> bytes:
    """Returns the picture as a file without metadata; what JPEG cannot show through lies on white."""
    file = io.BytesIO()
    if kind == "webp":
        _save(picture, file, "WEBP", quality=quality)
    elif kind == "jpeg":
        _save(flatten(picture), file, "JPEG", quality=quality)
    else:
        _save(picture, file, "PNG")
    return file.getvalue()


def flatten(picture: Image.Image) -> Image.Image:
    """Returns the picture without transparency, on white."""
    if picture.mode != "RGBA":
        return picture
    ground = Image.new("RGB", picture.size, "white")
    ground.paste(picture, mask=picture.getchannel("A"))
    return ground


def _save(picture: Image.Image, file: io.BytesIO, kind: str, **options: Any) -> None:
    kept = picture.info
    picture.info = {}  # Pillow would write the profile and comments it finds there
    try:
        picture.save(file, kind, **options)
    finally:
        picture.info = kept


OPERATIONS = (
    Operation(
        name="thumbnail", version=1, reads="pixels", run=_run, parameters=Thumbnail,
        side=_side, beside=_beside, check=_check, writes=_writes,
    ),
)  # fmt: skip
