"""What all the watching, learning and keeping costs the work: everything on against everything that can be off.

Off: looked at once a second, no sandbox. What cannot be switched off (the journal, the flight recorder, the watch)
is what is promised, and is in both.
"""

import os
import shutil
import tempfile
from collections.abc import Iterator

from protocol.paths import to_token
from tests.bench import pictures
from tests.bench.house import House
from tests.bench.rows import Row, against
from tests.bench.terms import Terms

WORKERS = 2
RATIO = 0.98
OFF = (
    "--watch-interval-min-seconds", "1s", "--watch-interval-max-seconds", "1s", "--watch-interval-idle-seconds", "1s",
    "--sandbox", "off", "--cache", "no",
)  # fmt: skip
ON = ("--cache", "no")
"""Without the cache in both: it does other work, whose cost is the row `cache-cost`."""
PEER = "the same, looked at once a second, no sandbox"


def run(terms: Terms) -> Iterator[Row]:
    """No-op items, and photos of 1 to 26 megapixels; pairs of runs, the order swapped each time."""
    names = [f"2024/{number:07d}.jpg" for number in range(terms.count(100_000))]
    yield _compare(terms, "no-op items, everything on", "noop", "/nowhere", names, None)
    place = tempfile.mkdtemp(prefix="bench-everything-")
    try:
        root = os.path.join(place, "photos")
        tokens = [to_token(os.fsencode(name)) for name in pictures.camera(root, terms.count(60, 20))]
        yield _compare(terms, "thumbnails, everything on", "thumbs", to_token(os.fsencode(root)), tokens, place)
    finally:
        shutil.rmtree(place, ignore_errors=True)


def _compare(terms: Terms, name: str, recipe: str, root: str, names: list[str], place: str | None) -> Row:
    rates: dict[str, list[float]] = {"on": [], "off": []}
    with House(*ON, workers=WORKERS) as on, House(*OFF, workers=WORKERS) as off:
        houses = {"on": on, "off": off}
        for house in houses.values():
            house.run(recipe, root, names[:8], os.path.join(place, "warm") if place is not None else None)
            _forget(place)
        for number in range(terms.runs):
            for which in ("on", "off") if number % 2 else ("off", "on"):
                # A new one each time: workers that are confined to a directory that is gone have to be replaced first.
                out = os.path.join(place, f"out-{number}-{which}") if place is not None else None
                rates[which].append(len(names) / houses[which].run(recipe, root, names, out))
                shutil.rmtree(out or "", ignore_errors=True)
                os.sync()
    return against(name, rates["on"], PEER, rates["off"], "items/s", ratio_at_least=RATIO)


def _forget(place: str | None) -> None:
    if place is not None:
        shutil.rmtree(os.path.join(place, "warm"), ignore_errors=True)
    os.sync()
