"""What every message is made of: the two bases, the version, the limits, the words for states."""

from typing import Annotated, Literal, get_args

import msgspec

PROTOCOL_VERSION = 1

MAX_FRAME_BYTES = 4 * 1024 * 1024
"""A longer frame is refused unread. 1,000 names of 255 bytes take some 260 KB; 4 MiB leaves room."""

MAX_NAMES_A_CHUNK = 10_000
"""Items in one `add_items`: bounds what one message can make the supervisor hold."""

Number = Annotated[int, msgspec.Meta(ge=0, le=2**53 - 1)]
"""A count or a place in a row: what every JSON library carries exactly, and every journal holds."""

ItemState = Literal["pending", "leased", "done", "cached", "failed", "quarantined", "cancelled"]
BatchState = Literal["accepted", "running", "paused", "finished", "cancelled"]
WorkerState = Literal["STARTING", "IDLE", "BUSY", "DRAINING", "STOPPING", "KILLING", "GONE"]
CleanupTier = Literal["gentle", "moderate", "aggressive", "emergency"]
TIERS: tuple[CleanupTier, ...] = get_args(CleanupTier)
"""In rising order."""
ErrorKind = Literal["corrupt", "unsupported", "too_large", "too_many_pixels", "timeout", "crash", "memory", "io"]


def _tag(class_name: str) -> str:
    return "".join("_" + c.lower() if c.isupper() else c for c in class_name).lstrip("_")


class Message(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag=_tag, forbid_unknown_fields=True):
    """Base of all; `type` is the class name in snake_case."""


class Part(msgspec.Struct, frozen=True, kw_only=True):
    """Base of what messages are made of."""
