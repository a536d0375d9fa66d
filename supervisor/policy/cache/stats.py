"""What the cache tells about itself."""

from collections.abc import Mapping

import msgspec

from supervisor.policy.cache.keys import CacheStep


class CacheStats(msgspec.Struct, frozen=True, kw_only=True):
    """`cache stats --json`, field for field. A hit or a miss is one step of one item."""

    entries: int
    bytes: int
    limit_bytes: int
    hits: int
    misses: int
    hit_rate: float
    policy: str
    culled: int
    memory_entries: int
    memory_bytes: int


class Tally(msgspec.Struct, kw_only=True):
    """Counts of one step or one policy. A first sight is a miss that no cache could have served."""

    hits: int = 0
    first_sights: int = 0
    missed_again: int = 0
    stored: int = 0
    culled: int = 0

    @property
    def misses(self) -> int:
        """Both kinds."""
        return self.first_sights + self.missed_again

    @property
    def hit_rate(self) -> float:
        """Hits among all look-ups; 0 where there were none."""
        return self.hits / max(1, self.hits + self.misses)

    @property
    def reference_hit_rate(self) -> float:
        """Hits among the look-ups of what was seen before: what the policy can be judged by."""
        return self.hits / max(1, self.hits + self.missed_again)


class StepTally(msgspec.Struct, frozen=True, kw_only=True):
    """Counts of one step (an operation with its version and parameters) under one policy."""

    operation: str
    version: int
    step: str
    policy: str
    hits: int
    first_sights: int
    missed_again: int
    stored: int
    culled: int
    hit_rate: float
    reference_hit_rate: float


class Verification(msgspec.Struct, frozen=True, kw_only=True):
    """What `cache verify` found. `damaged` entries had a blob missing, truncated or altered, or values that fail
    their checksum; `orphans` are blobs without an entry."""

    entries: int
    blobs: int
    bytes: int
    damaged: int
    orphans: int
    index: str
    """`ok`, or what SQLite says of the index."""
    repaired: bool

    @property
    def sound(self) -> bool:
        """Nothing was wrong."""
        return self.damaged == 0 and self.orphans == 0 and self.index == "ok"


def step_tallies(steps: Mapping[int, CacheStep], tallies: Mapping[tuple[int, str], Tally]) -> list[StepTally]:
    """Returns the counts of every step under every policy it met."""
    return [
        StepTally(
            operation=steps[number].operation,
            version=steps[number].version,
            step=steps[number].key.hex()[:16],
            policy=policy,
            hits=tally.hits,
            first_sights=tally.first_sights,
            missed_again=tally.missed_again,
            stored=tally.stored,
            culled=tally.culled,
            hit_rate=round(tally.hit_rate, 4),
            reference_hit_rate=round(tally.reference_hit_rate, 4),
        )
        for (number, policy), tally in sorted(tallies.items())
        if number in steps
    ]
