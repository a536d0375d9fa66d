"""The loop's turns: the longest of the last seconds is told, and passes."""

from supervisor.mechanism.turns import WINDOW_SECONDS, TurnTimes


class Hand:
    """A clock that is set."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_the_longest_turn_of_the_last_seconds_is_told_and_passes() -> None:
    clock = Hand()
    turns = TurnTimes(clock)
    assert (turns.longest_seconds(), turns.p99_seconds(), turns.on) == (0.0, 0.0, False)
    for passed in (0.001, 0.250, 0.002):
        turns.begin()
        assert turns.on
        clock.now += passed
        turns.end()
        assert not turns.on
    assert round(turns.longest_seconds(), 6) == 0.250
    clock.now += WINDOW_SECONDS + 1
    turns.begin()
    clock.now += 0.003
    turns.end()
    assert round(turns.longest_seconds(), 6) == 0.003
    assert turns.p99_seconds() >= 0.250, "what was is not forgotten there"


def test_a_second_turn_within_a_second_counts_when_it_is_longer() -> None:
    clock = Hand()
    turns = TurnTimes(clock)
    for passed in (0.01, 0.03, 0.02):
        turns.begin()
        clock.now += passed
        turns.end()
    assert round(turns.longest_seconds(), 6) == 0.03
