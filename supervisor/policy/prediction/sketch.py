"""A histogram of a positive figure that forgets.

Buckets are equal on a logarithmic scale, so that a quantile is right to within one bucket's width whatever the size
of the figure. Each value counts for less with every one after it: the sketch is of the last 256, about. Instead of
making all weights smaller at each value, the next value's weight is made larger; from time to time all are scaled
back.
"""

import math

import msgspec

AN_OCTAVE = 16
"""Buckets for each doubling: 4.4 % wide."""
MEMORY = 256.0
"""After so many values one counts e times less."""
_LIGHTEST = 1e-3
_RESCALE_ABOVE = 1e6


class Sketch(msgspec.Struct):
    """`weights` by bucket, in units of `unit`, the weight of the last value; their number is bounded by the range of
    the figure (`low` to `high`)."""

    low: float
    high: float
    weights: dict[int, float] = {}
    unit: float = 1.0

    def add(self, value: float) -> None:
        """Takes a value in; one outside of the range counts as its edge."""
        bucket = _bucket(min(max(value, self.low), self.high))
        self.unit *= 1 + 1 / MEMORY
        self.weights[bucket] = self.weights.get(bucket, 0.0) + self.unit
        if self.unit > _RESCALE_ABOVE:
            self.weights = {at: each / self.unit for at, each in self.weights.items() if each > _LIGHTEST * self.unit}
            self.unit = 1.0

    @property
    def count(self) -> float:
        """How many values it stands for, the faded ones counted for what is left of them."""
        return sum(self.weights.values()) / self.unit

    def quantile(self, share: float) -> float:
        """Returns the upper edge of the bucket below which `share` of the values lie; 0.0 where there is none."""
        wanted = share * sum(self.weights.values())
        seen = 0.0
        for bucket in sorted(self.weights):
            seen += self.weights[bucket]
            if seen >= wanted:
                return _edge(bucket)
        return _edge(max(self.weights)) if self.weights else 0.0

    def sound(self) -> bool:
        """Tells whether it could have been made by `add`: for what was read from a file."""
        figures = [self.unit, *self.weights.values()]
        first, last = _bucket(self.low), _bucket(self.high)
        return all(math.isfinite(each) and each > 0 for each in figures) and all(
            first <= bucket <= last for bucket in self.weights
        )


def _bucket(value: float) -> int:
    return math.ceil(math.log2(value) * AN_OCTAVE - 1e-9)


def _edge(bucket: int) -> float:
    return float(2 ** (bucket / AN_OCTAVE))
