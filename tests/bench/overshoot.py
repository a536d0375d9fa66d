"""How far a worker that grows by 1 GB/s gets past its hard limit before it is gone.

Its memory is watched from outside, twice a millisecond, until it is dead; what counts is the largest size seen,
less the limit that the supervisor says it was killed for.
"""

import os
import time
from collections.abc import Iterator
from statistics import median

from protocol.messages import Decision
from tests.bench import probes
from tests.bench.house import House, TooSlow, until
from tests.bench.rows import Row, row
from tests.bench.terms import Terms

RATE = 1_000_000_000
BYTES = 3_000_000_000
LOOK_SECONDS = 0.0005
KILL_SECONDS = 30.0
CONFIG = f"""
[recipes.grow]
steps = [{{ operation = "misbehave.allocate", bytes = {BYTES}, bytes_per_second = {RATE}, only = "grow-*" }}]
"""


def run(terms: Terms) -> Iterator[Row]:
    """Lets one worker after the other grow. Each first settles a calm image: a worker that dies before its first
    is replaced with a delay."""
    times = terms.count(20, 10)
    with House("--memory", "600M", "--batch-size-max", "1", workers=1, config=CONFIG) as house:
        photos = os.path.join(house.directory, "photos")
        os.mkdir(photos)
        names = [f"{kind}-{number}.jpg" for number in range(times + 1) for kind in ("calm", "grow")]
        for name in names:
            with open(os.path.join(photos, name), "wb"):
                pass
        house.submit("grow", photos, names, os.path.join(house.directory, "out"))
        killed = [_grow_one(house, number) for number in range(times)]
        beside = probes.told("kill and wait", probes.kill)
    over = [(peak - limit) / 1e6 for peak, limit, _ in killed]
    seen = [(seen - limit) / 1e6 for _, limit, seen in killed]
    beside = f"of it past when the supervisor saw it: median {median(seen):.3g} MB; {beside}"
    yield row("overshoot past the hard limit at 1 GB/s", over, "MB", at_most=30, p95_at_most=60, beside=beside)


def _grow_one(house: House, number: int) -> tuple[int, int, int]:
    """Returns the peak of the next worker that is killed, its hard limit, and the size it was killed for."""
    until(lambda: house.status().workers[0].state == "BUSY", "the worker grows")
    pid = house.status().workers[0].pid
    assert pid is not None
    peak = _peak_bytes(pid)
    until(lambda: len(_kills(house)) > number, "the kill is told")
    figures = _kills(house)[number].figures
    return peak, int(figures["limit_bytes"]), int(figures["rss_bytes"])


def _kills(house: House) -> list[Decision]:
    return [each for each in house.client.decisions(0, 10_000) if each.kind == "hard_limit"]


def _peak_bytes(pid: int) -> int:
    """Watches a process until it is gone."""
    page = os.sysconf("SC_PAGE_SIZE")
    peak, deadline = 0, time.monotonic() + KILL_SECONDS
    with open(f"/proc/{pid}/statm", "rb", buffering=0) as file:
        while time.monotonic() < deadline:
            try:
                file.seek(0)
                pages = int(file.read(64).split()[1])
            except ProcessLookupError:
                return peak
            if not pages:
                return peak
            peak = max(peak, pages * page)
            time.sleep(LOOK_SECONDS)
    raise TooSlow(f"the worker {pid} still grows after {KILL_SECONDS:g} s")
