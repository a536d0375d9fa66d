"""Clean-up actions in a worker: their order, their measure, and those that raise, hang or never stop failing."""

import mmap
import select
import sys
from collections.abc import Iterator

import pytest

from protocol.messages import TIERS, CleanupTier, Ready, Trim, Trimmed
from supervisor.policy.sizes import MB
from tests.mechanism.real_pool import real_pool, recipe
from workers import pressure
from workers.memory import OwnMemory


@pytest.fixture(autouse=True)
def nobody_else() -> Iterator[None]:
    """Whatever a test subscribes ends with it; what modules of ours subscribed in this process is not there before."""
    for one in pressure.subscribed():
        one.unsubscribe()
    yield
    for one in pressure.subscribed():
        one.unsubscribe()


def ran(tier: CleanupTier) -> list[str]:
    return [freed.name for freed in pressure.relieve(tier, OwnMemory())]


def test_actions_run_by_tier_and_priority_and_the_library_gives_back_last() -> None:
    heard: list[tuple[str, str]] = []
    pressure.subscribe(lambda tier: heard.append(("models", tier)), name="models", tier="aggressive", priority=10)
    pressure.subscribe(lambda tier: heard.append(("cache", tier)), name="cache", tier="gentle", priority=20)
    assert ran("gentle") == ["cache", "gc", "malloc_trim"]
    assert ran("moderate") == ["cache", "native caches", "gc", "malloc_trim"]
    assert ran("aggressive") == ["models", "cache", "native caches", "gc", "malloc_trim"]
    assert ran("emergency") == ran("aggressive")
    assert heard[:3] == [("cache", "gentle"), ("cache", "moderate"), ("models", "aggressive")]


def test_unsubscribed_is_not_called_and_a_second_time_is_no_fault() -> None:
    subscription = pressure.subscribe(lambda tier: None, name="mine", tier="gentle")
    assert subscription.owner == __name__
    assert "mine" in ran("gentle")
    subscription.unsubscribe()
    subscription.unsubscribe()
    assert not subscription.active
    assert "mine" not in ran("gentle")


@pytest.mark.skipif(sys.platform != "linux", reason="resident memory is read from /proc")
def test_what_an_action_frees_is_measured_and_told_under_its_name() -> None:
    # From the kernel: malloc would take it from what earlier tests freed, and keep it.
    held = [mmap.mmap(-1, 64 * MB)]
    for at in range(0, 64 * MB, mmap.PAGESIZE):
        held[0][at] = 1
    pressure.subscribe(lambda tier: held.clear(), name="picture", tier="moderate", owner="sepia")
    freed = {one.name: one for one in pressure.relieve("moderate", OwnMemory())}
    picture = freed["picture"]
    assert picture.owner == "sepia"
    assert picture.before_bytes - picture.after_bytes > 50 * MB
    assert {one.error for one in freed.values()} == {None}


def test_one_that_raises_is_named_passed_over_and_unsubscribed_in_the_end() -> None:
    def fail(tier: CleanupTier) -> None:
        raise OSError("disk gone")

    subscription = pressure.subscribe(fail, name="spill", tier="gentle", priority=1)
    errors = []
    for _ in range(pressure.FAILURES_ALLOWED):
        found = pressure.relieve("gentle", OwnMemory())
        assert [one.name for one in found] == ["spill", "gc", "malloc_trim"]
        errors.append(found[0].error)
    assert errors[:2] == ["OSError: disk gone"] * 2
    assert errors[2] == "OSError: disk gone (unsubscribed after 3 failures in a row)"
    assert not subscription.active
    assert ran("gentle") == ["gc", "malloc_trim"]


def test_failures_must_be_in_a_row() -> None:
    fails = iter([True, True, False, True, True, False])

    def now_and_then(tier: CleanupTier) -> None:
        if next(fails):
            raise ValueError("not now")

    subscription = pressure.subscribe(now_and_then, name="moody", tier="gentle")
    for _ in range(6):
        pressure.relieve("gentle", OwnMemory())
    assert subscription.active


def test_one_that_hangs_is_interrupted_and_the_others_have_their_turn() -> None:
    def hang(tier: CleanupTier) -> None:
        select.select([], [], [])

    def spin(tier: CleanupTier) -> None:
        while True:
            try:
                select.select([], [], [], 0.001)
            except Exception:
                pytest.fail("the alarm is not an Exception: nobody can swallow it by mistake")

    pressure.subscribe(hang, name="hangs", tier="gentle", priority=1, limit_seconds=0.05)
    pressure.subscribe(spin, name="spins", tier="gentle", priority=2, limit_seconds=0.05)
    found = pressure.relieve("gentle", OwnMemory())
    assert [one.name for one in found] == ["hangs", "spins", "gc", "malloc_trim"]
    assert [one.error for one in found[:2]] == ["hung: given up after 0.05 s"] * 2


def test_subscriptions_are_checked_and_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="no tier 'panic'; choose one of gentle, moderate, aggressive, emergency"):
        pressure.subscribe(lambda tier: None, name="x", tier="panic")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="must be above 0"):
        pressure.subscribe(lambda tier: None, name="x", limit_seconds=0)
    monkeypatch.setattr(pressure, "MAX_SUBSCRIPTIONS", 1)
    pressure.subscribe(lambda tier: None, name="first")
    with pytest.raises(ValueError, match="second: 1 actions are subscribed already"):
        pressure.subscribe(lambda tier: None, name="second")


def test_a_real_worker_tells_what_each_action_of_the_tier_gave() -> None:
    noop = recipe("noop")
    with real_pool([noop]) as pool:
        worker = pool.start()
        pool.receive(Ready)
        for number, tier in enumerate(TIERS, 1):
            pool.tell(worker, Trim(tier=tier, cleanup=number))
            trimmed = pool.receive(Trimmed)
            assert (trimmed.tier, trimmed.cleanup) == (tier, number)
            expected = ["gc", "malloc_trim"] if tier == "gentle" else ["native caches", "gc", "malloc_trim"]
            assert [freed.name for freed in trimmed.freed] == expected
            assert {(freed.owner, freed.error) for freed in trimmed.freed} == {("worker", None)}
        pool.tell(worker, Trim(collect_cycles=3))
        trimmed = pool.receive(Trimmed)
        assert [freed.name for freed in trimmed.freed] == ["gc", "gc", "gc", "malloc_trim"]
