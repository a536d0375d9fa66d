"""Formats with an encoder: JPEG in its processes and colour spaces, WebP, GIF, AVIF, JPEG 2000, TIFF, SVG.

Arithmetic-coded JPEGs stand here as bytes, because none of the encoders at hand writes them.
"""

import base64
import struct
from collections.abc import Iterator
from typing import Any

from PIL import Image, ImageChops

from tests.goldens import HALVES, RGB, STEPS, Colour, Golden
from workers import specimens
from workers.images import with_vips

ARITHMETIC = base64.b64decode(
    "/9j/4AAQSkZJRgABAQAAAQABAAD/2wBDAAMCAgMCAgMDAwMEAwMEBQgFBQQEBQoHBwYIDAoMDAsKCwsNDhIQDQ4RDgsLEBYQERMUFRUVDA8XGBYU"
    "GBIUFRT/2wBDAQMEBAUEBQkFBQkUDQsNFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBT/yQARCAB4AKAD"
    "ASIAAhEBAxEB/8wACgAQEAUBEBEF/9oADAMBAAIRAxEAPwD/ANlLDFuAlROW6fK7zLImr5lBvnEApGF5SlxN+FIueet06rwOr990/wA3/wAJ3J1c"
    "STZWiCcqjh87FVCWP5rKiJGQxdpen46B0Duru2RQZEv578q2ezJjJ5BCA5fOw9gkEvWJMFeDroYT2A8lAK9B2UuffIoI6RjxBtJKkWBnBLW8oQA5"
    "P75jp+UsoX07RtqfcrRtMlkd1J11B7cfbi/QM3bUcgyw+W2zw3E35KiYnL5BgEGkNZqZ3oufEW+aNa2nlYA71XXZJdm/E6BTAt9AiTRhdJiodu6C"
    "38WWvGDa3nc+xxxKoTjfJsShYWrj441sttWp4Lwo4fyzawWrGLQfQ5ZqNNHx/KT2wDmeXolcYz++0SXlBw+1WLIPSPYgkehJNDjwxX4Bh0033rco"
    "BJD/APwCMvPYn2zDD7wNPvWMq1RmT9LgzZRyNqE38ICJKhc2qmpfP2RkZo9Hrdj/2Q=="
)
ARITHMETIC_PROGRESSIVE = base64.b64decode(
    "/9j/4AAQSkZJRgABAQAAAQABAAD/2wBDAAMCAgMCAgMDAwMEAwMEBQgFBQQEBQoHBwYIDAoMDAsKCwsNDhIQDQ4RDgsLEBYQERMUFRUVDA8XGBYU"
    "GBIUFRT/2wBDAQMEBAUEBQkFBQkUDQsNFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBT/ygARCAB4AKAD"
    "ASIAAhEBAxEB/8wABgAQARD/2gAMAwEAAhADEAAAAf8AsqwHNSZ9HecrziW6uBUNMe0c3BLLE4b91PRkjERm5CMu1n8dV/nKMV2LC0tjPhO5szv8"
    "OjQ85ih4rbC8y5x/KZh73ixQtfUQR0LhJkbb2hpcZUuxLtXjvhd5fUXbjiXOL7xIYwAvfDjviGWN7IbCHdJKAe5xWP/MAAQQBf/aAAgBAQABBQKp"
    "l87tmvFI2WDwXJ//AAac0y6WO2uUMZ/rVJHew2M6Zzz/zAAEEQX/2gAIAQMBAT8Bs2jQubzY58mls9/GKhUpXSLGMQ4WQUm3u8rsF4QE9i5oNh1H"
    "cTLWQv23tnXuL4R9tV6oKlo0tztg/8wABBEF/9oACAECAQE/AbNeO34KeyayeGvMCJKWENG+dCpd8lj6YTwm+q6R6NL38wva9WzEsdzHpsSPCmv3"
    "/Rs2MQZYEP/MAAQQBf/aAAgBAQAGPwKpmOm78RVUvSpd0JcYd5kU+EvqaoIvf5kS+0L+hB8k8Yan5n5cNEXePZpeDOIig//MAAQQBf/aAAgBAQAB"
    "PyGmyjQAAJ2ywAXw+5xaIQxYpjvkyz3ZgP/aAAwDAQACAAMAAAAQ/wD/AP8A/wDpHTTTqL//AP6R0006i/8A/wDpHTTTevpppSw88ylQss3EY88y"
    "lQss3EY88ylQss3EY88ylQss3EY884D/zAAEEQX/2gAIAQMBAT8Qpj9T0AC0OgAAAlxYmFMxkP/MAAQRBf/aAAgBAgEBPxCmP1TeV7Q6AAACtovn"
    "dkz/zAAEEAX/2gAIAQEAAT8QphX6AABnQsAAAAAAAdn4+JM3Z2vtzP/Z"
)
INKS: tuple[Colour, ...] = ((0, 255, 255, 0), (255, 0, 255, 0), (255, 255, 0, 0), (0, 0, 0, 0))
WHITE: Colour = (255, 255, 255)


def quarters(mode: str, colours: tuple[Colour, ...], width: int, height: int) -> Image.Image:
    """Returns a picture of any of Pillow's modes with these colours in its quarters."""
    picture = Image.new(mode, (width, height))
    half, middle = width // 2, height // 2
    for number, colour in enumerate(colours):
        left, top = number % 2 * half, number // 2 * middle
        picture.paste(colour if len(colour) > 1 else colour[0], (left, top, left + half, top + middle))
    return picture


def adobe(content: bytes, transform: int) -> bytes:
    """Returns a JPEG with an Adobe marker that names its colour transform (0 none, 1 YCbCr, 2 YCCK)."""
    marker = b"\xff\xee" + struct.pack(">H5sHHHB", 14, b"Adobe", 100, 0, 0, transform)
    at = content.find(b"\xff\xee")
    if at >= 0:
        content = content[:at] + content[at + 16 :]
    return content[:2] + marker + content[2:]


def _jpegs(width: int, height: int) -> Iterator[Golden]:
    encoded, marked = specimens.encoded, specimens.marked(width, height)
    grey, inks = quarters("L", STEPS, width, height), quarters("CMYK", INKS, width, height)
    for name, options in (("baseline", {}), ("progressive", {"progressive": True}), ("444", {"subsampling": 0})):
        given: dict[str, Any] = {"quality": 92} | options
        yield Golden(f"{name}.jpg", encoded(marked, "JPEG", **given))
        yield Golden(f"grey-{name}.jpg", encoded(grey, "JPEG", **given), STEPS)
        yield Golden(f"cmyk-{name}.jpg", encoded(inks, "JPEG", **given), RGB, 140)
    yield Golden("restarts.jpg", encoded(marked, "JPEG", quality=92, restart_marker_rows=1))
    yield Golden("optimised.jpg", encoded(marked, "JPEG", quality=92, optimize=True))
    yield Golden("rgb.jpg", encoded(marked, "JPEG", quality=92, keep_rgb=True))
    # What Adobe stores is the opposite of the inks, and the decoder's YCCK turns three of the four round once more.
    ycck = Image.merge("CMYK", (*ImageChops.invert(marked).convert("YCbCr").split(), Image.new("L", marked.size, 255)))
    plain = Image.eval(ycck, lambda value: 255 - value)  # Pillow inverts what it writes
    yield Golden("ycck.jpg", adobe(encoded(plain, "JPEG", quality=92, subsampling=0), 2), RGB, 140)
    yield Golden("arithmetic.jpg", ARITHMETIC)
    yield Golden("arithmetic-progressive.jpg", ARITHMETIC_PROGRESSIVE)
    black = Image.new("RGB", marked.size)
    yield Golden("two.mpo", encoded(marked, "MPO", save_all=True, append_images=[black], quality=92))
    yield Golden("gain-map.jpg", encoded(marked, "JPEG", quality=92) + encoded(black.resize((20, 15)), "JPEG"))


def _tiffs(width: int, height: int) -> Iterator[Golden]:
    vips, marked = with_vips.library(), specimens.marked(width, height)
    image = vips.Image.new_from_memory(marked.tobytes(), width, height, 3, "uchar").copy(interpretation="srgb")
    steps = quarters("L", STEPS, width, height)
    grey = vips.Image.new_from_memory(steps.tobytes(), width, height, 1, "uchar").copy(interpretation="b-w")
    structures: dict[str, dict[str, Any]] = {
        "strips": {}, "tiles": {"tile": True}, "bigtiff": {"bigtiff": True, "tile": True},
        "pyramid": {"tile": True, "pyramid": True, "tile_width": 64, "tile_height": 64},
    }  # fmt: skip
    for compression in ("none", "lzw", "deflate", "packbits", "jpeg", "webp", "zstd"):
        for name, options in structures.items():
            lossy: dict[str, Any] = {"Q": 92} if compression in ("jpeg", "webp") else {}
            try:
                content = image.tiffsave_buffer(compression=compression, **options, **lossy)
            except vips.Error:
                continue  # a libtiff without that codec
            yield Golden(f"{compression}-{name}.tif", content)
    for predictor in ("horizontal", "float"):
        kind = "float" if predictor == "float" else "ushort"
        deep = (
            (image / 255).cast("float").copy(interpretation="scrgb") if kind == "float" else image.colourspace("rgb16")
        )
        for tile in (False, True):
            name = f"{kind}-predicted{'-tiles' if tile else ''}.tif"
            yield Golden(name, deep.tiffsave_buffer(compression="deflate", predictor=predictor, tile=tile), RGB, 12)
    yield Golden("lab.tif", image.colourspace("lab").tiffsave_buffer(compression="lzw"), RGB, 12)
    for bits in (1, 2, 4):
        shown = HALVES if bits == 1 else STEPS
        halves = quarters("L", HALVES, width, height)
        two = vips.Image.new_from_memory(halves.tobytes(), width, height, 1, "uchar").copy(interpretation="b-w")
        content = (two if bits == 1 else grey).tiffsave_buffer(bitdepth=bits, compression="deflate", predictor="none")
        yield Golden(f"grey-{bits}-deflate.tif", content, shown)
    fax = quarters("1", HALVES, width, height)
    for compression in ("group3", "group4", "tiff_ccitt"):
        yield Golden(f"{compression}.tif", specimens.encoded(fax, "TIFF", compression=compression), HALVES)
    inks = quarters("CMYK", INKS, width, height)
    for compression in ("tiff_lzw", "jpeg"):
        yield Golden(f"cmyk-{compression}.tif", specimens.encoded(inks, "TIFF", compression=compression), RGB, 140)
    lzma = specimens.encoded(marked, "TIFF", compression="lzma")
    yield Golden("lzma.tif", lzma)
    black = Image.new("RGB", marked.size)
    yield Golden("pages.tif", specimens.encoded(marked, "TIFF", save_all=True, append_images=[black, black]))


def _moving(width: int, height: int) -> Iterator[Golden]:
    """The first frame is what a thumbnail shows."""
    encoded, marked = specimens.encoded, specimens.marked(width, height)
    black = Image.new("RGB", marked.size)
    for kind, suffix in (("GIF", "gif"), ("WEBP", "webp"), ("PNG", "apng"), ("AVIF", "avif")):
        options: dict[str, Any] = {"lossless": True} if kind == "WEBP" else {"speed": 10} if kind == "AVIF" else {}
        content = encoded(marked, kind, save_all=True, append_images=[black, black], duration=50, **options)
        yield Golden(f"moving.{suffix}", content, RGB, 12)
    yield Golden("interlaced.gif", encoded(marked.quantize(8), "GIF", interlace=1))
    yield Golden("plain.gif", encoded(marked.quantize(8), "GIF", interlace=0))
    clear = marked.quantize(8)
    first: Any = clear.getpixel((2, 2))
    yield Golden("clear.gif", encoded(clear, "GIF", transparency=first), (WHITE, *RGB[1:]))


def _modern(width: int, height: int) -> Iterator[Golden]:
    encoded, marked = specimens.encoded, specimens.marked(width, height)
    clear = quarters(
        "RGBA", tuple((*colour, 0 if number == 0 else 255) for number, colour in enumerate(RGB)), width, height
    )
    seen = (WHITE, *RGB[1:])
    for name, options in (("lossless", {"lossless": True}), ("lossy", {"quality": 95})):
        yield Golden(f"{name}.webp", encoded(marked, "WEBP", **options), RGB, 12)
        yield Golden(f"{name}-clear.webp", encoded(clear, "WEBP", **options), seen, 12)
    for subsampling in ("4:0:0", "4:2:0", "4:2:2", "4:4:4"):
        picture, shown = (quarters("L", STEPS, width, height), STEPS) if subsampling == "4:0:0" else (marked, RGB)
        content = encoded(picture, "AVIF", subsampling=subsampling, speed=10, quality=95)
        yield Golden(f"{subsampling.replace(':', '')}.avif", content, shown, 12)
    yield Golden("clear.avif", encoded(clear, "AVIF", speed=10, quality=95), seen, 12)
    vips = with_vips.library()
    deep = vips.Image.new_from_memory(marked.tobytes(), width, height, 3, "uchar").copy(interpretation="srgb")
    deep = deep.colourspace("rgb16")
    for bits in (10, 12):
        content = deep.heifsave_buffer(compression="av1", bitdepth=bits, effort=0, Q=95)
        yield Golden(f"{bits}-bits.avif", content, RGB, 12)
        for brand in (b"mif1",):
            yield Golden(f"{bits}-bits-{brand.decode()}.heif", content.replace(b"avif", brand), RGB, 12)
    for mode, colours in (("RGB", RGB), ("L", STEPS)):
        picture = quarters(mode, colours, width, height)
        for suffix in ("jp2", "j2k"):
            content = encoded(picture, "JPEG2000", no_jp2=suffix == "j2k")
            yield Golden(f"{mode.lower()}.{suffix}", content, colours, 12)
    yield Golden("lossy.jp2", encoded(marked, "JPEG2000", irreversible=True, quality_layers=[20]), RGB, 12)
    yield Golden("tiles.jp2", encoded(marked, "JPEG2000", tile_size=(64, 64)), RGB, 12)
    yield Golden("clear.jp2", encoded(clear, "JPEG2000"), seen, 12)
    deep_grey = quarters("I;16", tuple((step[0] * 257,) for step in STEPS), width, height)
    yield Golden("grey-16.jp2", encoded(deep_grey, "JPEG2000"), STEPS)


def _drawn(width: int, height: int) -> Iterator[Golden]:
    half, middle = width // 2, height // 2
    shapes = "".join(
        f'<rect x="{number % 2 * half}" y="{number // 2 * middle}" width="{half}" height="{middle}" '
        f'fill="rgb{colour}"/>'
        for number, colour in enumerate(RGB)
    )
    for name, size in (
        ("sized", f'width="{width}" height="{height}"'), ("boxed", f'viewBox="0 0 {width} {height}"'),
        ("millimetres", f'width="{width}mm" height="{height}mm" viewBox="0 0 {width} {height}"'),
    ):  # fmt: skip
        yield Golden(f"{name}.svg", f'<svg xmlns="http://www.w3.org/2000/svg" {size}>{shapes}</svg>'.encode())


def goldens(width: int, height: int) -> Iterator[Golden]:
    """Yields all of them."""
    for group in (_jpegs, _tiffs, _moving, _modern, _drawn):
        yield from group(width, height)
