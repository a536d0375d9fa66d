"""Orientation: all eight of them, in every format that has a place for it."""

from collections.abc import Iterator
from typing import Any

from PIL import Image

from tests.goldens import RGB, Golden, scaled
from tests.goldens.png import chunk
from tests.goldens.tiff import IN_RGB, shown_in
from workers import specimens

_TAG = 0x0112
GREYS = tuple((round(0.299 * r + 0.587 * g + 0.114 * b),) for r, g, b in RGB)


def stored(orientation: int, width: int, height: int) -> Image.Image:
    """Returns the pixels that show the marks once they are turned."""
    marked = specimens.marked(width, height)
    return marked.transpose(specimens._STORED[orientation]) if orientation > 1 else marked


def goldens(width: int, height: int) -> Iterator[Golden]:
    """Yields each format in each orientation."""
    for orientation in range(1, 9):
        picture = stored(orientation, width, height)
        tags = Image.Exif()
        tags[_TAG] = orientation
        exif = tags.tobytes()
        ways: dict[str, tuple[str, dict[str, Any]]] = {
            "jpg": ("JPEG", {"quality": 92}), "progressive.jpg": ("JPEG", {"quality": 92, "progressive": True}),
            "webp": ("WEBP", {"lossless": True}), "png": ("PNG", {}), "avif": ("AVIF", {"speed": 10, "quality": 95}),
            "mpo": ("MPO", {"quality": 92, "save_all": True, "append_images": [picture]}),
            "lzw.tif": ("TIFF", {"compression": "tiff_lzw"}), "jpeg.tif": ("TIFF", {"compression": "jpeg"}),
        }  # fmt: skip
        for suffix, (kind, options) in ways.items():
            yield Golden(
                f"turned-{orientation}.{suffix}", specimens.encoded(picture, kind, exif=exif, **options), RGB, 12
            )
        for suffix, kind in (("grey.jpg", "L"), ("cmyk.jpg", "CMYK")):
            content = specimens.encoded(picture.convert(kind), "JPEG", quality=92, exif=exif)
            shown = GREYS if kind == "L" else RGB
            yield Golden(f"turned-{orientation}.{suffix}", content, shown, 12 if kind == "L" else 140)
        late = specimens.encoded(picture, "PNG")
        end = late.index(b"IEND") - 4
        late = late[:end] + chunk(b"eXIf", exif.removeprefix(b"Exif\0\0")) + late[end:]
        yield Golden(f"turned-{orientation}-late.png", late)
        for bits in (8, 16, 32):
            if bits == 32 and orientation == 1:
                continue
            colours: list[Any] = [picture.getpixel(place) for place in _places(picture.size)]
            if bits == 32:
                greys = [(round(0.299 * c[0] + 0.587 * c[1] + 0.114 * c[2]),) for c in colours]
                content = shown_in(scaled(greys, 32), 1, 32, picture.size, orientation=orientation)
                yield Golden(f"turned-{orientation}-32.tif", content, GREYS)
                continue
            content = shown_in(scaled(colours, bits), IN_RGB, bits, picture.size, orientation=orientation)
            yield Golden(f"turned-{orientation}-{bits}.tif", content)
            content = shown_in(
                scaled(colours, bits),
                IN_RGB,
                bits,
                picture.size,
                orientation=orientation,
                order=">",
                big=True,
            )
            yield Golden(f"turned-{orientation}-{bits}-be-big.tif", content)


def _places(size: tuple[int, int]) -> list[tuple[int, int]]:
    return [(x, y) for y in (size[1] // 4, size[1] * 3 // 4) for x in (size[0] // 4, size[0] * 3 // 4)]
