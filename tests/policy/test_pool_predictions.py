"""Stories of predictions: what is learned is told once, leases reserve it, and room is left for large images."""

from protocol import messages as m
from supervisor.policy import commands as c
from supervisor.policy.prediction.learning import predictions
from supervisor.policy.sizes import MB
from tests.policy.story import BASELINE_BYTES, Story, names


def weighed(number: int, measured: int, prior: int = 20 * MB, predicted: int = 20 * MB) -> m.ItemReport:
    return m.ItemReport(
        id=number,
        outcome="done",
        seconds=0.01,
        peak_bytes=BASELINE_BYTES + measured,
        weighed=m.Weighed("jpeg", "", "vips", prior, predicted, BASELINE_BYTES),
    )


def grants(story: Story) -> list[m.Grant]:
    """The grants of the last thing that was told."""
    return [each.message for each in story.of(c.TellWorker) if isinstance(each.message, m.Grant)]


def taught(workers: int = 2, count: int = 400) -> Story:
    """Workers that did a hundred items each of 10 MB, predicted 20."""
    story = Story(workers=workers, batch_size_max=16).start()
    story.submit("b", names(count))
    for _ in range(12):
        for slot in range(workers):
            story.clock.step(0.01)
            story.report(slot, items=[weighed(number, 10 * MB) for number in story.lease(slot)])
    story.look()
    return story


def test_an_unknown_recipe_reserves_the_workers_part() -> None:
    story = Story(workers=2).start()
    story.submit("b", names(4))
    assert [lease.reserved_bytes for lease in story.pool.state.leases.values()] == [70 * MB, 70 * MB]


def test_factors_are_told_when_they_change_and_only_then() -> None:
    story = Story(workers=1, batch_size_max=16).start()
    story.submit("b", names(400))
    told = []
    for _ in range(15):
        story.clock.step(0.01)
        story.report(0, items=[weighed(number, 10 * MB) for number in story.lease(0)])
        told += [grant.factors for grant in grants(story)]
    said = [factors for factors in told if factors is not None]
    assert said and len(said) < len(told) // 2, told
    (factor,) = said[-1]
    assert (factor.format, factor.decoder) == ("jpeg", "vips") and 0.5 < factor.factor < 0.65
    story.worker(0).learned.clear()  # as a new worker would know nothing
    story.report(0)
    assert grants(story)[0].factors == said[-1]


def test_a_lease_reserves_what_nearly_all_items_take() -> None:
    story = taught()
    reserved = [lease.reserved_bytes for lease in story.pool.state.leases.values()]
    assert len(reserved) == 2 and all(20 * MB <= each < 22 * MB for each in reserved), reserved
    (whole, row) = predictions(story.pool.state)
    assert (whole.operation, row.operation, row.format) == ("all", "thumbs", "jpeg")
    assert row.items == whole.items > 100 and row.under_predicted == 0 and 1.9 < row.ratio_median < 2.1


def test_a_large_image_runs_beside_small_ones_once_their_needs_are_known() -> None:
    story = taught()
    held = story.lease(0)
    big = m.ItemReport(id=held[0], outcome="deferred", seconds=0.0, needs_bytes=120 * MB)
    story.report(0, items=[big, *(weighed(number, 10 * MB) for number in held[1:])])
    # Ordinary work goes first; at its end the large one starts while the other worker is busy with small ones.
    while not any(lease.large for lease in story.pool.state.leases.values()):
        slot = next(slot for slot in (0, 1) if story.lease(slot))
        story.clock.step(0.01)
        story.report(slot, items=[weighed(number, 10 * MB) for number in story.lease(slot)])
    leases = story.pool.state.leases.values()
    assert sorted(lease.large for lease in leases) == [False, True], "with unknown needs it would have to be alone"
    assert sum(lease.reserved_bytes for lease in leases) <= story.pool.state.room_bytes()


def test_an_item_above_the_reservation_comes_back_and_gets_a_lease_of_its_own() -> None:
    story = taught(workers=1)
    held = story.lease(0)
    item = m.ItemReport(id=held[0], outcome="deferred", seconds=0.0, needs_bytes=40 * MB)
    story.report(0, items=[item, *(weighed(number, 10 * MB) for number in held[1:])])
    (note,) = story.notes("deferred")
    assert "a lease of its own" in note.message
    (lease,) = story.pool.state.leases.values()
    assert list(lease.items) == [held[0]] and lease.reserved_bytes == 44 * MB and not lease.large
    story.report(0, items=[weighed(held[0], 39 * MB, prior=40 * MB, predicted=40 * MB)])
    assert story.on_disk("b")[held[0]] == "done"


def test_a_new_worker_has_its_whole_part_for_its_first_lease() -> None:
    story = taught(workers=1)
    story.report(0, finished=True)
    story.look({0: 135})
    held = story.lease(0)
    story.report(0, held[:1], back=held[1:])
    story.exit(0, 0)
    story.ready(0)
    story.look()
    (lease,) = story.pool.state.leases.values()
    assert lease.reserved_bytes == story.pool.state.limits(story.pool.state.slots[0]).item_bytes
