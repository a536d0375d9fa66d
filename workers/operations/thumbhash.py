"""ThumbHash: a picture in about 25 bytes, to be shown while the real one loads.

The published algorithm (Evan Wallace, 2023): the lowest frequencies (DCT) of brightness, of yellow against blue, of red
against green, and of opacity where there is any, in four bits each behind a header of their mean and reach. Decoders
for every language read it; it is given in Base64, as they expect it.
"""

import base64
import math
from operator import mul
from typing import Any

from PIL import Image

from workers.images.header import Header
from workers.operations import Operation, Parameters, Work

_SIDE = 48
"""Pixels of the picture it is made from; the algorithm takes up to 100, and 7 waves need some 30."""


def _run(work: Work, parameters: Parameters) -> dict[str, Any]:
    width, height = work.source.header.upright
    scale = min(1.0, _SIDE / max(width, height))
    picture = work.source.picture(max(1, round(width * scale)), max(1, round(height * scale)))
    return {"thumbhash": base64.b64encode(thumbhash(picture)).decode("ascii")}


def thumbhash(picture: Image.Image) -> bytes:
    """Returns the hash of a picture of at most 100 x 100 pixels."""
    width, height = picture.size
    light, yellow, red, opacity, has_alpha = _channels(picture)
    longest, most = max(width, height), 5 if has_alpha else 7
    across, down = max(1, _round(most * width / longest)), max(1, _round(most * height / longest))
    l_mean, l_waves, l_reach = _waves(light, width, height, max(3, across), max(3, down))
    p_mean, p_waves, p_reach = _waves(yellow, width, height, 3, 3)
    q_mean, q_waves, q_reach = _waves(red, width, height, 3, 3)
    landscape = width > height
    first = (
        _round(63 * l_mean) | _round(31.5 + 31.5 * p_mean) << 6 | _round(31.5 + 31.5 * q_mean) << 12
        | _round(31 * l_reach) << 18 | has_alpha << 23
    )  # fmt: skip
    second = (down if landscape else across) | _round(63 * p_reach) << 3 | _round(63 * q_reach) << 9 | landscape << 15
    hashed = bytearray(first.to_bytes(3, "little") + second.to_bytes(2, "little"))
    nibbles = [_round(15 * value) for value in (*l_waves, *p_waves, *q_waves)]
    if has_alpha:
        a_mean, a_waves, a_reach = _waves(opacity, width, height, 5, 5)
        hashed.append(_round(15 * a_mean) | _round(15 * a_reach) << 4)
        nibbles += [_round(15 * value) for value in a_waves]
    nibbles += [0] * (len(nibbles) % 2)
    return bytes(hashed) + bytes(low | high << 4 for low, high in zip(nibbles[::2], nibbles[1::2], strict=True))


_Channel = list[float]


def _channels(picture: Image.Image) -> tuple[_Channel, _Channel, _Channel, _Channel, bool]:
    """Brightness, yellow-blue, red-green and opacity, on the picture's mean colour where it is transparent."""
    raw = picture.convert("RGBA").tobytes()
    alphas = [value / 255 for value in raw[3::4]]
    opaque = sum(alphas)
    colours = [[value / 255 for value in raw[band::4]] for band in range(3)]
    has_alpha = opaque < len(alphas)
    if has_alpha:
        means = [sum(map(mul, band, alphas)) / opaque if opaque else 0.0 for band in colours]
        colours = [
            [mean * (1 - alpha) + alpha * value for value, alpha in zip(band, alphas, strict=True)]
            for band, mean in zip(colours, means, strict=True)
        ]
    reds, greens, blues = colours
    light = [(r + g + b) / 3 for r, g, b in zip(reds, greens, blues, strict=True)]
    yellow = [(r + g) / 2 - b for r, g, b in zip(reds, greens, blues, strict=True)]
    red = [r - g for r, g in zip(reds, greens, strict=True)]
    return light, yellow, red, alphas, has_alpha


def _waves(channel: _Channel, width: int, height: int, across: int, down: int) -> tuple[float, list[float], float]:
    """Mean, the frequencies of the upper left triangle scaled to 0..1, and what they were scaled by."""
    rows = [channel[at : at + width] for at in range(0, width * height, width)]
    columns = [[sum(map(mul, row, wave)) for row in rows] for wave in _cosines(width, across)]
    falling = _cosines(height, down)
    found = [
        sum(map(mul, columns[x], falling[y])) / (width * height)
        for y in range(down)
        for x in range(across)
        if x * down < across * (down - y)
    ]
    mean, rest = found[0], found[1:]
    reach = max(map(abs, rest), default=0.0)
    return mean, [0.5 + 0.5 / reach * value for value in rest] if reach else rest, reach


def _cosines(length: int, count: int) -> list[list[float]]:
    return [[math.cos(math.pi / length * k * (n + 0.5)) for n in range(length)] for k in range(count)]


def _round(value: float) -> int:
    return math.floor(value + 0.5)  # halves go up, as in the published code; Python's round sends them to even


def _side(header: Header, parameters: Parameters) -> int:
    return min(_SIDE, max(header.upright))


OPERATIONS = (Operation(name="thumbhash", version=1, reads="pixels", run=_run, side=_side),)
