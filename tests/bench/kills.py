"""From `kill -9` of a busy worker to its images running again.

The flight recorder tells from outside, without asking anybody, which image each worker has in hand: the clock
runs from the kill until an image of the lost lease is in the hands of another process. The peers of the standard
library have no figure here: multiprocessing.Pool waits for ever, ProcessPoolExecutor gives the whole pool up.
"""

import os
import random
import signal
import time
from collections.abc import Iterator

from protocol.recorder import RecorderReader
from tests.bench import probes
from tests.bench.house import House, TooSlow, until
from tests.bench.rows import Row, row
from tests.bench.terms import Terms

WORKERS = 2
ITEM_SECONDS = 0.02
AGAIN_SECONDS = 10.0
LOOK_SECONDS = 0.0002
SETTLED_FIRST = 3
"""A worker that dies before its first item is not what is measured: its successor would be held back."""
CONFIG = f"""
[recipes.hold]
steps = [{{ operation = "misbehave.hang", seconds = {ITEM_SECONDS} }}]
"""


def run(terms: Terms) -> Iterator[Row]:
    """Kills one worker after the other, at any point of an image."""
    times = terms.count(40, 15)
    chance = random.Random(1)
    with House("--batch-size-max", "16", workers=WORKERS, config=CONFIG) as house:
        photos = os.path.join(house.directory, "photos")
        os.mkdir(photos)
        names = [f"{number}.jpg" for number in range(max(200, times * 40))]
        for name in names:
            with open(os.path.join(photos, name), "wb"):
                pass
        batch = house.submit("hold", photos, names, os.path.join(house.directory, "out"))
        reader = RecorderReader(os.path.join(house.state, "recorder.bin"), WORKERS)
        try:
            values = [_kill_one(house, reader, number % WORKERS, chance) * 1000 for number in range(times)]
        finally:
            reader.close()
        house.client.cancel(batch)
        beside = "; ".join((probes.told("kill and wait", probes.kill), probes.told("fork and wait", probes.fork)))
    yield row(
        "kill -9 of a busy worker to its images running again", values, "ms", at_most=20, p95_at_most=60, beside=beside
    )


def _kill_one(house: House, reader: RecorderReader, slot: int, chance: random.Random) -> float:
    until(lambda: reader.progress(slot)[4] >= SETTLED_FIRST, f"worker {slot} at work")
    time.sleep(chance.uniform(0.1, 0.2))
    pid = house.status().workers[slot].pid
    assert pid is not None
    until(lambda: reader.progress(slot)[1] != 0, f"worker {slot} at an image", pause=LOOK_SECONDS)
    dead, item, *_ = reader.progress(slot)
    began = time.perf_counter()
    os.kill(pid, signal.SIGKILL)
    while time.perf_counter() - began < AGAIN_SECONDS:
        for other in range(WORKERS):
            incarnation, now, *_ = reader.progress(other)
            if now in (item, item + 1) and (other, incarnation) != (slot, dead):
                return time.perf_counter() - began
        time.sleep(LOOK_SECONDS)
    raise TooSlow(f"image {item} of the killed worker {slot} is not running again after {AGAIN_SECONDS:g} s")
