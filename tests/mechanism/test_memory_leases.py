"""Memory leases as they are: a real worker asks a real socket in the middle of an item; models come and go by them."""

import gc
import mmap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from protocol.messages import (
    ItemReport,
    MemoryGranted,
    MemoryRefused,
    Quit,
    Ready,
    ReleaseMemory,
    Report,
    RequestMemory,
    Shrink,
)
from supervisor.mechanism.processes import WorkerProcess
from supervisor.policy.sizes import MB
from tests.galleries import write
from tests.mechanism.performing import Bench, step, values
from tests.mechanism.real_pool import RealPool, ended, real_pool, recipe
from workers import pressure, specimens
from workers.errors import NoMemory, NoMemoryNow, Verdict
from workers.memory_lease import Bounded, Leases
from workers.models import MODERATE_IDLE_SECONDS, Models

HOLD = recipe("misbehave.borrow", bytes=100 * MB, at_least=40 * MB)
ROOM = 10 * MB
"""What an item of these leases may take by itself."""


@pytest.fixture
def pool() -> Iterator[RealPool]:
    with real_pool([HOLD]) as pool:
        yield pool


def working(pool: RealPool, count: int = 1, **start: Any) -> tuple[WorkerProcess, int, RequestMemory]:
    """A worker at its first item, and what it asks for."""
    worker = pool.start(**start)
    pool.receive(Ready)
    lease = pool.grant(worker, HOLD, [f"{number}.jpg" for number in range(1, count + 1)], memory_bytes=ROOM)
    return worker, lease, pool.receive(RequestMemory)


def items(reports: list[Report]) -> list[ItemReport]:
    return [item for report in reports for item in report.items]


def test_a_worker_asks_in_the_middle_of_an_item_and_gives_back_at_its_end(pool: RealPool) -> None:
    worker, lease, asked = working(pool)
    assert (asked.purpose, asked.item, asked.within_bytes) == ("test", 1, 9 * MB)
    assert (asked.bytes, asked.at_least) == (91 * MB, 31 * MB), "less what the item may take by itself"
    pool.tell(worker, MemoryGranted(number=asked.number, bytes=50 * MB))
    assert pool.receive(ReleaseMemory).number == asked.number
    [item] = items(pool.reports(lease))
    assert (item.outcome, values(item)["misbehave.borrow"]) == ("done", {"bytes": 59 * MB})


def test_a_refusal_sends_the_item_back_with_what_it_needs(pool: RealPool) -> None:
    worker, lease, asked = working(pool)
    pool.tell(worker, MemoryRefused(number=asked.number, reason="none is left"))
    [item] = items(pool.reports(lease))
    assert item.outcome == "deferred" and item.needs_bytes >= 40 * MB


def test_what_arrives_while_it_waits_is_kept_and_heeded_after(pool: RealPool) -> None:
    worker, lease, asked = working(pool, 4, report_seconds=3600.0)  # all in one report
    pool.tell(worker, MemoryGranted(number=asked.number + 70, bytes=1))
    pool.tell(worker, Shrink(lease=lease, keep=1))
    pool.tell(worker, MemoryGranted(number=asked.number, bytes=50 * MB))
    second = pool.receive(RequestMemory)
    pool.tell(worker, Quit())
    pool.tell(worker, MemoryGranted(number=second.number, bytes=50 * MB))
    reports = pool.reports(lease)
    assert [item.outcome for item in items(reports)] == ["done", "done"]
    assert [number for report in reports for number in report.handed_back] == [3, 4]
    assert ended(worker) and worker.exit_code(5) == 0


def test_no_answer_is_a_no_and_what_comes_late_is_released(pool: RealPool) -> None:
    worker, lease, asked = working(pool, lease_answer_seconds=0.2, lease_patience_seconds=0.2)
    assert pool.receive(ReleaseMemory).number == asked.number
    pool.tell(worker, MemoryGranted(number=asked.number, bytes=50 * MB))
    [item] = items(pool.reports(lease))
    assert item.outcome == "deferred"
    assert not worker.gone()


# ---- the leases of one process -------------------------------------------------------------------


class Heard(Bounded):
    """A lender that remembers what it was told."""

    def __init__(self, limit_bytes: int) -> None:
        super().__init__(limit_bytes)
        self.noted: list[tuple[int, str]] = []
        self.renewed: list[list[int]] = []
        self.told: list[tuple[str, str]] = []

    def note(self, number: int, size_bytes: int, purpose: str, item: int) -> None:
        """Remembers."""
        self.noted.append((size_bytes, purpose))

    def renew(self, numbers: list[int]) -> None:
        """Remembers."""
        self.renewed.append(numbers)

    def model_loaded(self, number: int, name: str, size_bytes: int, uses: int, within_bytes: int = 0) -> None:
        """Remembers."""
        super().model_loaded(number, name, size_bytes, uses, within_bytes)
        self.told.append(("loaded", f"{name} {uses}"))

    def model_unloaded(self, number: int, name: str, freed_bytes: int, reason: str) -> None:
        """Remembers."""
        super().model_unloaded(number, name, freed_bytes, reason)
        self.told.append(("unloaded", f"{name}: {reason}"))


def test_small_pieces_need_no_word_and_large_ones_within_the_item_are_told() -> None:
    lender = Heard(0)
    leases = Leases(lender, from_bytes=60 * MB)
    leases.begin(1, 100 * MB)
    with leases.memory(30 * MB, purpose="a") as small, leases.memory(60 * MB, purpose="b") as large:
        assert (small.bytes, large.bytes) == (30 * MB, 60 * MB)
        assert lender.noted == [(60 * MB, "b")] and not lender.out
        with pytest.raises(NoMemory, match="c: 1,048,576 bytes are asked for, 0 of 0 are free"):
            leases.memory(1 * MB, purpose="c").__enter__()
    with leases.memory(200 * MB, at_least=0, purpose="d") as what_there_is:
        assert what_there_is.bytes == 90 * MB
    leases.end()


def test_what_an_item_forgets_to_give_back_is_given_back() -> None:
    lender = Heard(50 * MB)
    leases = Leases(lender)
    leases.begin(1, 0)
    block = leases.memory(20 * MB, purpose="forgotten")
    block.__enter__()
    assert sum(lender.out.values()) == 20 * MB
    leases.end()
    assert not lender.out
    block.__exit__(None, None, None)


def test_leases_are_renewed_while_they_are_held() -> None:
    lender, now = Heard(50 * MB), [0.0]
    leases = Leases(lender, renew_seconds=100.0, clock=lambda: now[0])
    lease = leases.borrow(20 * MB, "model")
    for now[0] in (50.0, 100.0, 150.0, 200.0):
        leases.renew_due(now[0])
    assert lender.renewed == [[lease.number], [lease.number]]
    leases.give_back(lease)
    leases.renew_due(1000.0)
    assert len(lender.renewed) == 2


# ---- models --------------------------------------------------------------------------------------


def models(lender: Heard, now: list[float], **settings: Any) -> tuple[Leases, Models]:
    leases = Leases(lender, clock=lambda: now[0])
    return leases, Models(leases, clock=lambda: now[0], **settings)


def _subscription() -> pressure.Subscription:
    """The one made last: other tests' contexts may have theirs."""
    return max((one for one in pressure.subscribed() if one.owner == "models"), key=lambda one: one.number)


def pixels(size: int = 1000) -> mmap.mmap:
    """Something that takes memory as a model does: 4 MB. From the kernel, not from what an earlier test gave back to
    malloc: that would be no growth."""
    block = mmap.mmap(-1, 4 * size * size)
    for at in range(0, len(block), mmap.PAGESIZE):
        block[at] = 1
    return block


def test_a_model_is_loaded_once_under_a_lease_of_what_it_was_measured_to_take() -> None:
    lender, now = Heard(500 * MB), [0.0]
    _, held = models(lender, now)
    first = held.use("a", lambda: pixels(3000), 80 * MB)
    assert held.use("a", lambda: pixels(3000), 80 * MB) is first and held.names == ["a"]
    [size] = lender.out.values()
    assert 30 * MB < size < 60 * MB, "36 MB of pixels, not the 80 that were expected"
    held.upkeep(5.0)
    assert lender.told == [("loaded", "a 1"), ("loaded", "a 2")]
    del first
    held.close()
    assert not lender.out and lender.told[-1] == ("unloaded", "a: closed")


def test_a_model_nobody_uses_is_unloaded() -> None:
    lender, now = Heard(500 * MB), [0.0]
    _, held = models(lender, now, idle_seconds=300.0)
    held.use("a", pixels, 8 * MB)
    now[0] = 200.0
    held.use("b", pixels, 8 * MB)
    held.upkeep(300.0)
    assert held.names == ["b"]
    assert ("unloaded", "a: not used for 300 s") in lender.told
    held.close()


def test_where_memory_is_short_there_is_one_model_at_a_time() -> None:
    lender, now = Heard(12 * MB), [0.0]
    _, held = models(lender, now)
    held.use("a", lambda: pixels(1500), 10 * MB)
    held.use("b", lambda: pixels(1500), 10 * MB)
    assert held.names == ["b"] and ("unloaded", "a: makes room for b") in lender.told
    with pytest.raises(Verdict, match="raise --memory") as never:
        held.use("c", pixels, 20 * MB)
    assert never.value.kind == "too_large" and held.names == []
    assert not lender.out
    lender.out[99] = 5 * MB
    with pytest.raises(NoMemoryNow, match="the model c cannot be loaded now: model c: 10,485,760 bytes are asked"):
        held.use("c", pixels, 10 * MB)
    held.close()


def test_a_model_that_cannot_be_loaded_leaves_no_lease() -> None:
    lender, now = Heard(500 * MB), [0.0]
    _, held = models(lender, now)

    def broken() -> None:
        raise ValueError("no model")

    with pytest.raises(ValueError, match="no model"):
        held.use("a", broken, 10 * MB)
    assert not lender.out and held.names == []


def test_pressure_unloads_models_idle_ones_first() -> None:
    lender, now = Heard(500 * MB), [0.0]
    _, held = models(lender, now)
    held.use("old", pixels, 8 * MB)
    now[0] = MODERATE_IDLE_SECONDS
    held.use("new", pixels, 8 * MB)
    subscription = _subscription()
    subscription.callback("moderate")
    assert held.names == ["new"]
    subscription.callback("aggressive")
    assert held.names == [] and lender.told[-1] == ("unloaded", "new: memory is short (aggressive)")
    held.close()
    assert not subscription.active


def test_a_model_loaded_from_the_items_own_allowance_leaves_less_until_the_next_grant() -> None:
    lender, now = Heard(0), [0.0]
    leases, held = models(lender, now)
    leases.begin(1, 100 * MB)
    held.use("a", lambda: pixels(2000), 50 * MB)
    leases.end()
    gc.collect()
    for granted, left in ((False, range(60, 80)), (True, range(90, 91))):
        if granted:
            leases.granted()
        leases.begin(2, 100 * MB)
        with leases.memory(500 * MB, at_least=0, purpose="x") as lease:
            assert lease.bytes // MB in left, lease.bytes
        leases.end()
    held.close()


def test_a_large_decode_is_told_for_as_long_as_its_item(tmp_path: Path) -> None:
    lender = Heard(0)
    bench = Bench(tmp_path)
    bench.context.leases = Leases(lender, from_bytes=5 * MB)
    image = write(tmp_path, "a.png", specimens.encoded(specimens.photo(2000, 1500, seed=1), "PNG"))
    report = bench.run(image, step("phash"))
    assert report.outcome == "done" and report.weighed is not None
    [(size, purpose)] = lender.noted
    assert purpose == "decode" and size > 5 * MB
