"""The cache's settings, each with its limit and why it has its value; related to each other in one place."""

from typing import Literal

import msgspec

from supervisor.policy.cache.entry import Policy
from supervisor.policy.sizes import GB, KB, MB

PolicyName = Literal["lru", "lfu", "ttl", "adaptive", "cost"]
POLICY_NAMES: tuple[PolicyName, ...] = ("lru", "lfu", "ttl", "adaptive", "cost")

DEFAULT_POLICY: PolicyName = "cost"
DEFAULT_SHARE_OF_FREE_DISK = 0.05
DEFAULT_LIMIT_BYTES = 10 * GB


class CacheSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Sizes in bytes, times in seconds. Raises ValueError when they contradict each other."""

    limit_bytes: int
    """Values and blobs together; `default_limit_bytes` tells what it is where nobody says."""
    limit_entries: int = 2_000_000
    """About 600 MB of index, at 300 bytes an entry."""
    policy: PolicyName | None = None
    """None: the one chosen last (`cache policy NAME`), at first `cost`."""
    ttl_seconds: float = 30 * 86_400.0
    """For the policy ttl: as long as people look at last month's pictures."""
    half_life_seconds: float = 7 * 86_400.0
    """For the policy lfu: a use of last week counts half."""
    memory_bytes: int = 50 * MB
    """The memory level above the index."""
    inline_bytes: int = 16 * KB
    """A value up to this size lies in the index: below about 20 KiB SQLite reads faster than the file system."""
    sample_entries: int = 32
    """How many entries a policy is shown at a time."""
    culls_a_turn: int = 256
    sweep_rows_a_turn: int = 2_000
    orphan_age_seconds: float = 3600.0
    """A blob without an entry may be one that is just being published; after an hour it is an orphan."""
    shortcut_age_seconds: float = 90 * 86_400.0
    """A file not looked for in so long has its shortcut dropped."""
    hard_links: bool = False
    """Deliver by hard link: no space, but whoever changes an output in place changes the cache."""

    def __post_init__(self) -> None:
        wrong = [name for name in self.__struct_fields__ if _below(getattr(self, name))]
        if wrong:
            raise ValueError(f"{', '.join(wrong)} cannot be negative")
        if self.inline_bytes > MB:
            raise ValueError(f"inline_bytes is {self.inline_bytes:,}: values above 1 MB belong in files")
        if not 1 <= self.sample_entries <= 1024:
            raise ValueError(f"sample_entries is {self.sample_entries}: 1 to 1,024")


def _below(value: object) -> bool:
    return isinstance(value, int | float) and value < 0


def default_limit_bytes(free_bytes: int, held_bytes: int = 0) -> int:
    """Returns 5 % of what is free (what the cache already holds counts as free), at most 10 GB."""
    return min(DEFAULT_LIMIT_BYTES, int((free_bytes + held_bytes) * DEFAULT_SHARE_OF_FREE_DISK))


def make_policy(name: PolicyName, settings: CacheSettings) -> Policy:
    """Returns the policy of that name."""
    # The command line wants the names alone, and each of its verbs pays for what it imports.
    from supervisor.policy.cache.classic import LeastFrequentlyUsed, LeastRecentlyUsed, TimeToLive
    from supervisor.policy.cache.windowed import Adaptive, CostAware

    match name:
        case "lru":
            return LeastRecentlyUsed()
        case "lfu":
            return LeastFrequentlyUsed(settings.half_life_seconds)
        case "ttl":
            return TimeToLive(settings.ttl_seconds)
        case "adaptive":
            return Adaptive(settings.limit_entries)
        case "cost":
            return CostAware(settings.limit_entries)
