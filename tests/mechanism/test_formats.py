"""Formats beyond the common ones, made by code: raw files, HEIC, rare ones, SVG, several pictures in one file."""

import base64
import gzip
import itertools
import struct
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from protocol.launch import ImageLimits
from protocol.messages import ItemReport
from tests.galleries import write
from tests.mechanism.performing import Bench, outputs, step, values, warnings
from workers import specimens
from workers.images import formats, heif, with_vips

MARKS = [(255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)]
HEIC = base64.b64decode(
    "AAAAHGZ0eXBoZWljAAAAAG1pZjFoZWljbWlhZgAAAchtZXRhAAAAAAAAACFoZGxyAAAAAAAAAABwaWN0AAAAAAAAAAAAAAAAAAAAADRpbG9jAAAAAERA"
    "AAIAAQAAAAAB7AABAAAAAAAAAEYAAgAAAAACMgABAAAAAAAAACQAAAA4aWluZgAAAAAAAgAAABVpbmZlAgAAAAABAABodmMxAAAAABVpbmZlAgAAAQAC"
    "AABFeGlmAAAAAA5waXRtAAAAAAABAAABB2lwcnAAAADmaXBjbwAAAHZodmNDAQNwAAAAkAAAAAAAHvAA/P34+AAADwNgAAEAGEABDAH//wNwAAADAJAA"
    "AAMAAAMAHroCQGEAAQAqQgEBA3AAAAMAkAAAAwAAAwAeoCCBBZbq5Ka5uAhoMCAAAAMDIAAAAwAhYgABAAZEAcFzwIkAAAATY29scm5jbHgAAQANAAaA"
    "AAAAFGlzcGUAAAAAAAAAQAAAAEAAAAAoY2xhcAAAADAAAAABAAAAQAAAAAH////wAAAAAgAAAAAAAAACAAAAEHBpeGkAAAAAAwgICAAAAAlpcm90AwAA"
    "ABlpcG1hAAAAAAAAAAEAAQaBAgMFhIYAAAAaaXJlZgAAAAAAAAAOY2RzYwACAAEAAQAAAHJtZGF0AAAAQigBrxOA5TH2z3Mk/9OLD/OWSwSsvpKT7hHc"
    "ufZ7+EsPrKGE7f+xYTGU4L9eT/Bgfv7aTjmPddfLEDkj9lnEoT6TZAAAAAZFeGlmAABNTQAqAAAACAABARIAAwAAAAEABgAAAAAAAA=="
)
"""A phone's way: 64 x 48 stored on its side, turned by the container (irot), EXIF orientation 6 that must not turn it
again. No encoder of HEVC is among the dependencies, so it stands here; it was made of `specimens.marked`."""


def run(tmp_path: Path, name: str, content: bytes, **parameters: Any) -> tuple[ItemReport, Image.Image | None]:
    """Returns the report of one thumbnail (128 pixels, PNG, unless told otherwise), and the thumbnail."""
    given = {"sizes": [128], "format": "png"} | parameters
    report = Bench(tmp_path).run(write(tmp_path, name, content), step("thumbnail", **given), step("probe"))
    if report.outcome != "done":
        return report, None
    with Image.open(outputs(report)[0]["path"]) as made:
        made.load()
    return report, made


def shows_marks(picture: Image.Image | None, tolerance: int = 60) -> bool:
    """Whether the four quarters have the colours of `specimens.marked`."""
    assert picture is not None
    shown, (width, height) = picture.convert("RGB"), picture.size
    places = itertools.product((height // 4, height * 3 // 4), (width // 4, width * 3 // 4))
    found: list[Any] = [shown.getpixel((x, y)) for y, x in places]
    return all(
        abs(a - b) <= tolerance for one, two in zip(found, MARKS, strict=True) for a, b in zip(one, two, strict=True)
    )


def test_heic_is_read_and_turned_once(tmp_path: Path) -> None:
    if not heif.register():
        pytest.skip(heif.MISSING)
    report, made = run(tmp_path, "phone.heic", HEIC)
    assert made is not None and made.size == (64, 48) and shows_marks(made)
    assert values(report)["probe"]["orientation"] == 1


def test_heic_without_its_decoder_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(heif, "register", lambda: False)
    report, _ = run(tmp_path, "phone.heic", HEIC)
    assert report.error is not None and "pip install pi-heif" in report.error.message


# ---- raw files -------------------------------------------------------------------------------------


def entry(tag: int, kind: int, count: int, value: int) -> bytes:
    """Returns one entry of a TIFF directory, little-endian."""
    return struct.pack("<HHI", tag, kind, count) + (
        struct.pack("<HH", value, 0) if kind == 3 else struct.pack("<I", value)
    )


def raw_file(previews: list[bytes], *, magic: bytes = b"II*\0", orientation: int = 1) -> bytes:
    """Returns a file with the structure of a raw one: the first preview as a pair of tags, the second as a strip in a
    sub-directory, and a lossless JPEG (raw values) larger than both."""
    lossless = b"\xff\xd8\xff\xc3" + struct.pack(">HBHHB", 11, 14, 9000, 9000, 1) + b"\1\x11\0\xff\xd9"
    pieces = [*previews, lossless]
    first, sub, values_dir = 8, 8 + 2 + 12 * 5 + 4, 8 + 2 + 12 * 5 + 4 + 2 + 12 * 3 + 4
    places, at = [], values_dir + 2 + 12 * 3 + 4
    for piece in pieces:
        places.append(at)
        at += len(piece)
    one = [
        entry(0x0112, 3, 1, orientation), entry(0x014A, 4, 1, sub), entry(0x0201, 4, 1, places[0]),
        entry(0x0202, 4, 1, len(pieces[0])), entry(0x0100, 4, 1, 1),
    ]  # fmt: skip
    two = [entry(0x0103, 3, 1, 7), entry(0x0111, 4, 1, places[-2]), entry(0x0117, 4, 1, len(pieces[-2]))]
    three = [entry(0x0103, 3, 1, 7), entry(0x0111, 4, 1, places[-1]), entry(0x0117, 4, 1, len(lossless))]
    directories = [(one, 0), (two, values_dir), (three, 0)]
    packed = b"".join(
        struct.pack("<H", len(tags)) + b"".join(tags) + struct.pack("<I", after) for tags, after in directories
    )
    return magic + struct.pack("<I", first) + packed + b"".join(pieces)


def previews() -> list[bytes]:
    """Returns a small and a large preview; only the large one shows the marks."""
    return [specimens.jpeg(Image.new("RGB", (160, 120), "black")), specimens.jpeg(specimens.marked(800, 600))]


@pytest.mark.parametrize("name", ["p.dng", "p.nef", "p.arw", "p.cr2"])
def test_raw_files_show_their_largest_preview(tmp_path: Path, name: str) -> None:
    report, made = run(tmp_path, name, raw_file(previews()))
    assert made is not None and made.size == (128, 96) and shows_marks(made)
    probe = values(report)["probe"]
    assert (probe["format"], probe["width"], probe["height"]) == ("raw", 800, 600)


def test_a_raw_file_is_turned_as_the_camera_was_held(tmp_path: Path) -> None:
    lying = specimens.marked(600, 800).transpose(Image.Transpose.ROTATE_90)
    content = raw_file([previews()[0], specimens.jpeg(lying)], orientation=6)
    _, made = run(tmp_path, "p.nef", content)
    assert made is not None and made.size == (96, 128) and shows_marks(made)


def test_raw_files_that_are_no_tiff(tmp_path: Path) -> None:
    small, large = previews()
    fuji = (b"FUJIFILMCCD-RAW ".ljust(84, b"0") + struct.pack(">II", 100, len(large))).ljust(100, b"\0") + large
    box = b"\0\0\0\x18ftypcrx \0\0\0\1crx isom" + b"\0" * 50 + b"\0\0\0\0PRVW" + bytes(6)
    canon = box + struct.pack(">HHHI", 800, 600, 1, len(large)) + large
    olympus = b"IIRO" + raw_file(previews())[4:]
    for name, content in (("p.raf", fuji), ("p.cr3", canon), ("p.orf", olympus)):
        report, made = run(tmp_path, name, content)
        assert report.error is None and shows_marks(made), name
    assert small


def canon(small: bytes, large: bytes, orientation: int) -> bytes:
    """Returns the structure of a CR3: a preview in a box, a larger one as a track, how it was held in a directory."""
    tags = b"II*\0\x08\0\0\0" + struct.pack("<H", 1) + entry(0x0112, 3, 1, orientation) + bytes(4)
    head = b"\0\0\0\x18ftypcrx \0\0\0\1crx isom" + b"\0\0\0\0CMT1" + tags
    head += b"\0\0\0\0PRVW" + bytes(6) + struct.pack(">HHHI", 160, 120, 1, len(small)) + small
    track = b"\0\0\0\0stsz" + struct.pack(">III", 0, len(large), 1) + b"\0\0\0\0co64" + struct.pack(">II", 0, 1)
    at = len(head) + len(track) + 8 + 8
    return head + track + struct.pack(">Q", at) + b"\0\0\0\0mdat" + large


def test_a_cr3_shows_the_preview_of_the_photos_size_as_it_was_held(tmp_path: Path) -> None:
    lying = specimens.marked(600, 800).transpose(Image.Transpose.ROTATE_90)
    report, made = run(tmp_path, "p.cr3", canon(previews()[0], specimens.jpeg(lying), 6))
    assert made is not None and made.size == (96, 128) and shows_marks(made)
    assert values(report)["probe"]["width"] == 800


def test_a_preview_that_does_not_decode_gives_way_to_the_next(tmp_path: Path) -> None:
    large = specimens.jpeg(specimens.marked(800, 600))
    scan = large.index(b"\xff\xda")
    headless = large[: large.index(b"\xff\xc0") + 11] + b"\xff" * 12 + large[scan:]  # its components are none
    small = specimens.jpeg(specimens.marked(400, 300))
    for name, broken in (("cut", large[: scan + 14]), ("odd", headless)):
        report, made = run(tmp_path, f"{name}.nef", raw_file([small, broken]))
        assert report.error is None and made is not None and shows_marks(made), (name, report.error)
        assert name == "odd" or any("cannot be decoded: the next is 400 x 300" in told for told in warnings(report))
    report, _ = run(tmp_path, "none.nef", raw_file([large[: scan + 14], headless]))
    assert report.error is not None and report.error.kind == "corrupt", report.error


def test_a_raw_file_without_a_preview_says_so(tmp_path: Path) -> None:
    report, _ = run(tmp_path, "p.orf", b"IIRO\x08\0\0\0" + bytes(100))
    assert report.error is not None and report.error.kind == "unsupported"
    assert "without an embedded preview" in report.error.message


# ---- what else there is ----------------------------------------------------------------------------

RARE = {"PCX": "pcx", "SGI": "sgi", "DDS": "dds", "DIB": "dib", "QOI": "qoi", "ICNS": "icns", "ICO": "ico"}


@pytest.mark.parametrize("kind", RARE)
def test_rare_formats_are_read(tmp_path: Path, kind: str) -> None:
    picture = specimens.marked(128, 128) if kind in ("ICNS", "ICO") else specimens.marked(320, 200)
    report, made = run(tmp_path, f"p.{RARE[kind]}", specimens.encoded(picture, kind))
    assert report.error is None and shows_marks(made)


def test_text_is_still_no_image(tmp_path: Path) -> None:
    for name, content in (("a.txt", b"hello\n" * 300), ("b.bin", bytes(range(256)) * 9), ("c", b"\n\0" * 500)):
        report, _ = run(tmp_path, name, content)
        assert report.error is not None and report.error.kind == "unsupported", name


def test_only_what_may_be_read_is_tried() -> None:
    Image.init()
    assert set(formats.RARE) <= set(Image.OPEN)
    assert not {"EPS", "WMF", "HDF5", "GRIB", "BUFR", "MPEG"} & set(formats.RARE)


def test_several_pictures_in_one_file_show_the_first(tmp_path: Path) -> None:
    for name, kind in (("p.mpo", "MPO"), ("p.png", "PNG"), ("p.webp", "WEBP"), ("p.tiff", "TIFF"), ("p.gif", "GIF")):
        first, second = specimens.marked(300, 200), Image.new("RGB", (300, 200), "black")
        content = specimens.encoded(first, kind, save_all=True, append_images=[second])
        report, made = run(tmp_path, name, content)
        assert report.error is None and shows_marks(made, 80), name


@pytest.mark.parametrize("options", [{"tile": True, "pyramid": True}, {"bigtiff": True}, {"compression": "deflate"}])
def test_tiffs_of_every_structure(tmp_path: Path, options: dict[str, Any]) -> None:
    vips = with_vips.library()
    picture = specimens.marked(1024, 768)
    image = vips.Image.new_from_memory(picture.tobytes(), 1024, 768, 3, "uchar").copy(interpretation="srgb")
    report, made = run(tmp_path, "p.tiff", image.tiffsave_buffer(**options))
    assert report.error is None and made is not None and made.size == (128, 96) and shows_marks(made)


# ---- SVG -------------------------------------------------------------------------------------------

DRAWING = (
    '<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" width="200" height="100">'
    '<rect width="200" height="100" fill="white"/>{}</svg>'
)


def test_an_svg_loads_nothing_from_outside(tmp_path: Path) -> None:
    secret = write(tmp_path, "secret.png", specimens.encoded(Image.new("RGB", (200, 100), "red"), "PNG")).decode()
    for place in (secret, f"file://{secret}", "secret.png", "http://127.0.0.1:1/secret.png"):
        drawn = DRAWING.format(f'<image xlink:href="{place}" width="200" height="100"/>')
        report, made = run(tmp_path, "p.svg", drawn.encode(), sizes=[64])
        assert made is not None and made.convert("RGB").getextrema() == ((255, 255),) * 3
        assert any("not loaded" in warning for warning in warnings(report))


def test_a_plain_svg_is_drawn_and_links_are_no_reason_to_warn(tmp_path: Path) -> None:
    drawn = DRAWING.format('<a href="https://example.org/"><rect width="200" height="50" fill="#00ff00"/></a>').encode()
    for name, content in (("p.svg", drawn), ("p.svgz", gzip.compress(drawn))):
        report, made = run(tmp_path, name, content, sizes=[64])
        assert made is not None and made.convert("RGB").getpixel((32, 8)) == (0, 255, 0), name
        assert not any("outside" in warning for warning in warnings(report))


@pytest.mark.parametrize(
    ("declared", "kind"),
    [
        ('<!DOCTYPE svg [<!ENTITY a "ha"><!ENTITY b "&a;&a;&a;">]>', "unsupported"),
        ('<!DOCTYPE svg [<!ENTITY x SYSTEM "file:///etc/hostname">]>', "unsupported"),
    ],
)
def test_entities_are_not_unfolded(tmp_path: Path, declared: str, kind: str) -> None:
    report, _ = run(tmp_path, "p.svg", (declared + DRAWING.format("<text>&b;</text>")).encode())
    assert report.error is not None and report.error.kind == kind and "entities" in report.error.message


def test_a_packed_svg_has_its_limit_unpacked(tmp_path: Path) -> None:
    bomb = gzip.compress(DRAWING.format(" " * 40_000_000).encode())
    report, _ = run(tmp_path, "p.svgz", bomb)
    assert len(bomb) < 100_000 and report.error is not None and report.error.kind == "too_large"


# ---- damaged ---------------------------------------------------------------------------------------


def damaged_png() -> bytes:
    """Returns a PNG that can be read down to its middle, and whose rest is no image."""
    whole = specimens.encoded(specimens.photo(300, 200), "PNG")
    return whole[: len(whole) // 2] + b"\xff" * 1000 + whole[len(whole) // 2 + 1000 :]


def test_what_there_is_of_a_damaged_image_is_shown_unless_strict(tmp_path: Path) -> None:
    path = write(tmp_path, "d.png", damaged_png())
    report = Bench(tmp_path).run(path)
    assert report.outcome == "done" and any(
        "damaged" in warning and "decoded with" in warning for warning in warnings(report)
    )
    strict = Bench(tmp_path).run(path, strict=True, overwrite=True)
    assert strict.error is not None and strict.error.kind == "corrupt"


def test_an_image_of_which_nothing_is_seen_is_corrupt(tmp_path: Path) -> None:
    report = Bench(tmp_path).run(write(tmp_path, "d.png", specimens.broken_png()))
    assert report.error is not None and report.error.kind == "corrupt" and not report.written


def test_a_jpeg_of_12_bits_is_unsupported_not_broken(tmp_path: Path) -> None:
    content = bytearray(specimens.jpeg(specimens.photo(64, 48, seed=1)))
    frame = content.index(b"\xff\xc0")
    content[frame + 1], content[frame + 4] = 0xC1, 12
    report = Bench(tmp_path).run(write(tmp_path, "x.jpg", bytes(content)))
    assert report.error is not None and report.error.kind == "unsupported" and "12 bits" in report.error.message


def test_a_tiff_without_its_strips_is_one_colour_and_says_so(tmp_path: Path) -> None:
    whole = specimens.encoded(specimens.photo(400, 300, seed=1), "TIFF")
    path = write(tmp_path, "sparse.tif", whole[:-360_000])
    report = Bench(tmp_path).run(path)
    assert report.outcome == "done" and any("nothing of it but one colour" in said for said in warnings(report))
    strict = Bench(tmp_path).run(path, strict=True, overwrite=True)
    assert strict.error is not None and strict.error.kind == "corrupt"


def test_large_photos_pass_and_bombs_do_not(tmp_path: Path) -> None:
    limits = ImageLimits()
    assert limits.pixels_streamed >= 280_000_000 and limits.pixels_whole >= 200_000_000
    bomb = b"\x89PNG\r\n\x1a\n" + specimens._chunk(b"IHDR", struct.pack(">IIBBBBB", 65536, 65536, 8, 0, 0, 0, 0))
    report = Bench(tmp_path).run(write(tmp_path, "b.png", bomb + specimens._chunk(b"IDAT", b"x\x9c") + b"\0" * 12))
    assert (
        report.error is not None and report.error.kind == "too_many_pixels" and "4,294,967,296" in report.error.message
    )


def test_what_fuzzing_found_stays_mended(tmp_path: Path) -> None:
    content = bytearray(raw_file(previews()))
    at = content.index(struct.pack("<HHI", 0x0103, 3, 1))
    content[at + 4 : at + 8] = bytes(4)  # a compression without a value
    assert run(tmp_path, "p.nef", bytes(content))[0].error is None
    for byte in range(0x80, 0x100, 8):  # libvips quotes what it read in its error, and it is not UTF-8
        for place in range(330, 345):
            broken = HEIC[:place] + bytes([byte]) + HEIC[place + 1 :]
            report = Bench(tmp_path).run(write(tmp_path, "p.heic", broken), step("probe"))
            assert report.error is None or report.error.kind in ("corrupt", "unsupported", "too_many_pixels"), place
