"""Leaks as stories: reports come in, boundary by boundary; what is found, blamed, and done about it."""

from collections.abc import Callable
from random import Random

import pytest

from protocol import messages as m
from supervisor.policy import commands as c
from supervisor.policy.collecting import collections
from supervisor.policy.leaks import leaks
from supervisor.policy.sizes import KB, MB
from supervisor.policy.trend import trends
from tests.policy.story import BASELINE_BYTES, Story, names
from tests.simulation.journal import Journal

STEPS = ("noop", "leaky")
Deltas = Callable[[int], tuple[int, int, int, int]]
"""Of item n: what reading, the two steps, and the rest of the item add."""


class Leaky:
    """A story whose workers tell what they held; recipes by name, each of two steps."""

    def __init__(self, workers: int = 2, items: int = 400, recipe: str = "thumbs") -> None:
        self.story = Story(workers=workers, journal=Journal())
        steps = [m.Step(name) for name in STEPS]
        recipes = {name: m.Recipe(name=name, steps=steps) for name in ("thumbs", "other")}
        self.story.pool.state.settings.recipes.update(recipes)
        self.story.start()
        self.story.submit("b", names(items), recipe=recipe)
        self.held = [20 * MB] * workers
        self.blocks = [100_000] * workers
        self.number = 0
        self.notes: list[c.Note] = []

    def work(
        self,
        items: int,
        deltas: Deltas,
        rss: Callable[[int], int] = lambda _: 60,
        blocks: Callable[[int], int] = lambda _: 0,
        made: tuple[int, int] = (0, 1),
        models: Callable[[int], list[list[str]]] = lambda _: [],
        kept: Callable[[int], int] = lambda _: 0,
    ) -> "Leaky":
        """Lets items be done by the workers in turn; `rss` (MB) and the Python `blocks` left by their number; `made`:
        how many blocks the two steps make; `models`: what each of them uses; `kept`: MB of the RSS that are
        free."""
        story, done = self.story, 0
        while done < items:
            for slot in range(len(self.held)):
                if not story.lease(slot):
                    story.clock.step(0.2)
                    story.look({slot: rss(self.number)})
                    continue
                number = story.lease(slot)[0]
                read, first, second, rest = deltas(self.number)
                held = [self.held[slot]]
                for more in (read, first, second):
                    held.append(held[-1] + more)
                self.held[slot] = held[-1] + rest
                before, self.blocks[slot] = self.blocks[slot], self.blocks[slot] + blocks(self.number)
                self.number += 1
                done += 1
                story.clock.step(0.05)
                story.look({slot: rss(self.number)})
                report = m.ItemReport(
                    id=number,
                    outcome="done",
                    seconds=0.05,
                    held=held,
                    held_blocks=before,
                    step_blocks=[9, *made],
                    step_models=models(self.number - 1),
                )
                last = len(story.lease(slot)) == 1
                heard = story.report(
                    slot, items=[report], finished=last, rss=rss(self.number), blocks=self.blocks[slot],
                    kept=kept(self.number),
                )  # fmt: skip
                self.notes += [command for command in heard if isinstance(command, c.Note)]
        return self

    def of(self, kind: str) -> list[c.Note]:
        """The notes of a kind so far."""
        return [note for note in self.notes if note.kind == kind]


def clean(seed: int) -> Deltas:
    """Pixels come and go, the heap trembles, the first items load libraries, a batch of results waits to be sent."""
    random = Random(seed)

    def one(number: int) -> tuple[int, int, int, int]:
        pixels = random.randrange(40 * MB)
        warm = 300 * KB if number < 8 else 0
        waiting = 20 * KB if number % 10 else -180 * KB
        return pixels + warm, random.randrange(-5 * KB, 5 * KB), random.randrange(-5 * KB, 5 * KB), waiting - pixels

    return one


def leaking(seed: int, each: int = 100 * KB, every: int = 1) -> Deltas:
    """As clean, but the second step keeps something."""
    others = clean(seed)

    def one(number: int) -> tuple[int, int, int, int]:
        read, first, second, rest = others(number)
        return read, first, second + (each if number % every == 0 else 0), rest

    return one


@pytest.mark.parametrize("workers", [1, 2, 4])
def test_a_leak_of_a_tenth_of_a_megabyte_is_found_within_60_items_and_blamed_on_its_step(workers: int) -> None:
    run = Leaky(workers=workers).work(60, leaking(workers), blocks=lambda _: 1)

    (leak,) = leaks(run.story.pool.state)
    assert (leak.subject_kind, leak.subject, leak.where) == ("operation", "leaky", "heap")
    assert leak.confidence >= 0.9
    assert leak.bytes_per_item == pytest.approx(100 * KB, rel=0.3)
    assert len(run.of("leak")) == 1, "it is told once"
    assert "leaky leaks" in leak.message


@pytest.mark.parametrize(
    ("blocks", "made", "where"),
    [
        (lambda number: 1, (0, 1), "heap"),
        (lambda number: 0, (0, 0), "native"),
        (lambda number: 0, (0, 7), "native"),
        (lambda number: number % 7 - 3, (0, 7), "native"),
        (lambda number: 20 // (number + 1), (0, 7), "native"),
        (lambda number: 4, (4, 0), "native"),
        (lambda number: 300 if number in (8, 20, 35) else 0, (2, 0), "native"),
        (lambda number: 5 - 30 * (number % 6 == 5) + 1, (0, 3), "heap"),
        (lambda number: 1 - 60 * (number % 12 > 9), (0, 1), "heap"),
    ],
    ids=["objects", "none", "values", "trembling", "warming", "another step", "loading", "saw-tooth", "shorter leases"],
)
def test_what_pythons_objects_keep_is_told_from_what_a_library_keeps(
    blocks: Callable[[int], int], made: tuple[int, int], where: str
) -> None:
    run = Leaky(workers=2).work(60, leaking(1), blocks=blocks, made=made)

    (leak,) = leaks(run.story.pool.state)
    assert (leak.subject, leak.where) == ("leaky", where)


@pytest.mark.parametrize(("blocks", "where"), [(2, "heap"), (0, "native")])
def test_a_worker_that_grows_where_no_step_explains_it_is_told_by_itself(blocks: int, where: str) -> None:
    run = Leaky(workers=1, items=2_000).work(200, clean(1), lambda number: 60 + number // 8, lambda _: blocks)

    (leak,) = leaks(run.story.pool.state)
    assert (leak.subject_kind, leak.subject, leak.where) == ("worker", "worker 0", where)
    assert leak.bytes_per_item == pytest.approx(MB / 8, rel=0.2)
    assert leak.confidence >= 0.9
    assert run.of("leak") == [], "no operation is blamed"


@pytest.mark.parametrize(
    ("rss", "kept"),
    [
        (lambda number: 60 + number // 8, lambda number: number // 8),
        (lambda number: 60 + number // 8 + number % 9, lambda number: number // 8),
        (lambda number: 60, lambda number: 30 - number // 8),
    ],
    ids=["growing", "growing beside a saw-tooth", "used up, with nothing more resident"],
)
def test_what_the_allocator_keeps_free_is_no_leak(rss: Callable[[int], int], kept: Callable[[int], int]) -> None:
    run = Leaky(workers=1, items=2_000).work(200, clean(1), rss, kept=kept)

    assert leaks(run.story.pool.state) == []


def test_a_native_leak_shows_beside_kept_memory_that_comes_and_goes() -> None:
    run = Leaky(workers=1, items=2_000).work(
        200, clean(1), lambda number: 60 + number // 8 + number % 7, kept=lambda number: number % 7
    )

    (leak,) = leaks(run.story.pool.state)
    assert (leak.subject, leak.where) == ("worker 0", "native")
    assert leak.bytes_per_item == pytest.approx(MB / 8, rel=0.2)


def test_a_worker_that_saws_or_has_warmed_up_is_not_told() -> None:
    saw = Leaky(workers=1, items=2_000).work(200, clean(1), lambda number: 60 + number % 9)
    assert leaks(saw.story.pool.state) == []
    warmed = Leaky(workers=1, items=2_000).work(200, clean(1), lambda number: 60 + min(number, 40) // 2)
    assert leaks(warmed.story.pool.state) == []


@pytest.mark.parametrize("seed", range(3))
def test_two_thousand_clean_items_give_no_alarm(seed: int) -> None:
    run = Leaky(items=2_100).work(2_000, clean(seed))

    assert run.of("leak") == []
    assert leaks(run.story.pool.state) == []
    assert run.story.pool.state.leaks.items > 1_900


def test_of_two_recipes_only_the_one_that_leaks_is_told() -> None:
    run = Leaky().work(100, leaking(1))
    assert [leak.subject for leak in leaks(run.story.pool.state)] == ["leaky"]
    found = run.of("leak")[0]
    assert found.figures["recipe"] == "thumbs"

    other = Leaky(recipe="other").work(100, clean(1))
    assert leaks(other.story.pool.state) == []


def test_a_cache_that_fills_up_is_withdrawn_when_it_is_full() -> None:
    def filling(number: int) -> tuple[int, int, int, int]:
        return 0, 0, 100 * KB if number < 90 else 0, 0

    run = Leaky(items=600).work(85, filling)
    assert leaks(run.story.pool.state), "until then nothing tells it from a leak"
    run.work(400, filling)
    assert leaks(run.story.pool.state) == []


def test_a_leaking_worker_is_replaced_between_two_leases_before_its_limit() -> None:
    run = Leaky(workers=1, items=2_000)
    limit = run.story.pool.state.limits(run.story.pool.state.slots[0]).recycle_bytes

    def rss(number: int) -> int:
        return 60 + number * 3 // 10

    while not run.of("recycle"):
        run.work(1, leaking(1, each=3 * MB // 10), rss)
        assert run.number < 400, "it was never replaced"

    (note,) = run.of("recycle")
    assert note.figures["reason"] == "leak"
    assert rss(run.number) * MB < limit
    assert "leaks" in note.message
    assert run.story.lease(0) == [], "nothing had to be handed back"


def test_an_uncertain_leak_replaces_nobody() -> None:
    run = Leaky(workers=1, items=2_000).work(18, leaking(1, each=MB), lambda number: 60 + number * 3)
    assert [note.figures["reason"] for note in run.of("recycle")] in ([], ["memory"])


def test_trend_tells_when_thresholds_are_reached_and_warns_before() -> None:
    story = Story().start()
    budget = story.budget_bytes
    warned: list[c.Note] = []
    for second in range(90):
        story.clock.step(1.0)
        story.look({0: 60 + second})
        warned += story.notes("trend")

    total, first, second_worker = trends(story.pool.state, story.clock.now)

    assert (total.subject, first.subject, second_worker.subject) == ("total", "worker 0", "worker 1")
    assert total.bytes_per_second == pytest.approx(MB, rel=0.05)
    assert total.confidence >= 0.9
    used = story.pool.state.used_bytes
    assert total.seconds_to["critical"] == pytest.approx((0.9 * budget - used) / MB, abs=5)
    assert second_worker.seconds_to["hard"] is None
    assert len(warned) == 1, "once within its cooldown"
    assert "will reach level" in warned[0].message


def test_no_trend_warns_of_a_saw_tooth() -> None:
    story = Story().start()
    for second in range(120):
        story.clock.step(1.0)
        story.look({0: 60 + (second % 10) * 8})
        assert story.notes("trend") == []
    assert trends(story.pool.state, story.clock.now)[0].confidence < 0.5


def test_what_trimming_gave_is_told_by_means_and_useless_trimming_ends() -> None:
    story = Story(workers=1).start()
    state = story.pool.state
    baseline = BASELINE_BYTES

    def trimmed(gc: int, malloc: int) -> m.Trimmed:
        before = baseline + 30 * MB
        freed = [
            m.Freed("gc", "worker", before, before - gc, 0.01),
            m.Freed("malloc_trim", "worker", before - gc, before - gc - malloc, 0.01),
        ]
        return m.Trimmed(
            slot=0, incarnation=story.worker(0).incarnation, before_bytes=before,
            after_bytes=before - gc - malloc, seconds=0.02, freed=freed,
        )  # fmt: skip

    for _ in range(2):
        story.say(0, trimmed(0, 20 * MB))
    told = {one.means: one for one in collections(state)}
    assert (told["gc"].runs, told["gc"].freed_bytes, told["gc"].useless) == (2, 0, True)
    assert (told["malloc_trim"].freed_bytes, told["malloc_trim"].useless) == (40 * MB, False)
    assert (told["all"].held_bytes, told["all"].useless) == (60 * MB, False)

    for run in range(1, 5):
        story.say(0, trimmed(0, 0))
        useless = {one.means: one.useless for one in collections(state)}["all"]
        assert useless == (run >= 3), "what it once gave, 2/3, is halved by each run that gives nothing"
    assert {one.means: one.useless for one in collections(state)}["all"]
    story.submit("b", names(50))
    state.slots[0].restarting.settled()
    heard = story.look({0: 115})
    trims = [each for each in heard if isinstance(each, c.TellWorker) and isinstance(each.message, m.Trim)]
    assert trims == [], "a worker that trimming does not help is not trimmed again"
