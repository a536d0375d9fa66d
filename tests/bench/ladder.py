"""One item with many results against a task for each result, as a task queue would run them."""

import base64
import os
import statistics
from collections.abc import Iterator, Sequence
from typing import Any

from tests.bench import engines
from tests.bench.rows import Row, against
from tests.bench.terms import Terms
from workers.images.encode import EFFORT

SIDES = (256, 512, 1024, 2048)
RATIO = 2.5
PEER = "Pillow, a task for each"


def compare(terms: Terms, paths: Sequence[str]) -> Iterator[Row]:
    """Four rungs, perceptual hash, thumbhash and probe of each photo: as WebP (the recipe `web`), and as JPEG.

    Pillow writes as it does by itself; then once more with WebP's effort set to ours, which nobody's manual shows:
    what is left is what one decode is worth.
    """
    for kind, our, their, at_least in (
        ("webp", _ours_webp, _pillow_webp, RATIO),
        ("webp of the same effort", _ours_webp, _pillow_webp_as_ours, None),
        ("jpeg", _ours_jpeg, _pillow_jpeg, RATIO),
    ):
        ours: list[engines.Run] = []
        theirs: list[engines.Run] = []
        for number in range(terms.runs):
            for turn in (0, 1):
                mine = turn == number % 2
                (ours if mine else theirs).append(engines.measured(our if mine else their, paths, 0))
        peaks = [statistics.median(run.peak_bytes for run in runs) / 1e6 for runs in (ours, theirs)]
        yield against(
            f"4 rungs, phash, thumbhash, probe, {kind}",
            [len(paths) / run.seconds for run in ours],
            PEER,
            [len(paths) / run.seconds for run in theirs],
            "images/s",
            ratio_at_least=at_least,
            beside=f"peak {peaks[0]:.0f} and {peaks[1]:.0f} MB, {ours[0].out_bytes / 1000:,.0f} and "
            f"{theirs[0].out_bytes / 1000:,.0f} KB out",
        )


def _ours_webp(paths: Sequence[str], side: int, out: str) -> None:
    _ours("webp", paths, out)


def _ours_jpeg(paths: Sequence[str], side: int, out: str) -> None:
    _ours("jpeg", paths, out)


def _pillow_webp(paths: Sequence[str], side: int, out: str) -> None:
    _pillow("webp", paths, out)


def _pillow_webp_as_ours(paths: Sequence[str], side: int, out: str) -> None:
    _pillow("webp", paths, out, method=EFFORT)


def _pillow_jpeg(paths: Sequence[str], side: int, out: str) -> None:
    _pillow("jpeg", paths, out)


def _ours(kind: str, paths: Sequence[str], out: str) -> None:
    from tests.mechanism.performing import recipe_of, step
    from workers.perform import perform

    bench = engines.as_worker(out)
    rungs = step("thumbnail", sizes=list(SIDES), format=kind, quality=engines.QUALITY)
    recipe = recipe_of(rungs, step("probe"), step("phash"), step("thumbhash"))
    for path in paths:
        report = perform(recipe, bench.job(os.fsencode(path)), bench.context)
        if report.outcome != "done":
            raise RuntimeError(f"{path}: {report.error}")


def _pillow(kind: str, paths: Sequence[str], out: str, **options: Any) -> None:
    """Seven tasks an image, none of which knows of the others; the hashes by the same code as ours."""
    from PIL import Image, ImageOps

    from workers.operations.phash import dhash, phash
    from workers.operations.thumbhash import thumbhash

    for path in paths:
        for side in SIDES:
            with Image.open(path) as image:
                image.thumbnail((side, side))
                shown = ImageOps.exif_transpose(image).convert("RGB")
                shown.info.clear()
                shown.save(
                    os.path.join(out, f"{os.path.basename(path)}.{side}.{kind}"), quality=engines.QUALITY, **options
                )
        with Image.open(path) as image:
            image.thumbnail((128, 128))
            grey = image.convert("L")
            phash(grey), dhash(grey)
        with Image.open(path) as image:
            image.thumbnail((48, 48))
            base64.b64encode(thumbhash(image.convert("RGBA")))
        with Image.open(path) as image:
            image.getexif()
