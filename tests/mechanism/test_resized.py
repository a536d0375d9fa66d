"""Small pictures are resized by pipelines that are kept: no picture shows through in the next. AVIF in strips."""

import io
from pathlib import Path
from typing import Any

import msgspec
import pytest
from PIL import Image, ImageChops, ImageStat

from workers import specimens
from workers.images import cost, formats, header, with_pillow, with_vips
from workers.images.lent import lent

PICTURES = [specimens.photo(*size, seed=seed) for seed, size in enumerate(((320, 240), (320, 240), (411, 293)))]
SIZES = ((128, 96), (97, 61), (255, 191), (320, 240))


def apart(one: Image.Image, other: Image.Image) -> float:
    """The square root of the mean square difference of two pictures: some 1 between two resizes, 30 between photos."""
    found = ImageStat.Stat(ImageChops.difference(one, other)).rms
    return max(found)


@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_a_kept_pipeline_shows_the_picture_it_is_given_each_time(mode: str) -> None:
    for _ in range(2):
        for number, whole in enumerate(PICTURES):
            picture = whole.convert(mode)
            for size in SIZES:
                if size == picture.size:
                    continue
                made = with_vips.resized(picture, size)
                assert (made.mode, made.size) == (mode, size)
                assert apart(made, picture.resize(size, Image.Resampling.LANCZOS)) < 4, (number, size)


@pytest.mark.parametrize("size", [(100, 80), (1000, 333), (4001, 700)])
@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA"])
def test_a_picture_is_packed_in_strips_bit_for_bit(mode: str, size: tuple[int, int]) -> None:
    picture = specimens.photo(*size, seed=4).convert(mode)
    assert with_vips.packed(picture) == picture.tobytes()


def test_a_panorama_that_streams_is_not_reckoned_with_all_its_rows(tmp_path: Path) -> None:
    path = tmp_path / "panorama.png"
    Image.new("1", (28_000, 10_000)).save(path, compress_level=1)
    with open(path, "rb") as file:
        found, _ = header.read_with_pillow(file, formats.PNG, path.stat().st_size)
    colour = msgspec.structs.replace(found, bands=3, mode="RGB", bits=8)
    for side in (128, 256, 1024):
        needed = cost.decode_bytes(colour, cost.target_of(colour, side), "vips")
        assert 90_000_000 < needed < 280_000_000, "measured in colour: 88, 98 and 141 MB"


def test_what_was_resized_is_not_changed_by_the_next() -> None:
    first = with_vips.resized(PICTURES[0], (128, 96))
    before = first.tobytes()
    with_vips.resized(PICTURES[1], (128, 96))
    assert first.tobytes() == before


def test_small_and_large_pictures_are_resized_alike() -> None:
    large = specimens.photo(900, 700, seed=3)
    assert apart(with_vips.resized(large, (450, 350)), large.resize((450, 350), Image.Resampling.LANCZOS)) < 4


@pytest.mark.parametrize("size", [(801, 603), (640, 1237)])
def test_an_avif_shrunk_in_strips_is_the_same_bit_for_bit(size: tuple[int, int]) -> None:
    content = specimens.encoded(specimens.photo(*size, seed=5), "AVIF", quality=80, speed=10)
    found, image = header.read_with_pillow(io.BytesIO(content), formats.AVIF, len(content))
    target = cost.target_of(found, 100)
    made = with_pillow.decode(image, found, target, lenient=False)
    assert image.tile, "the whole picture was never unpacked"  # type: ignore[attr-defined]
    assert cost.shrinks_in_strips(found, target)
    with Image.open(io.BytesIO(content)) as whole:
        assert made.tobytes() == with_pillow.shrink(whole, target).tobytes()


@pytest.mark.parametrize(
    ("options", "bytes_a_pixel"),
    [
        ({}, 1.5),
        ({"subsample_mode": "off"}, 3.0),
        ({"bitdepth": 10}, 3.0),
        ({"bitdepth": 12, "subsample_mode": "off"}, 6.0),
    ],
)
def test_an_avif_is_reckoned_with_the_planes_that_its_header_tells(options: Any, bytes_a_pixel: float) -> None:
    whole = with_vips.library().Image.new_from_array(specimens.photo(640, 480, seed=5))
    content = whole.heifsave_buffer(compression="av1", effort=0, **options)
    found, _ = header.read_with_pillow(io.BytesIO(content), formats.AVIF, len(content))
    assert found.plane_bytes == bytes_a_pixel


def test_a_very_large_picture_is_not_packed_beside_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = specimens.photo(500, 400, seed=6)
    by_vips = with_pillow.shrink(whole, (120, 96))
    monkeypatch.setattr(cost, "PACKED_PIXELS", 100_000)
    by_box = with_pillow.shrink(whole, (120, 96))
    expected = with_vips.resized(whole.reduce(2), (120, 96))
    assert by_box.tobytes() == expected.tobytes() != by_vips.tobytes()
    assert apart(by_box, whole.resize((120, 96), Image.Resampling.LANCZOS)) < 4


@pytest.mark.parametrize(("size", "box"), [((800, 600), 4), ((801, 603), 3), ((756, 602), 2), ((801, 601), None)])
def test_a_box_divides_the_picture_evenly_or_the_rest_is_done_by_pillow(size: tuple[int, int], box: int | None) -> None:
    whole = specimens.photo(*size, seed=7)
    target = 96, round(96 * size[1] / size[0])
    factor = cost.box_factor(*size, target)
    assert cost.even_box(*size, factor) == box
    made = with_pillow.shrink(whole, target)
    if box is not None:
        assert made.tobytes() == with_vips.resized(whole.reduce(box), target).tobytes()
    assert apart(made, whole.resize(target, Image.Resampling.LANCZOS)) < 1.5
    moved = ImageChops.offset(whole, 1, 0).resize(target, Image.Resampling.LANCZOS)
    assert apart(made, moved) > 1.5, "an eighth of a pixel would be noticed"


@pytest.mark.parametrize("size", [(7, 5), (640, 480), (3001, 1501)])
@pytest.mark.parametrize(("mode", "raw", "bands"), [("L", "L", 1), ("RGB", "RGBX", 4)])
def test_pixels_are_lent_where_they_lie(mode: str, raw: str, bands: int, size: tuple[int, int]) -> None:
    picture = specimens.photo(*size, seed=8).convert(mode)
    found = lent(picture)
    assert found is not None, "also of a picture above Pillow's own blocks of 16 MB"
    assert (found.bands, found.raw) == (bands, raw)
    expected = picture.tobytes("raw", raw)
    assert found.pixels == expected
    del picture
    others = [Image.new(mode, size, 9) for _ in range(8)]  # what was given back would be taken by these
    assert found.pixels == expected, len(others)


class _Unlent(Image.Image):
    """A picture of a Pillow that lends nothing."""

    def __arrow_c_array__(self, requested_schema: object = None) -> tuple[object, object]:
        raise ValueError("Image rows are not contiguous in memory.")


@pytest.mark.parametrize("mode", ["L", "RGB"])
@pytest.mark.parametrize("size", [(400, 300), (900, 700)])
def test_what_is_not_lent_is_copied_with_the_same_result(size: tuple[int, int], mode: str) -> None:
    picture = specimens.photo(*size, seed=9).convert(mode)
    copied = picture.copy()
    copied.__class__ = _Unlent
    assert lent(copied) is None
    target = size[0] // 3, size[1] // 3
    assert with_vips.resized(copied, target).tobytes() == with_vips.resized(picture, target).tobytes()
