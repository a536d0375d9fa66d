"""Sizes of thumbnails: vipsthumbnail's syntax, without surprises.

    256        fits into 256 x 256             256x128    fits into 256 x 128
    x200       200 high, any width             200x       200 wide, any height
    ...>       never enlarged (the same as without it: rungs never enlarge)
    ...<       only enlarged: a larger image keeps its size
    ...!       exactly that size, the proportions give way (may enlarge)

The label that goes into the output's name is the size without its mark, with `up` or `exact` behind it.
"""

import functools
import re
from typing import Literal

import msgspec

_SYNTAX = re.compile(r"(?P<width>\d+)?(?P<x>x)?(?P<height>\d+)?(?P<mark>[<>!])?", re.ASCII)
MAX_SIDE = 16_383
"""Largest side of a thumbnail: WebP's own limit (14 bits), and an image of that size is none."""

Mark = Literal["down", "up", "exact"]


class Size(msgspec.Struct, frozen=True):
    """A parsed size; width or height 0 means unbounded."""

    width: int
    height: int
    mark: Mark
    label: str

    def fit(self, width: int, height: int) -> tuple[int, int]:
        """Returns the size in pixels of the thumbnail of an upright image of `width` x `height`."""
        if self.mark == "exact":
            return self.width or width, self.height or height
        scale = self._scale(width, height)
        return max(1, round(width * scale)), max(1, round(height * scale))

    def cover(self, width: int, height: int) -> tuple[tuple[int, int], tuple[int, int]]:
        """Returns the size at which an upright image fills width x height, and what of it is shown; never enlarged."""
        scale = min(1.0, max(self.width / width, self.height / height), MAX_SIDE / width, MAX_SIDE / height)
        whole = max(1, round(width * scale)), max(1, round(height * scale))
        return whole, (min(self.width, whole[0]), min(self.height, whole[1]))

    def scale_needed(self, width: int, height: int) -> float:
        """Returns how much of the image's own size must be decoded (above 0, at most 1)."""
        if self.mark == "exact":
            wanted_width, wanted_height = self.fit(width, height)
            return min(1.0, max(wanted_width / width, wanted_height / height))
        return min(1.0, self._scale(width, height))

    def _scale(self, width: int, height: int) -> float:
        scale = min(
            self.width / width if self.width else float("inf"),
            self.height / height if self.height else float("inf"),
        )
        scale = max(scale, 1.0) if self.mark == "up" else min(scale, 1.0)
        return min(scale, MAX_SIDE / width, MAX_SIDE / height)


@functools.lru_cache(maxsize=256, typed=True)
def parse_size(text: int | str) -> Size:
    """Returns the size that `text` names. Raises ValueError that says what is allowed."""
    found = _SYNTAX.fullmatch(str(text).replace(" ", ""))
    sides = (found["width"], found["height"]) if found else (None, None)
    if found is None or sides == (None, None) or (found["height"] and not found["x"]):
        raise ValueError(
            f'{text!r} is no size: a number of pixels (256), or "256x128", "x200", "200x", and then ">", "<" or "!"'
        )
    width, height = (int(side) if side else 0 for side in sides)
    if not found["x"]:
        height = width
    if not all(0 < side <= MAX_SIDE for side in (width or 1, height or 1)) or (not width and not height):
        raise ValueError(f"{text!r}: a side is 1 to {MAX_SIDE} pixels")
    mark: Mark = "up" if found["mark"] == "<" else "exact" if found["mark"] == "!" else "down"
    plain = str(text).replace(" ", "").rstrip("<>!")
    return Size(width, height, mark, plain if mark == "down" else f"{plain}-{mark}")
