"""Clean-ups told as timelines: what calls for which tier, when they rest, how they escalate, what is written down."""

from typing import Any

import pytest

from protocol import messages as m
from supervisor.policy import cleanup
from supervisor.policy import commands as c
from supervisor.policy import events as e
from supervisor.policy.cleanup_settings import CleanupSettings
from supervisor.policy.part import PartPlan
from supervisor.policy.sizes import MB
from tests.policy.story import BASELINE_BYTES, CLIENT, Story, names

REST = 240
"""MB used by everything at rest: 120 of our own, two workers of 60."""


def story(**settings: Any) -> Story:
    """Two warm workers under a budget of 1,000 MB."""
    told = Story(workers=2, **settings)
    told.feed(e.Tick())
    for slot in range(2):
        told.ready(slot)
    look(told, REST)
    return told


def look(told: Story, used: int, rss: int = 60, budget: int = 1_000) -> list[c.Command]:
    """A look: `used` MB of the control group's budget; each worker holds `rss` MB."""
    samples = [
        e.WorkerSample(
            slot=slot.index,
            incarnation=slot.worker.incarnation,
            rss_bytes=rss * MB,
            shared_bytes=0,
            item=0,
            item_started=0.0,
            items_done=0,
        )
        for slot in told.pool.state.slots
        if slot.worker is not None and slot.worker.state != "STARTING"
    ]
    return told.feed(
        e.Sampled(
            workers=samples,
            own_bytes=120 * MB,
            cgroup_used_bytes=used * MB,
            budget_bytes=budget * MB,
            available_bytes=10_000 * MB,
        )
    )


def begun(heard: list[c.Command]) -> list[tuple[str, list[str]]]:
    """The clean-ups that begin: tier and the supervisor's actions."""
    return [(each.tier, [name for name, _ in each.actions]) for each in heard if isinstance(each, c.CleanUp)]


def tiers(heard: list[c.Command]) -> list[str]:
    return [tier for tier, _ in begun(heard)]


def trims(heard: list[c.Command]) -> dict[int, m.Trim]:
    return {
        each.slot: each.message
        for each in heard
        if isinstance(each, c.TellWorker) and isinstance(each.message, m.Trim) and each.message.cleanup
    }


def answer(told: Story, number: int, freed: int = 0, error: str | None = None) -> None:
    """Everybody does his part of clean-up `number`; worker 0's own means free `freed` MB."""
    done = m.CleanupAction(name="gc", owner="supervisor", freed_bytes=3, seconds=0.01)
    told.feed(e.CleanedUp(number=number, actions=[done]))
    for slot in told.pool.state.slots:
        if slot.worker is None or not slot.worker.trimming:
            continue
        before = BASELINE_BYTES + freed * MB
        parts = [m.Freed("gc", "worker", before, BASELINE_BYTES, 0.02, error)] if slot.index == 0 else []
        told.say(
            slot.index,
            m.Trimmed(
                slot=slot.index,
                incarnation=slot.worker.incarnation,
                before_bytes=before,
                after_bytes=BASELINE_BYTES,
                seconds=0.02,
                freed=parts,
                cleanup=number,
            ),
        )


def later(told: Story, seconds: float, used: int) -> list[str]:
    """Lets time pass with a look every 0.1 s, everybody answering at once; the tiers that began."""
    found: list[str] = []
    for _ in range(round(seconds / 0.1)):
        told.clock.step(0.1)
        heard = look(told, used)
        for each in heard:
            if isinstance(each, c.CleanUp):
                found.append(each.tier)
                answer(told, each.number)
    return found


def failed(told: Story) -> str | None:
    return told.pool.state.cleanups.failed


def gateway(told: Story) -> str:
    return told.pool.state.parts["gateway"].state


OWN = ["expired cache entries", "cache memory level", "journal memory", "gc", "malloc_trim"]


@pytest.mark.parametrize(
    ("used", "tier"),
    [(740, None), (750, "gentle"), (800, "moderate"), (900, "aggressive"), (950, "emergency")],
)
def test_each_level_begins_its_tier(used: int, tier: str | None) -> None:
    heard = look(story(protection=False), used)
    assert begun(heard) == ([(tier, OWN)] if tier else [])
    assert {slot: trim.tier for slot, trim in trims(heard).items()} == ({0: tier, 1: tier} if tier else {})


def test_a_clean_up_is_verified_by_the_look_after_it_and_written_down() -> None:
    told = story()
    assert tiers(look(told, 760)) == ["gentle"]
    told.clock.step(0.1)
    answer(told, 1, freed=20)
    assert told.pool.state.cleanups.running is not None, "nobody has looked since"
    told.clock.step(0.1)
    look(told, 250)
    (done,) = cleanup.cleanups(told.pool.state)
    assert done == m.Cleanup(
        number=1,
        at=told.pool.state.epoch(1000.0),
        tier="gentle",
        reason="memory level elevated",
        before_bytes=760 * MB,
        after_bytes=250 * MB,
        baseline_bytes=done.baseline_bytes,
        recovered=True,
        actions=[
            m.CleanupAction(name="gc", owner="supervisor", freed_bytes=3, seconds=0.01),
            m.CleanupAction(name="gc", owner="worker 0", freed_bytes=20 * MB, seconds=0.02),
        ],
    )
    (note,) = told.notes("cleanup")
    assert note.message.startswith("clean-up 1 (gentle; memory level elevated): 510 MB less than before, 250 MB used")


def test_a_tier_that_does_not_help_is_followed_by_the_next_as_far_as_the_level_lets_it() -> None:
    told = story(cleanup=CleanupSettings(moderate_cooldown_seconds=15, aggressive_cooldown_seconds=10))
    assert later(told, 60, 810)[:4] == ["moderate", "aggressive", "aggressive", "aggressive"]
    assert failed(told) == "aggressive"
    assert later(told, 40, 300) == [], "it is calm"
    assert failed(told) is None
    assert later(told, 0.1, 810) == ["moderate"], "from the beginning"


def test_a_tier_rests_for_its_cooldown() -> None:
    told = story(cleanup=CleanupSettings(gentle_cooldown_seconds=30))
    assert later(told, 29.9, 760) == ["gentle"]
    assert later(told, 0.4, 760) == ["gentle"]


def test_elevated_never_does_more_than_is_gentle() -> None:
    assert set(later(story(), 200, 760)) == {"gentle"}


def test_an_idle_pool_is_cleaned_now_and_then_and_a_busy_one_is_not() -> None:
    told = story(cleanup=CleanupSettings(periodic_seconds=20))
    assert later(told, 41, REST) == ["gentle", "gentle"]
    told.submit("b", names(3))
    assert told.pool.state.leases
    assert later(told, 41, REST) == []


def test_the_end_of_the_work_is_followed_by_a_full_clean_up_within_five_seconds() -> None:
    told = story()
    told.submit("b", names(2))
    heard: list[str] = []
    for slot in range(2):
        if told.lease(slot):
            told.report(slot)
    heard += later(told, 5, REST)
    assert heard == ["moderate"]
    (done,) = cleanup.cleanups(told.pool.state)
    assert (done.reason, done.recovered) == ("the work is over", True)
    assert [slot.batch_size.size for slot in told.pool.state.slots if slot.batch_size.size < 1] == []


def test_a_worker_that_does_not_answer_is_named_and_the_clean_up_ends_without_it() -> None:
    told = story()
    look(told, 760)
    told.feed(e.CleanedUp(number=1, actions=[]))
    for _ in range(51):
        told.clock.step(0.1)
        look(told, 700)
    (done,) = cleanup.cleanups(told.pool.state)
    assert [(action.owner, action.name) for action in done.actions] == [
        ("worker 0", "trim workers"),
        ("worker 1", "trim workers"),
    ]
    assert all((action.error or "").startswith("has not answered within 5.") for action in done.actions)


def test_one_that_raised_in_a_worker_is_named_in_the_note() -> None:
    told = story()
    look(told, 760)
    answer(told, 1, error="OSError: disk gone")
    told.clock.step(0.1)
    look(told, 760)
    (note,) = told.notes("cleanup_short")
    assert note.message.endswith("memory did not come back; failed: worker 0: gc: OSError: disk gone")


def test_a_worker_that_dies_meanwhile_is_not_waited_for() -> None:
    told = story()
    look(told, 760)
    told.feed(e.CleanedUp(number=1, actions=[]))
    for slot in range(2):
        told.exit(slot, -9)
    told.clock.step(0.1)
    look(told, 700)
    assert told.pool.state.cleanups.running is None
    assert [(each.owner, each.error) for each in cleanup.cleanups(told.pool.state)[0].actions] == [
        (f"worker {slot}", "ended before it answered: killed_outside") for slot in range(2)
    ]


def test_history_is_bounded() -> None:
    told = story(cleanup=CleanupSettings(history_count=3, gentle_cooldown_seconds=1))
    later(told, 10, 760)
    numbers = [done.number for done in cleanup.cleanups(told.pool.state)]
    assert len(numbers) == 3
    assert numbers[0] > 1


def test_asked_for_it_ignores_the_cooldown_and_answers_when_verified() -> None:
    told = story()
    for number in (1, 2):
        heard = told.ask(m.EmergencyCleanup(id=number, tier="moderate"))
        assert tiers(heard) == ["moderate"]
        assert [each for each in heard if isinstance(each, c.Reply)] == []
        answer(told, number)
        told.clock.step(0.1)
        heard = look(told, REST)
        (reply,) = [each for each in heard if isinstance(each, c.Reply)]
        assert reply.peer == CLIENT
        assert isinstance(reply.answer, m.CleanupReport)
        assert (reply.answer.id, reply.answer.cleanup.number) == (number, number)


def test_who_asks_meanwhile_for_no_more_gets_the_report_of_the_one_in_progress() -> None:
    told = story()
    told.ask(m.EmergencyCleanup(id=1, tier="moderate"))
    assert tiers(told.ask(m.EmergencyCleanup(id=2, tier="gentle"))) == []
    answer(told, 1)
    told.clock.step(0.1)
    replies = [each.answer for each in look(told, REST) if isinstance(each, c.Reply)]
    assert [(each.id, each.cleanup.number) for each in replies if isinstance(each, m.CleanupReport)] == [(1, 1), (2, 1)]


def test_one_cut_short_by_what_asks_for_more_is_no_failure_and_everybody_does_the_new_one() -> None:
    told = story()
    look(told, 760)
    heard = told.ask(m.EmergencyCleanup(id=1, tier="aggressive"))
    assert tiers(heard) == ["aggressive"]
    assert sorted(trims(heard)) == [0, 1]
    assert failed(told) is None
    (first,) = cleanup.cleanups(told.pool.state)
    assert (first.tier, [action.error for action in first.actions]) == ("gentle", [])


def test_a_worker_that_hangs_in_the_second_of_two_is_ended_by_the_time_limit_too() -> None:
    told = story()
    look(told, 760)
    told.ask(m.EmergencyCleanup(id=1, tier="aggressive"))
    answer(told, 1)
    assert all(slot.worker is not None and slot.worker.trimming for slot in told.pool.state.slots)
    answer(told, 2)
    assert not any(slot.worker is not None and slot.worker.trimming for slot in told.pool.state.slots)


def test_aggressive_replaces_fat_workers_one_at_a_time() -> None:
    told = story()
    for slot in told.pool.state.slots:
        assert slot.worker is not None
        slot.worker.items_done = 10
    look(told, REST, rss=90)
    told.ask(m.EmergencyCleanup(tier="aggressive"))
    assert told.states() == ["STOPPING", "IDLE"]
    look(told, REST, rss=90)
    assert told.states() == ["STOPPING", "IDLE"]
    told.exit(0, 0)
    look(told, REST, rss=90)
    assert told.states() == ["STARTING", "STOPPING"]


def test_emergency_by_hand_kills_the_fattest_and_holds_the_parts_back_until_it_is_over() -> None:
    told = story(parts=(PartPlan(name="gateway"),))
    told.feed(e.PartStarted(name="gateway", incarnation=1, pid=9))
    look(told, REST, rss=90)
    told.ask(m.EmergencyCleanup(tier="emergency"))
    assert told.states() == ["KILLING", "IDLE"]
    assert gateway(told) == "stopping"
    told.feed(e.PartExited(name="gateway", incarnation=1, exit_code=0))
    told.exit(0, -9)
    told.ready(0)
    assert gateway(told) == "held"
    answer(told, 1)
    told.clock.step(0.1)
    look(told, REST)
    told.clock.step(0.1)
    look(told, REST)
    assert gateway(told) == "starting"


def test_gc_runs_so_many_cycles_everywhere_and_nothing_else() -> None:
    told = story()
    heard = told.ask(m.EmergencyCollect(cycles=4))
    (own,) = [each for each in heard if isinstance(each, c.CleanUp)]
    assert ([name for name, _ in own.actions], own.collect_cycles) == (["gc", "malloc_trim"], 4)
    assert {trim.collect_cycles for trim in trims(heard).values()} == {4}
    refused = told.ask(m.EmergencyCollect(cycles=101))
    (reply,) = [each for each in refused if isinstance(each, c.Reply)]
    assert isinstance(reply.answer, m.Problem)
    assert reply.answer.message == "101 cycles; 1 to 100 are possible"


def test_samples_that_are_missing_or_stale_begin_nothing() -> None:
    told = Story(workers=2)
    told.feed(e.Tick())
    assert tiers(told.feed(e.Tick())) == []
    told.clock.step(400)
    assert tiers(told.feed(e.Tick())) == [], "never seen: nothing is known"


def test_a_limit_lowered_under_load_and_a_neighbour_that_takes_memory_are_answered_at_once() -> None:
    told = story(protection=False)
    assert tiers(look(told, 500)) == []
    assert tiers(look(told, 500, budget=600)) == ["moderate"], "the limit fell to 600 MB: 83 %"
    answer(told, 1)
    told.clock.step(0.1)
    look(told, 500)
    told = story(protection=False)
    assert tiers(look(told, 970)) == ["emergency"], "strangers in the same control group"


def test_an_idle_worker_that_hangs_in_a_clean_up_is_ended_by_the_time_limit_of_an_item() -> None:
    told = story(protection=False, item_timeout_seconds=60.0)
    look(told, 760)
    for _ in range(59):
        told.clock.step(1.0)
        look(told, 500)
    assert told.states() == ["IDLE", "IDLE"]
    told.clock.step(1.0)
    heard = look(told, 500)
    assert told.states() == ["KILLING", "KILLING"]
    notes = [each.message for each in heard if isinstance(each, c.Note) and each.kind == "timeout"]
    assert notes[0] == "worker 0: its clean-up runs for 60.0 s, the limit is 60 s"
