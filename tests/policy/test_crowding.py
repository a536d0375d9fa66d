"""Budgets that do not hold all workers: who is started, who is let go, who comes back, and what is said of it."""

import pytest

from supervisor.policy import commands as c
from supervisor.policy import events as e
from supervisor.policy.crowding import OWN_BYTES, WARM_BYTES, budget_for, outlook
from supervisor.policy.limits import workers_that_fit
from supervisor.policy.sizes import MB
from supervisor.policy.watch_settings import WatchSettings
from tests.policy.story import Story, names

SHARED = 40 * MB
"""What each worker shares with the template; 75 MB are taken beside the workers."""


class Crowded(Story):
    """A pool of four under a budget of so many MB; nobody is ready yet."""

    def __init__(self, budget: int) -> None:
        super().__init__(workers=4, budget_bytes=budget * MB)
        self.told: list[c.Note] = []
        self.feed(e.Tick())

    def go_on(self, seconds: float, private: int = 5) -> "Crowded":
        """Looks for so long: each worker holds so many MB for itself. Who was started is ready, who was told to end
        has ended."""
        state, end = self.pool.state, self.clock.now + seconds
        while self.clock.now < end:
            self.clock.step(0.5)
            for slot in state.slots:
                if slot.worker is not None and slot.worker.state == "STARTING":
                    self.ready(slot.index)
            for slot in state.slots:
                if slot.worker is not None:
                    slot.worker.baseline_bytes = SHARED + private * MB
            samples = [
                e.WorkerSample(
                    slot=slot.index,
                    incarnation=slot.worker.incarnation,
                    rss_bytes=SHARED + private * MB,
                    shared_bytes=SHARED,
                    item=0,
                    item_started=0.0,
                    items_done=0,
                )
                for slot in state.slots
                if slot.worker is not None
            ]
            heard = self.feed(
                e.Sampled(
                    workers=samples,
                    own_bytes=75 * MB,
                    cgroup_used_bytes=None,
                    budget_bytes=self.budget_bytes,
                    available_bytes=10_000 * MB,
                )
            )
            self.told += [one for one in heard if isinstance(one, c.Note) and one.kind in ("crowded", "uncrowded")]
            for slot in state.slots:
                if slot.worker is not None and slot.worker.state == "STOPPING":
                    self.exit(slot.index, 0)
        return self

    @property
    def serving(self) -> list[int]:
        """The slots that have a worker."""
        return [slot.index for slot in self.pool.state.slots if slot.worker is not None]


def test_a_roomy_budget_starts_all_at_once() -> None:
    assert Crowded(300).serving == [0, 1, 2, 3]


def test_a_tight_budget_starts_one_and_then_all_where_they_fit() -> None:
    story = Crowded(200)
    assert story.serving == [0]

    story.go_on(1)

    assert story.serving == [0, 1, 2, 3]
    assert story.told == []
    assert [slot.note for slot in story.pool.state.slots] == [None] * 4


def test_no_more_are_started_than_the_budget_holds_and_it_is_said_once_with_figures_and_the_way_out() -> None:
    story = Crowded(130).go_on(30)

    assert story.serving == [0, 1]
    (note,) = story.told
    assert note.figures["workers"] == 2 and note.figures["workers_wanted"] == 4
    assert "2 of 4 workers serve" in note.message and "lower --workers to 2" in note.message
    needed = note.figures["budget_for_all_bytes"]
    assert isinstance(needed, int) and 150 * MB < needed < 200 * MB
    assert "does not serve: the budget of 130 MB holds no more than 2 workers" in (story.pool.state.slots[3].note or "")
    assert story.pool.state.limits(story.pool.state.slots[0]).fits


def test_when_warm_baselines_turn_out_larger_the_last_ones_are_let_go() -> None:
    story = Crowded(200).go_on(5)

    story.go_on(10, private=30)

    assert story.serving == [0, 1, 2]
    assert [note.kind for note in story.told] == ["crowded"]
    assert story.pool.state.totals["recycles"] == story.pool.state.totals["kills"] == 0
    assert story.pool.state.limits(story.pool.state.slots[0]).fits


def test_a_moment_of_large_baselines_is_no_reason() -> None:
    story = Crowded(200).go_on(5)

    story.go_on(1, private=30).go_on(5)

    assert story.serving == [0, 1, 2, 3] and story.told == []


def test_they_come_back_when_the_budget_is_raised_and_stay() -> None:
    story = Crowded(130).go_on(5)

    story.budget_bytes = 400 * MB
    story.go_on(60)

    assert story.serving == [0, 1, 2, 3]
    assert [note.kind for note in story.told] == ["crowded", "uncrowded", "uncrowded"]
    assert "holds 4 workers again" in story.told[-1].message


def test_a_worker_at_work_goes_last_and_finishes_its_item() -> None:
    story = Crowded(200).go_on(5)
    story.submit("b", names(1))
    (busy,) = story.grants()

    story.go_on(10, private=40)

    assert busy in story.serving and len(story.serving) == 2
    assert story.states()[busy] == "BUSY"


@pytest.mark.parametrize("workers", range(1, 9))
def test_the_budget_that_is_advised_holds_just_so_many(workers: int) -> None:
    settings = WatchSettings()
    advised = budget_for(workers, OWN_BYTES, WARM_BYTES, settings)

    def fit(budget: int) -> int:
        return workers_that_fit(WARM_BYTES, budget, OWN_BYTES, settings.smallest_allowance_bytes, settings)

    assert fit(advised) == workers
    assert fit(advised - MB) == workers - 1


def test_the_outlook_before_a_start() -> None:
    settings = WatchSettings()
    assert outlook(512 * MB, 4, settings) is None
    assert "lower --workers to 2" in (outlook(128 * MB, 4, settings) or "")
    assert "too small for one worker" in (outlook(80 * MB, 1, settings) or "")
