"""Stories of memory: limits of one worker, large images, levels of the whole, and looks that are missing."""

from protocol import messages as m
from supervisor.policy import commands as c
from supervisor.policy import events as e
from supervisor.policy.levels import Level
from supervisor.policy.sizes import MB
from tests.policy.story import Story, names


def warmed(workers: int = 1, count: int = 200) -> Story:
    """Workers in full flow: each has settled items and holds a lease of several."""
    story = Story(workers=workers).start()
    story.submit("b", names(count))
    for _ in range(4):
        for slot in range(workers):
            story.clock.step(0.01)
            story.report(slot)
    story.look()
    return story


def told(story: Story, kind: type[m.Trim] | type[m.Shrink] | type[m.Quit]) -> list[object]:
    """The messages of one kind that workers were told last."""
    return [each.message for each in story.of(c.TellWorker) if isinstance(each.message, kind)]


def test_soft_limit_trims_shrinks_and_takes_back_and_the_recycle_limit_replaces() -> None:
    story = warmed()
    assert story.pool.state.slots[0].batch_size.size == 16 and len(story.lease(0)) == 16
    limits = story.pool.state.limits(story.pool.state.slots[0])
    assert (limits.soft_bytes, limits.recycle_bytes, limits.hard_bytes) == (110 * MB, 130 * MB, 150 * MB)
    story.clock.step(0.1)
    story.look({0: 111})
    lease = story.worker(0).lease
    assert told(story, m.Trim) == [m.Trim()]
    assert told(story, m.Shrink) == [m.Shrink(lease=lease or 0, keep=7)]
    held = story.lease(0)
    story.report(0, held[:8], back=held[8:])
    (note,) = story.notes("handed_back")
    assert note.figures == {"handed_back": 8, "lease_size": 16, "settled": 8}
    assert story.lease(0) == held[8:], "handed back items are next, in their order"
    story.clock.step(0.1)
    story.look({0: 131})
    assert story.states() == ["DRAINING"] and told(story, m.Quit) == [m.Quit()]
    held = story.lease(0)
    story.report(0, held[:1], back=held[1:])
    assert story.states() == ["STOPPING"]
    story.exit(0, 0)
    assert story.notes("stopped") and story.states() == ["STARTING"]
    assert story.pool.state.totals["recycles"] == 1 and story.pool.state.totals["restarts"] == 0
    assert story.waiting("b")["front"] == held[1:]


def test_the_hard_limit_kills_and_the_second_time_quarantines_as_memory() -> None:
    story = warmed()
    (first, *rest) = story.lease(0)
    story.look({0: 155})
    assert story.of(c.KillWorker) and story.states() == ["KILLING"]
    story.exit(0, -9, item=first)
    assert story.notes("death")[0].figures["cause"] == "hard_limit", "not overwritten by signal 9"
    assert story.item("b", first).memory_charges == 1 and story.waiting("b")["front"] == rest
    story.ready(0)
    story.look()
    while first not in story.lease(0):
        story.report(0)
    assert story.pool.state.limits(story.pool.state.slots[0]).hard_bytes == 150 * MB, "one worker has all there is"
    story.look({0: 155})
    story.exit(0, -9, item=first)
    (verdict,) = story.of(c.SettleItems)[0].settlements
    assert verdict.quarantine is not None and verdict.quarantine.kind == "memory"
    assert set(story.on_disk("b").values()) == {"done", "quarantined"}


def deferred(story: Story, slot: int, needs: int) -> None:
    (number,) = story.lease(slot)
    story.report(slot, items=[m.ItemReport(id=number, outcome="deferred", seconds=0.0, needs_bytes=needs)])


def test_that_an_item_waits_is_told_once_for_what_it_waits_for() -> None:
    story = Story(workers=2).start()
    story.submit("b", names(2))
    told = []
    for needs in (72 * MB, 82 * MB, 92 * MB):
        deferred(story, 0, needs)
        told += [note.message.split(":")[0] for note in story.notes("deferred")]
        story.clock.step(0.1)
        story.look()

    assert told == ["/in/1.jpg waits for its turn alone"]


def test_a_deferred_item_waits_for_its_turn_alone() -> None:
    story = Story(workers=2).start()
    story.submit("b", names(4))
    deferred(story, 0, 120 * MB)
    assert story.notes("deferred") and story.lease(0) == [3], "others first"
    story.report(0)
    story.report(0)
    assert story.lease(0) == [], "it waits: the other worker has reserved its part"
    story.report(1)
    (lease,) = story.pool.state.leases.values()
    assert list(lease.items) == [1] and lease.reserved_bytes == 180 * MB and lease.large
    story.report(lease.slot)
    assert set(story.on_disk("b").values()) == {"done"}


def test_an_item_between_the_reservation_and_the_share_does_not_come_back_for_ever() -> None:
    story = Story(workers=2).start()
    story.submit("b", names(2))
    deferred(story, 0, 80 * MB)
    story.report(1)
    (lease,) = story.pool.state.leases.values()
    assert list(lease.items) == [1] and lease.reserved_bytes >= 80 * MB


def test_what_can_never_fit_fails_at_once_with_both_figures() -> None:
    story = Story(workers=1).start()
    story.submit("b", names(1))
    deferred(story, 0, 500 * MB)
    assert story.on_disk("b") == {1: "failed"}
    (verdict,) = story.of(c.SettleItems)[0].settlements
    assert b'"too_large"' in verdict.detail
    assert b"needs about 500 MB to process, and 90 MB is all" in verdict.detail


def test_without_a_fresh_look_nothing_is_admitted() -> None:
    story = Story(workers=1).start()
    story.submit("b", names(3))
    story.clock.step(3.0)
    story.report(0)
    assert story.grants() == {} and story.states() == ["IDLE"]
    story.look()
    assert story.grants() == {0: [2]}


def test_a_worker_that_cannot_be_looked_at_gets_nothing_while_the_others_serve() -> None:
    story = Story(workers=2).start()
    story.submit("b", names(30))
    for _ in range(4):
        story.clock.step(1.0)
        sample = e.WorkerSample(
            slot=1, incarnation=1, rss_bytes=60 * MB, shared_bytes=0, item=0, item_started=0.0, items_done=0
        )
        blind = e.WorkerSample(
            slot=0, incarnation=1, rss_bytes=None, shared_bytes=0, item=0, item_started=0.0, items_done=0
        )
        story.feed(
            e.Sampled(
                workers=[blind, sample],
                own_bytes=60 * MB,
                cgroup_used_bytes=None,
                budget_bytes=story.budget_bytes,
                available_bytes=10_000 * MB,
            )
        )
    story.report(0)
    story.report(1)
    assert story.states() == ["IDLE", "BUSY"]
    story.look()
    assert story.states() == ["BUSY", "BUSY"]


def test_a_lower_limit_while_running_is_followed_at_once() -> None:
    story = warmed(workers=2)
    assert story.pool.state.limits(story.pool.state.slots[0]).hard_bytes == 150 * MB
    story.budget_bytes -= 100 * MB
    story.clock.step(0.1)
    story.look({0: 100})
    after = story.pool.state.limits(story.pool.state.slots[0])
    assert (after.recycle_bytes, after.hard_bytes) == (97.125 * MB, 101.25 * MB)
    assert story.states() == ["DRAINING", "BUSY"]


def test_when_memory_runs_out_one_gives_way_at_a_time_and_submissions_are_refused() -> None:
    story = warmed(workers=2)
    story.look({0: 120, 1: 140}, available=20 * MB)
    assert story.pool.state.level is Level.EMERGENCY
    assert story.states() == ["BUSY", "KILLING"]
    story.ask(m.OpenBatch(id=1))
    answer = story.answer()
    assert isinstance(answer, m.Problem) and "memory has run out" in answer.message
    for _ in range(3):
        story.clock.step(0.02)
        story.look({0: 120, 1: 140}, available=20 * MB)
        assert not story.of(c.KillWorker), "none while the last one's memory is not back"
    story.exit(1, -9, item=story.lease(1)[0])
    story.clock.step(0.02)
    story.look({0: 120}, available=20 * MB)
    assert story.of(c.KillWorker) == [c.KillWorker(slot=0, incarnation=1)]


def test_memory_that_is_back_is_no_reason_to_kill_while_the_level_lingers() -> None:
    story = warmed(workers=2)
    story.look({0: 80, 1: 140}, available=20 * MB)
    assert story.states() == ["BUSY", "KILLING"]
    story.exit(1, -9, item=story.lease(1)[0])
    for _ in range(10):
        story.clock.step(0.1)
        story.look({0: 80})
        assert story.pool.state.level is Level.EMERGENCY, "held for 2 s"
        assert story.states()[0] == "BUSY", "its neighbour gave enough"


def test_critical_takes_batch_sizes_down_to_one() -> None:
    story = warmed(workers=2)
    story.look(available=80 * MB)
    assert story.pool.state.level is Level.CRITICAL
    assert [slot.batch_size.size for slot in story.pool.state.slots] == [1, 1]


def test_a_useless_trim_replaces_a_worker_but_not_one_that_is_still_young() -> None:
    story = warmed()
    useless = m.Trimmed(slot=0, incarnation=1, before_bytes=125 * MB, after_bytes=124 * MB, seconds=0.01)
    story.say(0, useless)
    assert story.states() == ["DRAINING"]
    young = Story(workers=1).start()
    young.submit("b", names(9))
    young.say(0, useless)
    assert young.states() == ["BUSY"] and young.notes("trimmed")


def test_a_large_image_has_its_idle_neighbour_replaced_which_is_then_offered_nothing() -> None:
    story = Story(workers=2).start()
    story.submit("b", names(2))
    deferred(story, 0, 170 * MB)
    story.ask(m.PauseWork())
    story.report(1)
    story.look({1: 75})
    story.ask(m.ResumeWork())
    assert story.states() == ["IDLE", "STOPPING"] and story.grants() == {}
    assert story.notes("recycle")[0].slot == 1
    story.exit(1, 0)
    story.ready(1)
    story.look()
    (lease,) = story.pool.state.leases.values()
    assert list(lease.items) == [1] and lease.reserved_bytes == 180 * MB
