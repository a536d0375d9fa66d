"""What authors of operations test with: memory taken and given back under control, snapshots, clean-ups verified."""

import pytest

from workers.footprint import Ballast, assert_given_back, snapshot

SIZE = 60_000_000


def test_what_is_taken_shows_and_what_is_given_back_is_gone() -> None:
    before = snapshot()
    with Ballast() as ballast:
        ballast.take("pixels", SIZE)
        grown = snapshot() - before
        assert SIZE * 0.9 < grown.rss_bytes < SIZE * 1.2
        assert grown.heap_bytes > SIZE * 0.9
        assert ballast.bytes == SIZE
        with pytest.raises(ValueError, match="'pixels' holds"):
            ballast.take("pixels", 1)
        with pytest.raises(AssertionError, match="still held"):
            assert_given_back(before, ballast)
        with pytest.raises(AssertionError, match="were left behind"):
            assert_given_back(before)
        assert ballast.give_back("pixels") == SIZE
        assert_given_back(before, ballast)
    with pytest.raises(KeyError):
        ballast.give_back("pixels")
