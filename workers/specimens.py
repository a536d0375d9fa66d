"""Makes galleries by code: photo-like images of every kind, and the files that break weaker programs.

Used by `supervisor demo` (as `python -m workers.specimens DIR`, in a process of its own, because the
supervisor imports no decoder) and by the tests. Pixels are smooth gradients with some noise, so that files
have the size of photos and compress like them; the same seed makes the same picture.
"""

import argparse
import io
import os
import random
import struct
import sys
import zlib
from collections.abc import Iterator

from PIL import Image, ImageChops, ImageDraw

SIZES = ((640, 480), (1280, 960), (1600, 1200), (2400, 1600))
CRASHING_NAME = "crashes-its-worker.jpg"
"""A sound photo; the demo's recipe names an operation that crashes on it (misbehave.crash, `only`)."""
_ORIENTATION_TAG, _DATE_TAG, _EXIF_POINTER, _DATE_ORIGINAL_TAG = 0x0112, 0x0132, 0x8769, 0x9003
_NOISE_SIDE = 256


def photo(width: int, height: int, seed: int = 0) -> Image.Image:
    """Returns a picture like a photo: coloured gradients, shapes with edges, grain. Mode RGB."""
    chance = random.Random(seed)
    small = Image.new("RGB", (96, 72))
    slope = Image.linear_gradient("L")
    channels = [slope.rotate(chance.uniform(0, 360)).resize(small.size) for _ in "RGB"]
    small = Image.merge("RGB", channels)
    draw = ImageDraw.Draw(small)
    for _ in range(6):
        x, y, size = chance.randrange(96), chance.randrange(72), chance.randrange(6, 30)
        draw.ellipse((x - size, y - size, x + size, y + size), fill=tuple(chance.randrange(256) for _ in "RGB"))
    picture = small.resize((width, height), Image.Resampling.BICUBIC)
    grain = Image.effect_noise((_NOISE_SIDE, _NOISE_SIDE), 24)
    return ImageChops.add(picture, _tiled(grain, width, height), 1, -128)


def _tiled(tile: Image.Image, width: int, height: int) -> Image.Image:
    row = Image.new("L", (width, tile.height))
    for x in range(0, width, tile.width):
        row.paste(tile, (x, 0))
    sheet = Image.new("L", (width, height))
    for y in range(0, height, tile.height):
        sheet.paste(row, (0, y))
    return Image.merge("RGB", (sheet, sheet, sheet))


def marked(width: int, height: int) -> Image.Image:
    """Returns a grey picture whose four quarters tell which way is up: red, green / blue, white."""
    picture = Image.new("RGB", (width, height), "grey")
    draw = ImageDraw.Draw(picture)
    half, middle = width // 2, height // 2
    for colour, left, top in (("red", 0, 0), ("lime", half, 0), ("blue", 0, middle), ("white", half, middle)):
        draw.rectangle((left, top, left + half - 1, top + middle - 1), fill=colour)
    return picture


_STORED = {
    2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180, 4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE, 6: Image.Transpose.ROTATE_90, 7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}  # fmt: skip


def jpeg(
    picture: Image.Image,
    *,
    orientation: int = 1,
    taken: str | None = None,
    progressive: bool = False,
    quality: int = 88,
) -> bytes:
    """Returns a JPEG that shows `picture` upright when its EXIF `orientation` (1 to 8) is obeyed.

    `taken` is an EXIF date ("2024:05:31 18:20:00").
    """
    stored = picture.transpose(_STORED[orientation]) if orientation in _STORED else picture
    tags = Image.Exif()
    if orientation != 1:
        tags[_ORIENTATION_TAG] = orientation
    if taken is not None:
        tags.get_ifd(_EXIF_POINTER)[_DATE_ORIGINAL_TAG] = taken
    return encoded(stored, "JPEG", quality=quality, progressive=progressive, exif=tags.tobytes() if len(tags) else b"")


def encoded(picture: Image.Image, kind: str, **options: object) -> bytes:
    """Returns `picture` as a file of Pillow's format `kind`."""
    file = io.BytesIO()
    picture.save(file, kind, **options)
    return file.getvalue()


def flat_png(width: int, height: int, *, bits: int = 8, interlaced: bool = False) -> bytes:
    """Returns a grey PNG of any size, made row by row: a giant is a file of some kilobytes and takes no memory.

    `interlaced` (Adam7) only declares it and stores the rows of each of its seven passes, all of one grey.
    """
    packer = zlib.compressobj(1)
    body = bytearray()
    passes = _adam7(width, height) if interlaced else iter(((width, height),))
    for wide, high in passes:
        row = b"\0" + b"\x80" * (wide * bits // 8)
        for _ in range(high if wide else 0):
            body += packer.compress(row)
    body += packer.flush()
    header = struct.pack(">IIBBBBB", width, height, bits, 0, 0, 0, int(interlaced))
    parts = (_chunk(b"IHDR", header), _chunk(b"IDAT", bytes(body)), _chunk(b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def _adam7(width: int, height: int) -> Iterator[tuple[int, int]]:
    grid = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
    for x, y, across, down in grid:
        yield max(0, -(-(width - x) // across)), max(0, -(-(height - y) // down))


def _chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def broken_png() -> bytes:
    """Returns a PNG with a sound header and end whose pixels cannot be inflated."""
    whole = flat_png(300, 200)
    at = whole.index(b"IDAT")
    return whole[: at + 6] + b"\xff" * 20 + whole[at + 26 :]


def oddities(giant_megapixels: int = 120) -> Iterator[tuple[str, bytes]]:
    """Yields (name, content) of the files that a gallery has among its photos and nobody expects."""
    sample = photo(1280, 960, seed=1)
    whole = jpeg(sample)
    side = max(1, int((giant_megapixels * 1_000_000) ** 0.5))
    yield CRASHING_NAME, jpeg(sample, quality=80)
    yield "giant.png", flat_png(side, side)
    yield "progressive.jpg", jpeg(photo(1600, 1200, seed=2), progressive=True)
    yield "corrupt.png", broken_png()
    yield "truncated.jpg", whole[: len(whole) // 2]
    yield "empty.jpg", b""
    yield "text.jpg", b"This is a shopping list, not an image.\n"


def ordinary(count: int) -> Iterator[tuple[str, bytes]]:
    """Yields (name, content) of sound images: JPEGs of several sizes and orientations, every eighth another format."""
    others = ("PNG", "TIFF", "WEBP", "GIF")
    for number in range(count):
        width, height = SIZES[number % len(SIZES)]
        if number % 8 == 7:
            kind = others[(number // 8) % len(others)]
            yield f"photo-{number:04d}.{kind.lower()}", encoded(photo(800, 600, seed=number), kind)
            continue
        orientation, taken = number % 8 + 1, f"2024:05:{number % 28 + 1:02d} 18:20:00"
        yield f"photo-{number:04d}.jpg", jpeg(photo(width, height, seed=number), orientation=orientation, taken=taken)


def make_gallery(directory: str, count: int = 60, *, odd: bool = True, giant_megapixels: int = 120) -> int:
    """Fills a directory (made if needed) with `count` images, the oddities among them if `odd`; returns how many."""
    os.makedirs(directory, exist_ok=True)
    extras = list(oddities(giant_megapixels)) if odd else []
    made = 0
    for name, content in (*extras, *ordinary(max(0, count - len(extras)))):
        with open(os.path.join(directory, name), "wb") as file:
            file.write(content)
        made += 1
    return made


def main(arguments: list[str] | None = None) -> int:
    """`python -m workers.specimens DIR [--count N] [--giant-megapixels N] [--plain]`; prints the number of files."""
    parser = argparse.ArgumentParser(prog="python -m workers.specimens", description="Makes a gallery by code.")
    parser.add_argument("directory")
    parser.add_argument("--count", type=int, default=60)
    parser.add_argument("--giant-megapixels", type=int, default=120)
    parser.add_argument("--plain", action="store_true", help="sound images only")
    given = parser.parse_args(arguments)
    made = make_gallery(given.directory, given.count, odd=not given.plain, giant_megapixels=given.giant_megapixels)
    print(made)
    return 0


if __name__ == "__main__":
    sys.exit(main())
