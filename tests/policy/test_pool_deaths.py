"""Stories of workers that die, lie, hang or cannot start: who is charged, and who is not."""

import signal
from typing import Any

import msgspec
import pytest

from protocol import messages as m
from supervisor.policy import commands as c
from supervisor.policy import events as e
from supervisor.policy.sizes import MB
from tests.policy.story import Story, names


def busy(**settings: Any) -> Story:
    """One worker with a lease of four, the items 4 to 7 of ten; three are done."""
    story = Story(workers=1, **settings).start()
    story.submit("b", names(10))
    story.report(0)
    story.report(0)
    assert story.lease(0) == [4, 5, 6, 7]
    return story


def replace(story: Story, slot: int = 0) -> None:
    """The successor of a dead worker becomes warm and is looked at."""
    story.ready(slot)
    story.look()


def test_a_crash_charges_the_recorded_item_alone_and_the_rest_goes_to_the_front() -> None:
    story = busy()
    story.report(0, [4], finished=False)
    story.exit(0, -signal.SIGSEGV, item=5, step=0)
    assert story.waiting("b") == {"front": [6, 7], "ready": [8, 9, 10], "special": [5]}
    assert story.item("b", 5).charges == 1 and story.journal.rows[5].item.charges == 1
    assert all(story.journal.rows[number].item.tries == 1 for number in (4, 6, 7, 8))
    assert story.of(c.BuryWorker) == [c.BuryWorker(slot=0, incarnation=1, partial=b"")]
    assert story.of(c.StartWorker) == [c.StartWorker(slot=0, incarnation=2)], "replaced at once"
    (charged,) = story.notes("charged")
    assert charged.message == (
        "/in/5.jpg killed its worker by signal 11 (SIGSEGV) in step 1; it goes again, in a lease of one"
    )
    assert (death := story.pool.state.slots[0].last_death) is not None and death.cause == "signal 11"
    replace(story)
    assert story.lease(0) == [5], "the suspect is retried alone"


def test_the_second_death_quarantines_with_the_evidence() -> None:
    story = busy()
    story.exit(0, -signal.SIGSEGV, item=4)
    replace(story)
    story.clock.step(0.5)
    story.look({0: 75})
    story.exit(0, -signal.SIGBUS, item=4, step=0)
    assert story.on_disk("b")[4] == "quarantined"
    (settled,) = story.of(c.SettleItems)
    (verdict,) = settled.settlements
    assert (verdict.state, verdict.tries, verdict.peak_bytes) == ("quarantined", 2, 75 * MB)
    facts = verdict.quarantine
    assert facts is not None
    assert (facts.kind, facts.size_bytes, facts.mtime_ns, facts.version) == ("crash", 5, 6, "noop 1")
    evidence = dict(facts.evidence)
    assert evidence.pop("rss_curve") == [[0.0, 60 * MB], [0.5, 75 * MB]]
    assert evidence == {
        "cause": "signal 7", "signal": 7, "exit_code": -7, "step": 0, "slot": 0, "pid": 100,
        "baseline_bytes": 60 * MB, "peak_bytes": 75 * MB, "reserved_bytes": 70 * MB,
    }  # fmt: skip
    replace(story)
    assert story.lease(0) == [5, 6, 7], "the others go on"


def test_a_suspect_that_works_at_last_is_simply_done() -> None:
    story = busy()
    story.exit(0, 3, item=4)
    replace(story)
    story.report(0)
    assert story.on_disk("b")[4] == "done"


def test_an_item_past_its_time_is_killed_and_quarantined_at_once() -> None:
    story = busy(item_timeout_seconds=60.0)
    story.pass_time(60.5)
    assert story.states() == ["KILLING"] and story.notes("timeout")
    story.exit(0, -9, item=4)
    (verdict,) = story.of(c.SettleItems)[0].settlements
    assert verdict.quarantine is not None and verdict.quarantine.kind == "timeout"


def test_a_machine_that_stood_still_is_no_fault_of_the_item() -> None:
    story = busy(item_timeout_seconds=60.0)
    story.pass_time(30.0)
    story.clock.step(100.0)
    story.pass_time(1.0)
    (excused,) = story.notes("excused")
    assert story.states() == ["BUSY"] and "stood still" in excused.message
    story.pass_time(58.0)
    assert story.states() == ["BUSY"]
    story.pass_time(2.0)
    assert story.states() == ["KILLING"]


def test_an_item_past_its_time_is_tried_again_alone_where_it_may_be() -> None:
    story = busy(item_timeout_seconds=60.0, timeout_tries=2)
    story.pass_time(59.0)
    assert story.states() == ["BUSY"]
    story.pass_time(1.5)
    assert story.states() == ["KILLING"] and story.notes("timeout")
    story.exit(0, -9, item=4)
    (charged,) = story.notes("charged")
    assert "made no progress within its time limit" in charged.message
    replace(story)
    story.pass_time(61.0)
    story.exit(0, -9, item=4)
    (verdict,) = story.of(c.SettleItems)[0].settlements
    assert verdict.quarantine is not None and verdict.quarantine.kind == "timeout"


def test_a_kill_from_outside_is_charged_to_nobody_five_times() -> None:
    story = busy()
    for times in range(1, 6):
        story.exit(0, -9, item=4)
        assert story.waiting("b")["front"][0] == 4 and story.journal.rows[4].item.outside_kills == times
        assert story.notes("death")[0].figures["cause"] == "killed_outside"
        assert story.states() == ["STARTING"], "replaced at once, however often: it is not the worker that fails"
        replace(story)
        assert story.lease(0)[0] == 4
    story.exit(0, -9, item=4)
    assert story.item("b", 4).charges == 1, "the sixth counts as a crash"


def test_an_item_whose_workers_babble_is_charged_from_the_third_time_on() -> None:
    story = busy()
    for times in range(1, 5):
        worker = story.worker(0)
        story.feed(e.WorkerBabbled(slot=0, incarnation=worker.incarnation, fault="not JSON"))
        story.exit(0, -9, item=4)
        if times == 4:
            break
        assert story.journal.rows[4].item.charges == max(0, times - 2)
        for _ in range(60):
            if story.states() != ["STARTING"]:
                story.pass_time(1.0)
        replace(story)
        assert story.lease(0)[0] == 4
    assert story.on_disk("b")[4] == "quarantined", "a crash is tried once more, and not again"


def test_the_kernels_oom_killer_is_memory_and_the_item_is_retried_with_all_there_is() -> None:
    story = Story(workers=2).start()
    story.submit("b", names(6))
    story.exit(0, -9, item=1, oom=1)
    assert story.item("b", 1).memory_charges == 1 and story.item("b", 1).needs_bytes == 140 * MB
    replace(story)
    order = []
    while 1 not in story.lease(0) + story.lease(1):
        for slot in (0, 1):
            if story.lease(slot) and 1 not in story.lease(slot):
                order += story.lease(slot)
                story.report(slot)
    assert sorted(order) == [2, 3, 4, 5, 6], "the others go first"
    (lease,) = story.pool.state.leases.values()
    assert list(lease.items) == [1] and lease.reserved_bytes == story.pool.state.room_bytes()
    story.exit(lease.slot, -9, item=1, oom=1)
    (verdict,) = story.of(c.SettleItems)[0].settlements
    assert verdict.quarantine is not None and verdict.quarantine.kind == "memory"
    assert story.pool.state.queue.batches == {}


def test_a_worker_asked_to_end_that_dies_of_its_item_charges_the_item() -> None:
    story = busy()
    story.feed(e.StopAsked(now=False, reason="SIGTERM"))
    story.exit(0, -signal.SIGSEGV, item=4)
    assert story.journal.rows[4].item.charges == 1


@pytest.mark.parametrize("code", [None, -9])
def test_nobody_is_charged_for_the_death_of_the_template(code: int | None) -> None:
    story = busy()
    story.feed(e.TemplateDied(reason="killed"))
    assert story.states() == ["DRAINING"]
    story.exit(0, code, item=4)
    assert story.waiting("b") == {"front": [4, 5, 6, 7], "ready": [8, 9, 10]}
    assert story.journal.rows[4].item.charges == 0


def test_deaths_before_a_first_item_back_off_on_their_slot_while_the_others_serve() -> None:
    story = Story(workers=2).start()
    story.submit("b", names(50))
    waits = []
    for _ in range(5):
        story.exit(0, 1)
        slot = story.pool.state.slots[0]
        waits.append(slot.start_at - story.clock.now if slot.start_at is not None else 0.0)
        while story.states()[0] == "-":
            story.pass_time(0.5)
            story.report(1)
            assert story.states()[1] == "BUSY", "the other serves"
    assert waits[:2] == [0.0, 0.0]
    assert all(low <= wait <= 2 * low for wait, low in zip(waits[2:], (0.5, 1.0, 2.0), strict=True))


def test_a_slot_that_cannot_start_says_why_and_tries_again() -> None:
    story = Story(workers=1)
    story.feed(e.Tick())
    for _ in range(3):
        story.feed(e.StartFailed(slot=0, incarnation=story.worker(0).incarnation, reason="out of pids"))
    (note,) = story.notes("start_failed")
    assert "out of pids" in note.message and note.figures["delay_seconds"] >= 0.5
    assert story.pool.state.slots[0].note == "cannot start: out of pids"
    story.pass_time(1.1)
    assert story.states() == ["STARTING"]
    story.ready(0)
    assert story.pool.state.slots[0].note is None


def test_a_worker_that_is_never_ready_is_killed_and_replaced() -> None:
    story = Story(workers=1, start_timeout_seconds=30.0)
    story.feed(e.Tick())
    story.pass_time(29.0)
    assert story.states() == ["STARTING"]
    story.pass_time(1.0)
    assert story.states() == ["KILLING"]
    story.exit(0, -9)
    assert story.notes("death")[0].figures["cause"] == "start_timeout" and story.states() == ["STARTING"]


def test_a_worker_that_does_not_heed_term_is_killed_and_one_that_does_not_die_is_told_of() -> None:
    story = Story(workers=1, terminate_seconds=5.0, kill_seconds=5.0).start()
    story.feed(e.StopAsked(now=False, reason="SIGTERM"))
    assert story.states() == ["STOPPING"]
    story.pass_time(5.0)
    assert story.states() == ["KILLING"]
    story.pass_time(5.0)
    assert [note.message for note in story.notes("stuck")] == [
        "worker 0 does not die after SIGKILL: it hangs in the kernel (a dead disk or network share?)"
    ]
    story.exit(0, -9)
    assert story.of(c.StopLoop)


LIES = {
    "an unknown item": {"done": [99], "finished": False},
    "an item twice": {"done": [4, 4], "finished": False},
    "an item handed back twice": {"done": [4], "back": [5, 5, 6, 7]},
    "done and handed back": {"done": [4, 5], "back": [5, 6, 7]},
    "finished with items missing": {"done": [4]},
}


@pytest.mark.parametrize("lie", LIES.values(), ids=LIES)
def test_a_report_that_cannot_be_true_ends_the_worker_and_counts_for_nothing(lie: dict[str, object]) -> None:
    story = busy()
    story.report(0, **lie)  # type: ignore[arg-type]  # each is a set of the arguments of report
    assert story.states() == ["KILLING"] and not story.of(c.SettleItems)
    story.exit(0, -9, item=4)
    assert story.waiting("b") == {"front": [4, 5, 6, 7], "ready": [8, 9, 10]}
    assert story.pool.state.queue.batches["b"].live_counts() == m.Counts(pending=7, done=3)
    assert story.journal.rows[4].item.charges == 0


def test_a_report_of_an_earlier_lease_is_ignored() -> None:
    story = busy()
    story.report(0, [1], lease=1)
    assert story.heard == [] and story.states() == ["BUSY"]


def test_an_exit_that_overtakes_the_last_report_loses_it_and_the_item_is_done_again() -> None:
    story = busy()
    late = m.Report(
        slot=0,
        incarnation=1,
        lease=story.worker(0).lease or 0,
        items=[m.ItemReport(id=4, outcome="done", seconds=0.1)],
        handed_back=[5, 6, 7],
        finished=True,
        memory=m.Memory(1, 1, 1),
    )
    story.exit(0, 0)
    assert story.waiting("b")["front"] == [4, 5, 6, 7]
    assert story.feed(e.WorkerSaid(slot=0, incarnation=1, message=late)) == []


@pytest.mark.parametrize("memory", [m.Memory(-1, 0, 0), m.Memory(60 * MB, 0, 1 << 60)])
def test_figures_that_are_no_sizes_end_the_worker(memory: m.Memory) -> None:
    story = busy()
    story.say(0, m.Heartbeat(slot=0, incarnation=1, memory=memory, items_done=1, current=None))
    assert story.states() == ["KILLING"] and story.notes("protocol")


def test_a_second_ready_and_bytes_that_are_no_message_end_the_worker() -> None:
    story = busy()
    story.say(0, m.Ready(slot=0, incarnation=1, pid=1, memory=m.Memory(1, 1, 1)))
    assert story.states() == ["KILLING"]
    other = busy()
    other.feed(e.WorkerBabbled(slot=0, incarnation=1, fault="not JSON"))
    assert other.states() == ["KILLING"] and "not JSON" in other.notes("protocol")[0].message


def test_what_the_dead_and_the_unknown_say_is_ignored() -> None:
    story = busy()
    message = m.Heartbeat(slot=9, incarnation=1, memory=m.Memory(1, 1, 1), items_done=1, current=None)
    before = msgspec.json.encode(story.journal.record("b"))
    for slot, incarnation in ((9, 1), (-1, 1), (0, 77)):
        assert story.feed(e.WorkerSaid(slot=slot, incarnation=incarnation, message=message)) == []
        assert story.feed(e.WorkerBabbled(slot=slot, incarnation=incarnation, fault="x")) == []
    assert msgspec.json.encode(story.journal.record("b")) == before and story.states() == ["BUSY"]


def test_an_item_whose_worker_we_end_at_a_stop_is_told_so_and_not_blamed() -> None:
    story = busy()
    first = story.lease(0)[0]
    story.feed(e.StopAsked(now=True, reason="asked by a client"))
    story.exit(0, -9, item=first)

    (note,) = story.notes("returned")
    assert "was in progress when its worker was ended (drain) in step 1" in note.message
    assert "signal 9" not in note.message and story.of(c.ChargeItems)[0].charges[0].charges == 0
