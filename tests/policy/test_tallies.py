"""What is counted for curves only grows, under a bounded number of names, and agrees with the totals."""

import signal

from protocol import messages as m
from supervisor.policy.items import Settlement
from supervisor.policy.tallies import BOUNDS_SECONDS, OTHERS, RECIPES_MOST, Tallies
from tests.policy.story import Story, names


def status(story: Story) -> m.Status:
    story.ask(m.StatusRequest())
    answer = story.answer()
    assert isinstance(answer, m.Status)
    return answer


def bucket(seconds: float) -> int:
    return next(place for place, bound in enumerate([*BOUNDS_SECONDS, float("inf")]) if seconds <= bound)


def test_status_counts_by_recipe_by_reason_and_by_cause_and_agrees_with_the_totals() -> None:
    story = Story(workers=1).start()
    story.submit("b", names(3))
    story.report(0, items=[m.ItemReport(id=1, outcome="done", seconds=0.02)])
    refused = m.ItemError(kind="corrupt", message="no")
    story.report(0, items=[m.ItemReport(id=2, outcome="failed", seconds=7.0, error=refused)], finished=False)
    story.exit(0, -signal.SIGSEGV, item=3)
    found = status(story)
    assert found.by_recipe == [m.RecipeTotals(recipe="thumbs", operations=["noop"], outcomes={"done": 1, "failed": 1})]
    assert (found.totals.done, found.totals.failed, found.totals.restarts) == (1, 1, 1)
    assert found.deaths_by_cause == {"signal 11": 1}
    expected = [0] * (len(BOUNDS_SECONDS) + 1)
    expected[bucket(0.02)] += 1
    expected[bucket(7.0)] += 1
    assert found.durations == m.Durations(bounds_seconds=list(BOUNDS_SECONDS), counts=expected, sum_seconds=7.02)


def test_what_a_cancelled_batch_left_undone_is_counted_as_cancelled() -> None:
    story = Story(workers=1).start()
    story.submit("b", names(10))
    story.ask(m.CancelBatch(batch="b"))
    story.report(0)
    outcomes = status(story).by_recipe[0].outcomes
    assert outcomes["cancelled"] + outcomes["done"] == 10


def test_cached_images_take_no_worker_and_no_time() -> None:
    tallies = Tallies()
    recipe = m.Recipe(name="web", steps=[m.Step("thumbnail"), m.Step("probe")])
    tallies.settled(recipe, Settlement(id=1, batch="b", state="cached", tries=0, seconds=0.001))
    assert tallies.by_recipe() == [
        m.RecipeTotals(recipe="web", operations=["thumbnail", "probe"], outcomes={"cached": 1})
    ]
    assert sum(tallies.durations().counts) == 0


def test_names_are_bounded() -> None:
    tallies = Tallies()
    for number in range(RECIPES_MOST + 5):
        tallies.outcome(m.Recipe(name=f"r{number}", steps=[m.Step("noop")]), "done", 1)
    rows = tallies.by_recipe()
    assert len(rows) == RECIPES_MOST + 1
    assert (rows[-1].recipe, rows[-1].operations, rows[-1].outcomes) == (OTHERS, [], {"done": 5})
