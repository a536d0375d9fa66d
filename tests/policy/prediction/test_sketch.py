"""A histogram that fades: quantiles within a bucket, the old forgotten, the size bounded."""

from random import Random

from supervisor.policy.prediction.sketch import AN_OCTAVE, MEMORY, Sketch

WIDTH = 2 ** (1 / AN_OCTAVE)


def test_quantiles_are_right_to_within_a_bucket() -> None:
    sketch = Sketch(low=0.01, high=100.0)
    for value in range(1, 101):
        sketch.add(value / 10)
    # The last values count a little more than the first: 100 of them fade by a third.
    assert 5.0 <= sketch.quantile(0.5) <= 6.5 * WIDTH
    assert 10.0 <= sketch.quantile(1.0) <= 10.0 * WIDTH
    assert sketch.quantile(0.001) <= 0.2 * WIDTH


def test_an_empty_one_has_no_quantile() -> None:
    assert Sketch(low=1.0, high=2.0).quantile(0.99) == 0.0 == Sketch(low=1.0, high=2.0).count


def test_what_is_long_past_no_longer_counts() -> None:
    sketch = Sketch(low=0.01, high=100.0)
    for _ in range(100):
        sketch.add(8.0)
    for _ in range(int(6 * MEMORY)):
        sketch.add(1.0)
    assert sketch.quantile(0.995) <= WIDTH
    assert abs(sketch.count - MEMORY) < 5


def test_it_stays_small_and_finite_for_ever() -> None:
    sketch, random = Sketch(low=2**-6, high=2**6), Random(3)
    for _ in range(20_000):
        sketch.add(random.lognormvariate(0.0, 3.0))
    assert len(sketch.weights) <= 12 * AN_OCTAVE + 1 and sketch.sound()
    assert sketch.unit <= 1e6 * (1 + 1 / MEMORY)


def test_what_no_sketch_could_hold_is_told() -> None:
    assert not Sketch(low=1.0, high=2.0, weights={10_000: 1.0}).sound()
    assert not Sketch(low=1.0, high=2.0, weights={0: float("nan")}).sound()
    assert not Sketch(low=1.0, high=2.0, weights={0: -1.0}).sound()
    assert Sketch(low=1.0, high=2.0, weights={0: 1.0, AN_OCTAVE: 2.0}).sound()
