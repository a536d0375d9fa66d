"""Fixtures of the tests of the whole."""

from collections.abc import Iterator

import pytest

from tests.end_to_end.bed import Bed, make_bed


@pytest.fixture
def bed() -> Iterator[Bed]:
    """Directories, photos, and supervisors that are gone at the end."""
    with make_bed() as made:
        yield made
