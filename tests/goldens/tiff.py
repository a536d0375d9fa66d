"""TIFF: either byte order, 32 and 64 bits, strips, tiles, planes, and the sample kinds that scanners and maps use."""

import struct
from collections.abc import Iterator, Sequence

from tests.goldens import HALVES, RGB, STEPS, Colour, Golden, rows, scaled

_LETTERS = {1: "B", 3: "H", 4: "I", 5: "II", 16: "Q"}
MIN_IS_WHITE, MIN_IS_BLACK, IN_RGB, PALETTE, CMYK, LAB = 0, 1, 2, 3, 5, 8
UNSIGNED, SIGNED, FLOAT = 1, 2, 3


def tiff(
    strips: Sequence[bytes], tags: dict[int, tuple[int, Sequence[int]]], *, order: str = "<", big: bool = False,
    following: int = 0,
) -> bytes:  # fmt: skip
    """Returns a TIFF of one directory; `tags` by number: (type, values). Places and sizes of strips are filled in."""
    head = 16 if big else 8
    places, at = [], head
    for strip in strips:
        places.append(at)
        at += len(strip)
    at += -at % 8
    tiled = 322 in tags
    known = tags | {
        324 if tiled else 273: (16 if big else 4, places),
        325 if tiled else 279: (4, [len(strip) for strip in strips]),
    }
    count, entry, room = (8, 20, 8) if big else (2, 12, 4)
    values_at = at + count + entry * len(known) + room
    directory, outside = bytearray(struct.pack(order + ("Q" if big else "H"), len(known))), bytearray()
    for tag in sorted(known):
        kind, values = known[tag]
        stored = struct.pack(order + _LETTERS[kind] * (len(values) // len(_LETTERS[kind])), *values)
        number = len(values) // len(_LETTERS[kind])
        directory += struct.pack(order + ("HHQ" if big else "HHI"), tag, kind, number)
        if len(stored) > room:
            place = values_at + len(outside)
            outside += stored + b"\0" * (-len(stored) % 8)
            stored = struct.pack(order + ("Q" if big else "I"), place)
        directory += stored.ljust(room, b"\0")
    directory += struct.pack(order + ("Q" if big else "I"), following)
    mark = b"II" if order == "<" else b"MM"
    start = struct.pack(order + "HHHQ", 43, 8, 0, at) if big else struct.pack(order + "HI", 42, at)
    body = b"".join(strips)
    return mark + start + body + b"\0" * (at - head - len(body)) + bytes(directory) + bytes(outside)


def shown_in(
    quarters: Sequence[Colour], photometric: int, bits: int, size: tuple[int, int], *, order: str = "<",
    big: bool = False, planar: bool = False, sample: int = UNSIGNED, orientation: int = 1, more: int = 0,
    raw: Sequence[bytes] | None = None, tags: dict[int, tuple[int, Sequence[int]]] | None = None,
) -> bytes:  # fmt: skip
    """Returns an uncompressed TIFF of one strip (or one a plane) with these samples in its quarters."""
    width, height = size
    bands = len(quarters[0])
    ends = "little" if order == "<" else "big"
    if raw is not None:
        strips = list(raw)
    elif planar:
        strips = [
            b"".join(rows([(quarter[band],) for quarter in quarters], width, height, bits, ends))
            for band in range(bands)
        ]
    else:
        strips = [b"".join(rows(quarters, width, height, bits, ends))]
    known: dict[int, tuple[int, Sequence[int]]] = {
        256: (4, [width]), 257: (4, [height]), 258: (3, [bits] * bands), 259: (3, [1]), 262: (3, [photometric]),
        274: (3, [orientation]), 277: (3, [bands]), 278: (4, [height]), 284: (3, [2 if planar else 1]),
    }  # fmt: skip
    if sample != UNSIGNED:
        known[339] = (3, [sample] * bands)
    if more:
        known[338] = (3, [more])
    return tiff(strips, known | (tags or {}), order=order, big=big)


def goldens(width: int, height: int) -> Iterator[Golden]:
    """Yields every TIFF that is made by hand."""
    size = width, height
    for order, end in (("<", "le"), (">", "be")):
        for big in (False, True):
            form = f"{end}{'-big' if big else ''}"
            for bits in (8, 16):
                for planar in (False, True):
                    name = f"rgb-{bits}-{form}{'-planar' if planar else ''}.tif"
                    content = shown_in(scaled(RGB, bits), IN_RGB, bits, size, order=order, big=big, planar=planar)
                    yield Golden(name, content)
            yield Golden(f"grey-16-{form}.tif", shown_in(scaled(STEPS, 16), 1, 16, size, order=order, big=big), STEPS)
    yield from _greys(size)
    yield from _coloured(size)
    yield from _floats(size)
    yield _tiled(size)


def _greys(size: tuple[int, int]) -> Iterator[Golden]:
    for bits in (1, 2, 4, 8, 12, 32):
        shown = HALVES if bits == 1 else STEPS
        for photometric, name in ((MIN_IS_BLACK, "grey"), (MIN_IS_WHITE, "white")):
            if photometric == MIN_IS_WHITE and bits in (12, 32):
                continue
            samples = scaled(shown, bits)
            if photometric == MIN_IS_WHITE:
                samples = [((1 << bits) - 1 - sample[0],) for sample in samples]
            yield Golden(f"{name}-{bits}.tif", shown_in(samples, photometric, bits, size), shown)


def _coloured(size: tuple[int, int]) -> Iterator[Golden]:
    for bits in (1, 2, 4, 8):
        count = 1 << bits
        shown = (RGB[0], RGB[1], RGB[1], RGB[0]) if bits == 1 else RGB
        table = [RGB[index][band] * 257 if index < 4 else 0 for band in range(3) for index in range(count)]
        indices = [(0,), (1,), (1,), (0,)] if bits == 1 else [(0,), (1,), (2,), (3,)]
        content = shown_in(indices, PALETTE, bits, size, tags={320: (3, table)})
        yield Golden(f"palette-{bits}.tif", content, shown)
    for bits in (8, 16):
        most = (1 << bits) - 1
        clear = [(*sample, 0 if number == 0 else most) for number, sample in enumerate(scaled(RGB, bits))]
        yield Golden(f"rgba-{bits}.tif", shown_in(clear, IN_RGB, bits, size, more=2), ((255,) * 3, *RGB[1:]))
        inks = [(0, most, most, 0), (most, 0, most, 0), (most, most, 0, 0), (0, 0, 0, 0)]
        yield Golden(f"cmyk-{bits}.tif", shown_in(inks, CMYK, bits, size), RGB, 140)
        grey = [(*sample, most) for sample in scaled(STEPS, bits)]
        yield Golden(f"grey-alpha-{bits}.tif", shown_in(grey, MIN_IS_BLACK, bits, size, more=2), STEPS)
    lab = [(136, 80, 67), (224, 170, 81), (76, 68, 148), (255, 0, 0)]  # a and b are signed bytes
    yield Golden("lab-8.tif", shown_in(lab, LAB, 8, size), RGB, 40)
    unknown = [(*sample, 255) for sample in RGB]
    yield Golden("rgbx-8.tif", shown_in(unknown, IN_RGB, 8, size, more=0, tags={338: (3, [0])}))
    premultiplied = [(*sample, 255) for sample in RGB]
    yield Golden("rgba-8-premultiplied.tif", shown_in(premultiplied, IN_RGB, 8, size, more=1))


def _floats(size: tuple[int, int]) -> Iterator[Golden]:
    width, height = size
    for order, end in (("<", "le"), (">", "be")):
        halves = [struct.pack(f"{order}f", step[0] / 255) * (width // 2) for step in STEPS]
        raw = (halves[0] + halves[1]) * (height // 2) + (halves[2] + halves[3]) * (height // 2)
        content = shown_in(STEPS, MIN_IS_BLACK, 32, size, order=order, sample=FLOAT, raw=[raw])
        yield Golden(f"grey-float-{end}.tif", content, STEPS, 60)
    coloured = [b"".join(struct.pack("<f", band / 255) for band in quarter) * (width // 2) for quarter in RGB]
    raw = (coloured[0] + coloured[1]) * (height // 2) + (coloured[2] + coloured[3]) * (height // 2)
    yield Golden("rgb-float.tif", shown_in(RGB, IN_RGB, 32, size, sample=FLOAT, raw=[raw]))


def _tiled(size: tuple[int, int]) -> Golden:
    width, height = size
    side, tiles = 32, []
    for top in range(0, height, side):
        for left in range(0, width, side):
            tile = bytearray()
            for line in range(top, top + side):
                for column in range(left, left + side, 16):
                    quarter = 2 * (line >= height // 2) + (column >= width // 2)
                    tile += bytes(RGB[quarter]) * 16
            tiles.append(bytes(tile))
    tags: dict[int, tuple[int, Sequence[int]]] = {
        256: (4, [width]), 257: (4, [height]), 258: (3, [8] * 3), 259: (3, [1]), 262: (3, [2]), 277: (3, [3]),
        284: (3, [1]), 322: (4, [side]), 323: (4, [side]),
    }  # fmt: skip
    return Golden("tiled.tif", tiff(tiles, tags))
