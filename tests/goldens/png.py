"""PNG: every colour type and depth, plain and interlaced, with transparency told in a chunk, and eXIf."""

import struct
import zlib
from collections.abc import Iterator, Sequence

from tests.goldens import HALVES, RGB, STEPS, Colour, Golden, row, scaled

PASSES = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
DEPTHS = {0: (1, 2, 4, 8, 16), 2: (8, 16), 3: (1, 2, 4, 8), 4: (8, 16), 6: (8, 16)}
NAMES = {0: "grey", 2: "rgb", 3: "palette", 4: "grey-alpha", 6: "rgba"}
CLEAR: Colour = (255, 255, 255)


def chunk(kind: bytes, content: bytes) -> bytes:
    """Returns a chunk of a PNG."""
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png(
    quarters: Sequence[Sequence[int]], colour: int, bits: int, size: tuple[int, int], *, interlaced: bool = False,
    before: bytes = b"",
) -> bytes:  # fmt: skip
    """Returns a PNG with these samples in its quarters; `before`: chunks between its header and its pixels."""
    width, height = size
    body = bytearray()
    for left, top, across, down in PASSES if interlaced else ((0, 0, 1, 1),):
        columns, lines = range(left, width, across), range(top, height, down)
        if not columns:
            continue
        first = sum(column < width // 2 for column in columns)
        for line in lines:
            pair = quarters[0:2] if line < height // 2 else quarters[2:4]
            body += b"\0" + _uneven(pair, first, len(columns), bits)
    header = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, interlaced)
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        (chunk(b"IHDR", header), before, chunk(b"IDAT", zlib.compress(bytes(body), 1)), chunk(b"IEND", b""))
    )


def _uneven(pair: Sequence[Sequence[int]], first: int, columns: int, bits: int) -> bytes:
    if bits >= 8:
        one, two = (b"".join(sample.to_bytes(bits // 8, "big") for sample in side) for side in pair)
        return one * first + two * (columns - first)
    digits = f"{pair[0][0]:0{bits}b}" * first + f"{pair[1][0]:0{bits}b}" * (columns - first)
    digits += "0" * (-len(digits) % 8)
    return int(digits, 2).to_bytes(len(digits) // 8, "big")


def _plain(colour: int, bits: int) -> tuple[list[Colour], tuple[Colour, ...], bytes]:
    """Samples, what is seen, and the chunks in front."""
    if colour == 3:
        few = bits == 1
        shown = (RGB[0], RGB[1], RGB[1], RGB[0]) if few else RGB
        palette = RGB[:2] if few else RGB
        indices: list[Colour] = [(0,), (1,), (1,), (0,)] if few else [(0,), (1,), (2,), (3,)]
        return indices, shown, chunk(b"PLTE", bytes(sum(palette, ())))
    shown = RGB if colour in (2, 6) else HALVES if bits == 1 else STEPS
    most = (1 << bits) - 1
    samples = scaled(shown, bits)
    if colour in (4, 6):
        samples = [(*sample, most) for sample in samples]
    return samples, shown, b""


def goldens(width: int, height: int) -> Iterator[Golden]:
    """Yields every PNG."""
    size = width, height
    for colour, depths in DEPTHS.items():
        for bits in depths:
            samples, shown, before = _plain(colour, bits)
            for interlaced in (False, True):
                name = f"{NAMES[colour]}-{bits}{'-interlaced' if interlaced else ''}.png"
                yield Golden(name, png(samples, colour, bits, size, interlaced=interlaced, before=before), shown)
    yield from _transparent(size)


def _transparent(size: tuple[int, int]) -> Iterator[Golden]:
    """The first quarter cannot be seen."""
    indices, shown, palette = _plain(3, 8)
    clear = (CLEAR, *shown[1:])
    yield Golden("palette-trns.png", png(indices, 3, 8, size, before=palette + chunk(b"tRNS", b"\0")), clear)
    for bits in (8, 16):
        most = (1 << bits) - 1
        told = chunk(b"tRNS", struct.pack(">HHH", most, 0, 0))
        yield Golden(f"rgb-{bits}-trns.png", png(scaled(RGB, bits), 2, bits, size, before=told), clear)
        samples = [(*sample, 0 if number == 0 else most) for number, sample in enumerate(scaled(RGB, bits))]
        yield Golden(f"rgba-{bits}-clear.png", png(samples, 6, bits, size), clear)
    for bits in (1, 2, 4, 8, 16):
        steps = HALVES if bits == 1 else STEPS
        told = chunk(b"tRNS", b"\0\0")
        seen = tuple(CLEAR if step == (0,) else step for step in steps)
        yield Golden(f"grey-{bits}-trns.png", png(scaled(steps, bits), 0, bits, size, before=told), seen)


def row_of(quarters: Sequence[Sequence[int]], width: int) -> bytes:
    """Returns the first row, for the tests of the encoder itself."""
    return row(quarters[0], quarters[1], width)
