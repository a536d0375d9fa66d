"""Files that are nothing but header: refused before a decoder walks through it, and sound ones are not."""

import base64
import gzip
import struct
from pathlib import Path

import pytest

from tests.galleries import write
from tests.goldens.plain import psd
from tests.goldens.png import chunk
from tests.goldens.tiff import tiff
from tests.mechanism.performing import Bench, step
from workers import specimens
from workers.images import bounds, svg
from workers.images.with_pillow import metadata


def _segment(marker: int, content: bytes) -> bytes:
    return bytes((0xFF, marker)) + struct.pack(">H", len(content) + 2) + content


def _icon(content: bytes) -> bytes:
    return struct.pack("<HHH", 0, 1, 1) + struct.pack("<BBBBHHII", 0, 0, 0, 0, 1, 32, len(content), 22) + content


def _jpeg(between: bytes) -> bytes:
    whole = specimens.jpeg(specimens.photo(64, 48))
    return whole[:2] + between + whole[2:]


def _scans(count: int) -> bytes:
    whole = specimens.jpeg(specimens.photo(64, 48), progressive=True)
    last = whole.rindex(b"\xff\xda")
    return whole[:-2] + whole[last:-2] * count + b"\xff\xd9"


def _hostile() -> dict[str, tuple[bytes, str, str]]:
    """By name: content, kind of the verdict, what its message says."""
    png = specimens.encoded(specimens.photo(64, 48), "PNG")
    blocks = b"GIF89a\1\0\1\0\0\0\0!\xfe" + b"\1c" * (bounds.BLOCKS * 2) + b"\0;"
    head = psd(8, 8, 3, 8, ((0, 0, 0),) * 4)
    resources = (b"8BIM" + struct.pack(">HHI", 1, 0, 0)) * (bounds.RESOURCES + 1)
    return {
        "segments.jpg": (_jpeg(_segment(0xFE, b"x") * bounds.SEGMENTS), "corrupt", "segments"),
        "filling.jpg": (_jpeg(b"\xff" * 3_000_000), "corrupt", "filling"),
        "heavy.jpg": (_jpeg(_segment(0xE2, bytes(65_000)) * 1_100), "corrupt", "bytes before its pixels"),
        "scans.jpg": (_scans(bounds.SCANS), "corrupt", "scans"),
        "chunks.png": (png[:33] + chunk(b"tEXt", b"k\0v") * bounds.CHUNKS + png[33:], "corrupt", "chunks"),
        "blocks.gif": (blocks, "corrupt", "blocks"),
        "nested.ico": (_icon(specimens.flat_png(20_000, 5_000)), "too_many_pixels", "20,000 x 5,000"),
        "resources.psd": (
            head[:30] + struct.pack(">I", len(resources)) + resources + head[34:], "corrupt", "resources"
        ),
    }  # fmt: skip


@pytest.mark.parametrize("name", _hostile())
def test_a_header_without_end_is_refused(tmp_path: Path, name: str) -> None:
    content, kind, says = _hostile()[name]
    report = Bench(tmp_path).run(write(tmp_path, name, content), step("probe"))
    assert report.error is not None and (report.error.kind, says in report.error.message) == (kind, True), report.error


def test_what_sound_files_hold_is_far_from_the_bounds(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    sound = {
        "profile.jpg": _jpeg(_segment(0xE2, b"x" * 65_000) * 255),
        "filled.jpg": _jpeg(b"\xff" * 1_000),
        "scans.jpg": _scans(20),
        "large.ico": _icon(specimens.flat_png(1_024, 1_024)),
    }
    for name, content in sound.items():
        report = bench.run(write(tmp_path, name, content), step("thumbnail", sizes=[32]))
        assert report.error is None, (name, report.error)


def test_a_drawing_costs_what_is_in_it(tmp_path: Path) -> None:
    inside = base64.b64encode(specimens.flat_png(8_000, 4_000)).decode()
    picture = f'<image href="data:image/png;base64,{inside}"/>'
    drawn = f'<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9">{picture}</svg>'
    assert svg.inside_bytes(drawn.encode()) > 8_000 * 4_000 * 4
    path = write(tmp_path, "p.svgz", gzip.compress(drawn.encode()))
    report = Bench(tmp_path).run(path, step("thumbnail", sizes=[32]), memory_bytes=64_000_000)
    assert report.outcome == "deferred" and report.needs_bytes > 8_000 * 4_000 * 4


def test_a_tiff_with_megabytes_of_tags_keeps_none_of_them(tmp_path: Path) -> None:
    from PIL import Image

    tags = {256: (4, [10]), 257: (4, [10]), 258: (3, [8]), 259: (3, [1]), 262: (3, [1]), 277: (3, [1])}
    for count, kept in ((10, True), (400, False)):
        many = {1_000 + number: (4, [1] * 1_000) for number in range(count)}
        path = write(tmp_path, f"{count}.tif", tiff([bytes(100)], {**tags, **many}))
        with Image.open(path) as image:
            assert bool(metadata(image).exif) is kept
