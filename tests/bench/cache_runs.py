"""The cache as users meet it: through a whole supervisor, from the first submission to the last committed result.

A second run over unchanged files with the outputs in place, and with the outputs gone; and what keeping results
costs the first run, beside a supervisor without a cache.
"""

import os
import shutil
import tempfile
from collections.abc import Iterator

from protocol.paths import to_token
from tests.bench import pictures
from tests.bench.house import House
from tests.bench.rows import Row, against, row
from tests.bench.terms import Terms
from workers import specimens

FOLDERS = 100
SIDE = 48
"""Pixels; what is measured here is everything but the images."""
WORKERS = 2
RATIO = 0.97


def second(terms: Terms) -> Iterator[Row]:
    """Outputs in place; outputs gone."""
    in_place: list[float] = []
    gone: list[float] = []
    turns: list[float] = []
    place = tempfile.mkdtemp(prefix="bench-second-")
    try:
        root, out = os.path.join(place, "in"), os.path.join(place, "out")
        names = _many(root, terms.count(100_000, 10_000))
        token = to_token(os.fsencode(root))
        config = '[recipes.one]\nsteps = [{ operation = "thumbnail", sizes = [128] }]\n'
        with House(workers=WORKERS, config=config) as house:
            house.run("one", token, names, out)
            for _ in range(terms.runs):
                in_place.append(len(names) / house.run_cached("one", token, names, out))
                shutil.rmtree(out)
                gone.append(len(names) / house.run_cached("one", token, names, out))
            turns.append(house.status().loop_turn_p99_seconds * 1000)
    finally:
        shutil.rmtree(place, ignore_errors=True)
    beside = f"{len(names):,} images, one output each; submission to last commit"
    yield row("second run of a batch, outputs in place", in_place, "images/s", at_least=20_000, beside=beside)
    yield row("second run of a batch, outputs delivered", gone, "images/s", at_least=2_000, beside=beside)
    yield row("loop turn p99 meanwhile", turns, "ms", at_most=5, beside="upper edge of its bucket")


def first(terms: Terms) -> Iterator[Row]:
    """Photos of cameras, where the work counts, and small ones, where everything else shows most."""
    place = tempfile.mkdtemp(prefix="bench-cost-")
    try:
        for name, names, root in (
            ("photos of 1 to 26 megapixels", pictures.camera, "camera"),
            ("small photos", pictures.small, "small"),
        ):
            where = os.path.join(place, root)
            made = names(where, terms.count(*((60, 20) if root == "camera" else (1000, 1000))))
            kept, not_kept = _compared(terms, where, made, place)
            yield against(f"first run, {name}", kept, "cache off", not_kept, "images/s", ratio_at_least=RATIO)
    finally:
        shutil.rmtree(place, ignore_errors=True)


def _compared(terms: Terms, root: str, names: list[str], place: str) -> tuple[list[float], list[float]]:
    """Both warm, one after the other, the order swapped each time."""
    rates: tuple[list[float], list[float]] = ([], [])
    token = to_token(os.fsencode(root))
    with House(workers=WORKERS) as keeping, House("--cache", "no", workers=WORKERS) as plain:
        for house in (keeping, plain):
            house.run("thumbs", token, names[:8], os.path.join(place, "warm"))
            shutil.rmtree(os.path.join(place, "warm"))
        for number in range(terms.runs):
            for turn in (0, 1):
                keeping.forget()
                os.sync()  # neither pays for what the other left to be written
                house, mine = (keeping, rates[0]) if turn == number % 2 else (plain, rates[1])
                out = os.path.join(place, f"out-{number}-{turn}")
                mine.append(len(names) / house.run("thumbs", token, names, out))
                shutil.rmtree(out)
    return rates


def _many(root: str, count: int) -> list[str]:
    content = specimens.jpeg(specimens.photo(SIDE, SIDE, seed=1))
    names = [f"{number % FOLDERS:02}/{number:06}.jpg" for number in range(count)]
    for folder in range(min(FOLDERS, count)):
        os.makedirs(os.path.join(root, f"{folder:02}"))
    for number, name in enumerate(names):
        with open(os.path.join(root, name), "wb") as file:
            file.write(pictures.numbered(content, number))
    return names
