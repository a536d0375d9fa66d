"""Files that are nothing but header: refused before a decoder walks through it, and sound ones are not."""

import base64
import gzip
import struct
from pathlib import Path

import pytest
from PIL import Image

from tests.galleries import write
from tests.goldens.plain import psd
from tests.goldens.png import chunk
from tests.goldens.tiff import tiff
from tests.mechanism.performing import Bench, outputs, step, warnings
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


def _claims() -> dict[str, bytes]:
    """Headers of 49 megapixels with a handful of bytes behind them."""
    bmp = struct.pack("<IiiHHIIiiII", 40, 7_000, 7_000, 1, 24, 0, 0, 0, 0, 0, 0)
    packed = struct.pack("<IiiHHIIiiII", 40, 7_000, 7_000, 1, 8, 1, 0, 0, 0, 256, 0) + bytes(1_024)
    tga = struct.pack("<BBBHHBHHHHBB", 0, 0, 10, 0, 0, 0, 0, 0, 7_000, 7_000, 24, 32)
    pcx = b"\x0a\5\1\x08" + struct.pack("<HHHHHH", 0, 0, 6_999, 6_999, 72, 72) + bytes(48) + b"\0\3"
    sgi = struct.pack(">HBBHHHHii", 474, 0, 1, 3, 7_000, 7_000, 3, 0, 255)
    few = bytes(99)
    return {
        "p.bmp": b"BM" + struct.pack("<IHHI", 99, 0, 0, 54) + bmp + few,
        "packed.bmp": b"BM" + struct.pack("<IHHI", 99, 0, 0, 1_078) + packed + few,
        "p.dib": bmp + few,
        "p.tga": tga + few,
        "p.pcx": pcx + struct.pack("<H", 7_000) + bytes(58) + few,
        "p.sgi": sgi + bytes(488) + few,
        "p.ras": struct.pack(">8I", 0x59A66A95, 7_000, 7_000, 24, 147_000_000, 1, 0, 0) + few,
        "p.psd": b"8BPS" + struct.pack(">H6xHIIHH", 1, 3, 7_000, 7_000, 8, 3) + bytes(14) + few,
        "p.psb": b"8BPS" + struct.pack(">H6xHIIHH", 2, 3, 7_000, 7_000, 16, 3) + bytes(18) + few,
        **{f"p{kind}.ppm": b"P%d 7000 7000 " % kind + b"255 " * (kind not in (1, 4)) + few for kind in range(1, 7)},
    }


@pytest.mark.parametrize("name", _claims())
def test_a_header_that_claims_what_the_file_has_no_room_for(tmp_path: Path, name: str) -> None:
    report = Bench(tmp_path).run(write(tmp_path, name, _claims()[name]), step("thumbnail", sizes=[64]))
    assert report.error is not None and report.error.kind == "corrupt", report.error
    assert "49,000,000 pixels" in report.error.message and "at most" in report.error.message, report.error


def test_what_there_is_of_a_cut_file_is_shown(tmp_path: Path) -> None:
    whole = specimens.encoded(specimens.photo(1_200, 900), "BMP")
    report = Bench(tmp_path).run(write(tmp_path, "p.bmp", whole[: len(whole) // 30]), step("thumbnail", sizes=[64]))
    assert report.error is None and warnings(report), report.error


def _strips(count: int) -> bytes:
    """A TIFF of `count` strips, all of them the same row."""
    tags = {256: (4, [4]), 257: (4, [count]), 258: (3, [8]), 259: (3, [1]), 262: (3, [1]), 277: (3, [1])}
    entries = [struct.pack("<HHII", tag, kind, 1, found[0]) for tag, (kind, found) in tags.items()]
    after = 8 + 2 + 12 * 9 + 4
    entries.append(struct.pack("<HHII", 273, 4, count, after))
    entries.append(struct.pack("<HHII", 278, 4, 1, 1))
    entries.append(struct.pack("<HHII", 279, 4, count, after + 4 * count))
    arrays = struct.pack("<I", 8) * count + struct.pack("<I", 4) * count
    return b"II*\0" + struct.pack("<IH", 8, 9) + b"".join(sorted(entries)) + bytes(4) + arrays


def test_the_strips_and_tags_of_a_tiff_are_counted_before_they_are_read(tmp_path: Path) -> None:
    many = b"II*\0" + struct.pack("<IH", 8, 6_000) + struct.pack("<HHII", 256, 4, 1, 9) * 6_000 + bytes(4)
    shared = struct.pack("<HHII", 40_000, 1, 10_000_000, 8) * 60
    whole = b"II*\0" + struct.pack("<IH", 8, 60) + shared + bytes(10_000_004)
    for content, says in ((_strips(bounds.STRIPS + 1), "strips"), (many, "5,000 tags"), (whole, "bytes of tags")):
        report = Bench(tmp_path).run(write(tmp_path, "p.tif", content), step("probe"))
        assert report.error is not None and report.error.kind == "corrupt" and says in report.error.message
    report = Bench(tmp_path).run(write(tmp_path, "p.tif", _strips(20_000)), step("thumbnail", sizes=[64]))
    assert report.error is None, report.error


def test_plain_text_pictures_of_one_endless_line(tmp_path: Path) -> None:
    wide, high = 700, 600
    ramp = [x * 255 // (wide - 1) for x in range(wide)]
    grey = " ".join(f"{sample:03d}" for sample in ramp) + " # a comment\n"
    black = "1" * (wide // 2) + "0" * (wide // 2)
    texts = {
        "p.pgm": f"P2 {wide} {high} 255 " + grey * high,
        "line.pgm": f"P2 {wide} {high} 255 " + " ".join(map(str, ramp * high)),
        "noted.pgm": f"P2 {wide} {high} 255 #{'note ' * 120_000}\n" + " ".join(map(str, ramp * high)),
        "p.pbm": f"P1 {wide} {high}\n" + black * high,
    }
    for name, text in texts.items():
        report = Bench(tmp_path).run(
            write(tmp_path, name, text.encode()), step("thumbnail", sizes=[wide], format="png")
        )
        assert report.error is None and not warnings(report), (name, report.error, warnings(report))
        with Image.open(outputs(report)[0]["path"]) as made:
            row = list(made.convert("L").crop((0, high - 1, wide, high)).tobytes())
        assert row == (ramp if name.endswith("pgm") else [0] * (wide // 2) + [255] * (wide // 2)), name
    for name, text in {"p.pgm": "P2 9 9 100 " + "101 " * 81, "p.pbm": "P1 9 9 " + "2" * 81}.items():
        report = Bench(tmp_path).run(write(tmp_path, name, text.encode()), step("probe"), step("phash"))
        assert report.error is not None and report.error.kind == "corrupt", name


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
    tags = {256: (4, [10]), 257: (4, [10]), 258: (3, [8]), 259: (3, [1]), 262: (3, [1]), 277: (3, [1])}
    for count, kept in ((10, True), (400, False)):
        many = {1_000 + number: (4, [1] * 1_000) for number in range(count)}
        path = write(tmp_path, f"{count}.tif", tiff([bytes(100)], {**tags, **many}))
        with Image.open(path) as image:
            assert bool(metadata(image).exif) is kept
