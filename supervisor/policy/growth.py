"""Whether a figure that was taken again and again grows for good.

Theil and Sen: the slope is the median of the slopes between all pairs, so that single peaks and a saw-tooth do not
move it. Kendall: the confidence is how far the share of rising pairs is from what chance would give. Growth is a leak
where it is steady *and* worth mentioning: an allocator that keeps a page here and there is neither.
"""

import math
from collections.abc import Sequence
from itertools import combinations
from statistics import median

import msgspec

from supervisor.policy.counted import counted
from supervisor.policy.sizes import human

LEAK_BYTES_AN_IMAGE = 10_000
"""Less than this is the noise of allocators: over 1,000 images, 10 MB."""
SURE = 0.9
FEWEST_SAMPLES = 4


class Growth(msgspec.Struct, frozen=True, kw_only=True):
    """What the samples say. `confidence` 0 to 1: that it grows at all."""

    bytes_an_image: float
    confidence: float
    leaks: bool
    message: str
    samples: int = 0


def judge_growth(samples: Sequence[tuple[int, int]]) -> Growth:
    """Judges (images, bytes), ascending by images; fewer than FEWEST_SAMPLES prove nothing."""
    if len(samples) < FEWEST_SAMPLES:
        message = f"cannot be judged from {counted(len(samples), 'sample')}: {FEWEST_SAMPLES} are needed"
        return Growth(bytes_an_image=0.0, confidence=0.0, leaks=False, message=message, samples=len(samples))
    pairs = [(later[1] - one[1], later[0] - one[0]) for one, later in combinations(samples, 2) if later[0] > one[0]]
    slope = median(rise / run for rise, run in pairs)
    confidence = _confidence([rise for rise, _ in pairs], len(samples))
    leaks = slope >= LEAK_BYTES_AN_IMAGE and confidence >= SURE
    word = "grows by" if slope > 0 else "does not grow:"
    message = f"{word} {human(abs(slope))} an image, confidence {confidence:.0%} over {len(samples)} samples"
    return Growth(
        bytes_an_image=round(slope, 1),
        confidence=round(confidence, 4),
        leaks=leaks,
        message=message,
        samples=len(samples),
    )


def _confidence(rises: Sequence[int], samples: int) -> float:
    """The one-sided confidence that there is a rise (Mann and Kendall, normal approximation)."""
    score = sum((rise > 0) - (rise < 0) for rise in rises)
    spread = math.sqrt(samples * (samples - 1) * (2 * samples + 5) / 18)
    return 0.5 * (1 + math.erf((score - math.copysign(1, score)) / spread / math.sqrt(2))) if score else 0.5
