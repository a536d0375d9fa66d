"""Thumbnails in several sizes from one decode: upright, in sRGB, by default without metadata.

Rungs never enlarge and are always written, so that a reader of the outputs need not know how large the
image was. Each rung is made from the next larger one that is at least twice its size: as good, and cheaper.
"""

import math
from typing import Any, Literal

import msgspec
from PIL import Image

from workers import moving
from workers.errors import Verdict
from workers.images.crop import Crop, cropped
from workers.images.encode import (
    BASE_BYTES,
    BYTES_A_PIXEL,
    EFFORT,
    EXTENSIONS,
    NOTHING,
    SIDES,
    Kept,
    Kind,
    encode,
    encode_moving,
)
from workers.images.geometry import Size, parse_size
from workers.images.header import Header
from workers.images.metadata import kept
from workers.operations import Operation, Parameters, Work

_ROUNDING = 1e-6
"""So that 1,000 x 0.256 asks for 256 pixels, not for 257: one too many would be a resize for nothing."""
_ALPHA_BYTES_A_PIXEL = 14
"""WebP keeps transparency in a lossless picture of its own, beside which the colours are cheap."""
_MOVING: tuple[Kind, ...] = ("webp", "gif")
_BYTES_A_MOVING_PIXEL = 5


class Thumbnail(Parameters, frozen=True, kw_only=True):
    """`sizes` in pixels or vipsthumbnail's syntax (`workers.images.geometry`); `quality` 1 to 100 (not for PNG, GIF);
    `effort` 0 to 6 for WebP and AVIF. `crop`: fill width and height, cutting off what lies outside of the part that
    is chosen so. `metadata`: EXIF and XMP kept, stripped, or artist and copyright alone. `embedded`: take the
    thumbnail in EXIF, HEIF or AVIF where it is large enough. `frames`: of a moving image one or all (WebP, GIF)."""

    sizes: tuple[int | str, ...] = (256, 1024)
    format: Kind = "webp"
    quality: int = 80
    effort: int = EFFORT
    crop: Crop = "none"
    metadata: Literal["strip", "keep", "copyright"] = "strip"
    embedded: bool = False
    frames: Literal["first", "all"] = "first"


class _Rung(msgspec.Struct, frozen=True):
    """One size to be made: the whole picture at `whole` pixels, of which `shown` are kept."""

    whole: tuple[int, int]
    shown: tuple[int, int]
    label: str


def _sizes(parameters: Thumbnail) -> list[Size]:
    return [parse_size(size) for size in parameters.sizes]


def _label(size: Size, parameters: Thumbnail) -> str:
    return size.label if parameters.crop == "none" else f"{size.label}-{parameters.crop}"


def _rungs(upright: tuple[int, int], parameters: Thumbnail) -> list[_Rung]:
    """The rungs of an image, the largest first."""
    rungs = []
    for size in _sizes(parameters):
        whole, shown = size.cover(*upright) if parameters.crop != "none" else (size.fit(*upright),) * 2
        rungs.append(_Rung(whole, shown, _label(size, parameters)))
    return sorted(rungs, key=lambda rung: rung.whole[0] * rung.whole[1], reverse=True)


def _check(parameters: Thumbnail) -> None:
    if not 1 <= len(parameters.sizes) <= 32:
        raise ValueError(f"sizes: 1 to 32 of them, not {len(parameters.sizes)}")
    if not 1 <= parameters.quality <= 100:
        raise ValueError(f"quality: 1 to 100, not {parameters.quality}")
    if not 0 <= parameters.effort <= 6:
        raise ValueError(f"effort: 0 to 6, not {parameters.effort}")
    try:
        sizes = _sizes(parameters)
    except ValueError as error:
        raise ValueError(f"sizes: {error}") from error
    if parameters.crop != "none" and not all(size.width and size.height and size.mark == "down" for size in sizes):
        raise ValueError('crop: sizes with width and height are needed ("256x128"; 256 is 256x256)')
    if parameters.frames == "all" and (parameters.format not in _MOVING or parameters.crop in ("attention", "entropy")):
        raise ValueError("frames: all are written as webp or gif, and with crop none or centre")
    if parameters.format == "gif" and parameters.metadata != "strip":
        raise ValueError("metadata: a GIF holds none; strip it")


def _writes(parameters: Thumbnail) -> list[str]:
    return [f"{_label(size, parameters)}.{EXTENSIONS[parameters.format]}" for size in _sizes(parameters)]


def _side(header: Header, parameters: Thumbnail) -> int:
    upright = header.upright
    if parameters.crop == "none":
        scale = max(size.scale_needed(*upright) for size in _sizes(parameters))
        return math.ceil(max(upright) * scale - _ROUNDING)
    return max(max(rung.whole) for rung in _rungs(upright, parameters))


def _beside(header: Header, parameters: Thumbnail) -> int:
    pixels = [rung.whole[0] * rung.whole[1] for rung in _rungs(header.upright, parameters)]
    if _moves(header, parameters):
        return sum(pixels) * _BYTES_A_MOVING_PIXEL * header.frames + header.pixels * 12 + BASE_BYTES
    alpha = pixels[0] * _ALPHA_BYTES_A_PIXEL if header.alpha and parameters.format == "webp" else 0
    encoder = pixels[0] * BYTES_A_PIXEL[parameters.format] + alpha
    # The largest rung is the decoded picture itself, and is written before the smaller ones are made.
    beside = (
        max(encoder, sum(pixels[1:]) * 4 + encoder // 4) if parameters.crop == "none" else encoder + sum(pixels) * 4
    )
    return beside + BASE_BYTES


def _moves(header: Header, parameters: Thumbnail) -> bool:
    return parameters.frames == "all" and header.frames > 1 and header.format.name in moving.FORMATS


def _run(work: Work, parameters: Thumbnail) -> None:
    header = work.source.header
    rungs = _rungs(header.upright, parameters)
    if _moves(header, parameters):
        _run_moving(work, parameters, rungs)
        return
    taken = kept(parameters.metadata, work.source.metadata()) if parameters.metadata != "strip" else NOTHING
    made: tuple[_Rung, bytes] | None = None
    for rung in rungs:
        picture = work.source.picture(*rung.whole)
        if rung.shown != rung.whole:
            picture = cropped(picture, rung.shown, parameters.crop)
        if made is None or (made[0].whole, made[0].shown) != (rung.whole, rung.shown):
            # rungs above a small image's size are all the same
            made = rung, written(work, picture, parameters.format, parameters.quality, parameters.effort, taken)
        work.publish("thumbnail", rung.label, EXTENSIONS[parameters.format], picture, made[1])


def written(work: Work, picture: Image.Image, kind: Kind, quality: int, effort: int, taken: Kept) -> bytes:
    """Returns the picture as a file. Raises Verdict where the format cannot hold its size; metadata that the encoder
    refuses is left out, with a warning."""
    if max(picture.size) > SIDES[kind]:
        size = f"{picture.width:,} x {picture.height:,} pixels"
        raise Verdict(
            "too_large", f"{work.source.shown} is {size}; a {kind.upper()} has at most {SIDES[kind]:,} a side"
        )
    if taken is not NOTHING:
        try:
            return encode(picture, kind, quality, effort, taken)
        except (ValueError, OSError, TypeError) as error:
            work.warn(f"its metadata could not be kept ({error})")
    return encode(picture, kind, quality, effort)


def _run_moving(work: Work, parameters: Thumbnail, rungs: list[_Rung]) -> None:
    made: list[list[Image.Image]] = [[] for _ in rungs]
    milliseconds: list[int] = []
    loops = 0
    for frame in moving.frames(work.source):
        milliseconds.append(frame.milliseconds)
        loops = frame.loops
        for rung, pictures in zip(rungs, made, strict=True):
            picture = moving.sized(frame.picture, rung.whole)
            if rung.shown != rung.whole:
                picture = cropped(picture, rung.shown, parameters.crop)
            pictures.append(picture)
    for rung, pictures in zip(rungs, made, strict=True):
        content = encode_moving(pictures, milliseconds, loops, parameters.format, parameters.quality, parameters.effort)
        work.publish("thumbnail", rung.label, EXTENSIONS[parameters.format], pictures[0], content)


def _embedded(parameters: Any) -> bool:
    return bool(parameters.embedded)


OPERATIONS = (
    Operation(
        name="thumbnail", version=2, reads="pixels", run=_run, parameters=Thumbnail,
        side=_side, beside=_beside, check=_check, writes=_writes, embedded=_embedded,
    ),
)  # fmt: skip
