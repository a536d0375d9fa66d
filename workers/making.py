"""What the cache is told of an item: what each step made, and that the image held still meanwhile.

The image is looked at through the descriptor it is read by, before it is hashed and after the last step. If the
two looks differ, the hash may be of other bytes than the decoder saw, and nothing is told.
"""

import os
import time
from collections.abc import Sequence
from typing import Any

import msgspec

from protocol import paths
from protocol.messages import ItemMade, StepMade
from workers.operations import Output

_encode = msgspec.json.Encoder().encode


class Making:
    """Gathers one item's steps. `descriptor` is that of the open image."""

    def __init__(self, descriptor: int) -> None:
        self._stamp = _stamp(descriptor)
        self._hashed_at_ns = time.time_ns()
        self._steps: list[StepMade] = []
        self._held_still = False

    def add(self, seconds: float, outputs: Sequence[Output], values: dict[str, Any] | None) -> None:
        """Takes in a step that is over."""
        made = [(paths.to_token(one.path), one.width, one.height, one.size_bytes) for one in outputs]
        self._steps.append(StepMade(seconds, made, msgspec.Raw(_encode(values or {}))))

    def over(self, descriptor: int) -> None:
        """Takes the second look, when every step is over."""
        self._held_still = _stamp(descriptor) == self._stamp

    def told(self, warnings: Sequence[str]) -> ItemMade | None:
        """Returns what to tell; None where the image did not hold still. `warnings` are those that the same bytes
        would give again."""
        if not self._held_still:
            return None
        return ItemMade(self._stamp, self._hashed_at_ns, self._steps, msgspec.Raw(_encode(list(warnings))))


def _stamp(descriptor: int) -> tuple[int, int, int, int, int]:
    found = os.fstat(descriptor)
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns
