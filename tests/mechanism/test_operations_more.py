"""Operations beyond thumbnail, probe and phash; and what thumbnails can do beside being small."""

import base64
import os
import random
from pathlib import Path
from typing import Any

import pytest
from PIL import Image, ImageFilter, ImageOps

from protocol.messages import ItemReport, Step
from tests.bench.images import decibels, thumbnails
from tests.galleries import write
from tests.mechanism.performing import Bench, outputs, step, values, warnings
from workers import contact_sheet, specimens
from workers.images import exif, metadata
from workers.operations.palette import palette
from workers.operations.sharpness import sharpness
from workers.operations.thumbhash import thumbhash

CAMERA = {0x010F: "Acme", 0x0110: "Acme One", 0x013B: "Ann Artist", 0x8298: "(c) Ann", 0x0112: 6}
VECTOR = b"X9gFJoa7dNt+CtJxFumEl4tmmKWv36s="
XMP = (
    b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
    b'<rdf:Description xmlns:dc="http://purl.org/dc/elements/1.1/" xmlns:tiff="http://ns.adobe.com/tiff/1.0/" '
    b'tiff:Orientation="6"><dc:subject><rdf:Bag><rdf:li>sea</rdf:li><rdf:li>boat</rdf:li></rdf:Bag></dc:subject>'
    b'<dc:title><rdf:Alt><rdf:li xml:lang="x-default">Harbour</rdf:li></rdf:Alt></dc:title>'
    b"</rdf:Description></rdf:RDF></x:xmpmeta>"
)


def camera_exif(thumbnail: bytes = b"") -> bytes:
    """Returns EXIF as a camera writes it, with place, lens and, if given, a thumbnail."""
    tags = Image.Exif()
    tags.update(CAMERA)
    inner = tags.get_ifd(0x8769)
    inner[0x9003], inner[0xA434] = "2024:05:31 18:20:00", "Acme 50mm"
    place = tags.get_ifd(0x8825)
    place.update({1: "S", 2: (33.0, 30.0, 36.0), 3: "E", 4: (151.0, 12.0, 0.0), 5: b"\1", 6: 12.5})
    block = tags.tobytes().removeprefix(b"Exif\0\0")
    return block if not thumbnail else _with_thumbnail(block, thumbnail)


def _with_thumbnail(block: bytes, thumbnail: bytes) -> bytes:
    import struct

    order = "<" if block[:2] == b"II" else ">"
    first = struct.unpack_from(order + "I", block, 4)[0]
    end = first + 2 + 12 * struct.unpack_from(order + "H", block, first)[0]
    second = struct.pack(order + "HHHIIHHIII", 2, 0x0201, 4, 1, len(block) + 30, 0x0202, 4, 1, len(thumbnail), 0)
    return block[:end] + struct.pack(order + "I", len(block)) + block[end + 4 :] + second + thumbnail


def photo_with(tmp_path: Path, name: str = "p.jpg", kind: str = "JPEG", **more: Any) -> bytes:
    """Writes a photo that has everything, held upright: its pixels lie on their side."""
    picture = specimens.marked(300, 400).transpose(Image.Transpose.ROTATE_90)
    return write(tmp_path, name, specimens.encoded(picture, kind, exif=b"Exif\0\0" + camera_exif(**more), xmp=XMP))


def one(tmp_path: Path, path: bytes, what: Step) -> tuple[ItemReport, bytes]:
    """Returns the report of one step, and the one file it wrote."""
    report = Bench(tmp_path).run(path, what, overwrite=True)
    assert report.error is None and len(outputs(report)) == 1
    with open(outputs(report)[0]["path"], "rb") as file:
        return report, file.read()


# ---- probe -----------------------------------------------------------------------------------------


def test_probe_tells_camera_lens_place_and_all_the_rest(tmp_path: Path) -> None:
    report = Bench(tmp_path).run(photo_with(tmp_path), step("probe", full=True))
    found = values(report)["probe"]
    assert (found["camera"], found["lens"], found["taken"]) == ("Acme One", "Acme 50mm", "2024-05-31T18:20:00")
    assert found["gps"] == {"latitude": -33.51, "longitude": 151.2, "altitude": -12.5}
    assert found["exif"]["image"]["Artist"] == "Ann Artist" and found["exif"]["gps"]["GPSLatitudeRef"] == "S"
    assert found["xmp"] == {"tiff:Orientation": "6", "dc:subject": ["sea", "boat"], "dc:title": "Harbour"}
    assert "exif" not in values(Bench(tmp_path).run(photo_with(tmp_path), step("probe")))["probe"]


def test_iptc_and_profiles_are_told() -> None:
    records = b"\x1c\x02\x05\x00\x04Name\x1c\x02\x19\x00\x03sea\x1c\x02\x19\x00\x04boat\x1c\x01\x5a\x00\x03\x1b%G"
    assert metadata.iptc_json(records) == {"object_name": "Name", "keywords": ["sea", "boat"]}
    from PIL import ImageCms

    assert (
        metadata.icc_description(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()) == "sRGB built-in"
    )
    assert metadata.icc_description(bytes(200)) is None and metadata.icc_description(b"") is None


def test_xmp_with_entities_is_not_parsed() -> None:
    assert metadata.xmp_json(b'<!DOCTYPE x [<!ENTITY a "ha">]>' + XMP) == {}
    assert metadata.xmp_json(b"<broken") == {}


@pytest.mark.parametrize("seed", range(40))
def test_broken_exif_is_never_an_error(seed: int) -> None:
    chance = random.Random(seed)
    block = bytearray(camera_exif(thumbnail=specimens.jpeg(Image.new("RGB", (160, 120)))))
    for _ in range(chance.randrange(1, 30)):
        block[chance.randrange(len(block))] = chance.randrange(256)
    cut = bytes(block[: chance.randrange(len(block))])
    for each in (bytes(block), cut):
        metadata.exif_json(each), exif.parse(each), exif.thumbnail(each), exif.upright(each)
        exif.camera(exif.directories(each)), exif.place(exif.directories(each)["gps"])


# ---- strip -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("kind", "name"), [("JPEG", "p.jpg"), ("PNG", "p.png"), ("WEBP", "p.webp")])
@pytest.mark.parametrize("named", [False, True])
def test_strip_takes_metadata_and_no_pixel(tmp_path: Path, kind: str, name: str, named: bool) -> None:
    path = photo_with(tmp_path, name, kind)
    _, content = one(tmp_path, path, step("strip", copyright=named))
    stripped = write(tmp_path, f"stripped-{name}", content)
    with Image.open(os.fsdecode(path)) as before, Image.open(os.fsdecode(stripped)) as after:
        assert before.tobytes() == after.tobytes() and after.size == (400, 300)
        tags = dict(after.getexif())
        assert tags == ({0x0112: 6} | ({0x013B: "Ann Artist", 0x8298: "(c) Ann"} if named else {}))
        assert not after.getexif().get_ifd(0x8825) and not {"xmp", "XML:com.adobe.xmp", "comment"} & set(after.info)
        assert ImageOps.exif_transpose(after).size == (300, 400)
    assert b"Harbour" not in content and b"Acme" not in content


def test_strip_drops_what_lies_behind_the_image(tmp_path: Path) -> None:
    whole = specimens.jpeg(specimens.photo(200, 100), progressive=True)
    _, content = one(tmp_path, write(tmp_path, "motion.jpg", whole + b"a film of me at home"), step("strip"))
    assert content.endswith(b"\xff\xd9") and b"film" not in content


def test_strip_refuses_what_it_cannot_do_and_says_how(tmp_path: Path) -> None:
    for name, content, told in (
        ("p.tiff", specimens.encoded(specimens.photo(20, 20), "TIFF"), "convert"),
        ("p.jpg", specimens.jpeg(specimens.photo(200, 200))[:-300], "no end of image"),
    ):
        report = Bench(tmp_path).run(write(tmp_path, name, content), step("strip"))
        assert report.error is not None and told in report.error.message, name


# ---- convert, metadata policy ----------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["jpeg", "webp", "avif", "png", "gif"])
def test_convert_is_whole_upright_and_keeps_what_it_can(tmp_path: Path, kind: str) -> None:
    report, content = one(tmp_path, photo_with(tmp_path), step("convert", format=kind, quality=95))
    assert outputs(report)[0]["width"] == 300 and warnings(report) == []
    with Image.open(os.fsdecode(write(tmp_path, "c", content))) as made:
        assert made.size == (300, 400) and made.format == kind.upper()
        if kind != "gif":
            tags = made.getexif()
            assert tags[0x0110] == "Acme One" and tags.get(0x0112, 1) == 1
            assert tags.get_ifd(0x8825)[1] == "S"
            told = made.info.get("xmp") or made.info["XML:com.adobe.xmp"].encode()
            assert b'tiff:Orientation="1"' in told


def test_thumbnails_keep_copyright_alone_where_asked(tmp_path: Path) -> None:
    what = step("thumbnail", sizes=[64], format="jpeg", metadata="copyright")
    _, content = one(tmp_path, photo_with(tmp_path, thumbnail=specimens.jpeg(Image.new("RGB", (160, 120)))), what)
    with Image.open(os.fsdecode(write(tmp_path, "c", content))) as made:
        assert dict(made.getexif()) == {0x013B: "Ann Artist", 0x8298: "(c) Ann"}


def test_a_kept_exif_has_lost_its_thumbnail() -> None:
    old = specimens.jpeg(Image.new("RGB", (160, 120), "red"))
    kept = exif.upright(camera_exif(thumbnail=old))
    assert exif.thumbnail(camera_exif(thumbnail=old)) == old
    assert old not in kept and exif.parse(kept).orientation == 1 and exif.thumbnail(kept) == b""


# ---- embedded, crop, frames ------------------------------------------------------------------------


def test_an_embedded_thumbnail_is_taken_when_it_is_large_enough(tmp_path: Path) -> None:
    green = specimens.jpeg(Image.new("RGB", (160, 120), (0, 255, 0)))
    path = photo_with(tmp_path, thumbnail=green)
    for size, allowed, wanted in ((96, True, True), (96, False, False), (320, True, False)):
        what = step("thumbnail", sizes=[size], format="png", embedded=allowed)
        _, content = one(tmp_path, path, what)
        with Image.open(os.fsdecode(write(tmp_path, "c", content))) as made:
            shown: Any = made.convert("RGB").getpixel((5, 5))
            assert (shown[1] > 200 and shown[0] < 60) is wanted, (size, allowed)
            assert made.size == (size * 3 // 4, size)


def test_an_embedded_thumbnail_with_bars_is_not_taken(tmp_path: Path) -> None:
    square = specimens.jpeg(Image.new("RGB", (160, 160), (0, 255, 0)))
    what = step("thumbnail", sizes=[96], format="png", embedded=True)
    _, content = one(tmp_path, photo_with(tmp_path, thumbnail=square), what)
    with Image.open(os.fsdecode(write(tmp_path, "c", content))) as made:
        assert made.convert("RGB").getpixel((5, 5)) != (0, 255, 0)


@pytest.mark.parametrize("crop", ["attention", "entropy", "centre"])
def test_a_crop_fills_its_frame_with_what_catches_the_eye(tmp_path: Path, crop: str) -> None:
    picture = Image.new("RGB", (900, 300), (90, 90, 90))
    picture.paste(specimens.photo(200, 300, seed=2), (690, 0))
    path = write(tmp_path, "wide.png", specimens.encoded(picture, "PNG"))
    report, content = one(tmp_path, path, step("thumbnail", sizes=["100x100"], format="png", crop=crop))
    assert os.path.basename(outputs(report)[0]["path"]) == f"wide.png.100x100-{crop}.png"
    with Image.open(os.fsdecode(write(tmp_path, "c", content))) as made:
        assert made.size == (100, 100)
        assert (len(made.getcolors(100_000) or []) > 100) is (crop != "centre")


def test_a_crop_never_enlarges(tmp_path: Path) -> None:
    path = write(tmp_path, "s.png", specimens.encoded(specimens.photo(50, 300), "PNG"))
    report, _ = one(tmp_path, path, step("thumbnail", sizes=["100x200"], format="png", crop="centre"))
    assert (outputs(report)[0]["width"], outputs(report)[0]["height"]) == (50, 200)


@pytest.mark.parametrize("source", ["GIF", "WEBP", "PNG"])
@pytest.mark.parametrize("kind", ["webp", "gif"])
def test_all_frames_move_on(tmp_path: Path, source: str, kind: str) -> None:
    shades = [Image.new("RGB", (200, 100), (0, 80 * number, 255 - 80 * number)) for number in range(3)]
    content = specimens.encoded(
        shades[0], source, save_all=True, append_images=shades[1:], duration=[70, 140, 210], loop=2
    )
    path = write(tmp_path, f"m.{source.lower()}", content)
    what = step("thumbnail", sizes=[100], format=kind, frames="all", quality=100)
    _, written = one(tmp_path, path, what)
    with Image.open(os.fsdecode(write(tmp_path, "c", written))) as made:
        assert (getattr(made, "n_frames", 1), made.size) == (3, (100, 50))
        times = []
        for number in range(3):
            made.seek(number)
            made.load()
            times.append(made.info["duration"])
            found: Any = made.convert("RGB").getpixel((50, 25))
            assert abs(found[1] - 80 * number) < 30
        assert times == [70, 140, 210]
    still = one(tmp_path, path, step("thumbnail", sizes=[100], format=kind))[1]
    with Image.open(os.fsdecode(write(tmp_path, "c", still))) as made:
        assert getattr(made, "n_frames", 1) == 1


# ---- values ----------------------------------------------------------------------------------------


def slopes() -> Image.Image:
    """Returns a picture whose hash another implementation of the algorithm has told: VECTOR."""
    chance = random.Random(3)  # at random, so that no frequency is zero: its rounding would be a matter of taste
    return Image.frombytes("RGB", (10, 8), bytes(chance.randrange(256) for _ in range(240)))


def test_thumbhash_is_the_published_one(tmp_path: Path) -> None:
    assert base64.b64encode(thumbhash(slopes())) == VECTOR
    report = Bench(tmp_path).run(photo_with(tmp_path), step("thumbhash"))
    assert len(base64.b64decode(values(report)["thumbhash"]["thumbhash"])) in range(18, 28)


def test_thumbhash_of_the_transparent_and_the_tiny() -> None:
    assert thumbhash(Image.new("RGBA", (40, 30), (255, 0, 0, 128)))[2] & 0x80  # says that there is opacity
    assert not thumbhash(Image.new("RGB", (40, 30)))[2] & 0x80
    for size in ((1, 1), (1, 48), (48, 1)):
        assert thumbhash(Image.new("RGBA", size, (0, 0, 0, 0)))


def test_palette_names_what_is_seen() -> None:
    picture = Image.new("RGBA", (80, 60), (255, 0, 0, 255))
    picture.paste((0, 0, 255, 255), (0, 0, 80, 15))
    picture.paste((0, 255, 0, 0), (0, 15, 80, 30))  # not to be seen
    assert palette(picture, 2) == [("#ff0000", 0.6667), ("#0000ff", 0.3333)]
    assert palette(Image.new("RGBA", (8, 8), (0, 0, 0, 0)), 4) == []


def test_sharpness_falls_with_blur() -> None:
    picture = specimens.photo(400, 300, seed=5).convert("L")
    steps = [sharpness(picture.filter(ImageFilter.GaussianBlur(radius))) for radius in (0, 1, 2, 4)]
    assert steps == sorted(steps, reverse=True) and steps[0] > 10 * steps[-1]
    assert sharpness(Image.new("L", (100, 100), 77)) == 0 and sharpness(Image.new("L", (2, 9))) == 0


def test_sharpness_is_the_variance_by_hand() -> None:
    grey = Image.new("L", (3, 4))
    grey.putdata([0, 0, 0, 0, 10, 0, 0, 200, 0, 0, 0, 0])
    first, second = 0 + 0 + 0 + 200 - 40, 10 - 800
    clipped = [min(first, 255), max(second, -255)]
    mean = sum(clipped) / 2
    assert sharpness(grey) == pytest.approx(sum((each - mean) ** 2 for each in clipped) / 2)


# ---- quality, hashes, sheets -----------------------------------------------------------------------


@pytest.mark.parametrize("side", [128, 256, 500])
@pytest.mark.parametrize("size", [(1181, 797), (2000, 1500)])
def test_pixels_are_nearer_to_the_whole_image_than_pillows(tmp_path: Path, size: tuple[int, int], side: int) -> None:
    soft = specimens.photo(*size, seed=3).filter(ImageFilter.GaussianBlur(1))  # no lens draws white noise
    path = write(tmp_path, "q.jpg", specimens.jpeg(soft, quality=95)).decode()
    with Image.open(path) as image:
        whole = image.convert("RGB")
    reference, our, their = thumbnails(path, whole, side)
    assert decibels(reference, our) >= decibels(reference, their) - 0.1


def test_the_content_hash_is_the_files(tmp_path: Path) -> None:
    import hashlib

    path = photo_with(tmp_path)
    bench = Bench(tmp_path)
    assert bench.run(path, step("probe")).content_hash == ""
    bench.context.hash_content = True
    with open(path, "rb") as file:
        wanted = hashlib.file_digest(file, "sha256").hexdigest()
    assert bench.run(path, step("probe")).content_hash == wanted == bench.run(path, step("phash")).content_hash


def test_contact_sheets_show_every_image_of_a_directory(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    for number in range(70):
        bench.run(write(tmp_path, f"p{number:02}.png", specimens.flat_png(30, 20)), step("thumbnail", sizes=[16, 200]))
    (tmp_path / "out" / "p00.png.200.webp").write_bytes(b"no image any more")
    sheets = list(contact_sheet.make(bench.out))
    assert [(os.path.basename(path), count) for path, count in sheets] == [
        ("contact-sheet.jpg", 64), ("contact-sheet-2.jpg", 6),
    ]  # fmt: skip
    with Image.open(sheets[0][0]) as sheet:
        assert sheet.size == (8 + 8 * 168, 8 + 8 * 182)
        assert sheet.getpixel((8 + 168 + 80, 8 + 80)) != (255, 255, 255)
    assert list(contact_sheet.make(bench.out)) == sheets  # a sheet is no thumbnail
    assert not [name for name in os.listdir(bench.out) if name.startswith(".")]
