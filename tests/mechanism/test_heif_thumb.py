"""Thumbnails that HEIF and AVIF files carry as an item of their own: found, taken where they are large enough."""

from pathlib import Path
from struct import pack

import pytest
from PIL import Image, ImageStat

from tests.mechanism.performing import Bench, outputs, step
from workers import specimens
from workers.images.heif_thumb import _boxes, by_thumbnail


def box(kind: bytes, content: bytes) -> bytes:
    return pack(">I4s", 8 + len(content), kind) + content


def full(kind: bytes, content: bytes, version: int = 0) -> bytes:
    return box(kind, bytes([version, 0, 0, 0]) + content)


def parts(content: bytes) -> tuple[bytes, bytes]:
    """The properties and the coded picture of an AVIF that Pillow wrote."""
    top = {kind: (start, stop) for kind, start, stop in _boxes(content, 0, len(content))}
    meta = {kind: (start, stop) for kind, start, stop in _boxes(content, top[b"meta"][0] + 4, top[b"meta"][1])}
    kind, start, stop = next(_boxes(content, *meta[b"iprp"]))
    assert kind == b"ipco"
    return content[start:stop], content[slice(*top[b"mdat"])]


def with_thumbnail(picture: Image.Image, thumbnail: Image.Image) -> bytes:
    """An AVIF of two items: the picture (1), and its thumbnail (2)."""
    coded = [parts(specimens.encoded(each, "AVIF", quality=80, speed=10)) for each in (picture, thumbnail)]
    counts = [sum(1 for _ in _boxes(properties, 0, len(properties))) for properties, _ in coded]
    numbers = [range(1, counts[0] + 1), range(counts[0] + 1, sum(counts) + 1)]
    used = b"".join(pack(">HB", item, len(each)) + bytes(each) for item, each in enumerate(numbers, 1))

    def whole(at: int) -> bytes:
        places = b""
        for item, (_, data) in enumerate(coded, 1):
            places += pack(">HHHII", item, 0, 1, at, len(data))
            at += len(data)
        infos = b"".join(full(b"infe", pack(">HH4sx", item, 0, b"av01"), 2) for item in (1, 2))
        meta = full(
            b"meta",
            full(b"hdlr", pack(">I4s12xx", 0, b"pict"))
            + full(b"pitm", pack(">H", 1))
            + full(b"iloc", pack(">HH", 0x4400, 2) + places)
            + full(b"iinf", pack(">H", 2) + infos)
            + full(b"iref", box(b"thmb", pack(">HHH", 2, 1, 1)))
            + box(b"iprp", box(b"ipco", b"".join(each for each, _ in coded)) + full(b"ipma", pack(">I", 2) + used)),
        )
        brands = box(b"ftyp", b"avif\0\0\0\0avifmif1miafMA1B")
        return brands + meta + box(b"mdat", b"".join(data for _, data in coded))

    return whole(len(whole(0)) - sum(len(data) for _, data in coded))


BLUE, RED = (Image.new("RGB", size, colour) for size, colour in (((640, 480), "blue"), ((160, 120), "red")))
FILE = with_thumbnail(BLUE, RED)


def colour(tmp_path: Path, content: bytes, side: int, *, embedded: bool) -> str:
    path = tmp_path / "a.avif"
    path.write_bytes(content)
    bench = Bench(tmp_path / str(side))
    report = bench.run(str(path).encode(), step("thumbnail", sizes=[side], format="png", embedded=embedded))
    assert report.outcome == "done", report.error
    with Image.open(outputs(report)[0]["path"]) as made:
        assert max(made.size) == side
        red, _, blue = ImageStat.Stat(made.convert("RGB")).mean
    return "red" if red > blue else "blue"


@pytest.mark.parametrize(
    ("side", "embedded", "expected"),
    [(128, True, "red"), (160, True, "red"), (161, True, "blue"), (128, False, "blue")],
)
def test_it_is_taken_where_it_is_asked_for_and_large_enough(
    tmp_path: Path, side: int, embedded: bool, expected: str
) -> None:
    assert colour(tmp_path, FILE, side, embedded=embedded) == expected


def test_one_of_other_proportions_shows_something_else_and_is_left(tmp_path: Path) -> None:
    square = with_thumbnail(BLUE, Image.new("RGB", (160, 160), "red"))
    assert colour(tmp_path, square, 128, embedded=True) == "blue"


def test_one_that_is_damaged_is_left(tmp_path: Path) -> None:
    damaged = FILE[: -len(parts(specimens.encoded(RED, "AVIF", quality=80, speed=10))[1])]
    damaged += bytes(len(FILE) - len(damaged))
    assert colour(tmp_path, damaged, 128, embedded=True) == "blue"


def test_files_without_one_and_broken_ones_have_none() -> None:
    assert by_thumbnail(specimens.encoded(BLUE, "AVIF", quality=50, speed=10)) is None
    assert by_thumbnail(b"") is None
    for end in range(0, len(FILE) - len(parts(FILE)[1]), 3):
        by_thumbnail(FILE[:end])
    swapped = by_thumbnail(FILE)
    assert swapped is not None and len(swapped) == len(FILE)
