"""Stories of work that goes well: submission, leases, pauses, cancellation, the end."""

import pytest

from protocol import messages as m
from supervisor.policy import commands as c
from supervisor.policy import events as e
from supervisor.policy.sizes import MB
from tests.policy.story import CLIENT, Story, names


def test_a_submission_is_acknowledged_when_the_journal_has_it() -> None:
    story = Story().start()
    story.holding = True
    assert [type(command) for command in story.ask(m.OpenBatch(id=1, batch="b"))] == [c.CreateBatch]
    story.commit()
    assert story.answer() == m.BatchOpened(id=1, batch="b", resumed=False, next_chunk=0)
    story.holding = True
    assert [type(each) for each in story.ask(m.AddItems(id=2, batch="b", chunk=0, root="/in", names=names(3)))] == [
        c.InsertItems
    ]
    story.commit()
    assert story.answer() == m.ItemsAdded(id=2, batch="b", chunk=0, added=3, known=0)
    assert story.grants() == {0: [1], 1: [2]}


def test_nothing_is_granted_before_ready_and_a_sample() -> None:
    story = Story(workers=1)
    assert [type(command) for command in story.feed(e.Tick())] == [c.StartWorker, c.TakeSample]
    story.submit("b", names(2))
    assert story.grants() == {} and story.states() == ["STARTING"]
    story.ready(0)
    assert story.grants() == {} and story.states() == ["IDLE"]
    story.look()
    assert story.grants() == {0: [1]} and story.states() == ["BUSY"]


def test_leases_grow_while_they_are_clean_and_taper_at_the_end() -> None:
    story = Story(workers=2).start()
    story.submit("b", names(40))
    sizes = []
    while "b" in story.pool.state.queue.batches:
        for slot in (0, 1):
            if story.lease(slot):
                sizes.append(len(story.lease(slot)))
                story.clock.step(0.01)
                story.report(slot)
    assert sizes == [1, 1, 2, 2, 4, 4, 7, 5, 4, 3, 2, 2, 1, 1, 1]
    assert set(story.on_disk("b").values()) == {"done"}
    assert story.journal.records["b"].state == "finished"


def test_a_batch_ends_when_its_last_verdict_is_on_disk() -> None:
    story = Story(workers=1).start()
    story.submit("b", names(1))
    story.holding = True
    story.report(0)
    assert [type(command) for command in story.heard] == [c.SettleItems]
    assert story.pool.state.queue.batches["b"].live_counts() == m.Counts(leased=1)
    story.commit()
    (changed,) = story.of(c.ChangeBatch)
    assert (changed.state, changed.finished_at is not None) == ("finished", True)
    assert story.notes("finished") and not story.pool.state.queue.batches


def test_an_empty_batch_is_finished_when_it_is_closed() -> None:
    story = Story().start()
    story.submit("b", [])
    assert story.journal.records["b"].state == "finished"


def test_higher_priority_goes_first_and_a_held_batch_waits_until_it_is_closed() -> None:
    story = Story(workers=1)
    story.submit("low", names(2))
    story.submit("high", names(2), priority=5)
    story.submit("held", names(2), priority=9, hold=True, close=False)
    story.start()
    order = []
    for _ in range(6):
        order += story.lease(0)
        if order == [3]:
            story.ask(m.CloseBatch(batch="held"))
        story.report(0)
    assert order == [3, 5, 6, 4, 1, 2]


def test_a_high_priority_gets_its_turn_though_others_fill_the_window() -> None:
    story = Story(workers=1, window_items=10, fetch_items=5)
    story.submit("a", names(6))
    story.submit("b", names(6))
    story.ask(m.PauseWork(batch="b"))
    story.start()
    assert story.waiting("a") == {"ready": [2, 3, 4, 5]} and story.waiting("b") == {"ready": [7, 8, 9, 10, 11]}
    story.submit("urgent", names(2), priority=1)
    story.report(0)
    assert story.lease(0) == [13, 14]
    assert story.waiting("b") == {}, "what may not run gives its room to what may"


def test_a_paused_pool_grants_nothing_and_goes_on_by_itself() -> None:
    story = Story(workers=1).start()
    story.ask(m.PauseWork(id=4, reason="backup", seconds=10))
    assert story.answer() == m.Done(id=4, message="paused; what runs is finished")
    story.submit("b", names(2))
    assert story.grants() == {} and story.pool.next_deadline() is not None
    story.pass_time(9.5)
    assert story.grants() == {}
    story.pass_time(0.6)
    assert story.grants() == {0: [1]} and story.notes("resumed")


def test_a_paused_batch_waits_while_others_run_and_survives_a_restart() -> None:
    story = Story(workers=1).start()
    story.submit("a", names(2))
    story.ask(m.PauseWork(batch="a", reason="look first"))
    story.submit("b", names(1))
    story.report(0)
    assert story.grants() == {0: [3]}
    story.report(0)
    assert story.states() == ["IDLE"]
    again = Story(workers=1, journal=story.journal)
    again.feed(story.journal.recover([]))
    again.start()
    assert again.states() == ["IDLE"] and again.pool.state.queue.batches["a"].paused == "look first"
    again.ask(m.ResumeWork(batch="a"))
    assert again.grants() == {0: [2]}


def test_the_error_of_a_machine_does_not_end_a_pause_of_the_user() -> None:
    story = Story(workers=1).start()
    story.submit("b", names(1))
    story.ask(m.PauseWork(batch="b", reason="mine"))
    story.report(0, items=[m.ItemReport(id=1, outcome="machine", seconds=0.0)])
    story.pass_time(100.0)
    assert story.pool.state.queue.batches["b"].paused == "mine" and story.grants() == {}


def test_the_error_of_a_machine_pauses_its_batch_and_ends_by_itself_later_and_later() -> None:
    story = Story(workers=1).start()
    story.submit("b", names(1))
    waits = []
    for _ in range(7):
        error = m.ItemError(kind="io", message="disk full")
        story.report(0, items=[m.ItemReport(id=1, outcome="machine", seconds=0.0, error=error)])
        (note,) = story.notes("machine_error")
        waits.append(note.figures["pause_seconds"])
        assert story.pool.state.queue.batches["b"].paused == "disk full" and story.waiting("b") == {"front": [1]}
        story.pass_time(waits[-1] + 0.01)
        assert story.lease(0) == [1]
    assert waits == [2.0, 4.0, 8.0, 16.0, 32.0, 60.0, 60.0]
    story.report(0)
    assert story.on_disk("b") == {1: "done"}


def refused(story: Story, number: int) -> None:
    error = m.ItemError(kind="memory", message="128 MB are asked for, 30 MB are free")
    story.report(0, items=[m.ItemReport(id=number, outcome="machine", seconds=0.0, error=error)])


def test_an_item_whose_model_is_refused_fails_after_ten_minutes_with_the_figures() -> None:
    story = Story(workers=1).start()
    story.submit("b", names(3))
    first, tries = story.clock.now, 0
    while 1 not in story.on_disk("b") or story.on_disk("b")[1] == "pending":
        refused(story, story.lease(0)[0])
        tries += 1
        detail = b"".join(each.detail for command in story.of(c.SettleItems) for each in command.settlements)
        notes = story.notes("machine_error")
        story.pass_time(float(str(notes[0].figures["pause_seconds"])) + 0.01 if notes else 0.0)
        assert story.clock.now - first < 700, story.on_disk("b")
    assert story.clock.now - first >= 600 and tries > 10
    assert story.on_disk("b")[1] == "failed"
    assert b'"memory"' in detail and b"128 MB are asked for, 30 MB are free" in detail, detail
    batch = story.pool.state.queue.batches["b"]
    story.report(0)
    assert batch.short_since is None, "there is memory again: the next refusal begins anew"


def test_cancelling_takes_what_waits_lets_finish_what_runs_and_takes_what_comes_back() -> None:
    story = Story(workers=1).start()
    story.submit("b", names(12))
    story.report(0)
    story.report(0)
    assert story.lease(0) == [4, 5, 6, 7]
    story.ask(m.CancelBatch(id=3, batch="b"))
    assert isinstance(story.answer(), m.BatchProgress)
    assert [number for number, state in story.on_disk("b").items() if state == "cancelled"] == [8, 9, 10, 11, 12]
    assert story.journal.records["b"].state == "cancelled" and "b" in story.pool.state.queue.batches
    story.report(0, [4, 5], back=[6, 7])
    assert story.on_disk("b") == {n: "done" if n < 6 else "cancelled" for n in range(1, 13)}
    assert story.journal.records["b"].finished_at is not None and not story.pool.state.queue.batches


def test_a_cancellation_on_disk_is_carried_on_after_a_crash() -> None:
    story = Story(workers=1).start()
    story.submit("b", names(3))
    story.ask(m.CancelBatch(batch="b"))
    story.journal.crash()
    again = Story(workers=1, journal=story.journal)
    again.feed(story.journal.recover([]))
    assert again.on_disk("b") == {1: "cancelled", 2: "cancelled", 3: "cancelled"}
    assert again.journal.records["b"].finished_at is not None and not again.pool.state.queue.batches


def test_a_retry_puts_failed_items_back_and_one_of_nothing_changes_nothing() -> None:
    story = Story(workers=1).start()
    story.submit("b", names(2))
    story.report(0, items=[m.ItemReport(id=1, outcome="failed", seconds=0.0)])
    story.report(0)
    assert story.on_disk("b") == {1: "failed", 2: "done"} and not story.pool.state.queue.batches
    story.ask(m.RetryBatch(id=9, batch="b"))
    assert isinstance(story.answer(), m.BatchProgress) and story.lease(0) == [1]
    story.report(0)
    assert story.on_disk("b") == {1: "done", 2: "done"}
    story.ask(m.RetryBatch(id=10, batch="b"))
    assert story.of(c.Query) == [c.Query(peer=CLIENT, request=m.Progress(id=10, batch="b"))]
    assert not story.pool.state.queue.batches


def test_a_retry_that_meets_the_end_of_its_batch_takes_the_end_back_on_disk() -> None:
    story = Story(workers=1).start()
    story.submit("b", names(1))
    story.report(0, items=[m.ItemReport(id=1, outcome="failed", seconds=0.0)], finished=False)
    assert story.on_disk("b") == {1: "failed"}
    story.holding = True
    story.ask(m.RetryBatch(batch="b"))
    story.report(0, done=[], finished=True)
    assert [change.state for change in story.of(c.ChangeBatch)] == ["finished"]
    story.commit()
    assert [change.state for change in story.of(c.ChangeBatch)] == ["running"]
    assert story.journal.records["b"].finished_at is None and story.lease(0) == [1]
    story.report(0)
    assert story.on_disk("b") == {1: "done"} and story.journal.records["b"].state == "finished"


@pytest.mark.parametrize(
    ("request_", "code"),
    [
        (m.OpenBatch(recipe="none"), "unknown_recipe"),
        (m.PauseWork(batch="none"), "unknown_batch"),
        (m.CloseBatch(batch="none"), "unknown_batch"),
        (m.RetryBatch(batch="none"), "unknown_batch"),
        (m.AddItems(batch="none", chunk=0, root="/in", names=[]), "unknown_batch"),
        (m.QuarantineDrop(path="/none"), "unknown"),
    ],
)
def test_a_fault_of_the_caller_is_an_answer(request_: m.AnyRequest, code: str) -> None:
    story = Story().start()
    story.ask(request_)
    answer = story.answer()
    assert isinstance(answer, m.Problem)
    assert (answer.code, answer.fault) == (code, "caller")


def test_a_full_queue_refuses_with_its_figures_and_keeps_nothing() -> None:
    story = Story(queue_max_items=5)
    story.submit("b", names(4))
    story.ask(m.AddItems(batch="b", chunk=1, root="/in", names=["5.jpg", "6.jpg"]))
    answer = story.answer()
    assert isinstance(answer, m.Problem) and answer.code == "busy"
    assert "4 items wait and the limit (queue_max_items) is 5" in answer.message
    assert len(story.on_disk("b")) == 4


def test_a_batch_held_until_complete_that_cannot_fit_is_refused_for_good() -> None:
    story = Story(queue_max_items=5)
    story.submit("b", names(4), hold=True, close=False)
    story.ask(m.AddItems(batch="b", chunk=1, root="/in", names=["5.jpg", "6.jpg"]))
    answer = story.answer()
    assert isinstance(answer, m.Problem) and (answer.code, answer.exit_code) == ("usage", 2)


def test_a_stalled_journal_refuses_submissions_and_grants_nothing_until_it_recovers() -> None:
    story = Story(workers=1).start()
    story.submit("b", names(2))
    story.feed(e.JournalStalled(reason="disk full"))
    story.report(0)
    assert story.grants() == {} and story.states() == ["IDLE"]
    story.ask(m.OpenBatch(batch="c"))
    answer = story.answer()
    assert isinstance(answer, m.Problem) and answer.code == "busy" and "disk full" in answer.message
    story.feed(e.JournalRecovered())
    assert story.grants() == {0: [2]}


def test_a_drain_finishes_what_runs_keeps_the_rest_and_ends() -> None:
    story = Story(workers=2).start()
    story.submit("b", names(10))
    story.feed(e.StopAsked(now=False, reason="SIGTERM"))
    assert story.states() == ["DRAINING", "DRAINING"]
    assert {type(told.message) for told in story.of(c.TellWorker)} == {m.Quit}
    story.report(0)
    assert story.of(c.TerminateWorker) == [c.TerminateWorker(slot=0, incarnation=1)] and story.grants() == {}
    story.exit(0, 0)
    assert story.states() == ["-", "DRAINING"] and not story.of(c.StartWorker)
    story.report(1)
    story.exit(1, 0)
    assert story.of(c.StopLoop) == [c.StopLoop(exit_code=0)] and not story.pool.running
    assert list(story.on_disk("b").values()) == ["done"] * 2 + ["pending"] * 8


def test_a_drain_has_a_deadline_and_a_kill_at_it_blames_nobody() -> None:
    story = Story(workers=1, drain_seconds=10.0).start()
    story.submit("b", names(1))
    story.feed(e.StopAsked(now=False, reason="SIGTERM"))
    assert story.worker(0).deadline == story.clock.now + 10.0
    story.pass_time(9.9)
    assert story.states() == ["DRAINING"]
    story.pass_time(0.2)
    assert story.states() == ["KILLING"]
    story.exit(0, -9, item=1)
    assert story.of(c.StopLoop) and story.on_disk("b") == {1: "pending"}
    assert story.journal.rows[1].item.tries == 1, "nobody is charged for our own end"


def test_the_second_signal_kills_at_once_and_waits_for_no_disk() -> None:
    story = Story(workers=1).start()
    story.submit("b", names(2))
    story.holding = True
    story.report(0, [1], finished=True)
    story.feed(e.StopAsked(now=False, reason="SIGINT"))
    story.feed(e.StopAsked(now=True, reason="SIGINT"))
    assert story.of(c.KillWorker) == [c.KillWorker(slot=0, incarnation=1)]
    story.exit(0, -9, item=2)
    assert story.of(c.StopLoop)


def test_a_draining_pool_takes_no_new_work() -> None:
    story = Story(workers=1).start()
    story.submit("b", names(1))
    story.ask(m.Stop(id=1))
    assert story.answer() == m.Done(id=1, message="stopping")
    for request in (m.OpenBatch(), m.AddItems(batch="b", chunk=1, root="/in", names=["x"]), m.RetryBatch(batch="b")):
        story.ask(request)
        answer = story.answer()
        assert isinstance(answer, m.Problem) and answer.code == "busy" and answer.exit_code == 4


def test_it_stays_while_a_batch_is_on_its_way_to_the_disk() -> None:
    story = Story(workers=1, exit_when_idle_seconds=30.0).start()
    story.holding = True
    story.ask(m.OpenBatch(batch="b"))
    story.pass_time(90.0)
    assert story.states() == ["IDLE"]
    story.commit()
    assert "b" in story.pool.state.queue.batches and not story.pool.state.creating


def test_a_batch_that_the_disk_refuses_is_answered_as_busy_and_holds_nothing_up() -> None:
    story = Story(workers=1, exit_when_idle_seconds=30.0).start()
    story.holding = True
    story.ask(m.OpenBatch(batch="b"))
    ((peer, number),) = story.pool.state.creating
    refused = e.JournalRefused(peer=peer, request_id=number, code="busy", message="the disk is full", fault="machine")
    story.feed(refused)
    answer = story.answer()
    assert isinstance(answer, m.Problem)
    assert (answer.code, answer.fault, answer.exit_code) == ("busy", "machine", 4)
    assert not story.pool.state.creating
    story.pass_time(31.0)
    assert story.states() == ["STOPPING"]


def test_it_leaves_when_there_was_nothing_to_do_for_so_long() -> None:
    story = Story(workers=1, exit_when_idle_seconds=30.0).start()
    story.submit("b", names(1))
    story.pass_time(40.0)
    assert story.states() == ["BUSY"]
    story.report(0)
    story.pass_time(29.0)
    story.ask(m.StatusRequest())
    story.pass_time(29.0)
    assert story.states() == ["IDLE"]
    story.pass_time(2.0)
    assert story.states() == ["STOPPING"]
    story.exit(0, 0)
    assert story.of(c.StopLoop)


def test_items_in_progress_at_an_unclean_stop_go_first_alone_and_are_quarantined_at_the_third() -> None:
    story = Story(workers=1).start()
    story.submit("b", names(9))
    for stops in (1, 2):
        story.journal.crash()
        story = Story(workers=1, journal=story.journal)
        story.feed(story.journal.recover([5]))
        (suspect,) = story.notes("suspect")
        assert suspect.figures == {"unclean_stops": stops}
        story.start()
        assert story.lease(0) == [5] and story.waiting("b") == {"ready": [1, 2, 3, 4, 6, 7, 8, 9]}
    story.journal.crash()
    story = Story(workers=1, journal=story.journal)
    story.feed(story.journal.recover([5]))
    assert story.on_disk("b")[5] == "quarantined"
    story.start()
    assert story.lease(0) == [1]


def test_status_tells_the_whole_pool() -> None:
    story = Story(workers=1, version="1", pid=7).start()
    story.submit("b", names(3))
    story.look()
    story.ask(m.StatusRequest(id=8))
    answer = story.answer()
    assert isinstance(answer, m.Status)
    assert (answer.id, answer.level, answer.budget_bytes) == (8, "normal", 240 * MB)
    assert answer.queue == m.QueueStatus(pending=2, leased=1)
    (worker,) = answer.workers
    assert (worker.slot, worker.pid, worker.state, worker.current) == (0, 100, "BUSY", "/in/1.jpg")
    assert worker.baseline_bytes < worker.soft_bytes < worker.hard_bytes


def test_batches_are_listed_as_they_are_now() -> None:
    story = Story(workers=1).start()
    story.submit("b", names(3))
    story.submit("c", names(3))
    story.ask(m.PauseWork(batch="c", reason="backup", seconds=60.0))
    story.ask(m.ListBatches())
    (query,) = story.of(c.Query)
    assert {name: batch.state for name, batch in query.live.items()} == {"b": "running", "c": "paused"}
    assert query.live["c"].counts == m.Counts(pending=3)
