"""Durable no-op items a second, from the first submission to the last committed result; the loop's turns meanwhile.

What is measured is everything but the work: submitting, the journal, leases, reports, the commit of each verdict.
The peers keep nothing: after a power cut nobody could say which of their items were done.
"""

from collections.abc import Iterator

from tests.bench import peers, probes
from tests.bench.house import House
from tests.bench.rows import Row, against, row
from tests.bench.terms import Terms

WORKERS = 2


def whole(terms: Terms) -> Iterator[Row]:
    """At the default batch size."""
    names = _names(terms.count(100_000))
    ours: list[float] = []
    turns: list[float] = []
    pool: list[float] = []
    executor: list[float] = []
    beside = ""
    for _ in range(terms.runs):
        with House(workers=WORKERS) as house:
            ours.append(len(names) / house.run("noop", "/nowhere", names))
            turns.append(house.status().loop_turn_p99_seconds * 1000)
            beside = beside or _beside(house)
        pool.append(peers.pool_per_second(names, WORKERS))
        executor.append(peers.executor_per_second(names, WORKERS))
    yield row("no-op items", ours, "items/s", at_least=50_000, beside=beside)
    yield against("no-op items", ours, "multiprocessing.Pool, chunks of 64, not durable", pool, "items/s")
    yield against("no-op items", ours, "ProcessPoolExecutor, not durable", executor, "items/s")
    yield row("loop turn p99 under no-op load", turns, "ms", at_most=5, beside="upper edge of its bucket")


def single(terms: Terms) -> Iterator[Row]:
    """At a batch size of 1: every item is a lease, a message there and one back."""
    names = _names(terms.count(20_000))
    ours: list[float] = []
    turns: list[float] = []
    executor: list[float] = []
    beside = ""
    for _ in range(terms.runs):
        with House("--batch-size-max", "1", workers=WORKERS) as house:
            ours.append(len(names) / house.run("noop", "/nowhere", names))
            turns.append(house.status().loop_turn_p99_seconds * 1000)
            beside = beside or _beside(house)
        executor.append(peers.executor_per_second(names, WORKERS))
    yield row("no-op items, batch size 1", ours, "items/s", at_least=10_000, beside=beside)
    yield against("no-op items, batch size 1", ours, "ProcessPoolExecutor, not durable", executor, "items/s")
    yield row("loop turn p99, batch size 1", turns, "ms", at_most=5, beside="upper edge of its bucket")


def _names(count: int) -> list[str]:
    return [f"2024/{number:07d}.jpg" for number in range(count)]


def _beside(house: House) -> str:
    return "; ".join(
        (
            probes.told("fsync of 4 KB", lambda: probes.fsync(house.state)),
            probes.told("round trip", lambda: probes.round_trip(house.directory), 3),
        )
    )
