"""The disks: those of the temp directory, of the outputs and of the cache fill and empty, in bytes or in inodes.

The temp disk is looked at as its keeper looks (`supervisor.mechanism.temp.keeper`), with the same watermarks; a look
belongs to one life of the supervisor, and what is full stays full over its death. On a full disk of outputs a worker
cannot publish, and says that the machine is at fault; a full disk under the cache keeps nothing. The journal's is
`World.stalled`.
"""

from collections.abc import Callable
from random import Random

from supervisor.policy.events import TempEased, TempFilled
from supervisor.policy.temp import Room, TempSettings, Watermarks
from tests.simulation.journal import Violation

SIZE_BYTES = 100 * 1024**3
SIZE_INODES = 1_000_000
TROUBLES_PER_SECOND = 2.0
MARKS = TempSettings()
_BETWEEN_BYTES = (MARKS.pause_free_bytes + MARKS.resume_free_bytes) // 2
_BETWEEN_INODES = (MARKS.pause_free_inodes + MARKS.resume_free_inodes) // 2
BYTES = (0, MARKS.pause_free_bytes - 1, MARKS.pause_free_bytes, _BETWEEN_BYTES, MARKS.resume_free_bytes, SIZE_BYTES)
INODES = (0, MARKS.pause_free_inodes - 1, _BETWEEN_INODES, MARKS.resume_free_inodes, SIZE_INODES, SIZE_INODES)

Later = Callable[[float, Callable[[], TempFilled | TempEased | None]], None]


class Disks:
    """What is free on each. `told` is what the pool was told of the temp disk: the reason of its pause."""

    def __init__(self, random: Random, later: Later) -> None:
        self._random = random
        self._later = later
        self._free_bytes, self._free_inodes = SIZE_BYTES, SIZE_INODES
        self._marks = Watermarks(MARKS)
        self.outputs_full = False
        self.cache_full = False
        self.told: str | None = None
        self.filled = 0

    def start(self) -> None:
        """A new supervisor's keeper knows nothing yet, and looks at once."""
        self._marks = Watermarks(MARKS)
        self.told = None
        self._later(0.0, self._look)

    def trouble(self) -> float:
        """Something fills, or somebody clears up; returns in how many seconds there is trouble again."""
        match self._random.randrange(4):
            case 0:
                self._free_bytes = self._random.choice(BYTES)
            case 1:
                self._free_inodes = self._random.choice(INODES)
            case 2:
                self.outputs_full = not self.outputs_full
            case 3:
                self.cache_full = not self.cache_full
        return self._random.expovariate(TROUBLES_PER_SECOND)

    def clear_up(self) -> None:
        """There is room everywhere from here on."""
        self._free_bytes, self._free_inodes = SIZE_BYTES, SIZE_INODES
        self.outputs_full = self.cache_full = False

    def heard(self, event: object) -> None:
        """The pool is given an event."""
        if isinstance(event, TempFilled):
            self.told = event.reason
            self.filled += 1
        elif isinstance(event, TempEased):
            self.told = None

    def _look(self) -> TempFilled | TempEased | None:
        room = Room(
            free_bytes=self._free_bytes, size_bytes=SIZE_BYTES, free_inodes=self._free_inodes, inodes=SIZE_INODES
        )
        before = self._marks.full is not None
        reason = self._marks.update(room)
        low = self._free_bytes < MARKS.pause_free_bytes or self._free_inodes < MARKS.pause_free_inodes
        room_again = self._free_bytes >= MARKS.resume_free_bytes and self._free_inodes >= MARKS.resume_free_inodes
        if (reason is not None) != (low or (before and not room_again)):
            raise Violation(f"{room} is called {reason}, and was {'full' if before else 'not full'} before")
        self._later(self._marks.next_look_seconds(room), self._look)
        if reason is not None and not before:
            return TempFilled(reason=reason)
        return TempEased() if reason is None and before else None
