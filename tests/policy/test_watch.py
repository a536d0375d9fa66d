"""Timelines of the watch: what happens to a worker whose memory does this."""

from dataclasses import dataclass, field

import pytest

from supervisor.policy.batch_size import BatchSize
from supervisor.policy.levels import Level
from supervisor.policy.limits import Limits, Widenings, worker_limits
from supervisor.policy.sizes import MB
from supervisor.policy.watch import (
    Action,
    Candidate,
    WorkerFacts,
    choose_victim,
    judge,
    judge_item_time,
    strangers_bytes,
    total_used,
)
from supervisor.policy.watch_settings import WatchSettings

SETTINGS = WatchSettings()


def facts(rss: int | None, at: float = 0.0, settled: int = 10, **own: int) -> WorkerFacts:
    return WorkerFacts(slot=0, rss_bytes=rss, sampled_at=at, items_settled=settled, **own)


@dataclass
class Watched:
    """One of four equal workers (60 MB warm, 20 of it shared; 60 MB ours) under a budget that can be changed."""

    budget: int = 650 * MB
    settled: int = 10
    now: float = 0.0
    batch_size: BatchSize = field(default_factory=lambda: BatchSize(size=64))
    widenings: Widenings = field(default_factory=lambda: Widenings(SETTINGS))

    def limits(self) -> Limits:
        widening = self.widenings.of(0, "thumbs")
        return worker_limits(60 * MB, self.budget, 60 * MB, [40 * MB] * 4, 4, SETTINGS, widening=widening)

    def look(self, rss_megabytes: int | None, passed: float = 0.1) -> Action:
        self.now += passed
        rss = None if rss_megabytes is None else rss_megabytes * MB
        verdict = judge(facts(rss, self.now, self.settled), self.limits(), SETTINGS, self.now)
        if verdict.action is Action.TRIM_AND_SHRINK:
            self.batch_size.pressure(self.now, verdict.reason)
        if verdict.action is Action.WIDEN:
            self.widenings.widen(0, "thumbs")
        return verdict.action


def test_warning_then_shrink_then_recycle() -> None:
    worker = Watched()
    assert [worker.look(rss, 0.6) for rss in (60, 100, 109, 110, 120, 129, 130, 159)] == [
        Action.CALM, Action.CALM, Action.CALM, Action.TRIM_AND_SHRINK, Action.TRIM_AND_SHRINK, Action.TRIM_AND_SHRINK,
        Action.RECYCLE, Action.RECYCLE,
    ]  # fmt: skip
    assert worker.batch_size.sizes == [64, 32, 16, 8]


def test_a_leak_is_recycled_before_it_can_be_killed() -> None:
    worker = Watched()
    seen = []
    for megabytes in range(60, 160, 2):
        seen.append(worker.look(megabytes))
        if seen[-1] is Action.RECYCLE:
            break
    assert seen[-1] is Action.RECYCLE
    assert Action.KILL not in seen


def test_a_spike_is_killed_without_further_ado() -> None:
    worker = Watched()
    assert [worker.look(rss, 0.01) for rss in (60, 60, 400)] == [Action.CALM, Action.CALM, Action.KILL]


def test_a_spike_is_killed_even_in_a_worker_that_has_settled_nothing() -> None:
    assert Watched(settled=0).look(160) is Action.KILL


def test_recovery_after_a_trim() -> None:
    worker = Watched()
    assert [worker.look(rss) for rss in (115, 70, 70)] == [Action.TRIM_AND_SHRINK, Action.CALM, Action.CALM]
    assert worker.batch_size.size == 32


def test_a_limit_lowered_while_running_changes_the_verdict() -> None:
    worker = Watched()
    assert worker.look(105) is Action.CALM
    worker.budget = 450 * MB
    assert worker.limits().hard_bytes == 110 * MB
    assert worker.look(105) is Action.RECYCLE
    worker.budget = 350 * MB
    assert worker.look(105) is Action.KILL


def test_a_missing_sample_has_a_name() -> None:
    worker = Watched()
    assert worker.look(None) is Action.STALE
    old = judge(facts(400 * MB, at=10.0), worker.limits(), SETTINGS, 12.6)
    assert old.action is Action.STALE
    assert old.reason == "worker 0: its last sample is 2.6 s old, more than 2.5 s"
    assert judge(facts(400 * MB, at=10.0), worker.limits(), SETTINGS, 12.4).action is Action.KILL


def test_no_recycle_loop_but_a_wider_allowance() -> None:
    worker = Watched(settled=1)
    assert worker.look(131) is Action.WIDEN
    assert worker.look(131) is Action.CALM, "soft and recycle moved up together"
    assert worker.look(140) is Action.TRIM_AND_SHRINK
    assert worker.look(156) is Action.TRIM_AND_SHRINK, "it cannot be widened any further"
    worker.settled = 3
    assert worker.look(154) is Action.TRIM_AND_SHRINK
    assert worker.look(156) is Action.RECYCLE
    assert worker.look(160) is Action.KILL


def test_the_reason_tells_the_figures() -> None:
    verdict = judge(facts(200 * MB), Watched().limits(), SETTINGS, 0.0)
    assert verdict.limit_bytes == 160 * MB
    assert verdict.reason == (
        "worker 0: 200 MB reached its hard limit of 160 MB (baseline 60 MB, soft 110 MB, recycle 130 MB, hard 160 MB)"
    )


def test_limits_on_the_workers_own_report() -> None:
    settings = WatchSettings(max_worker_heap_bytes=50 * MB, max_worker_native_bytes=60 * MB)
    limits = Watched().limits()
    assert judge(facts(70 * MB, heap_bytes=49 * MB), limits, settings, 0.0).action is Action.CALM
    heap = judge(facts(70 * MB, heap_bytes=50 * MB), limits, settings, 0.0)
    assert (heap.action, heap.limit_bytes) == (Action.RECYCLE, 50 * MB)
    young = judge(facts(70 * MB, settled=0, native_bytes=61 * MB), limits, settings, 0.0)
    assert (young.action, young.limit_bytes) == (Action.TRIM_AND_SHRINK, 60 * MB)


def test_an_item_past_its_time_limit() -> None:
    assert judge_item_time(1, None, 1e9, 60.0).action is Action.CALM
    assert judge_item_time(1, 100.0, 159.9, 60.0).action is Action.CALM
    verdict = judge_item_time(1, 100.0, 160.0, 60.0)
    assert verdict.action is Action.KILL
    assert verdict.reason == "worker 1: its item runs for 60.0 s, the limit is 60 s"


def test_shared_pages_count_once_and_the_control_group_is_the_truth() -> None:
    workers = [(60 * MB, 20 * MB)] * 4
    assert total_used(60 * MB, workers, None) == 220 * MB
    assert total_used(60 * MB, workers, 300 * MB) == 300 * MB
    assert strangers_bytes(60 * MB, workers, 300 * MB) == 80 * MB
    assert strangers_bytes(60 * MB, workers, 200 * MB) == 0
    assert strangers_bytes(60 * MB, workers, None) == 0


def candidate(slot: int, rss_megabytes: int | None, settled: int = 10, **state: bool) -> Candidate:
    rss = None if rss_megabytes is None else rss_megabytes * MB
    return Candidate(slot=slot, rss_bytes=rss, sampled_at=0.0, baseline_bytes=60 * MB, items_settled=settled, **state)


@pytest.mark.parametrize(
    ("level", "action", "slot"),
    [
        (Level.NORMAL, Action.CALM, None),
        (Level.ELEVATED, Action.CALM, None),
        (Level.WARNING, Action.TRIM_AND_SHRINK, 1),
        (Level.CRITICAL, Action.RECYCLE, 1),
        (Level.EMERGENCY, Action.KILL, 1),
        (Level.PROTECTION, Action.KILL, 1),
    ],
)
def test_remedies_in_order_for_the_one_that_holds_most(level: Level, action: Action, slot: int | None) -> None:
    choice = choose_victim(level, [candidate(0, 90), candidate(1, 140), candidate(2, 61)], SETTINGS, 0.0)
    assert (choice.action, choice.slot) == (action, slot)


def test_one_victim_at_a_time() -> None:
    first = [candidate(0, 150), candidate(1, 140)]
    assert choose_victim(Level.EMERGENCY, first, SETTINGS, 0.0).slot == 0
    waiting = choose_victim(Level.EMERGENCY, [candidate(0, 150, dying=True), candidate(1, 140)], SETTINGS, 0.1)
    assert waiting.slot is None
    assert waiting.reason == "waiting until the memory of worker 0 is back"
    assert choose_victim(Level.EMERGENCY, [candidate(1, 140)], SETTINGS, 0.2).slot == 1


def test_one_recycle_at_a_time_but_an_emergency_does_not_wait_for_a_drain() -> None:
    workers = [candidate(0, 150, leaving=True), candidate(1, 140)]
    assert choose_victim(Level.CRITICAL, workers, SETTINGS, 0.0).slot is None
    assert choose_victim(Level.WARNING, workers, SETTINGS, 0.0).slot == 1
    emergency = choose_victim(Level.EMERGENCY, workers, SETTINGS, 0.0)
    assert (emergency.slot, emergency.action) == (0, Action.KILL)


def test_nobody_dies_who_has_nothing_to_give() -> None:
    choice = choose_victim(Level.PROTECTION, [candidate(0, 61), candidate(1, 65)], SETTINGS, 0.0)
    assert (choice.slot, choice.action) == (None, Action.CALM)
    assert "no worker holds 8.0 MB or more above its baseline" in choice.reason


def test_unknown_memory_is_no_reason_to_kill() -> None:
    assert choose_victim(Level.EMERGENCY, [candidate(0, None)], SETTINGS, 0.0).action is Action.STALE
    assert choose_victim(Level.EMERGENCY, [candidate(0, None), candidate(1, 90)], SETTINGS, 0.0).slot == 1
    assert choose_victim(Level.EMERGENCY, [], SETTINGS, 0.0).action is Action.CALM


def test_a_worker_too_young_to_be_recycled_trims() -> None:
    choice = choose_victim(Level.CRITICAL, [candidate(0, 150, settled=1)], SETTINGS, 0.0)
    assert (choice.slot, choice.action) == (0, Action.TRIM_AND_SHRINK)
