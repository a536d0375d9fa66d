"""Fixtures of the tests of the gateway: one bed a test, or one gateway for all tests of a module that only look."""

from collections.abc import Iterator

import pytest

from tests.end_to_end.bed import Bed, make_bed
from tests.gateway.web import Web, start


@pytest.fixture
def bed() -> Iterator[Bed]:
    """Directories, photos, and supervisors that are gone at the end."""
    with make_bed() as made:
        yield made


@pytest.fixture(scope="module")
def web() -> Iterator[Web]:
    """A gateway on loopback, shared by the tests of a module; its batches have names of their own."""
    with make_bed() as made:
        made.write_config(stop=[{"operation": "noop"}])
        yield start(made)
