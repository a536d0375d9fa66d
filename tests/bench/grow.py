"""A pool that has shrunk grows again: from a submission to its second and to its last worker at work.

The pool of four rests but for one. The clock runs from the moment the submission is sent until the flight recorder
names an image in the hands of that many workers; the one at hand is at work first.
"""

import os
import time
from collections.abc import Iterator

from protocol.recorder import RecorderReader
from tests.bench import probes
from tests.bench.house import House, TooSlow, until
from tests.bench.rows import Row, row
from tests.bench.terms import Terms

WORKERS = 4
SHRINK_SECONDS = 0.5
GROWN_SECONDS = 10.0
LOOK_SECONDS = 0.0002
CONFIG = """
[recipes.hold]
steps = [{ operation = "misbehave.hang", seconds = 0.5 }]
"""


def run(terms: Terms) -> Iterator[Row]:
    """Shrinks and grows the same pool again and again."""
    second: list[float] = []
    last: list[float] = []
    with House("--idle-shrink", f"{SHRINK_SECONDS:g}s", workers=WORKERS, config=CONFIG) as house:
        photos = os.path.join(house.directory, "photos")
        os.mkdir(photos)
        names = [f"{number}.jpg" for number in range(WORKERS)]
        for name in names:
            with open(os.path.join(photos, name), "wb"):
                pass
        reader = RecorderReader(os.path.join(house.state, "recorder.bin"), WORKERS)
        try:
            for number in range(terms.count(10, 3)):
                until(lambda: _at_hand(house) == 1, "the pool has shrunk")
                began = time.perf_counter()
                batch = house.submit("hold", photos, names, os.path.join(house.directory, f"out{number}"))
                second.append(1000 * _until_at_work(reader, 2, began))
                last.append(1000 * _until_at_work(reader, WORKERS, began))
                house.finished(batch)
        finally:
            reader.close()
        beside = probes.told("fork and wait", probes.fork)
    yield row("a shrunk pool: submission to its second worker at work", second, "ms", at_most=50, beside=beside)
    yield row("a shrunk pool: submission to all four at work", last, "ms", at_most=150)


def _at_hand(house: House) -> int:
    return sum(1 for worker in house.status().workers if worker.state != "GONE")


def _until_at_work(reader: RecorderReader, workers: int, began: float) -> float:
    while time.perf_counter() - began < GROWN_SECONDS:
        if sum(1 for slot in range(WORKERS) if reader.progress(slot)[1]) >= workers:
            return time.perf_counter() - began
        time.sleep(LOOK_SECONDS)
    raise TooSlow(f"{workers} workers are not at work after {GROWN_SECONDS:g} s")
