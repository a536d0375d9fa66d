"""What makes two results the same: the image's content and everything that shaped the result.

A step's key hashes its operation, that operation's version, its parameters and the models it uses. Parameters
must be given as the operation understood them, defaults filled in, so that a default written out is the same
step. An entry is found by (content hash, step key).
"""

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

CONTENT_BYTES = 32
"""SHA-256."""


class CacheStep(msgspec.Struct, frozen=True):
    """A step as the cache knows it."""

    operation: str
    version: int
    key: bytes


def step_of(operation: str, version: int, parameters: Mapping[str, Any], models: Sequence[str] = ()) -> CacheStep:
    """Returns the step's name in the cache. `models` are hashes of the models it uses, in hexadecimal.

    Raises TypeError where the parameters cannot be written as JSON.
    """
    text = msgspec.json.encode([operation, version, parameters, list(models)], order="deterministic")
    return CacheStep(operation, version, hashlib.sha256(text).digest())
