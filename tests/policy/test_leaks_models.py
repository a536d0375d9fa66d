"""Leaks of models as stories: the operation that uses one is blamed with it, or alone."""

import pytest

from supervisor.policy.leaks import leaks
from supervisor.policy.sizes import KB, MB
from tests.policy.test_leaks import Deltas, Leaky, clean, leaking


def blamed(run: Leaky) -> set[tuple[str, str]]:
    """Who is told to leak."""
    return {(leak.subject_kind, leak.subject) for leak in leaks(run.story.pool.state)}


def test_a_model_whose_every_use_leaves_something_is_named_beside_its_operation() -> None:
    run = Leaky().work(60, leaking(1), models=lambda _: [[], ["cats"]])

    operation, model = leaks(run.story.pool.state)
    assert (operation.subject_kind, operation.subject) == ("operation", "leaky")
    assert (model.subject_kind, model.subject, model.where) == ("model", "cats", operation.where)
    assert model.bytes_per_item == pytest.approx(100 * KB, rel=0.3) and model.confidence >= 0.9
    assert "leaky leaks while it uses model cats" in operation.message
    assert "model cats leaks where leaky uses it" in model.message
    assert [note.figures["subject"] for note in run.of("leak")] == ["leaky", "cats"], "each is told once"


def test_of_two_models_the_one_that_the_leaking_step_uses_is_blamed() -> None:
    run = Leaky().work(60, leaking(1), models=lambda _: [["dogs"], ["cats"]])

    assert blamed(run) == {("operation", "leaky"), ("model", "cats")}


def test_no_model_is_blamed_for_a_step_that_uses_none() -> None:
    run = Leaky().work(60, leaking(1), models=lambda _: [["dogs"], []])

    assert blamed(run) == {("operation", "leaky")}
    assert all("model" not in leak.message for leak in leaks(run.story.pool.state))


def test_a_step_that_leaks_without_the_model_as_well_leaks_by_itself() -> None:
    run = Leaky().work(80, leaking(1), models=lambda number: [[], ["cats"] if number % 2 else []])

    assert blamed(run) == {("operation", "leaky")}


def now_and_then(seed: int) -> Deltas:
    """The second step keeps something of every item that is uneven."""
    others = clean(seed)

    def one(number: int) -> tuple[int, int, int, int]:
        read, first, second, rest = others(number)
        return read, first, second + (150 * KB if number % 4 else 0), rest

    return one


def test_a_step_that_leaks_only_with_the_model_blames_it() -> None:
    run = Leaky(workers=1).work(100, now_and_then(1), models=lambda number: [[], ["cats"] if number % 4 else []])

    assert blamed(run) == {("operation", "leaky"), ("model", "cats")}


def test_a_model_that_another_step_uses_without_a_leak_is_not_to_blame() -> None:
    run = Leaky().work(60, leaking(1), models=lambda _: [["cats"], ["cats"]])

    assert blamed(run) == {("operation", "leaky")}


def test_a_model_that_is_clean_under_another_recipe_is_not_to_blame() -> None:
    run = Leaky(recipe="other").work(60, clean(1), models=lambda _: [[], ["cats"]])
    run.story.submit("c", [f"{number}.jpg" for number in range(1000, 1400)], recipe="thumbs")
    run.work(400, clean(2), models=lambda _: [[], ["cats"]])
    assert blamed(run) == set()
    run.work(70, leaking(1), models=lambda _: [[], ["cats"]])

    assert blamed(run) == {("operation", "leaky")}


def test_a_worker_that_a_leaking_model_fills_is_replaced_and_the_model_named() -> None:
    run = Leaky(workers=1, items=2_000)

    while not run.of("recycle"):
        run.work(1, leaking(1, each=3 * MB // 10), lambda n: 60 + n * 3 // 10, models=lambda _: [[], ["cats"]])
        assert run.number < 400, "it was never replaced"

    assert "under recipe thumbs, model cats" in run.of("recycle")[0].message


def test_two_thousand_clean_items_with_a_model_give_no_alarm() -> None:
    run = Leaky(items=2_100).work(2_000, clean(1), models=lambda _: [[], ["cats"]])

    assert run.of("leak") == [] and leaks(run.story.pool.state) == []
