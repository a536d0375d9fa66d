"""Perceptual hashes: 64 bits that stay near each other for pictures that look alike.

pHash: the 8 x 8 lowest frequencies (DCT-II) of the 32 x 32 grey picture, each bit whether it is above their
median; dHash: whether each of 9 x 8 grey values is brighter than its left neighbour. Bits row by row, most
significant first, as the widespread `imagehash` orders them, so that hashes can be compared with its. The image's size
goes with them, so that of two that look alike the better is known.
"""

import math
from operator import mul
from statistics import median
from typing import Any

from PIL import Image

from workers.images.encode import flatten
from workers.images.header import Header
from workers.operations import Operation, Parameters, Work

_SIDE = 128
"""Pixels of the picture it is made from: four times the 32 it looks at."""
_GRID, _LOW = 32, 8
_DECIMALS = 6
"""Of a flat picture nothing is left but the errors of the arithmetic, which would pass for a pattern."""
_COSINES = [[math.cos(math.pi * k * (2 * n + 1) / (2 * _GRID)) for n in range(_GRID)] for k in range(_LOW)]


def _run(work: Work, parameters: Parameters) -> dict[str, Any]:
    width, height = work.source.header.upright
    scale = min(1.0, _SIDE / max(width, height))
    picture = work.source.picture(max(1, round(width * scale)), max(1, round(height * scale)))
    grey = flatten(picture).convert("L")
    return {"phash": phash(grey), "dhash": dhash(grey), "width": width, "height": height}


def phash(grey: Image.Image) -> str:
    """Returns the pHash of a grey picture as 16 hexadecimal digits."""
    pixels = grey.resize((_GRID, _GRID), Image.Resampling.LANCZOS).tobytes()
    rows = [pixels[at : at + _GRID] for at in range(0, _GRID * _GRID, _GRID)]
    across = [[sum(map(mul, row, wave)) for row in rows] for wave in _COSINES]
    low = [round(sum(map(mul, across[x], _COSINES[y])), _DECIMALS) for y in range(_LOW) for x in range(_LOW)]
    middle = median(low)
    return _hex([value > middle for value in low])


def dhash(grey: Image.Image) -> str:
    """Returns the dHash of a grey picture as 16 hexadecimal digits."""
    pixels = grey.resize((9, 8), Image.Resampling.LANCZOS).tobytes()
    return _hex([pixels[9 * y + x + 1] > pixels[9 * y + x] for y in range(8) for x in range(8)])


def _hex(bits: list[bool]) -> str:
    return f"{int(''.join('1' if bit else '0' for bit in bits), 2):016x}"


def _side(header: Header, parameters: Parameters) -> int:
    return min(_SIDE, max(header.upright))


OPERATIONS = (Operation(name="phash", version=1, reads="pixels", run=_run, side=_side),)
