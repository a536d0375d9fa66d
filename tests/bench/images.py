"""Thumbnails by class of image: ours against Pillow and libvips called bare, in the same minutes, of the same files.

The ladder compares one decode for many results with what a task queue does: a task for each result. Quality is the
distance (PSNR, SSIM) from the whole image resized by Lanczos, ours against Pillow's own `thumbnail`. Same quality is
part of the comparison: an engine that is farther than that by more than a decibel is shown, but not what we are judged
by (libvips has the WebP decoder shrink all the way, which saves 3 to 10 % of the time and costs 5 to 16 dB).
"""

import math
import multiprocessing
import os
import shutil
import statistics
import tempfile
from collections.abc import Callable, Iterator, Sequence
from random import Random
from typing import TypeVar

from msgspec import structs
from PIL import Image, ImageChops, ImageOps, ImageStat

from tests.bench import engines, ladder, pictures
from tests.bench.peers import as_born
from tests.bench.rows import Detail, Row, against, missing, row
from tests.bench.ssim import ssim
from tests.bench.terms import Terms
from workers import specimens
from workers.errors import Verdict
from workers.images import heif, with_vips

_T = TypeVar("_T")
SIDE = 256
SMALL_RATIO_AIM = 1.5
_MEGABYTE = 1e6
_COMPARED = 3
_DECIBELS_LESS = 1.0


def run(terms: Terms) -> Iterator[Row]:
    """A row for each class and peer, then the ladder, then quality."""
    place = tempfile.mkdtemp(prefix="bench-images-")
    try:
        for name, make in CLASSES.items():
            yield from _compare(terms, name, make(os.path.join(place, name.replace(" ", "-")), terms))
        if terms.gallery is not None:
            found = [os.path.join(terms.gallery, each) for each in pictures.found(terms.gallery)]
            yield from _compare(terms, f"gallery {os.path.basename(os.path.abspath(terms.gallery))}", found)
        photos = CLASSES["camera JPEG"](os.path.join(place, "camera-JPEG"), terms)
        yield from ladder.compare(terms, photos)
        yield from _aside(quality, photos)
        for name in engines.PROGRAMS:
            if engines.missing(name):
                yield missing("thumbnails by class", name, "images/s")
    finally:
        shutil.rmtree(place, ignore_errors=True)


Class = Callable[[str, Terms], list[str]]


def _made(kind: str, sizes: Sequence[tuple[int, int]], count: int, **options: object) -> Class:
    """A class of `count` photos in Pillow's format `kind`; made once, the same content under several names."""

    def make(directory: str, terms: Terms) -> list[str]:
        os.makedirs(directory, exist_ok=True)
        paths: list[str] = []
        for number in range(max(2, terms.count(count, max(3, count // 2)))):
            path = os.path.join(directory, f"p{number:03d}.{kind.lower()}")
            if number < len(sizes) and not os.path.exists(path):
                picture = specimens.photo(*sizes[number], seed=number)
                with open(path, "wb") as file:
                    file.write(specimens.encoded(picture, kind, **options))
            elif number >= len(sizes) and not os.path.exists(path):
                shutil.copyfile(paths[number % len(sizes)], path)
            paths.append(path)
        return paths

    return make


_CAMERAS = ((2592, 1944), (4000, 3000), (5184, 3456))
CLASSES: dict[str, Class] = {
    "small JPEG": _made("JPEG", ((640, 480), (480, 360), (400, 300)), 90, quality=85),
    "camera JPEG": _made("JPEG", _CAMERAS, 6, quality=88),
    "progressive JPEG": _made("JPEG", _CAMERAS, 6, quality=88, progressive=True),
    "PNG": _made("PNG", ((800, 600), (2000, 1500), (3000, 2000)), 6, compress_level=1),
    "TIFF": _made("TIFF", ((800, 600), (2000, 1500), (4000, 3000)), 6, compression="tiff_lzw"),
    "WebP": _made("WEBP", ((800, 600), (1600, 1200), (3000, 2000)), 6, quality=80, method=1),
    "AVIF": _made("AVIF", ((800, 600), (1600, 1200), (3000, 2000)), 6, quality=70, speed=10),
}
"""HEIC is compared on a gallery that has some: its encoder is not among what this project needs."""


def _compare(terms: Terms, name: str, paths: list[str]) -> Iterator[Row]:
    peers: dict[str, engines.Maker] = {
        "Pillow": engines.pillow_heif if heif.register() else engines.pillow,
        "libvips": engines.vips,
    }
    peers |= {peer: make for peer, (_, make) in engines.PROGRAMS.items() if not engines.missing(peer)}
    found: dict[str, list[engines.Run]] = {peer: [] for peer in ("ours", *peers)}
    failed: dict[str, str] = {}
    makers = {"ours": engines.ours, **peers}
    for number in range(terms.runs):
        for peer in Random(number).sample(list(makers), len(makers)):  # what loads the machine meets each in its turn
            make = makers[peer]
            if peer in failed:
                continue
            try:
                found[peer].append(engines.measured(make, paths, SIDE))
            except RuntimeError as error:
                if peer == "ours":
                    raise
                failed[peer] = str(error)
    speeds = {peer: [len(paths) / run.seconds for run in runs] for peer, runs in found.items() if peer not in failed}
    near = _aside(nearness, paths)
    enough = near.get("Pillow", 0.0) - _DECIBELS_LESS
    bare = {peer: speeds[peer] for peer in ("Pillow", "libvips") if peer in speeds and near.get(peer, enough) >= enough}
    fastest = max(bare, key=lambda peer: statistics.median(bare[peer]), default="")
    told = "; ".join(_told(peer, runs, len(paths), near) for peer, runs in found.items() if peer not in failed)
    details = {peer: _detail(runs, len(paths)) for peer, runs in found.items() if peer not in failed}
    told += "".join(f"; {peer} fails ({why[:80]})" for peer, why in failed.items())
    if not fastest:
        yield structs.replace(row(f"{name} to {SIDE}", speeds["ours"], "images/s", beside=told), details=details)
        return
    aim = f"; aim {SMALL_RATIO_AIM} x Pillow" if name == "small JPEG" else ""
    spent = [
        mine.processor_seconds / its.processor_seconds for mine, its in zip(found["ours"], found[fastest], strict=True)
    ]
    told += f"; by processor time {1 / statistics.median(spent):.2f} x {fastest}"
    made = against(
        f"{name} to {SIDE}", speeds["ours"], f"{fastest} bare", speeds[fastest], "images/s",
        ratio_at_least=1.0, beside=told + aim,
    )  # fmt: skip
    yield structs.replace(made, details=details)


def _aside(measure: Callable[[Sequence[str]], _T], paths: Sequence[str]) -> _T:
    """Measures in a process of its own: libvips's threads would not be there in what is forked later, which would wait
    for them without an end."""
    with multiprocessing.get_context("fork").Pool(1, initializer=as_born) as pool:
        return pool.apply(measure, (paths,))


def _detail(runs: Sequence[engines.Run], count: int) -> Detail:
    return Detail(
        images_per_second=count / statistics.median(run.seconds for run in runs),
        peak_bytes=int(statistics.median(run.peak_bytes for run in runs)),
        out_bytes=runs[0].out_bytes,
        processor_seconds=statistics.median(run.processor_seconds for run in runs),
    )


def _told(peer: str, runs: Sequence[engines.Run], count: int, near: dict[str, float]) -> str:
    peak = statistics.median(run.peak_bytes for run in runs) / _MEGABYTE
    speed = count / statistics.median(run.seconds for run in runs)
    quality = f", {near[peer]:.1f} dB" if peer in near else ""
    return f"{peer} {speed:.3g}/s, peak {peak:.0f} MB, {runs[0].out_bytes / 1000:,.0f} KB out{quality}"


def nearness(paths: Sequence[str], side: int = SIDE) -> dict[str, float]:
    """Returns how near ours and the engines come to the whole image resized by Lanczos, in dB, on average of up to
    three images that all of them read; nothing of images that none do."""
    near: dict[str, list[float]] = {"ours": [], "Pillow": [], "libvips": []}
    for path in dict.fromkeys(paths):
        try:
            with Image.open(path) as image:
                whole = ImageOps.exif_transpose(image).convert("RGB")
            reference, our, their = thumbnails(path, whole, side)
            found = zip(near, (our, their, vips_thumbnail(path, reference.size)), strict=True)
            for peer, made in [(peer, made) for peer, made in found if made is not None]:
                near[peer].append(decibels(reference, made))
        except (OSError, ValueError, Verdict):
            continue
        if len(near["ours"]) == _COMPARED:
            break
    return {peer: statistics.fmean(values) for peer, values in near.items() if len(values) == len(near["ours"]) > 0}


def vips_thumbnail(path: str, size: tuple[int, int]) -> Image.Image | None:
    """Returns libvips's thumbnail, None where it is of another kind or size."""
    library = with_vips.library()
    try:
        made = library.Image.thumbnail(path, max(size))
        content = made.write_to_memory()
    except library.Error:
        return None
    if made.bands not in (1, 3) or made.format != "uchar" or (made.width, made.height) != size:
        return None
    return Image.frombytes("RGB" if made.bands == 3 else "L", size, content).convert("RGB")


def quality(paths: Sequence[str], sides: Sequence[int] = (256, 1024)) -> list[Row]:
    """Returns the distances from a whole image resized by Lanczos, in dB and as SSIM, ours against Pillow's."""
    found: list[tuple[Image.Image, Image.Image, Image.Image]] = []
    for path in sorted(set(paths))[:3]:
        with Image.open(path) as image:
            whole = image.convert("RGB")
        found += [thumbnails(path, whole, side) for side in sides]
    measures: tuple[tuple[str, str, Callable[[Image.Image, Image.Image], float]], ...] = (
        ("quality against Lanczos", "dB", decibels),
        ("likeness to Lanczos", "SSIM", ssim),
    )
    return [
        against(
            name, [measure(reference, our) for reference, our, _ in found],
            "Pillow's thumbnail", [measure(reference, their) for reference, _, their in found],
            unit, ratio_at_least=1.0,
            beside="of the pixels before they are encoded; a pair is one image at one size",
        )
        for name, unit, measure in measures
    ]  # fmt: skip


def thumbnails(path: str, whole: Image.Image, side: int) -> tuple[Image.Image, Image.Image, Image.Image]:
    """Returns the reference, ours and Pillow's of one size."""
    from protocol.launch import ImageLimits
    from workers.source import Source

    with Image.open(path) as image:
        image.thumbnail((side, side))
        their = ImageOps.exif_transpose(image).convert("RGB")
    with Source(os.fsencode(path), path, ImageLimits(), lambda warning: None, strict=True) as source:
        source.decoded(side)
        our = source.picture(*their.size).convert("RGB")
    return whole.resize(their.size, Image.Resampling.LANCZOS), our, their


def decibels(one: Image.Image, other: Image.Image) -> float:
    """Returns the peak signal-to-noise ratio of two pictures; 99 where they are the same."""
    found = ImageStat.Stat(ImageChops.difference(one, other))
    error = sum(found.sum2) / sum(found.count)
    return 10 * math.log10(255 * 255 / error) if error else 99.0
