"""A running worker's allocations by line: what is held still is told with its place, and tracing is off afterwards."""

import tracemalloc

from workers.profile import LONGEST_SECONDS, Profiler


def test_what_is_held_since_the_beginning_is_told_by_line() -> None:
    profiler = Profiler()
    profiler.begin(1, 10)
    assert profiler.tracing
    held = [bytes(100_000) for _ in range(10)]
    seconds, items, grown, blocks, tracer, lines = profiler.end(3, 14)
    assert len(held) == 10
    assert seconds >= 0
    assert items == 4
    assert grown >= 1_000_000
    assert blocks >= 10
    assert tracer > 0
    assert lines[0].place.split(":")[0] == __file__
    assert 1_000_000 <= lines[0].bytes < 1_100_000
    assert len(lines) <= 3
    assert not tracemalloc.is_tracing()
    assert profiler.end(3, 14) == (0.0, 0, 0, 0, 0, []), "an end without a beginning tells nothing"


def test_tracing_that_nobody_ends_is_ended() -> None:
    profiler = Profiler()
    profiler.begin(1, 0)
    began = profiler._began_at
    profiler.expire(began + LONGEST_SECONDS - 1)
    assert tracemalloc.is_tracing()
    profiler.expire(began + LONGEST_SECONDS + 1)
    assert not tracemalloc.is_tracing()
