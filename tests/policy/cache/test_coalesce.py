"""Identical images in flight: one runs, the others wait for it."""

from hypothesis import given
from hypothesis import strategies as st

from supervisor.policy.cache.coalesce import Coalescer
from supervisor.policy.cache.keys import step_of


def test_the_first_runs_and_the_others_wait_until_it_is_over() -> None:
    coalescer: Coalescer[int] = Coalescer()
    assert coalescer.join("same", 1)
    assert not coalescer.join("same", 2) and not coalescer.join("same", 3)
    assert coalescer.join("other", 4)
    assert coalescer.leave("same", 2) and not coalescer.leave("same", 2) and not coalescer.leave("none", 1)
    assert coalescer.end("same") == [3]
    assert coalescer.end("same") == [] and coalescer.waiting == 0
    assert coalescer.join("same", 5), "a later one begins anew"


@given(st.lists(st.tuples(st.integers(0, 3), st.booleans()), max_size=60))
def test_nobody_is_lost_and_never_too_many_wait(steps: list[tuple[int, bool]]) -> None:
    coalescer: Coalescer[int] = Coalescer(limit=5)
    waiting: set[int] = set()
    for item, (key, ends) in enumerate(steps):
        if ends:
            waiting -= set(coalescer.end(key))
        elif not coalescer.join(key, item):
            waiting.add(item)
        assert coalescer.waiting == len(waiting) <= 5
    for key in range(4):
        waiting -= set(coalescer.end(key))
    assert not waiting and coalescer.waiting == 0


def test_a_step_s_key_is_made_of_everything_that_shapes_its_result() -> None:
    base = step_of("thumbnail", 1, {"sizes": [256], "quality": 80})
    assert base.key == step_of("thumbnail", 1, {"quality": 80, "sizes": [256]}).key, "whatever the order"
    others = [
        step_of("thumbnail", 2, {"sizes": [256], "quality": 80}),
        step_of("thumbnail", 1, {"sizes": [256], "quality": 81}),
        step_of("phash", 1, {"sizes": [256], "quality": 80}),
        step_of("thumbnail", 1, {"sizes": [256], "quality": 80}, models=["ab"]),
    ]
    assert len({base.key, *(other.key for other in others)}) == 5
