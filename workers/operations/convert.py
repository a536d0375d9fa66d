"""The whole image in another format: upright, 8 bits, in sRGB."""

from typing import Literal

from workers.images.encode import BASE_BYTES, BYTES_A_PIXEL, EFFORT, EXTENSIONS, NOTHING, Kind
from workers.images.header import Header
from workers.images.metadata import kept
from workers.operations import Operation, Parameters, Work
from workers.operations.thumbnail import written

_LABEL = "converted"


class Convert(Parameters, frozen=True, kw_only=True):
    """`format` to write; `quality` 1 to 100 (not for PNG, GIF); `effort` 0 to 6 for WebP and AVIF; `metadata`: EXIF
    and XMP kept, stripped, or artist and copyright alone."""

    format: Kind = "jpeg"
    quality: int = 90
    effort: int = EFFORT
    metadata: Literal["strip", "keep", "copyright"] = "keep"


def _check(parameters: Convert) -> None:
    if not 1 <= parameters.quality <= 100:
        raise ValueError(f"quality: 1 to 100, not {parameters.quality}")
    if not 0 <= parameters.effort <= 6:
        raise ValueError(f"effort: 0 to 6, not {parameters.effort}")


def _run(work: Work, parameters: Convert) -> None:
    picture = work.source.picture(*work.source.header.upright)
    wanted = parameters.metadata != "strip" and parameters.format != "gif"
    taken = kept(parameters.metadata, work.source.metadata()) if wanted else NOTHING
    content = written(work, picture, parameters.format, parameters.quality, parameters.effort, taken)
    work.publish("convert", _LABEL, EXTENSIONS[parameters.format], picture, content)


def _side(header: Header, parameters: Convert) -> int:
    return max(header.upright)


def _beside(header: Header, parameters: Convert) -> int:
    return header.pixels * BYTES_A_PIXEL[parameters.format] + BASE_BYTES


def _writes(parameters: Convert) -> list[str]:
    return [f"{_LABEL}.{EXTENSIONS[parameters.format]}"]


OPERATIONS = (
    Operation(
        name="convert", version=1, reads="pixels", run=_run, parameters=Convert,
        side=_side, beside=_beside, check=_check, writes=_writes,
    ),
)  # fmt: skip
