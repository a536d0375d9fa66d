"""What the loop asks of the cache's thread, and what it is told.

    LookUpItems  ->  LookedUp, once or in several parts, until every item was named as a hit or a miss
    StoreItems   ->  Stored, when what was made can be found

A hit needs no worker: its outputs stand under their final names. It is settled as `cached` with the detail and
the written outputs it brings (those that were in place are not written and need no sync). A miss is run; its
`identity` is what `coalesce.Coalescer` is keyed by.
"""

import msgspec

from supervisor.policy.cache.keys import CacheStep
from supervisor.policy.cache.made import FileStamp as FileStamp
from supervisor.policy.cache.made import Made as Made
from supervisor.policy.cache.made import MadeOutput as MadeOutput
from supervisor.policy.cache.made import MadeStep as MadeStep
from supervisor.policy.commands import Command
from supervisor.policy.events import Event


class Wanted(msgspec.Struct, frozen=True):
    """An item to be looked up: its input's path and the token of its stem. `owned`: an output of that name is
    known to be ours and may be replaced."""

    id: int
    path: bytes
    stem: str
    owned: bool = False


class LookUpItems(Command, frozen=True, kw_only=True):
    """Find these items of a batch; `out` is the token of the output directory. With `strict`, only results
    without warnings are found: what a strict batch would refuse is not taken from a lenient one."""

    batch: str
    out: str | None
    steps: tuple[CacheStep, ...]
    overwrite: bool = False
    strict: bool = False
    items: list[Wanted]


class CacheHit(msgspec.Struct, frozen=True):
    """An item that is done. `detail` and `written` are those of a Settlement; `saved_seconds` is what it took to
    make."""

    id: int
    detail: bytes
    written: list[str]
    saved_seconds: float


class CacheMiss(msgspec.Struct, frozen=True):
    """An item to be run. `content` is the SHA-256 of the image in hexadecimal, empty where it is not known;
    `identity` tells identical items: the same bytes, the same result."""

    id: int
    content: str
    identity: bytes


class LookedUp(Event, frozen=True, kw_only=True):
    """Items of one LookUpItems that were found and that were not; the rest follows."""

    batch: str
    hits: list[CacheHit]
    misses: list[CacheMiss]


class StoreItems(Command, frozen=True, kw_only=True):
    """Keep what was made. Never holds work up: where there is no room, nothing is kept. With `more_to_come` it may be
    gathered with what comes next, for about a second."""

    batch: str
    out: str | None
    steps: tuple[CacheStep, ...]
    items: list[Made]
    more_to_come: bool = False


class Stored(Event, frozen=True, kw_only=True):
    """These items were kept, or could not be (`dropped`); either way nobody needs to wait for them any more."""

    batch: str
    kept: list[int]
    dropped: list[int]


CacheCommand = LookUpItems | StoreItems
CacheEvent = LookedUp | Stored
