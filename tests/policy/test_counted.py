"""Counts as people read them."""

import pytest

from supervisor.policy.counted import counted


@pytest.mark.parametrize(
    ("number", "noun", "said"),
    [(1, "image", "1 image"), (0, "item", "0 items"), (2_000, "batch", "2,000 batches"), (1, "batch", "1 batch")],
)
def test_one_is_no_plural(number: int, noun: str, said: str) -> None:
    assert counted(number, noun) == said
