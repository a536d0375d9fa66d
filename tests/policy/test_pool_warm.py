"""Stories of recipes whose workers hold much from their first item on (a model): neither a loop nor a stall."""

from protocol import messages as m
from supervisor.policy.sizes import MB
from tests.policy.story import Story, names


def play(story: Story, batch: str, held_mb: int, turns: int = 400) -> int:
    """Lets the workers work; each holds `held_mb` more from its first item on. The hands are as fast as real ones:
    who is told to die is gone before the next turn. Returns how many workers were killed or replaced."""
    warm: set[tuple[int, int]] = set()
    ends = 0
    state = story.pool.state
    for _ in range(turns):
        story.clock.step(0.05)
        at = {}
        for slot in state.slots:
            worker = slot.worker
            if worker is None:
                continue
            if worker.lease is not None:
                warm.add((slot.index, worker.incarnation))
            at[slot.index] = 60 + (held_mb if (slot.index, worker.incarnation) in warm else 0)
        story.look(at)
        for slot in state.slots:
            worker = slot.worker
            if worker is None:
                continue
            if worker.state == "STARTING":
                story.ready(slot.index)
            elif worker.state in ("KILLING", "STOPPING"):
                ends += 1
                killed = worker.state == "KILLING"
                item = next(iter(story.lease(slot.index)), 0)
                story.exit(slot.index, -9 if killed else 0, item=item if killed else 0)
            elif worker.state in ("BUSY", "DRAINING") and worker.lease is not None:
                story.report(slot.index, story.lease(slot.index)[:1], finished=False, rss=at.get(slot.index, 60))
                if slot.worker is worker and worker.lease is not None:
                    held = story.lease(slot.index)
                    back = held if worker.state == "DRAINING" else []
                    if back or not held:
                        story.report(slot.index, [], back=back, rss=at.get(slot.index, 60))
        if batch not in state.queue.batches:
            break
    return ends


def test_a_baseline_above_the_threshold_is_widened_told_and_worked_with() -> None:
    story = Story(workers=2).start()
    told: list[str] = []
    real = story.feed

    def feed(event):  # type: ignore[no-untyped-def]
        heard = real(event)
        told.extend(note.message for note in story.notes("widened"))
        return heard

    story.feed = feed  # type: ignore[method-assign]
    story.submit("b", names(100))
    ends = play(story, "b", held_mb=75)  # above the recycle limit of 70, below the hard one of 90
    assert set(story.on_disk("b").values()) == {"done"}
    assert ends == 0, "nobody is replaced for what its successor would hold too"
    assert told and all("raise --memory or lower --workers" in message for message in told)


def test_a_baseline_above_the_hard_limit_leaves_fewer_workers_and_all_is_done() -> None:
    story = Story(workers=2).start()
    story.submit("b", names(100))
    ends = play(story, "b", held_mb=140)  # the room is 180: one such worker fits, two do not
    assert set(story.on_disk("b").values()) == {"done"}
    assert ends <= 6, "a few deaths until it is known, no loop"
    idle = [slot for slot in story.pool.state.slots if slot.note]
    assert len(idle) == 1 and "raise --memory or lower --workers" in (idle[0].note or "")
    assert "recipe thumbs" in (idle[0].note or "")


def test_a_baseline_beyond_the_whole_budget_ends_in_verdicts_not_in_a_loop() -> None:
    story = Story(workers=2, protection=False).start()
    story.submit("b", names(6))
    ends = play(story, "b", held_mb=900)
    assert list(story.on_disk("b").values()).count("quarantined") >= 5, "one may be over before anybody looks"
    assert ends <= 2 * 6


def test_a_new_worker_of_a_known_recipe_waits_for_room_to_become_warm() -> None:
    story = Story(workers=2).start()
    story.submit("b", names(40))
    play(story, "b", held_mb=140)
    story.pass_time(15)  # the level of the first moments is left
    story.submit("c", names(40))
    ends = play(story, "c", held_mb=140)
    assert ends == 0 and set(story.on_disk("c").values()) == {"done"}


def test_an_image_deferred_by_a_new_worker_is_granted_what_it_needs_the_next_time() -> None:
    story = Story(workers=1).start()
    story.submit("b", names(20))
    play(story, "b", held_mb=5)
    story.pass_time(15)
    story.exit(0, -9)
    story.pass_time(1)
    story.ready(0)
    story.submit("c", names(1))
    story.look({0: 60})
    state = story.pool.state
    assert state.share_bytes() > 40 * MB, "it is no large image"
    lease = state.lease_of(story.worker(0))
    assert lease is not None and lease.reserved_bytes < 40 * MB, "what a first item usually takes, and the warming"
    number = story.lease(0)[0]
    story.report(0, items=[m.ItemReport(id=number, outcome="deferred", seconds=0.0, needs_bytes=40 * MB)])
    again = state.lease_of(story.worker(0))
    assert again is not None and list(again.items) == [number]
    assert again.reserved_bytes >= 40 * MB, "or it would be deferred again"
