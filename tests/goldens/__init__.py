"""Golden images: one small file of every format, structure, colour space and bit depth, made by code.

Each shows the four quarters of `specimens.marked`, red and green above blue and white, or four steps of grey. As the
rows of such a picture are but two, an encoder of any depth fits into a few lines and owes nothing to the decoders that
are put to the test: what both ends understand wrongly would otherwise look right.
"""

from collections.abc import Callable, Iterator, Sequence

import msgspec

Colour = tuple[int, ...]
RGB: tuple[Colour, ...] = ((255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255))
STEPS: tuple[Colour, ...] = ((0,), (255,), (85,), (170,))
"""Grey quarters: what 1, 2, 4, 8 and 16 bits can all say, for the first two; for 2 bits and more, all."""
HALVES: tuple[Colour, ...] = ((0,), (255,), (255,), (0,))
"""Grey quarters for 1 bit."""
WIDTH, HEIGHT = 160, 120


class Golden(msgspec.Struct, frozen=True):
    """A file and what a thumbnail of it shows: the colours of its quarters, upright."""

    name: str
    content: bytes
    quarters: tuple[Colour, ...] = RGB
    tolerance: int = 8
    upright: tuple[int, int] = (WIDTH, HEIGHT)
    warns: bool = False
    """Whether a warning is expected: the chosen decoder refuses it, or the file is odd."""


def row(left: Sequence[int], right: Sequence[int], width: int, bits: int = 8, order: str = "big") -> bytes:
    """Returns one row whose halves have the samples `left` and `right`, packed at `bits`, filled to a byte."""
    half = width // 2
    if bits % 8 == 0:
        sides = (b"".join(sample.to_bytes(bits // 8, order) for sample in side) for side in (left, right))  # type: ignore[arg-type]
        first, second = sides
        return first * half + second * (width - half)
    digits = "".join("".join(f"{sample:0{bits}b}" for sample in side) * half for side in (left, right))
    digits += "0" * (-len(digits) % 8)
    return int(digits, 2).to_bytes(len(digits) // 8, "big")


def rows(quarters: Sequence[Sequence[int]], width: int, height: int, bits: int = 8, order: str = "big") -> list[bytes]:
    """Returns all rows of a picture with these samples in its quarters."""
    above = row(quarters[0], quarters[1], width, bits, order)
    below = row(quarters[2], quarters[3], width, bits, order)
    return [above] * (height // 2) + [below] * (height - height // 2)


def scaled(quarters: Sequence[Colour], bits: int) -> list[Colour]:
    """Returns 8-bit samples at another depth."""
    most = (1 << bits) - 1
    return [tuple(round(sample * most / 255) for sample in quarter) for quarter in quarters]


Maker = Callable[[int, int], Iterator[Golden]]
