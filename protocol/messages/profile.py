"""A running worker's allocations, line by line: asked by a client, traced by the worker, bounded in time."""

from typing import Literal

from protocol.messages.answers import Answer
from protocol.messages.base import Number, Part
from protocol.messages.from_worker import FromWorker
from protocol.messages.requests import Request
from protocol.messages.to_worker import ToWorker


class MemoryProfile(Request, frozen=True, kw_only=True):
    """Traces what the worker of a slot allocates for `seconds`, and tells the `top` lines by growth. Meanwhile the
    worker's Python code runs some times slower. Answer: `ProfileReport`, when it is over."""

    slot: Number
    seconds: float = 10.0
    top: Number = 20


class AllocatedLine(Part, frozen=True, array_like=True):
    """One line of code: what was allocated there since the start and is held still, in bytes and blocks."""

    place: str
    """FILE:LINE"""
    bytes: int
    blocks: int


class ProfileReport(Answer, frozen=True, kw_only=True):
    """What a worker allocated and still holds, the most first. `tracer_bytes` is what tracing itself took."""

    slot: int
    pid: int
    seconds: float
    items: int
    """Images it finished meanwhile."""
    grown_bytes: int
    grown_blocks: int
    tracer_bytes: int
    lines: list[AllocatedLine]


class Profile(ToWorker, frozen=True, kw_only=True):
    """Begin to trace allocations, or end it and tell; `number` names the profile. Answer to the end: `Profiled`."""

    number: int
    action: Literal["begin", "end"]
    top: int = 20


class Profiled(FromWorker, frozen=True, kw_only=True):
    """What was allocated since the beginning and is held still, in Python's allocator, the most first."""

    slot: int
    incarnation: int
    number: int
    items: int
    seconds: float
    grown_bytes: int
    grown_blocks: int
    tracer_bytes: int
    lines: list[AllocatedLine]
