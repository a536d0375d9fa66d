"""What is left out of a progressive JPEG is not missed at an eighth of its size."""

import io
import random

import msgspec
import pytest
from PIL import Image, ImageChops, ImageStat

from workers import specimens
from workers.images import cost, formats, header, progressive, with_pillow

EXIF = Image.Exif().tobytes()
KINDS = {"4:4:4": {"subsampling": 0}, "4:2:2": {"subsampling": 1}, "4:2:0": {"subsampling": 2}, "L": {}, "CMYK": {}}
SAMPLES = {"4:4:4": 3.0, "4:2:2": 2.0, "4:2:0": 1.5, "L": 1.0, "CMYK": 4.0}


def jpeg(size: tuple[int, int], kind: str, **options: object) -> bytes:
    picture = specimens.photo(*size, seed=3)
    return specimens.encoded(picture.convert(kind) if len(kind) <= 4 else picture, "JPEG", **KINDS[kind], **options)


def an_eighth(content: bytes) -> tuple[str, tuple[int, int], bytes]:
    with Image.open(io.BytesIO(content)) as image:
        image.draft(None, (image.width // 8, image.height // 8))
        return image.mode, image.size, image.tobytes()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", [(400, 300), (403, 301), (17, 9), (8, 8), (1025, 33)])
def test_an_eighth_has_the_same_pixels_without_what_was_left_out(kind: str, size: tuple[int, int]) -> None:
    for restarts in (0, 2):
        content = jpeg(size, kind, quality=85, progressive=True, restart_marker_rows=restarts)
        trimmed = progressive.for_an_eighth(content)
        assert trimmed is not None
        assert an_eighth(trimmed) == an_eighth(content)
        assert size[0] < 400 or len(trimmed) < len(content) / 3


def test_metadata_stays() -> None:
    content = jpeg((400, 300), "4:2:0", progressive=True, exif=EXIF, icc_profile=b"profile")
    trimmed = progressive.for_an_eighth(content)
    assert trimmed is not None
    with Image.open(io.BytesIO(trimmed)) as image:
        assert (image.info["icc_profile"], image.info["exif"]) == (b"profile", EXIF)


def test_what_is_not_a_whole_progressive_jpeg_is_left_alone() -> None:
    content = jpeg((100, 80), "4:2:0", progressive=True)
    assert progressive.for_an_eighth(jpeg((100, 80), "4:2:0")) is None, "a baseline JPEG"
    assert all(progressive.for_an_eighth(content[:length]) is None for length in range(len(content) - 1)), "a cut one"
    assert progressive.for_an_eighth(b"\xff\xd8\xff\xd9") is None


def test_damage_is_nothing_to_fall_over() -> None:
    content = jpeg((100, 80), "4:2:0", progressive=True)
    for seed in range(300):
        chance, damaged = random.Random(seed), bytearray(content)
        for _ in range(4):
            damaged[chance.randrange(len(damaged))] = chance.randrange(256)
        trimmed = progressive.for_an_eighth(bytes(damaged))
        assert trimmed is None or trimmed[:2] == content[:2]


@pytest.mark.parametrize(("kind", "samples"), SAMPLES.items())
def test_it_is_reckoned_with_the_coefficients_that_its_subsampling_leaves(kind: str, samples: float) -> None:
    content = jpeg((1200, 800), kind, progressive=True)
    found, _ = header.read_with_pillow(io.BytesIO(content), formats.JPEG, len(content))
    assert (found.progressive, found.plane_bytes) == (True, 2 * samples)
    baseline = msgspec.structs.replace(found, progressive=False)
    more = cost.decode_bytes(found, (150, 100), "pillow") - cost.decode_bytes(baseline, (150, 100), "pillow")
    assert more == 1200 * 800 * samples * 2 + len(content), "16 bits a sample, and the file that is read beforehand"


@pytest.mark.parametrize(("width", "side", "scale"), [(2000, 128, 8), (2016, 128, 8), (1990, 128, 4), (1024, 128, 4)])
def test_a_progressive_photo_is_shrunk_by_eight_where_that_leaves_nearly_two(width: int, side: int, scale: int) -> None:
    found, _ = read(jpeg((width, width * 3 // 4), "4:2:0", quality=85, progressive=True))
    target = cost.target_of(found, side)
    assert cost.draft_scale(found, target) == scale
    assert cost.draft_scale(msgspec.structs.replace(found, progressive=False), target) == 4


def test_so_shrunk_it_is_as_near_as_pillows_thumbnail() -> None:
    for seed in range(3):
        content = specimens.encoded(specimens.photo(2016, 1512, seed=seed), "JPEG", quality=85, progressive=True)
        found, _ = read(content)
        trimmed = progressive.for_an_eighth(content)
        assert trimmed is not None
        _, image = read(trimmed)
        our = with_pillow.decode(image, found, cost.target_of(found, 128), lenient=False)
        with Image.open(io.BytesIO(content)) as theirs:
            theirs.thumbnail((128, 128))
        with Image.open(io.BytesIO(content)) as whole:
            reference = whole.resize(our.size, Image.Resampling.LANCZOS)
        assert away(our, reference) < away(theirs, reference)


def read(content: bytes) -> tuple[header.Header, Image.Image]:
    return header.read_with_pillow(io.BytesIO(content), formats.JPEG, len(content))


def away(one: Image.Image, other: Image.Image) -> float:
    return max(ImageStat.Stat(ImageChops.difference(one, other)).rms)
