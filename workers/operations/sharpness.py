"""How sharp a picture is: the variance of its Laplacian, the customary measure for finding blurred photos.

Taken at a longest side of 512 pixels, so that photos of different cameras can be compared, and from brightness alone.
Below some 50 a photo of everyday things is blurred; a clear sky is low as well, so compare among alike.
"""

from typing import Any

from PIL import Image, ImageFilter

from workers.images.encode import flatten
from workers.images.header import Header
from workers.operations import Operation, Parameters, Work

_SIDE = 512
_LAPLACIAN = (0, 1, 0, 1, -4, 1, 0, 1, 0)
_LEVELS = range(256)


def _run(work: Work, parameters: Parameters) -> dict[str, Any]:
    width, height = work.source.header.upright
    scale = min(1.0, _SIDE / max(width, height))
    picture = work.source.picture(max(1, round(width * scale)), max(1, round(height * scale)))
    return {"sharpness": round(sharpness(flatten(picture).convert("L")), 2)}


def sharpness(grey: Image.Image) -> float:
    """Returns the variance of the Laplacian of a grey picture; 0 where it is too small to have one.

    The filter's result is clipped to 0..255, so what is above zero and what is below come from two runs.
    """
    if min(grey.size) < 3:
        return 0.0
    inner = (1, 1, grey.width - 1, grey.height - 1)  # Pillow copies the edge, which would count as flat or as sharp
    above = grey.filter(ImageFilter.Kernel((3, 3), _LAPLACIAN, scale=1)).crop(inner).histogram()
    below = grey.filter(ImageFilter.Kernel((3, 3), [-each for each in _LAPLACIAN], scale=1)).crop(inner).histogram()
    count = sum(above)
    mean = sum(level * (more - less) for level, more, less in zip(_LEVELS, above, below, strict=True)) / count
    squares = sum(level * level * (more + less) for level, more, less in zip(_LEVELS, above, below, strict=True))
    return squares / count - mean * mean


def _side(header: Header, parameters: Parameters) -> int:
    return min(_SIDE, max(header.upright))


def _beside(header: Header, parameters: Parameters) -> int:
    return _SIDE * _SIDE * 8


OPERATIONS = (Operation(name="sharpness", version=1, reads="pixels", run=_run, side=_side, beside=_beside),)
