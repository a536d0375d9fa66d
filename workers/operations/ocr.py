"""The text of an image, line by line, with where it stands and how sure it is.

How closely the image is looked at is decided by the memory that is to be had: the operation asks for what the longest
side of `side` pixels takes and makes do with less, down to SMALLEST pixels. The result says at which size it was read.
The picture comes from our own decoders; the library's own are never given a file. A page that lies on its side or
stands on its head is read all the same, its lines in the order of the page as it is to be held; `turned` tells by how
many degrees it is turned clockwise.

The models come with the package rapidocr (or its older sister rapidocr-onnxruntime), in its directory; nothing is
fetched, and nothing of the package but its models is loaded.
"""

import functools
import glob
import hashlib
import math
import os
from importlib.util import find_spec
from typing import Any, NamedTuple

from PIL import Image, ImageStat

from workers import onnx, text
from workers.errors import MachineTrouble
from workers.images.encode import flatten
from workers.images.header import Header
from workers.operations import Operation, Parameters, Work

PACKAGES = ("rapidocr", "rapidocr_onnxruntime")
LARGEST, SMALLEST = 2_048, 320
PICTURE_SIDE = 2_000
"""Lines are cut out of a picture of this side: the library's own limit."""
_SIDES = (2_048, 1_600, 1_280, 960, 800, 640, 480, SMALLEST)
_LIBRARIES_BYTES = 75_000_000
_BYTES_A_MODEL_BYTE = 1.7
"""Measured on both packages: 112 MB with the newer's 31 MB of models, 98 MB with the older's 16 MB; 65 MB of them are
the libraries."""
_MAKING_BYTES_A_PIXEL, _BYTES_A_PIXEL = 11, 3
"""A picture in another mode is converted (4), laid out (3) and turned to the models' order of colours (3), which
stays."""
_OF_ALLOWANCE = 1.25
"""The last tenth of what an item was admitted with is not lent out (`workers.memory_lease`)."""
_BRIGHT = 200
_MISSING = "{} not installed: install the extra, pip install 'gallery-supervisor[ocr]'"


class Ocr(Parameters, frozen=True, kw_only=True):
    """`side`: the longest side in pixels at which text is looked for, where memory allows it. `boxes`: whether the
    result has the lines with their corners and confidence, beside the text."""

    side: int = 960
    boxes: bool = True


class _Files(NamedTuple):
    detector: str
    classifier: str
    recogniser: str
    size_bytes: int
    name: str


@functools.cache
def _files() -> _Files:
    """Returns the models' files. Raises ValueError that says what is missing."""
    missing = [name for name in ("numpy", "onnxruntime", "cv2") if find_spec(name) is None]
    found = next((spec for spec in map(find_spec, PACKAGES) if spec is not None), None)
    if found is None or found.origin is None:
        missing.insert(0, PACKAGES[0])
    if missing or found is None or found.origin is None:
        raise ValueError(_MISSING.format(", ".join(missing)))
    directory = os.path.join(os.path.dirname(found.origin), "models")
    paths = []
    for part in ("det", "cls", "rec"):
        named = sorted(glob.glob(os.path.join(glob.escape(directory), f"*_{part}*.onnx")))
        if not named:
            raise ValueError(f"{directory} has no model *_{part}*.onnx: install {found.name} again")
        paths.append(named[-1])
    sizes = [os.path.getsize(path) for path in paths]
    told = "/".join(f"{os.path.basename(path)}:{size}" for path, size in zip(paths, sizes, strict=True))
    return _Files(paths[0], paths[1], paths[2], sum(sizes), told)


def _check(parameters: Ocr) -> None:
    if not SMALLEST <= parameters.side <= LARGEST:
        raise ValueError(f"side: {parameters.side} pixels; {SMALLEST} to {LARGEST} are possible")
    _files()


def _edition(parameters: Ocr) -> str:
    return f"-{hashlib.sha256(_files().name.encode()).hexdigest()[:12]}"


def _load() -> text.Reader:
    files = _files()
    try:
        return text.load(files.detector, files.classifier, files.recogniser)
    except Exception as error:  # the runtime's own exceptions have no common base
        raise MachineTrouble(f"the models in {os.path.dirname(files.detector)}: {onnx.said(error)}") from error


def _run(work: Work, parameters: Ocr) -> dict[str, Any]:
    header = work.source.header
    picture = _opaque(work.source.decoded(_side(header, parameters)))
    expected = _LIBRARIES_BYTES + int(_BYTES_A_MODEL_BYTE * _files().size_bytes)
    reader = work.models.use("ocr", _load, expected)
    pixels = _pixels(picture)
    del picture
    size = (pixels.shape[1], pixels.shape[0])
    found, side = _find(work, reader, pixels, size, parameters)
    lines = _read(work, reader, found)
    scale = max(header.upright) / max(size)
    degrees = text.turned(lines)
    values: dict[str, Any] = {
        "text": "\n".join(line.text for line in lines),
        "side": max(text.seen_at(*size, side)),
        "asked_side": parameters.side,
        "width": header.upright[0],
        "height": header.upright[1],
        "turned": degrees,
    }
    if parameters.boxes:
        values["lines"] = [
            {
                "text": line.text,
                "confidence": round(line.confidence, 4),
                "box": [[round(x * scale, 1), round(y * scale, 1)] for x, y in line.box],
            }
            for line in lines
        ]
    return values


def _find(
    work: Work, reader: text.Reader, pixels: Any, size: tuple[int, int], parameters: Ocr
) -> tuple[text.Found, int]:
    """Looks for the lines at the largest side that memory is to be had for. That takes most, and not for long."""
    sides = [side for side in sorted({*_SIDES, parameters.side}, reverse=True) if side <= parameters.side]
    needs = [pixels.nbytes + text.finding_bytes(*size, side) for side in sides]
    with work.memory(needs[0], at_least=needs[-1], purpose="inference") as lease:
        side = next(side for side, need in zip(sides, needs, strict=True) if need <= lease.bytes)
        found = text.find(reader, pixels, side)
    if side < sides[0]:
        work.keep = False  # with more memory it is another result
        work.warn(f"text was looked for at {side} pixels instead of {sides[0]}: there is no memory for more")
    return found, side


def _read(work: Work, reader: text.Reader, found: text.Found) -> list[text.Line]:
    """Reads line by line, long ones as wide as memory is to be had for."""
    if not found.boxes:
        return []
    held = int(found.pixels.nbytes)
    least, wanted = (held + text.reading_bytes(columns) for columns in (text.LEAST_COLUMNS, found.columns))
    with work.memory(wanted, at_least=least, purpose="inference") as lease:
        columns = text.columns_within(lease.bytes - held)
        lines = text.read(reader, found, columns)
    if columns < found.columns:
        work.keep = False
        work.warn(f"lines were read {columns} columns wide instead of {found.columns}: there is no memory for more")
    return lines


def _opaque(picture: Image.Image) -> Image.Image:
    """The picture on white, or where what can be seen of it is bright, on black: white letters are letters too."""
    if "A" not in picture.getbands():
        return picture if picture.mode == "RGB" else picture.convert("RGB")
    grey, alpha = picture.convert("LA").split()
    seen = alpha.point(lambda value: 255 if value > 127 else 0)
    if seen.getbbox() is not None and seen.histogram()[0] and ImageStat.Stat(grey, seen).mean[0] > _BRIGHT:
        ground = Image.new("RGB", picture.size)
        ground.paste(picture.convert("RGB"), mask=alpha)
        return ground
    return flatten(picture).convert("RGB")


def _pixels(picture: Image.Image) -> Any:
    """The picture as the models take it: blue first, no smaller than the detector's least."""
    import numpy

    low = min(picture.size)
    if low < text.STEP:  # a strip of a few rows
        scale = min(text.STEP / low, max(1.0, PICTURE_SIDE / max(picture.size)))
        picture = picture.resize((math.ceil(picture.width * scale), math.ceil(picture.height * scale)))
    return numpy.ascontiguousarray(numpy.asarray(picture)[:, :, ::-1])


def _side(header: Header, parameters: Ocr) -> int:
    return min(max(header.upright), PICTURE_SIDE)


def _beside(header: Header, parameters: Ocr) -> int:
    """The least that reading takes: the rest is asked for when it comes to it."""
    wide, high = header.upright
    scale = min(1.0, PICTURE_SIDE / max(wide, high))
    size = max(1, round(wide * scale)), max(1, round(high * scale))
    pixels = size[0] * size[1]
    least = max(text.finding_bytes(*size, SMALLEST), text.reading_bytes(text.LEAST_COLUMNS))
    return max(_MAKING_BYTES_A_PIXEL * pixels, int(_OF_ALLOWANCE * (_BYTES_A_PIXEL * pixels + least)))


OPERATIONS = (
    Operation(
        name="ocr",
        version=2,
        reads="pixels",
        run=_run,
        parameters=Ocr,
        side=_side,
        beside=_beside,
        check=_check,
        edition=_edition,
    ),
)
