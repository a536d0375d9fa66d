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
CALM = 8
CONFIG = f"""
[recipes.grow]
steps = [{{ operation = "misbehave.allocate", bytes = {BYTES}, bytes_per_second = {RATE}, only = "grow-*" }}]
"""


def run(terms: Terms) -> Iterator[Row]:
    """Lets one worker after the other grow, each in a batch of its own, in a pool that has come to rest."""
    times = terms.count(20, 10)
    with House("--memory", "600M", "--batch-size-max", "1", workers=2, config=CONFIG) as house:
        photos = os.path.join(house.directory, "photos")
        os.mkdir(photos)
        killed = [_grow_one(house, photos, number) for number in range(times)]
        beside = probes.told("kill and wait", probes.kill)
    over = [(peak - limit) / 1e6 for peak, limit, _ in killed]
    seen = [(seen - limit) / 1e6 for _, limit, seen in killed]
    beside = f"past it when the supervisor saw it: median {median(seen):.3g} MB; {beside}"
    yield row("overshoot past the hard limit at 1 GB/s", over, "MB", at_most=30, p95_at_most=60, beside=beside)


def _grow_one(house: House, photos: str, number: int) -> tuple[int, int, int]:
    """Returns the peak of a worker that grew until it was killed, its hard limit, and the size it was killed for.

    It first settles calm images: one that dies before its first is replaced with a delay. The image is tried once
    more after its first death; that one is not measured."""
    names = [*(f"calm-{number}-{calm}.jpg" for calm in range(CALM)), f"grow-{number}.jpg"]
    for name in names:
        with open(os.path.join(photos, name), "wb"):
            pass
    before = len(_kills(house))
    batch = house.submit("grow", photos, names, os.path.join(house.directory, "out"))
    until(lambda: bool(_growing(house, names[-1])), "a worker grows", pause=LOOK_SECONDS)
    (pid,) = _growing(house, names[-1])
    peak = _peak_bytes(pid)
    until(lambda: len(_kills(house)) > before, "the kill is told")
    figures = _kills(house)[before].figures
    house.client.cancel(batch)
    house.finished(batch)
    house.wait_idle()
    until(lambda: house.status().level == "normal", "memory is back")
    return peak, int(figures["limit_bytes"]), int(figures["rss_bytes"])


def _growing(house: House, name: str) -> list[int]:
    return [
        worker.pid
        for worker in house.status().workers
        if worker.pid is not None and (worker.current or "").endswith(name)
    ]


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
