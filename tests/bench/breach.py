"""How long it takes from a limit passed to the decision about it.

A worker grows steadily through its soft and its recycle limit and stops below the hard one. From outside its memory is
read twice a millisecond; the supervisor's decision tells its own time and the limit it was about. A breach counts from
the last look that was still below the limit. Both limits lie within half the budget of the edge, the hard limit:
farther away the supervisor looks less often by design.
"""

import os
import time
from collections.abc import Iterator
from statistics import median

from protocol.messages import Decision
from tests.bench import probes
from tests.bench.house import House, TooSlow, until
from tests.bench.rows import Row
from tests.bench.terms import Terms

RATE = 250_000_000
BYTES = 215_000_000
"""Above the recycle limit of one of two workers under 600 MB, below its hard one."""
LOOK_SECONDS = 0.0005
WATCH_SECONDS = 30.0
CALM = 12
"""Images that both workers settle first: one that is young is not recycled."""
PUT_OFF_SECONDS = 1.2
AT_MOST_MILLISECONDS = 25.0
KINDS = frozenset({"soft_limit", "recycle"})
FLAGS = ("--memory", "600M", "--batch-size-max", "1", "--watch-min-items-between-recycles", "1")
"""Nearly each worker that grew is replaced (`_put_off`)."""
CONFIG = f"""
[recipes.grow]
steps = [{{ operation = "misbehave.allocate", bytes = {BYTES}, bytes_per_second = {RATE}, only = "grow-*" }}]
"""
Curve = list[tuple[float, int]]
"""Time (seconds since the epoch) and RSS bytes, look by look."""


def run(terms: Terms) -> Iterator[Row]:
    """Lets a worker grow in one batch after the other; each gives up to two decisions."""
    times = terms.count(50, 10)
    with House(*FLAGS, workers=2, config=CONFIG) as house:
        photos = os.path.join(house.directory, "photos")
        os.mkdir(photos)
        late = [each for number in range(times) for each in _grow_one(house, photos, number)]
        beside = probes.told("kill and wait", probes.kill)
    late.sort()
    edge = late[round(0.99 * (len(late) - 1))] if late else None
    yield Row(
        name="a limit passed to the decision, p99", ours=edge, unit="ms", runs=len(late),
        target=f"≤ {AT_MOST_MILLISECONDS:g}", met=edge is not None and edge <= AT_MOST_MILLISECONDS,
        beside=f"median {median(late):.3g} ms, worst {late[-1]:.3g} ms; {beside}" if late else "nothing was decided",
    )  # fmt: skip


def _grow_one(house: House, photos: str, number: int) -> list[float]:
    """Returns how many milliseconds after each breach it was decided on."""
    names = [*(f"calm-{number}-{calm}.jpg" for calm in range(CALM)), f"grow-{number}.jpg"]
    for name in names:
        with open(os.path.join(photos, name), "wb"):
            pass
    before = max((each.number for each in _decisions(house, -1)), default=-1)
    batch = house.submit("grow", photos, names, os.path.join(house.directory, "out"))
    until(lambda: bool(_growing(house, names[-1])), "a worker grows", pause=LOOK_SECONDS)
    [(slot, pid)] = _growing(house, names[-1])
    curve = _watch(pid)
    house.finished(batch)
    house.wait_idle()
    of_slot = [each for each in _decisions(house, -1) if each.slot == slot]
    told = [each for each in of_slot if each.number > before and not _put_off(each, of_slot)]
    return [late for each in told if (late := _late_milliseconds(each, curve)) is not None]


def _put_off(decision: Decision, of_slot: list[Decision]) -> bool:
    """Tells whether a trim had to wait for its predecessor to show: a worker that was too young to be replaced grows
    again, and is trimmed once a second at most."""
    trims = [each.at for each in of_slot if each.kind == "soft_limit"]
    return decision.kind == "soft_limit" and any(0 < decision.at - at < PUT_OFF_SECONDS for at in trims)


def _late_milliseconds(decision: Decision, curve: Curve) -> float | None:
    """Returns None for a decision about a limit that was not passed while we watched."""
    limit = decision.figures.get("limit_bytes")
    if not isinstance(limit, int):
        return None
    passed = next((number for number, (_, rss) in enumerate(curve) if rss >= limit), 0)
    return 1000 * (decision.at - curve[passed - 1][0]) if passed else None


def _decisions(house: House, after: int) -> list[Decision]:
    return [each for each in house.client.decisions(after, 10_000) if each.kind in KINDS]


def _growing(house: House, name: str) -> list[tuple[int, int]]:
    return [
        (worker.slot, worker.pid)
        for worker in house.status().workers
        if worker.pid is not None and (worker.current or "").endswith(name)
    ]


def _watch(pid: int) -> Curve:
    """Reads a process's memory until it no longer grows, or is gone."""
    page = os.sysconf("SC_PAGE_SIZE")
    curve: Curve = []
    deadline = time.monotonic() + WATCH_SECONDS
    with open(f"/proc/{pid}/statm", "rb", buffering=0) as file:
        while time.monotonic() < deadline:
            try:
                file.seek(0)
                rss = int(file.read(64).split()[1]) * page
            except ProcessLookupError:
                return curve
            curve.append((time.time(), rss))
            if rss < max(size for _, size in curve[-100:]) // 2 or not rss:
                return curve
            time.sleep(LOOK_SECONDS)
    raise TooSlow(f"the worker {pid} still holds its memory after {WATCH_SECONDS:g} s")
