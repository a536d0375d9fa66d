"""Formats that programs of thirty years wrote without a compressor: BMP, ICO, TGA, PNM, PSD, and some kin."""

import struct
from collections.abc import Iterator, Sequence

from tests.goldens import HALVES, RGB, STEPS, Colour, Golden, rows, scaled
from tests.goldens.png import png

BGR: tuple[Colour, ...] = tuple((quarter[2], quarter[1], quarter[0]) for quarter in RGB)

LAB: tuple[Colour, ...] = ((136, 208, 195), (224, 42, 209), (76, 196, 20), (255, 128, 128))
"""L*, a* and b* with their middle at 128."""


def padded(lines: Sequence[bytes]) -> bytes:
    """Returns rows filled to four bytes each."""
    return b"".join(line + b"\0" * (-len(line) % 4) for line in lines)


def bmp(
    width: int, height: int, bits: int, pixels: bytes, *, compression: int = 0, palette: bytes = b"",
    masks: bytes = b"", info_bytes: int = 40,
) -> bytes:  # fmt: skip
    """Returns a BMP; a negative height is stored from the top."""
    colours = len(palette) // 4
    info = struct.pack("<IiiHHIIiiII", info_bytes, width, height, 1, bits, compression, len(pixels), 0, 0, colours, 0)
    info = (info + masks).ljust(info_bytes, b"\0") if info_bytes > 40 else info + masks
    at = 14 + len(info) + len(palette)
    return b"BM" + struct.pack("<IHHI", at + len(pixels), 0, 0, at) + info + palette + pixels


def _turned(lines: list[bytes]) -> list[bytes]:
    return lines[::-1]


def _bmps(width: int, height: int) -> Iterator[Golden]:
    palette = b"".join(bytes((*quarter, 0)) for quarter in BGR)
    indices = [(0,), (1,), (2,), (3,)]
    for bits in (4, 8):
        pixels = padded(_turned(rows(indices, width, height, bits)))
        yield Golden(f"palette-{bits}.bmp", bmp(width, height, bits, pixels, palette=palette))
    one = padded(_turned(rows([(0,), (1,), (1,), (0,)], width, height, 1)))
    yield Golden("palette-1.bmp", bmp(width, height, 1, one, palette=palette[:8]), (RGB[0], RGB[1], RGB[1], RGB[0]))
    yield Golden("rgb-24.bmp", bmp(width, height, 24, padded(_turned(rows(BGR, width, height)))))
    yield Golden("rgb-24-top-down.bmp", bmp(width, -height, 24, padded(rows(BGR, width, height))))
    with_x = rows([(*quarter, 0) for quarter in BGR], width, height)
    yield Golden("rgb-32.bmp", bmp(width, height, 32, padded(_turned(with_x))))
    alpha = rows([(*quarter, 0 if number == 0 else 255) for number, quarter in enumerate(BGR)], width, height)
    masks = struct.pack("<IIII", 0xFF0000, 0xFF00, 0xFF, 0xFF000000)
    seen = ((255,) * 3, *RGB[1:])
    yield Golden(
        "rgba-32-v4.bmp",
        bmp(width, height, 32, padded(_turned(alpha)), compression=3, masks=masks, info_bytes=108),
        seen,
    )
    for name, red, green, blue, compression in (
        ("555", 0x7C00, 0x3E0, 0x1F, 0), ("565", 0xF800, 0x7E0, 0x1F, 3),
    ):  # fmt: skip
        words = [(red,), (green,), (blue,), (red | green | blue,)]
        pixels = padded(_turned(rows(words, width, height, 16, "little")))
        masks = struct.pack("<III", red, green, blue) if compression else b""
        yield Golden(f"rgb-16-{name}.bmp", bmp(width, height, 16, pixels, compression=compression, masks=masks))
    yield Golden("rle-8.bmp", bmp(width, height, 8, _rle(width, height), compression=1, palette=palette))
    core = b"".join(bytes(quarter) for quarter in BGR) + b"\0" * 36
    pixels = padded(_turned(rows(indices, width, height, 4)))
    at = 14 + 12 + len(core)
    head = b"BM" + struct.pack("<IHHI", at + len(pixels), 0, 0, at) + struct.pack("<IHHHH", 12, width, height, 1, 4)
    yield Golden("os2-4.bmp", head + core + pixels)


def _runs(value: int, count: int) -> bytes:
    return b"".join(bytes((min(255, count - done), value)) for done in range(0, count, 255))


def _rle(width: int, height: int) -> bytes:
    half = width // 2
    lines = []
    for line in range(height):
        left, right = (2, 3) if line < height // 2 else (0, 1)
        lines.append(_runs(left, half) + _runs(right, half) + b"\0\0")
    return b"".join(lines) + b"\0\1"


def _icons() -> Iterator[Golden]:
    side = 64
    alpha = rows([(*quarter, 255) for quarter in BGR], side, side)
    pixels = padded(_turned(alpha)) + padded([b"\0" * 8] * side)
    dib = struct.pack("<IiiHHIIiiII", 40, side, side * 2, 1, 32, 0, len(pixels), 0, 0, 0, 0) + pixels
    inside = png([(*quarter, 255) for quarter in RGB], 6, 8, (side, side))
    flat = padded(_turned(rows([(0,), (1,), (2,), (3,)], side, side, 4))) + padded([b"\0" * 8] * side)
    palette = b"".join(bytes((*quarter, 0)) for quarter in BGR) + b"\0" * 48
    four = struct.pack("<IiiHHIIiiII", 40, side, side * 2, 1, 4, 0, len(flat), 0, 0, 16, 0) + palette + flat
    for name, content, bits in (("bmp-32", dib, 32), ("png", inside, 32), ("bmp-4", four, 4)):
        for kind, suffix in ((1, "ico"), (2, "cur")):
            entry = struct.pack("<BBBBHHII", side, side, 0, 0, 1, bits, len(content), 22)
            if kind == 2 and name == "png":
                continue
            yield Golden(f"{name}.{suffix}", struct.pack("<HHH", 0, kind, 1) + entry + content, upright=(side, side))


def tga(
    width: int, height: int, kind: int, bits: int, pixels: bytes, *, top: bool = False, palette: bytes = b""
) -> bytes:
    """Returns a TGA; `top`: stored from the top."""
    colours = len(palette) // 3
    flags = (0x20 if top else 0) | (8 if bits == 32 else 0)
    table = (1, 0, colours, 24) if palette else (0, 0, 0, 0)
    return (
        struct.pack("<BBBHHBHHHHBB", 0, table[0], kind, *table[1:], 0, 0, width, height, bits, flags) + palette + pixels
    )


def _tga_runs(value: bytes, count: int) -> bytes:
    return b"".join(bytes((0x80 | (min(128, count - done) - 1),)) + value for done in range(0, count, 128))


def _tgas(width: int, height: int) -> Iterator[Golden]:
    half, lines = width // 2, rows(BGR, width, height)
    for top in (False, True):
        where = "top" if top else "bottom"
        turned = lines if top else _turned(lines)
        yield Golden(f"rgb-24-{where}.tga", tga(width, height, 2, 24, b"".join(turned), top=top))
        pairs = [BGR[0:2]] * (height // 2) + [BGR[2:4]] * (height - height // 2)
        packed = b"".join(
            _tga_runs(bytes(left), half) + _tga_runs(bytes(right), half)
            for left, right in (pairs if top else pairs[::-1])
        )
        yield Golden(f"rgb-24-rle-{where}.tga", tga(width, height, 10, 24, packed, top=top))
    alpha = [(*quarter, 0 if number == 0 else 255) for number, quarter in enumerate(BGR)]
    content = tga(width, height, 2, 32, b"".join(rows(alpha, width, height)), top=True)
    yield Golden("rgba-32.tga", content, ((255,) * 3, *RGB[1:]))
    yield Golden("grey-8.tga", tga(width, height, 3, 8, b"".join(rows(STEPS, width, height)), top=True), STEPS)
    palette = b"".join(bytes(quarter) for quarter in BGR)
    indices = b"".join(rows([(0,), (1,), (2,), (3,)], width, height))
    yield Golden("palette-8.tga", tga(width, height, 1, 8, indices, top=True, palette=palette))
    words = b"".join(rows([(0x7C00,), (0x3E0,), (0x1F,), (0x7FFF,)], width, height, 16, "little"))
    yield Golden("rgb-16.tga", tga(width, height, 2, 16, words, top=True))


def _pnms(width: int, height: int) -> Iterator[Golden]:
    size = f"{width} {height}\n"
    bits = rows([(1,), (0,), (0,), (1,)], width, height, 1)
    words = "\n".join(" ".join("1" * (width // 2) + "0" * (width // 2)) for _ in range(height // 2))
    words += "\n" + "\n".join(" ".join("0" * (width // 2) + "1" * (width // 2)) for _ in range(height // 2))
    yield Golden("p1.pbm", f"P1\n# made\n{size}{words}\n".encode(), HALVES)
    yield Golden("p4.pbm", f"P4\n{size}".encode() + b"".join(bits), HALVES)
    for depth in (8, 16):
        most = (1 << depth) - 1
        grey, colour = scaled(STEPS, depth), scaled(RGB, depth)
        head = f"{size}{most}\n"
        yield Golden(f"p2-{depth}.pgm", f"P2\n{head}".encode() + _words(grey, width, height), STEPS)
        yield Golden(f"p3-{depth}.ppm", f"P3\n{head}".encode() + _words(colour, width, height))
        yield Golden(f"p5-{depth}.pgm", f"P5\n{head}".encode() + b"".join(rows(grey, width, height, depth)), STEPS)
        yield Golden(f"p6-{depth}.ppm", f"P6\n{head}".encode() + b"".join(rows(colour, width, height, depth)))
        for kind, samples, shown in (("GRAYSCALE", grey, STEPS), ("RGB", colour, RGB)):
            told = (
                f"P7\nWIDTH {width}\nHEIGHT {height}\nDEPTH {len(samples[0])}\nMAXVAL {most}\nTUPLTYPE {kind}\nENDHDR\n"
            )
            content = told.encode() + b"".join(rows(samples, width, height, depth))
            yield Golden(f"p7-{kind.lower()}-{depth}.pam", content, shown)
    floats = [struct.pack("<f", step[0] / 255) * (width // 2) for step in STEPS]
    lines = [floats[2] + floats[3]] * (height // 2) + [floats[0] + floats[1]] * (height // 2)
    yield Golden("pf-grey.pfm", f"Pf\n{size}-1.0\n".encode() + b"".join(lines), STEPS, 60)


def _words(quarters: Sequence[Colour], width: int, height: int) -> bytes:
    sides = [" ".join(map(str, quarter)) + " " for quarter in quarters]
    half = width // 2
    above, below = (sides[0] * half + sides[1] * half + "\n", sides[2] * half + sides[3] * half + "\n")
    return (above * (height // 2) + below * (height // 2)).encode()


def psd(
    width: int, height: int, mode: int, bits: int, quarters: Sequence[Colour], *, packed: bool = False, version: int = 1
) -> bytes:
    """Returns a flattened PSD (version 2: PSB); `packed`: by PackBits."""
    bands = len(quarters[0])
    planes = [rows([(quarter[band],) for quarter in quarters], width, height, bits) for band in range(bands)]
    wide = ">I" if version == 2 else ">H"
    if packed:
        shrunk = [[_pack_bits(line) for line in plane] for plane in planes]
        lengths = b"".join(struct.pack(wide, len(line)) for plane in shrunk for line in plane)
        body = struct.pack(">H", 1) + lengths + b"".join(line for plane in shrunk for line in plane)
    else:
        body = struct.pack(">H", 0) + b"".join(line for plane in planes for line in plane)
    head = b"8BPS" + struct.pack(">H6xHIIHH", version, bands, height, width, bits, mode)
    layers = struct.pack(">Q" if version == 2 else ">I", 0)
    return head + struct.pack(">II", 0, 0) + layers + body


def _pack_bits(line: bytes) -> bytes:
    return b"".join(
        struct.pack("B", min(128, len(line) - at) - 1) + line[at : at + 128] for at in range(0, len(line), 128)
    )


def _psds(width: int, height: int) -> Iterator[Golden]:
    for packed in (False, True):
        form = "-packed" if packed else ""
        for version in (1, 2):
            suffix = "psd" if version == 1 else "psb"
            for bits in (8, 16):
                most = (1 << bits) - 1
                inks = [(most, 0, 0, most), (0, most, 0, most), (0, 0, most, most), (most, most, most, most)]
                yield Golden(
                    f"rgb-{bits}{form}.{suffix}",
                    psd(width, height, 3, bits, scaled(RGB, bits), packed=packed, version=version),
                )
                grey = psd(width, height, 1, bits, scaled(STEPS, bits), packed=packed, version=version)
                yield Golden(f"grey-{bits}{form}.{suffix}", grey, STEPS)
                cmyk = psd(width, height, 4, bits, inks, packed=packed, version=version)
                yield Golden(f"cmyk-{bits}{form}.{suffix}", cmyk, RGB, 140)
    for bits in (8, 16, 32):
        if bits == 32:
            light = [struct.unpack(">I", struct.pack(">f", step[0] / 255))[0] for step in STEPS]
            content = psd(width, height, 1, 32, [(value,) for value in light])
            yield Golden("grey-32.psd", content, STEPS, 130)  # linear light: the steps between are brighter
            continue
        most = (1 << bits) - 1
        lab = [tuple(round(sample * most / 255) for sample in quarter) for quarter in LAB]
        yield Golden(f"lab-{bits}.psd", psd(width, height, 9, bits, lab), RGB, 40)
        saved = [(*sample, 0) for sample in scaled(RGB, bits)]
        if bits == 16:
            yield Golden("rgb-16-selection.psd", psd(width, height, 3, bits, saved), RGB)
    table = bytes(RGB[index][band] if index < 4 else 0 for band in range(3) for index in range(256))
    indices = psd(width, height, 2, 8, [(0,), (1,), (2,), (3,)], version=2)
    yield Golden("palette-8.psb", indices[:26] + struct.pack(">I", 768) + table + indices[30:])
    bitmap = psd(width, height, 0, 1, [(1,), (0,), (0,), (1,)])
    yield Golden("bitmap.psd", bitmap, HALVES)


def goldens(width: int, height: int) -> Iterator[Golden]:
    """Yields all of them; icons have a size of their own."""
    yield from _bmps(width, height)
    yield from _icons()
    yield from _tgas(width, height)
    yield from _pnms(width, height)
    yield from _psds(width, height)
