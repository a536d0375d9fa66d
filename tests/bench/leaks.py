"""Leaks of a tenth of a megabyte an item, looked for by a real supervisor: after how many items one is found and
blamed on its step, and that clean images give no alarm.

Items are counted when the leak is seen in the answer to a client, so what is done between the finding and the look
counts against us. Every leak is looked for in a supervisor of its own, that has just started, beside a clean recipe
that runs before it.
"""

import os
import shutil
import tempfile
from collections.abc import Iterator

from protocol.messages import Leak
from protocol.paths import to_token
from tests.bench import pictures
from tests.bench.house import House, TooSlow, until
from tests.bench.rows import Row, row
from tests.bench.terms import Terms

LEAK_BYTES = 100_000
ITEMS, CLEAN_ITEMS = 60, 2_000
MOST_ITEMS = 600
LOOK_SECONDS = 0.005
PATIENCE_SECONDS = 120.0
WORKERS = 2
FLAGS = ("--cache", "no")
"""What is found in the cache is not worked on."""
CLEAN = ("thumbs", "web", "probe")
_THUMBNAIL = '{ operation = "thumbnail", sizes = [256] }'
_LEAK = '{{ operation = "misbehave.leak", bytes = {bytes}, native = {native} }}'


class _Case:
    """A recipe with a leak in one of its steps."""

    def __init__(self, name: str, where: str, last: bool) -> None:
        self.name, self.where = name, where
        leak = _LEAK.format(bytes=LEAK_BYTES, native="true" if where == "native" else "false")
        steps = [_THUMBNAIL, leak, '{ operation = "phash" }']
        if last:
            steps = [_THUMBNAIL, '{ operation = "phash" }', leak]
        self.config = f"[recipes.{name}]\nsteps = [{', '.join(steps)}]\n"


CASES = [_Case(f"{where}_{place}", where, place == "last") for where in ("heap", "native") for place in ("mid", "last")]


def run(terms: Terms) -> Iterator[Row]:
    """The leaks, then the clean images of every recipe."""
    place = tempfile.mkdtemp(prefix="bench-leaks-")
    try:
        made = os.path.join(place, "made")
        names = pictures.small(made, terms.count(MOST_ITEMS))
        needed: list[float] = []
        sure: list[float] = []
        wrong: list[str] = []
        for case in CASES:
            for _ in range(terms.count(3, 1)):
                items, leak = _find(case, made, names)
                needed.append(items)
                sure.append(leak.confidence)
                if (leak.subject, leak.where) != ("misbehave.leak", case.where):
                    wrong.append(f"{case.name}: {leak.subject} ({leak.where})")
        beside = f"most {max(needed):g}; wrongly told: {', '.join(wrong) or 'none'}"
        yield row("items until a leak of 0.1 MB an item is found", needed, "items", at_most=ITEMS, beside=beside)
        yield row("its confidence", sure, "", at_least=0.9, beside=f"least {min(sure):.3g}")
        yield row("leaks blamed on another step, or told wrongly heap or native", [len(wrong)], "leaks", at_most=0)
        yield from _clean(terms, place)
    finally:
        shutil.rmtree(place, ignore_errors=True)


def _find(case: _Case, root: str, names: list[str]) -> tuple[int, Leak]:
    """Returns how many items of the recipe were done when the leak was seen, and the leak."""
    with House(*FLAGS, workers=WORKERS, config=case.config) as house:
        out = os.path.join(house.directory, "out")
        tokens = to_token(os.fsencode(root))
        house.run("thumbs", tokens, names[: min(60, len(names))], os.path.join(out, "clean"))
        batch = house.submit(case.name, tokens, names, os.path.join(out, case.name))
        found: list[Leak] = []

        def seen() -> bool:
            found[:] = [leak for leak in house.client.leaks().leaks if leak.subject_kind == "operation"]
            if not found and house.client.progress(batch).state == "finished":
                raise TooSlow(f"{case.name}: no leak found in {len(names)} items")
            return bool(found)

        until(seen, f"{case.name}: the leak is found", PATIENCE_SECONDS, LOOK_SECONDS)
        done = house.client.progress(batch).counts.done
        house.client.cancel(batch)
        return done, found[0]


def _clean(terms: Terms, place: str) -> Iterator[Row]:
    """The same images again and again, each time somewhere else, until each recipe has had its items."""
    root = terms.gallery
    if root is None:
        root = os.path.join(place, "clean")
        pictures.small(root, terms.count(200))
        pictures.camera(root, terms.count(20))
    root = os.path.abspath(root)
    names = [to_token(os.fsencode(name)) for name in pictures.found(root)]
    alarms: list[str] = []
    watched = 0
    with House(*FLAGS, workers=WORKERS) as house:
        wanted = terms.count(CLEAN_ITEMS, 600)
        for recipe in CLEAN:
            done = 0
            while done < wanted:
                out = os.path.join(place, "out")
                batch = house.submit(recipe, to_token(os.fsencode(root)), names, out)
                counts = house.finished(batch, 3_600.0).counts
                done += counts.done + counts.failed
                shutil.rmtree(out, ignore_errors=True)
        told = house.client.decisions(0, 10_000)
        alarms = [each.message for each in told if each.kind == "leak"]
        alarms += [leak.message for leak in house.client.leaks().leaks]
        watched = house.client.leaks().items_watched
    beside = (
        f"{wanted:,} items of each of {', '.join(CLEAN)}; {watched:,} watched; {'; '.join(alarms) or 'nothing told'}"
    )
    yield row("false alarms over clean images", [len(alarms)], "alarms", at_most=0, beside=beside)
