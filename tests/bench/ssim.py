"""Structural similarity of two pictures (Wang et al., 2004): 1 where they are the same. Windows of 8 x 8, all alike."""

import numpy as np
from PIL import Image

Plane = np.ndarray[tuple[int, ...], np.dtype[np.float64]]
WINDOW = 8
_C1, _C2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2


def ssim(one: Image.Image, other: Image.Image) -> float:
    """Returns the mean over every window, of brightness alone. Raises ValueError for sizes that differ, or are smaller
    than a window."""
    if one.size != other.size or min(one.size) < WINDOW:
        raise ValueError(f"{one.size} and {other.size}: the same size is needed, at least {WINDOW} x {WINDOW}")
    a, b = (np.asarray(picture.convert("L"), dtype=np.float64) for picture in (one, other))
    mean_a, mean_b = _means(a), _means(b)
    var_a, var_b = _means(a * a) - mean_a**2, _means(b * b) - mean_b**2
    both = _means(a * b) - mean_a * mean_b
    found = (2 * mean_a * mean_b + _C1) * (2 * both + _C2)
    found /= (mean_a**2 + mean_b**2 + _C1) * (var_a + var_b + _C2)
    return float(found.mean())


def _means(values: Plane) -> Plane:
    """The mean of each window, by sums over the rectangle above and left of each point."""
    sums = np.pad(values, ((1, 0), (1, 0))).cumsum(0).cumsum(1)
    inner = sums[WINDOW:, WINDOW:] - sums[:-WINDOW, WINDOW:] - sums[WINDOW:, :-WINDOW] + sums[:-WINDOW, :-WINDOW]
    means: Plane = inner / WINDOW**2
    return means
