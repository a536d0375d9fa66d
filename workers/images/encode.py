"""Writing pictures: WebP, JPEG, AVIF, PNG, GIF; still or moving; with no metadata, all of it, or who made it.

`effort` 0 to 6 is how hard WebP and AVIF search for fewer bytes. Measured on camera photos of 256 to 1,024 pixels at
WebP quality 80, against effort 4 (the libraries' own default): 2 takes 0.3 to 0.8 of its time for 3 to 5 % more bytes
and 0.05 to 0.3 dB less; 1 takes a third for 10 % more bytes. On a gallery the encoder is most of the work: hence 2.
"""

import io
from collections.abc import Sequence
from typing import Any, Final, Literal

import msgspec
from PIL import Image, PngImagePlugin

Kind = Literal["webp", "jpeg", "avif", "png", "gif"]

EXTENSIONS: Final[dict[Kind, str]] = {"webp": "webp", "jpeg": "jpg", "avif": "avif", "png": "png", "gif": "gif"}
EFFORT: Final = 2
BYTES_A_PIXEL: Final[dict[Kind, int]] = {"webp": 8, "jpeg": 5, "avif": 40, "png": 6, "gif": 8}
"""Measured beside the picture at 1,024 pixels and more; what is constant is in BASE_BYTES."""
BASE_BYTES: Final = 2_000_000
_AVIF_FASTEST: Final = 10
_WEBP_SIDE, _JPEG_SIDE, _GIF_SIDE = 16_383, 65_500, 65_535
SIDES: Final[dict[Kind, int]] = {
    "webp": _WEBP_SIDE, "jpeg": _JPEG_SIDE, "avif": 65_535, "png": 1_000_000, "gif": _GIF_SIDE,
}  # fmt: skip
"""Largest side that each format can say."""


class Kept(msgspec.Struct, frozen=True):
    """Metadata to be written: EXIF (its TIFF block, orientation 1) and XMP; empty where there is none."""

    exif: bytes = b""
    xmp: bytes = b""


NOTHING: Final = Kept()


def encode(picture: Image.Image, kind: Kind, quality: int, effort: int = EFFORT, kept: Kept = NOTHING) -> bytes:
    """Returns the picture as a file; what JPEG cannot show through lies on white. Raises ValueError, OSError."""
    shown = flatten(picture) if kind == "jpeg" else picture
    return _save(shown, kind, _options(kind, quality, effort, kept))


def encode_moving(
    frames: Sequence[Image.Image], milliseconds: Sequence[int], loops: int, kind: Kind, quality: int, effort: int
) -> bytes:
    """Returns the frames as an animated WebP or GIF; `loops` 0 is for ever."""
    moving = {"save_all": True, "append_images": frames[1:], "duration": list(milliseconds), "loop": loops}
    return _save(frames[0], kind, _options(kind, quality, effort, NOTHING) | moving)


def flatten(picture: Image.Image) -> Image.Image:
    """Returns the picture without transparency, on white."""
    if picture.mode != "RGBA":
        return picture
    ground = Image.new("RGB", picture.size, "white")
    ground.paste(picture, mask=picture.getchannel("A"))
    return ground


def _options(kind: Kind, quality: int, effort: int, kept: Kept) -> dict[str, Any]:
    options: dict[str, Any] = {"exif": b"Exif\0\0" + kept.exif} if kept.exif and kind != "gif" else {}
    if kind == "png":
        return options | ({"pnginfo": _with_xmp(kept.xmp)} if kept.xmp else {})
    if kept.xmp and kind != "gif":
        options["xmp"] = kept.xmp
    if kind == "webp":
        return options | {"quality": quality, "method": effort}
    if kind == "avif":
        return options | {"quality": quality, "speed": _AVIF_FASTEST - effort, "max_threads": 1}
    return options | ({"quality": quality} if kind == "jpeg" else {})


def _with_xmp(xmp: bytes) -> PngImagePlugin.PngInfo:
    info = PngImagePlugin.PngInfo()
    info.add_itxt("XML:com.adobe.xmp", xmp.decode("utf-8", "replace"))
    return info


def _save(picture: Image.Image, kind: Kind, options: dict[str, Any]) -> bytes:
    file = io.BytesIO()
    told = picture.info
    picture.info = {}  # Pillow would write the profile and comments it finds there
    try:
        picture.save(file, kind.upper(), **options)
    finally:
        picture.info = told
    return file.getvalue()
