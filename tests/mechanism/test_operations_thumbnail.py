"""Thumbnails: right way up, right colours, right size, whatever the image is."""

import itertools
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from PIL import Image, ImageCms

from tests.galleries import write
from tests.mechanism.performing import Bench, outputs, step
from workers import specimens
from workers.images import encode as encoding
from workers.images.geometry import parse_size
from workers.operations import thumbnail as thumbnails

SMALL, LARGE = (320, 200), (1400, 900)
"""Below and above the size where the decoder changes from Pillow to libvips."""


def thumbnail(tmp_path: Path, name: str, content: bytes, size: int | str = 128, kind: str = "png") -> Image.Image:
    """Returns the one thumbnail of an image, decoded."""
    report = Bench(tmp_path).run(write(tmp_path, name, content), step("thumbnail", sizes=[size], format=kind))
    assert report.outcome == "done", report.error
    with Image.open(outputs(report)[0]["path"]) as made:
        made.load()
    return made


def corners(picture: Image.Image) -> list[tuple[int, ...]]:
    """Returns the colours in the middle of the four quarters."""
    shown, (width, height) = picture.convert("RGB"), picture.size
    places = itertools.product((height // 4, height * 3 // 4), (width // 4, width * 3 // 4))
    return [shown.getpixel((x, y)) for y, x in places]  # type: ignore[misc]


MARKS: list[tuple[int, ...]] = [(255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)]


def near(found: Sequence[tuple[int, ...]], wanted: Sequence[tuple[int, ...]], tolerance: int = 8) -> bool:
    """Whether colours differ by at most `tolerance` in each channel."""
    return all(
        abs(a - b) <= tolerance for one, two in zip(found, wanted, strict=True) for a, b in zip(one, two, strict=True)
    )


@pytest.mark.parametrize("size", [SMALL, LARGE])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_is_applied(tmp_path: Path, orientation: int, size: tuple[int, int]) -> None:
    made = thumbnail(tmp_path, "o.jpg", specimens.jpeg(specimens.marked(*size), orientation=orientation))
    assert made.size == (128, round(128 * size[1] / size[0]))
    assert near(corners(made), MARKS)
    assert not made.getexif()


def _kinds(size: tuple[int, int]) -> dict[str, bytes]:
    marked = specimens.marked(*size)
    png, encoded = specimens.encoded, specimens.encoded
    return {
        "plain.png": png(marked, "PNG"),
        "palette.png": png(marked.quantize(16), "PNG"),
        "palette.gif": encoded(marked, "GIF"),
        "progressive.jpg": specimens.jpeg(marked, progressive=True),
        "lossless.webp": encoded(marked, "WEBP", lossless=True),
        "lzw.tiff": encoded(marked, "TIFF", compression="tiff_lzw"),
        "plain.bmp": encoded(marked, "BMP"),
        "plain.ppm": encoded(marked, "PPM"),
        "plain.tga": encoded(marked, "TGA"),
        "plain.jp2": encoded(marked, "JPEG2000"),
        "plain.avif": encoded(marked, "AVIF", quality=100, speed=10),
    }


@pytest.mark.parametrize("size", [SMALL, LARGE])
@pytest.mark.parametrize("name", _kinds((8, 8)))
def test_every_format_shows_its_colours(tmp_path: Path, name: str, size: tuple[int, int]) -> None:
    assert near(corners(thumbnail(tmp_path, name, _kinds(size)[name])), MARKS)


@pytest.mark.parametrize("size", [SMALL, LARGE])
@pytest.mark.parametrize("kind", ["JPEG", "TIFF"])
def test_cmyk_comes_out_in_its_colours(tmp_path: Path, kind: str, size: tuple[int, int]) -> None:
    content = specimens.encoded(specimens.marked(*size).convert("CMYK"), kind)
    found = corners(thumbnail(tmp_path, f"c.{kind.lower()}", content))
    strongest = [max(range(3), key=colour.__getitem__) for colour in found[:3]]  # inks are duller than light
    assert strongest == [0, 1, 2] and min(found[3]) > 240


@pytest.mark.parametrize("size", [SMALL, LARGE])
def test_sixteen_bits_keep_their_brightness(tmp_path: Path, size: tuple[int, int]) -> None:
    assert near(corners(thumbnail(tmp_path, "g.png", specimens.flat_png(*size, bits=16))), [(0x80,) * 3] * 4, 2)


@pytest.mark.parametrize("size", [SMALL, LARGE])
def test_interlaced(tmp_path: Path, size: tuple[int, int]) -> None:
    assert near(corners(thumbnail(tmp_path, "i.png", specimens.flat_png(*size, interlaced=True))), [(0x80,) * 3] * 4, 2)


@pytest.mark.parametrize("size", [SMALL, LARGE])
def test_transparency_is_kept_and_lies_on_white_in_jpeg(tmp_path: Path, size: tuple[int, int]) -> None:
    picture = specimens.marked(*size).convert("RGBA")
    picture.paste((0, 0, 0, 0), (0, 0, size[0] // 2, size[1] // 2))
    content = specimens.encoded(picture, "PNG")
    for kind in ("png", "webp"):
        made = thumbnail(tmp_path, f"a-{kind}.png", content, kind=kind)
        assert made.mode == "RGBA" and made.getpixel((10, 10))[3] == 0  # type: ignore[index]
    assert near(corners(thumbnail(tmp_path, "a.png", content, kind="jpeg"))[:1], [(255, 255, 255)])


def swapped_profile() -> bytes:
    """Returns a colour profile in which red and green have changed places: sRGB's with two tags renamed."""
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    profile = profile.replace("sRGB".encode("utf-16-be"), "mine".encode("utf-16-be")).replace(b"sRGB", b"mine")
    return profile.replace(b"rXYZ", b"____", 1).replace(b"gXYZ", b"rXYZ", 1).replace(b"____", b"gXYZ", 1)


@pytest.mark.parametrize("size", [SMALL, LARGE])
@pytest.mark.parametrize("kind", ["PNG", "AVIF"])
def test_a_profile_is_converted_and_not_kept(tmp_path: Path, kind: str, size: tuple[int, int]) -> None:
    options: dict[str, Any] = {"quality": 100, "speed": 10} if kind == "AVIF" else {}
    content = specimens.encoded(specimens.marked(*size), kind, icc_profile=swapped_profile(), **options)
    made = thumbnail(tmp_path, f"p.{kind.lower()}", content)
    assert near(corners(made), [MARKS[1], MARKS[0], MARKS[2], MARKS[3]], 24) and "icc_profile" not in made.info


@pytest.mark.parametrize("size", [SMALL, LARGE])
def test_a_profile_that_fits_no_image_is_no_reason_to_fail(tmp_path: Path, size: tuple[int, int]) -> None:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()
    content = specimens.encoded(specimens.marked(*size), "PNG", icc_profile=profile)
    assert near(corners(thumbnail(tmp_path, "p.png", content)), MARKS)


def test_metadata_is_stripped(tmp_path: Path) -> None:
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    content = specimens.encoded(
        specimens.photo(*SMALL), "JPEG", icc_profile=srgb, comment=b"at home", exif=b"Exif\0\0II*\0"
    )
    for kind in ("webp", "jpeg", "png"):
        made = thumbnail(tmp_path, f"m-{kind}.jpg", content, kind=kind)
        assert not {"icc_profile", "exif", "comment", "xmp"} & set(made.info)


def test_rungs_never_enlarge_and_are_always_written(tmp_path: Path) -> None:
    rungs: dict[str, Any] = {"sizes": [64, "256x256>", "x100", "900x900<", "50x70!"], "format": "jpeg"}
    report = Bench(tmp_path).run(write(tmp_path, "s.png", specimens.flat_png(200, 150)), step("thumbnail", **rungs))
    made = {os.path.basename(o["path"]): (o["width"], o["height"]) for o in outputs(report)}
    assert made == {
        "s.png.64.jpg": (64, 48),
        "s.png.256x256.jpg": (200, 150),
        "s.png.x100.jpg": (133, 100),
        "s.png.900x900-up.jpg": (900, 675),
        "s.png.50x70-exact.jpg": (50, 70),
    }
    for name, size in made.items():
        with Image.open(tmp_path / "out" / name) as picture:
            assert picture.size == size


def test_rungs_of_one_size_are_encoded_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    encoded: list[tuple[int, int]] = []
    encode = encoding.encode

    def counted(picture: Image.Image, *options: Any) -> bytes:
        encoded.append(picture.size)
        return encode(picture, *options)

    monkeypatch.setattr(thumbnails, "encode", counted)
    rungs = step("thumbnail", sizes=[64, 256, 512, 1024])
    report = Bench(tmp_path).run(write(tmp_path, "s.png", specimens.flat_png(200, 150)), rungs)
    assert encoded == [(200, 150), (64, 48)] and len(report.written) == 4


SIZES = {
    256: ((4000, 3000), (256, 192)),
    "256x128": ((4000, 3000), (171, 128)),
    "x200": ((4000, 3000), (267, 200)),
    "200x": ((3000, 4000), (200, 267)),
    "5000": ((4000, 3000), (4000, 3000)),
    "5000<": ((4000, 3000), (5000, 3750)),
    "100<": ((4000, 3000), (4000, 3000)),
    "300x20!": ((4000, 3000), (300, 20)),
    "16": ((10_000, 3), (16, 1)),
}


@pytest.mark.parametrize("text", SIZES)
def test_sizes(text: int | str) -> None:
    image, wanted = SIZES[text]
    assert parse_size(text).fit(*image) == wanted


@pytest.mark.parametrize("text", ["", "x", "0", "-5", "12.5", "256x256?", "99999", "256<>", True])
def test_what_is_no_size(text: int | str) -> None:
    with pytest.raises(ValueError, match=r"size|side"):
        parse_size(text)
