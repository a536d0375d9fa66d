"""What all the watching, learning and keeping costs the work: everything on against everything that can be off.

Off: looked at once a second, no sandbox. What cannot be switched off (the journal, the flight recorder, the watch)
is what is promised, and is in both.

Each has its own output directory, emptied between runs and never removed: confined workers are made for a directory,
and for another one they are replaced. That is no part of an image's cost and is told beside: what the first batch into
a new directory takes longer than the next ones, on a pool that runs already.
"""

import contextlib
import os
import shutil
import statistics
import tempfile
from collections.abc import Iterator
from operator import truediv

from protocol.paths import to_token
from tests.bench import pictures
from tests.bench.house import House
from tests.bench.rest import cpu_seconds
from tests.bench.rows import Row, against
from tests.bench.terms import Terms

WORKERS = 2
RATIO = 0.98
PAIRS_A_RUN = 3
WARMING_RUNS = 2
"""The first makes the directory and workers for it, the second finds them warm."""
FIRSTS = 5
OFF = (
    "--watch-interval-min-seconds", "1s", "--watch-interval-max-seconds", "1s", "--watch-interval-idle-seconds", "1s",
    "--sandbox", "off", "--cache", "no",
)  # fmt: skip
ON = ("--cache", "no")
"""Without the cache in both: it does other work, whose cost is the row `cache-cost`."""
PEER = "the same, looked at once a second, no sandbox"


def run(terms: Terms) -> Iterator[Row]:
    """No-op items, and photos of 1 to 26 megapixels; pairs of runs, the order swapped each time."""
    names = [f"2024/{number:07d}.jpg" for number in range(terms.count(50_000))]
    yield _compare(terms, "no-op items, everything on", "noop", "/nowhere", names, None)
    place = tempfile.mkdtemp(prefix="bench-everything-")
    try:
        root = os.path.join(place, "photos")
        tokens = [to_token(os.fsencode(name)) for name in pictures.camera(root, terms.count(20))]
        yield _compare(terms, "thumbnails, everything on", "thumbs", to_token(os.fsencode(root)), tokens, place)
    finally:
        shutil.rmtree(place, ignore_errors=True)


def _compare(terms: Terms, name: str, recipe: str, root: str, names: list[str], place: str | None) -> Row:
    """Many short pairs rather than few long ones: what else the machine does then meets both alike."""
    rates: dict[str, list[float]] = {"on": [], "off": []}
    spent: dict[str, list[float]] = {"on": [], "off": []}
    with House(*ON, workers=WORKERS) as on, House(*OFF, workers=WORKERS) as off:
        houses = {"on": on, "off": off}
        outs = {which: os.path.join(place, which) if place is not None else None for which in houses}
        for which, house in houses.items():
            for _ in range(WARMING_RUNS):
                house.run(recipe, root, names, outs[which])
                _empty(outs[which])
        for number in range(PAIRS_A_RUN * terms.runs):
            for which in ("on", "off") if number % 2 else ("off", "on"):
                house = houses[which]
                pids = house.processes()
                before = _spent_seconds(pids)
                rates[which].append(len(names) / house.run(recipe, root, names, outs[which]))
                spent[which].append(_spent_seconds(pids) - before)
                _empty(outs[which])
        beside = f"processor time {statistics.median(map(truediv, spent['off'], spent['on'])):.3f}"
        if place is not None:
            longer = _first_seconds(on, recipe, root, names[:WORKERS], place)
            beside += f"; the first batch into a new directory takes {longer:.2f} s more"
    return against(name, rates["on"], PEER, rates["off"], "items/s", ratio_at_least=RATIO, beside=beside)


def _first_seconds(house: House, recipe: str, root: str, names: list[str], place: str) -> float:
    """Returns how much longer the first small batch into a directory takes than the second, which finds its workers."""
    longer = []
    for number in range(FIRSTS):
        out = os.path.join(place, f"first-{number}")
        house.wait_idle()
        first = house.run(recipe, root, names, out)
        _empty(out)
        house.wait_idle()
        longer.append(first - house.run(recipe, root, names, out))
    return statistics.median(longer)


def _spent_seconds(pids: list[int]) -> float:
    spent = 0.0
    for pid in pids:
        with contextlib.suppress(OSError):  # a worker that was replaced meanwhile: the median passes over such a pair
            spent += cpu_seconds(pid)
    return spent


def _empty(out: str | None) -> None:
    """Its entries go, it stays: the rules of a confined worker are bound to it."""
    if out is not None:
        for entry in os.scandir(out):
            shutil.rmtree(entry.path) if entry.is_dir(follow_symlinks=False) else os.unlink(entry.path)
    os.sync()
