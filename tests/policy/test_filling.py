"""Batches that take images: a client that falls silent leaves none open for ever."""

import msgspec

from protocol import messages as m
from supervisor.policy import commands as c
from supervisor.policy import events as e
from supervisor.policy.live import LiveSettings, SettingsChanged
from tests.policy.story import Story, names


def opened() -> Story:
    """A pool with one batch of three images whose client then falls silent, and whose workers take their time."""
    story = Story(abandon_seconds=60.0, item_timeout_seconds=1_000.0).start()
    story.submit("b1", names(3), close=False)
    return story


def work_off(story: Story) -> None:
    """The workers do all that is granted."""
    for _ in range(8):
        for slot in range(len(story.pool.state.slots)):
            if story.lease(slot):
                story.report(slot)
        story.look()


def test_a_batch_whose_client_fell_silent_is_closed_as_it_is_and_finishes() -> None:
    story = opened()
    story.pass_time(59)
    assert not story.notes("abandoned") and story.journal.records["b1"].open
    story.pass_time(1)
    (note,) = story.notes("abandoned")
    assert note.batch == "b1" and "3 images" in note.message and "--batch b1" in note.message
    assert note.figures == {"items": 3, "settled": 0, "silent_seconds": 60.0, "limit_seconds": 60.0}
    assert not story.of(c.Reply), "nobody asked"
    record = story.journal.records["b1"]
    assert (record.open, record.abandoned_at) == (False, story.clock.now)
    story.ask(m.Progress(batch="b1"))
    progress = story.answer()
    assert isinstance(progress, m.BatchProgress) and progress.abandoned_at == record.abandoned_at
    work_off(story)
    assert set(story.on_disk("b1").values()) == {"done"}
    assert story.journal.records["b1"].state == "finished" and not story.pool.state.queue.batches


def test_every_word_of_the_client_begins_the_time_anew() -> None:
    story = opened()
    story.pass_time(50)
    story.ask(m.AddItems(batch="b1", chunk=1, root="/in", names=["x.jpg"]))
    story.pass_time(50)
    story.ask(m.OpenBatch(batch="b1"))
    story.pass_time(50)
    story.ask(m.Progress(batch="b1"))  # whoever looks on does not fill it
    assert not story.notes("abandoned") and story.journal.records["b1"].open
    story.pass_time(10)
    assert story.notes("abandoned")


def test_an_empty_one_is_finished_at_once_and_a_closed_one_is_left_alone() -> None:
    story = Story(abandon_seconds=60.0).start()
    story.ask(m.OpenBatch(batch="empty"))
    story.submit("closed", names(3))
    heard = story.pass_time(120)
    noted = [note.batch for note in heard if isinstance(note, c.Note) and note.kind == "abandoned"]
    assert noted == ["empty"]
    assert story.journal.records["empty"].state == "finished"
    assert story.journal.records["closed"].abandoned_at is None


def test_the_pool_asks_to_be_woken_in_time_and_not_without_end() -> None:
    story = opened()
    state = story.pool.state
    assert state.queue.abandon_at == story.clock.now + 60.0
    state.sample_at = story.clock.now + 1_000.0
    deadline = story.pool.next_deadline()
    assert deadline is not None and deadline <= story.clock.now + 60.0
    story.clock.step(60.0)
    story.feed(e.Tick())
    assert story.notes("abandoned") and state.queue.abandon_at is None


def test_a_late_chunk_is_refused_and_opening_again_goes_on_where_it_stopped() -> None:
    story = opened()
    story.pass_time(60)
    story.ask(m.AddItems(batch="b1", chunk=1, root="/in", names=["4.jpg"]))
    refusal = story.answer()
    assert isinstance(refusal, m.Problem) and refusal.code == "abandoned"
    story.ask(m.OpenBatch(batch="b1"))
    answer = story.answer()
    assert isinstance(answer, m.BatchOpened) and (answer.resumed, answer.next_chunk) == (True, 1)
    story.ask(m.AddItems(batch="b1", chunk=1, root="/in", names=names(4)))
    assert story.answer() == m.ItemsAdded(id=0, batch="b1", chunk=1, added=1, known=3)
    story.ask(m.CloseBatch(batch="b1"))
    work_off(story)
    assert len(story.on_disk("b1")) == 4 and set(story.on_disk("b1").values()) == {"done"}
    assert story.journal.records["b1"].abandoned_at is None


def test_one_that_is_finished_meanwhile_is_opened_again_too() -> None:
    story = opened()
    story.pass_time(60)
    work_off(story)
    assert story.journal.records["b1"].state == "finished"
    story.ask(m.OpenBatch(batch="b1"))
    assert story.pool.state.queue.batches["b1"].open
    story.ask(m.AddItems(batch="b1", chunk=1, root="/in", names=["4.jpg"]))
    story.ask(m.CloseBatch(batch="b1"))
    work_off(story)
    assert story.on_disk("b1") == {1: "done", 2: "done", 3: "done", 4: "done"}


def test_a_client_that_was_only_slow_to_close_it_has_a_complete_batch() -> None:
    story = opened()
    story.pass_time(60)
    story.ask(m.CloseBatch(batch="b1", ignored=2))
    assert story.answer() == m.BatchClosed(id=0, batch="b1", items=3, ignored=2)
    assert story.journal.records["b1"].abandoned_at is None


def test_a_word_that_crosses_the_closing_does_not_get_lost() -> None:
    story = opened()
    story.holding = True
    story.pass_time(60)
    story.ask(m.OpenBatch(batch="b1"))
    story.commit()
    assert story.pool.state.queue.batches["b1"].open and story.journal.records["b1"].open
    assert story.pool.state.queue.batches["b1"].abandoned_at is None
    story.pass_time(59)
    assert not story.notes("abandoned")
    story.pass_time(1)
    assert story.notes("abandoned"), "the clock goes on"


def test_after_a_restart_the_whole_time_is_given_once_more() -> None:
    before = opened()
    before.pass_time(50)
    before.journal.crash()
    story = Story(journal=before.journal, abandon_seconds=60.0)
    story.feed(story.journal.recover([]))
    story.start()
    story.pass_time(59)
    assert not story.notes("abandoned")
    story.pass_time(1)
    assert story.notes("abandoned") and not story.journal.records["b1"].open


def test_no_clock_runs_while_nobody_can_fill_anything() -> None:
    story = opened()
    story.feed(e.JournalStalled(reason="no space left"))
    story.pass_time(200)
    deadline = story.pool.next_deadline()
    assert deadline is not None and deadline > story.clock.now, "the loop does not spin meanwhile"
    assert not story.notes("abandoned")
    story.feed(e.JournalRecovered())
    story.pass_time(59)
    assert not story.notes("abandoned")
    story.pass_time(1)
    assert story.notes("abandoned")


def test_a_lower_limit_counts_at_once() -> None:
    story = opened()
    story.pass_time(30)
    held = story.pool.state.settings
    live = LiveSettings(**{name: getattr(held, name) for name in LiveSettings.__struct_fields__})
    change = SettingsChanged(peer=None, request_id=0, settings=msgspec.structs.replace(live, abandon_seconds=20.0))
    story.feed(change)
    assert story.notes("abandoned")
