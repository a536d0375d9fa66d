"""Stories of the cache beside the work: what is found is never leased, what is alike is worked on once."""

from typing import Any

import msgspec

from protocol import messages as m
from supervisor.policy import commands as c
from supervisor.policy import events as e
from supervisor.policy.cache.asked import CacheHit, CacheMiss, LookedUp, LookUpItems, Stored, StoreItems
from supervisor.policy.cache.keys import step_of
from supervisor.policy.confinement import OUTSIDE_TRIES
from tests.policy.story import Story, names
from tests.simulation.cache import MADE
from tests.simulation.journal import Journal

STEPS = (step_of("noop", 1, {}),)
DETAIL = b'{"error":null,"outputs":[],"values":{"noop":{}},"warnings":[]}'


def caching(workers: int = 1, **settings: Any) -> Story:
    """A story with a cache for the recipe `thumbs`."""
    return Story(workers=workers, cache_steps={"thumbs": STEPS}, **settings).start()


def look_ups(story: Story) -> list[list[int]]:
    """The items of each look-up last heard."""
    return [[wanted.id for wanted in command.items] for command in story.of(LookUpItems)]


def found(story: Story, hits: list[int], misses: dict[int, str]) -> list[c.Command]:
    """The cache answers: misses by id, with what they are."""
    return story.feed(
        LookedUp(
            batch="b",
            hits=[CacheHit(number, DETAIL, [f"{number}.webp"], 0.5) for number in hits],
            misses=[CacheMiss(number, what, what.encode()) for number, what in misses.items()],
        )
    )


def made(*numbers: int) -> list[m.ItemReport]:
    """Reports of items done, with what the cache is to keep."""
    return [m.ItemReport(id=n, outcome="done", seconds=0.1, made=MADE, content_hash="ab") for n in numbers]


def following(story: Story) -> list[int]:
    """Who waits for an identical one."""
    return list(story.pool.state.queue.batches["b"].following)


def test_a_hit_is_settled_as_cached_and_never_leased() -> None:
    story = caching()
    story.submit("b", names(2))
    assert look_ups(story) == [[1, 2]] and story.grants() == {}
    wanted = story.of(LookUpItems)[0].items[0]
    assert (wanted.path, wanted.stem) == (b"/in/1.jpg", "1.jpg")
    found(story, [1, 2], {})
    assert story.grants() == {}
    (settled,) = [command.settlements for command in story.of(c.SettleItems)]
    assert [(each.state, each.detail, each.written) for each in settled] == [
        ("cached", DETAIL, ["1.webp"]),
        ("cached", DETAIL, ["2.webp"]),
    ]
    assert story.on_disk("b") == {1: "cached", 2: "cached"}
    assert story.journal.records["b"].state == "finished"
    assert story.pool.state.totals["cached"] == 2
    (over,) = story.notes("finished")
    assert over.message == "batch b is over: 0 done, 2 cached, 0 failed, 0 quarantined, 0 cancelled"
    (ended,) = [command.summary for command in story.of(c.ChangeBatch) if command.state == "finished"]
    assert ended is not None and ended.peak_bytes == story.pool.state.used_bytes > 0, "though nothing was leased"


def test_a_miss_is_leased_and_kept_once_it_is_committed() -> None:
    story = caching()
    story.submit("b", names(1))
    found(story, [], {1: "one"})
    assert story.grants() == {0: [1]}
    grant = story.of(c.TellWorker)[0].message
    assert isinstance(grant, m.Grant) and grant.cache
    story.holding = True
    story.report(0, items=made(1))
    assert story.of(StoreItems) == []
    story.commit()
    (kept,) = story.of(StoreItems)
    assert kept.steps == STEPS and [each.id for each in kept.items] == [1]
    assert story.journal.records["b"].state == "finished", "the batch does not wait for the cache"
    story.feed(Stored(batch="b", kept=[1], dropped=[]))


def test_of_identical_items_one_runs_and_the_other_is_found() -> None:
    story = caching(workers=2)
    story.submit("b", names(2))
    found(story, [], {1: "same", 2: "same"})
    assert story.grants() == {0: [1]} and following(story) == [2]
    story.report(0, items=made(1))
    assert look_ups(story) == [] and following(story) == [2]
    story.feed(Stored(batch="b", kept=[1], dropped=[]))
    assert look_ups(story) == [[2]]
    found(story, [2], {})
    assert story.on_disk("b") == {1: "done", 2: "cached"}


def test_what_is_made_may_be_gathered_unless_it_is_the_last_or_somebody_waits_for_it() -> None:
    story = caching(workers=2)
    story.submit("b", names(4))
    found(story, [], {1: "one", 2: "same", 3: "same", 4: "four"})

    def gathered(slot: int, number: int) -> bool:
        story.report(slot, items=made(number))
        (kept,) = story.of(StoreItems)
        return kept.more_to_come

    assert story.grants() == {0: [1], 1: [2]} and following(story) == [3]
    assert not gathered(1, 2), "3 waits for it"
    story.feed(Stored(batch="b", kept=[2], dropped=[]))
    found(story, [3], {})
    assert gathered(0, 1), "4 is still to come"
    assert story.pool.state.queue.batches["b"].leased == 1
    assert not gathered(1, 4), "the last"


def test_what_could_not_be_kept_is_made_again() -> None:
    story = caching(workers=2)
    story.submit("b", names(3))
    found(story, [], {1: "same", 2: "same", 3: "same"})
    story.report(0, items=made(1))
    story.feed(Stored(batch="b", kept=[], dropped=[1]))
    assert look_ups(story) == [[2, 3]]
    found(story, [], {2: "same", 3: "same"})
    assert story.grants() == {0: [2]} and following(story) == [3]


def test_a_follower_runs_when_its_runner_fails() -> None:
    story = caching()
    story.submit("b", names(2))
    found(story, [], {1: "same", 2: "same"})
    story.report(
        0, items=[m.ItemReport(id=1, outcome="failed", seconds=0, error=m.ItemError(kind="corrupt", message="bad"))]
    )
    assert look_ups(story) == [[2]]
    found(story, [], {2: "same"})
    assert story.grants() == {0: [2]}


def test_a_follower_runs_when_its_runner_is_quarantined() -> None:
    story = caching()
    story.submit("b", names(2))
    found(story, [], {1: "same", 2: "same"})
    story.exit(0, -11, item=1)
    assert following(story) == [2], "it goes back, and is tried once more"
    story.pass_time(3)
    story.ready(0)
    story.look()
    assert story.grants() == {0: [1]} or story.lease(0) == [1]
    story.exit(0, -11, item=1)
    assert story.on_disk("b")[1] == "quarantined" and look_ups(story) == [[2]]


def test_a_follower_runs_when_its_runner_lies_beyond_the_sandbox() -> None:
    story = caching()
    story.submit("b", names(2))
    found(story, [], {1: "same", 2: "same"})
    for _ in range(OUTSIDE_TRIES + 1):
        assert story.lease(0) == [1]
        story.report(0, items=[m.ItemReport(id=1, outcome="outside", seconds=0)])
    assert story.on_disk("b")[1] == "failed" and look_ups(story) == [[2]]


def test_what_is_handed_back_is_still_waited_for() -> None:
    story = caching()
    story.submit("b", names(2))
    found(story, [], {1: "same", 2: "same"})
    story.report(0, [], back=[1])
    assert following(story) == [2] and story.lease(0) == [1]


def test_answers_for_a_cancelled_batch_are_passed_over() -> None:
    story = caching()
    story.submit("b", names(4))
    found(story, [], {1: "same", 2: "same"})
    assert story.lease(0) == [1] and following(story) == [2]
    story.ask(m.CancelBatch(batch="b"))
    assert found(story, [3], {4: "four"}) == []
    story.report(0, items=made(1))
    assert story.on_disk("b") == {1: "done", 2: "cancelled", 3: "cancelled", 4: "cancelled"}
    assert look_ups(story) == [], "nobody waits any more"
    assert story.feed(Stored(batch="b", kept=[1], dropped=[])) == []


def test_a_window_given_up_while_it_is_looked_up_is_read_again() -> None:
    story = caching(window_items=2, fetch_items=2)
    story.submit("b", names(2), priority=0)
    assert look_ups(story) == [[1, 2]]
    story.submit("first", names(2), priority=5)
    assert not story.pool.state.queue.batches["b"].looking
    found(story, [1, 2], {})
    assert story.on_disk("b") == {1: "pending", 2: "pending"}
    story.feed(LookedUp(batch="first", hits=[CacheHit(n, DETAIL, [], 0.5) for n in (3, 4)], misses=[]))
    assert look_ups(story) == [[1, 2]], "its turn has come, and it is looked up anew"
    found(story, [1, 2], {})
    assert story.on_disk("b") == {1: "cached", 2: "cached"}


def test_how_a_batch_is_to_be_done_is_passed_on() -> None:
    story = caching()
    story.submit("b", names(1), strict=True, overwrite=True, out="/out")
    (asked,) = story.of(LookUpItems)
    assert (asked.strict, asked.overwrite, asked.out, asked.steps) == (True, True, "/out", STEPS)


def test_a_recipe_that_was_changed_is_not_cached() -> None:
    journal = Journal()
    story = Story(workers=1, journal=journal, cache_steps={"thumbs": STEPS}).start()
    story.submit("b", names(1))
    changed = m.Recipe(name="thumbs", steps=[m.Step("noop", {"size": 9})])
    record = msgspec.structs.replace(journal.records["b"], recipe=changed)
    later = Story(workers=1, journal=journal, cache_steps={"thumbs": STEPS})
    later.start()
    later.feed(e.Recovered(records=[msgspec.structs.replace(record, items=1)], in_progress=[], clean=True))
    assert look_ups(later) == []
    (told,) = [each.message for each in later.of(c.TellWorker) if isinstance(each.message, m.Grant)]
    assert not told.cache and [item.id for item in told.items] == [1]


def test_without_a_cache_nothing_is_looked_up() -> None:
    story = Story(workers=1).start()
    story.submit("b", names(1))
    assert look_ups(story) == [] and story.lease(0) == [1]


def test_nothing_is_looked_up_while_the_pool_is_paused_or_drains() -> None:
    story = caching()
    story.ask(m.PauseWork(reason="lunch"))
    story.submit("b", names(2))
    story.pass_time(2)
    assert look_ups(story) == []
    story.ask(m.ResumeWork())
    assert look_ups(story) == [[1, 2]]
    story = caching(fetch_items=2)
    story.submit("b", names(4))
    story.feed(e.StopAsked(now=False, reason="test"))
    found(story, [1, 2], {})
    assert story.on_disk("b")[1] == "cached" and look_ups(story) == []


def test_suspects_are_not_looked_up() -> None:
    story = caching()
    story.submit("b", names(1))
    found(story, [], {1: "one"})
    story.exit(0, -11, item=1)
    assert look_ups(story) == [] and story.waiting("b") == {"special": [1]}
