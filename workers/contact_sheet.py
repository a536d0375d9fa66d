"""Contact sheets of a gallery of thumbnails: one for each directory, so that a person sees at a glance what it holds.

A sheet belongs to a directory, not to an image, so it is no operation of a recipe: it is made afterwards, from the
thumbnails that a run left, by a process of its own (`python -m workers.contact_sheet DIR`, which `supervisor
contact-sheet DIR` starts: the supervisor loads no decoder). It reads files that we wrote ourselves, of one sheet at a
time, so it takes some 20 MB however large the gallery is.
"""

import argparse
import os
import sys
from collections.abc import Iterator, Sequence
from typing import Final

from PIL import Image, ImageDraw, ImageFont

COLUMNS: Final = 8
ROWS: Final = 8
CELL: Final = 160
GAP: Final = 8
CAPTION: Final = 14
"""Pixels of a thumbnail, between them, and of its name's line."""
NAME: Final = "contact-sheet"
_QUALITY: Final = 85
_RUNGS = (".webp", ".jpg", ".png", ".avif")
_REFUSALS = (OSError, SyntaxError, ValueError)


def make(root: str) -> Iterator[tuple[str, int]]:
    """Makes the sheets below a directory of outputs; yields (path of the sheet, its images). Raises OSError.

    An image's smallest rung that fills a cell is taken, else its largest. Sheets are numbered from the second on.
    """
    for directory, below, names in os.walk(root):
        below[:] = sorted(name for name in below if not name.startswith("."))
        shown = _chosen(names)
        for page, start in enumerate(range(0, len(shown), COLUMNS * ROWS)):
            some = shown[start : start + COLUMNS * ROWS]
            path = os.path.join(directory, f"{NAME}.jpg" if page == 0 else f"{NAME}-{page + 1}.jpg")
            _write(path, _sheet(directory, some))
            yield path, len(some)


def _chosen(names: Sequence[str]) -> list[tuple[str, str]]:
    """Returns (image's name, thumbnail's name), in order. Outputs are called <image>.<label>.<extension>."""
    rungs: dict[str, list[tuple[int, str]]] = {}
    for name in names:
        stem, extension = os.path.splitext(name)
        image, _, label = stem.rpartition(".")
        digits = label.split("-")[0].split("x")[0]
        if image and digits.isdigit() and extension.lower() in _RUNGS and not name.startswith("."):
            rungs.setdefault(image, []).append((int(digits), name))
    chosen = []
    for image in sorted(rungs):
        fitting = [rung for rung in rungs[image] if rung[0] >= CELL]
        chosen.append((image, min(fitting)[1] if fitting else max(rungs[image])[1]))
    return chosen


def _sheet(directory: str, shown: Sequence[tuple[str, str]]) -> Image.Image:
    rows = -(-len(shown) // COLUMNS)
    columns = min(COLUMNS, len(shown))
    step = CELL + GAP
    sheet = Image.new("RGB", (GAP + columns * step, GAP + rows * (step + CAPTION)), "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(11)
    for number, (image, name) in enumerate(shown):
        left, top = GAP + number % COLUMNS * step, GAP + number // COLUMNS * (step + CAPTION)
        picture = _picture(os.path.join(directory, name))
        if picture is None:
            draw.rectangle((left, top, left + CELL, top + CELL), outline="silver")
        else:
            place = left + (CELL - picture.width) // 2, top + (CELL - picture.height) // 2
            sheet.paste(picture, place, picture if picture.mode == "RGBA" else None)
        draw.text((left, top + CELL + 1), _fitting(image, font), fill="black", font=font)
    return sheet


def _picture(path: str) -> Image.Image | None:
    try:
        with Image.open(path) as image:
            image.thumbnail((CELL, CELL))
            return image.convert("RGBA" if image.mode in ("RGBA", "LA", "PA") else "RGB")
    except _REFUSALS:
        return None  # deleted since, or not ours: its place stays empty


def _fitting(name: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont) -> str:
    shown = name.encode("utf-8", "replace").decode()
    while len(shown) > 1 and font.getlength(shown) > CELL:
        shown = shown[: len(shown) // 2 - 1] + "…" + shown[len(shown) // 2 + 1 :].lstrip("…")
    return shown


def _write(path: str, sheet: Image.Image) -> None:
    partial = os.path.join(os.path.dirname(path), f".{os.path.basename(path)}.{os.getpid()}")
    try:
        sheet.save(partial, "JPEG", quality=_QUALITY)
        os.replace(partial, path)
    except BaseException:
        if os.path.exists(partial):
            os.unlink(partial)
        raise


def main(arguments: list[str] | None = None) -> int:
    """`python -m workers.contact_sheet DIR`: prints a line for each sheet, its images and its path."""
    parser = argparse.ArgumentParser(prog="python -m workers.contact_sheet", description="Makes contact sheets.")
    parser.add_argument("directory")
    given = parser.parse_args(arguments)
    if not os.path.isdir(given.directory):
        parser.error(f"{given.directory!r} is no directory")
    try:
        for path, count in make(given.directory):
            sys.stdout.write(f"{count}\t{path}\n")
            sys.stdout.flush()
    except OSError as error:
        sys.stderr.write(f"{error.filename}: {error.strerror}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
