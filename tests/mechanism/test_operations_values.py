"""What operations say about an image: the probe's facts and the hashes."""

from pathlib import Path
from typing import Any

import pytest

from tests.galleries import write
from tests.mechanism.performing import Bench, step, values
from workers import specimens
from workers.images import exif


def asked(tmp_path: Path, name: str, content: bytes, operation: str) -> dict[str, Any]:
    """Returns the values of one operation on one file."""
    report = Bench(tmp_path).run(write(tmp_path, name, content), step(operation))
    found: dict[str, Any] = values(report)[operation]
    return found


def test_probe_tells_the_header(tmp_path: Path) -> None:
    content = specimens.jpeg(specimens.photo(300, 200), orientation=6, taken="2024:05:31 18:20:00", progressive=True)
    assert asked(tmp_path, "p.jpg", content, "probe") == {
        "format": "jpeg", "width": 200, "height": 300, "pixels": 60_000, "orientation": 6,
        "taken": "2024-05-31T18:20:00", "mode": "RGB", "bands": 3, "bits": 8, "frames": 1, "progressive": True,
        "icc": False, "bytes": len(content), "camera": None, "lens": None, "gps": None, "icc_description": None,
        "reader": "Pillow",
    }  # fmt: skip
    laced = asked(tmp_path, "i.png", specimens.flat_png(30, 20, bits=16, interlaced=True), "probe")
    assert (laced["progressive"], laced["bits"], laced["taken"], laced["orientation"]) == (True, 16, None, 1)


def test_hashes_stay_near_for_alike_and_far_for_others(tmp_path: Path) -> None:
    picture = specimens.photo(900, 600, seed=3)
    first = asked(tmp_path, "a.jpg", specimens.jpeg(picture), "phash")
    alike = asked(tmp_path, "b.png", specimens.encoded(picture.resize((450, 300)), "PNG"), "phash")
    other = asked(tmp_path, "c.jpg", specimens.jpeg(specimens.photo(900, 600, seed=4)), "phash")
    turned = asked(tmp_path, "d.jpg", specimens.jpeg(picture, orientation=8), "phash")
    for name in ("phash", "dhash"):
        assert len(first[name]) == 16
        assert _distance(first[name], alike[name]) <= 6
        assert _distance(first[name], turned[name]) <= 6
        assert _distance(first[name], other[name]) >= 12


def _distance(first: str, second: str) -> int:
    return (int(first, 16) ^ int(second, 16)).bit_count()


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"Exif\0\0",
        b"Exif\0\0II*\0\xff\xff\xff\xff",
        b"II*\0\x08\0\0\0\xff\xff" + b"\x12\x01\x03\0" * 50,
        b"MM\0*" + bytes(8),
    ],
)
def test_broken_exif_is_unknown(raw: bytes) -> None:
    assert exif.parse(raw) == exif.Exif()


@pytest.mark.parametrize(
    "text", [None, "", "0000:00:00 00:00:00", "    :  :     :  :  ", "2024:ab:31 18:20:00", "2024:05:31"]
)
def test_dates_that_are_none(text: str | None) -> None:
    assert exif.date_of(text) is None
