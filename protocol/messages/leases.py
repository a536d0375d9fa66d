"""Memory leases: permission for a large piece of memory (a model, a large decode, an inference), asked for before it
is taken, and the models that workers hold under them.

A worker numbers its own requests; the number then names the lease. It may give a request up and release its number
without having heard the answer: messages arrive in order.
"""

from typing import Annotated

import msgspec

from protocol.messages.answers import Answer
from protocol.messages.base import Number
from protocol.messages.from_worker import FromWorker
from protocol.messages.requests import Request
from protocol.messages.to_worker import ToWorker

Purpose = Annotated[str, msgspec.Meta(max_length=100)]
MAX_RENEWED = 1_000

# ---- worker -> supervisor


class RequestMemory(FromWorker, frozen=True, kw_only=True):
    """Asks for `bytes`, or for less down to `at_least`. Answer: `MemoryGranted` or `MemoryRefused`.

    `item` is what it is for, 0: nothing in particular. `within_bytes` more of the same piece lie within what the item
    in progress was admitted with. Where nothing is asked beside (`bytes` 0) it is told so that it can be seen, and not
    answered. The answer may take `patience_seconds` where others are about to give back what is missing.
    """

    slot: int
    incarnation: int
    number: Number
    purpose: Purpose
    bytes: Number
    at_least: Number = 0
    item: Number = 0
    within_bytes: Number = 0
    patience_seconds: float = 0.0


class ReleaseMemory(FromWorker, frozen=True, kw_only=True):
    """The piece is given back; a number that is not known (any more) is no fault."""

    slot: int
    incarnation: int
    number: Number


class RenewMemory(FromWorker, frozen=True, kw_only=True):
    """These leases are still wanted: they do not become stale."""

    slot: int
    incarnation: int
    numbers: Annotated[list[Number], msgspec.Meta(max_length=MAX_RENEWED)]


class ModelLoaded(FromWorker, frozen=True, kw_only=True):
    """A model is loaded, under the lease `number`, or was used since it was last told.

    `bytes` is what loading it was measured to take; the lease is set to that, and `within_bytes` of it, which lay
    within what the item in progress was admitted with, pass from the item's reservation to the lease.
    """

    slot: int
    incarnation: int
    number: Number
    name: Purpose
    bytes: Number
    uses: Number = 0
    within_bytes: Number = 0


class ModelUnloaded(FromWorker, frozen=True, kw_only=True):
    """A model is gone, and its lease with it; `bytes` came back: less than it took, for its libraries stay."""

    slot: int
    incarnation: int
    number: Number
    name: Purpose
    bytes: Number = 0
    reason: Purpose = ""


# ---- supervisor -> worker


class MemoryGranted(ToWorker, frozen=True, kw_only=True):
    """So many bytes may be taken, until the lease `number` is released."""

    number: int
    bytes: int


class MemoryRefused(ToWorker, frozen=True, kw_only=True):
    """Nothing is granted, and why; `for_ever`: no waiting helps under these settings."""

    number: int
    reason: str
    for_ever: bool = False


# ---- client -> supervisor -> client


class LeaseMemory(Request, frozen=True, kw_only=True):
    """Asks for a memory lease for the client's own process. Answer: `MemoryLeased`, or a `Problem` that says why not.

    `track`: the memory is in use already and only to be reckoned with; it is not refused.
    """

    purpose: Purpose = ""
    bytes: Number
    at_least: Number | None = None
    track: bool = False


class RenewMemoryLease(Request, frozen=True, kw_only=True):
    """Keeps a client's memory lease from becoming stale. Answer: `Done`."""

    lease: Number


class EndMemoryLease(Request, frozen=True, kw_only=True):
    """Gives a client's memory lease back. Answer: `Done`."""

    lease: Number


class MemoryLeased(Answer, frozen=True, kw_only=True):
    """The memory is the client's until it ends the lease or lets it become stale."""

    lease: int
    bytes: int
    stale_after_seconds: float
