"""Answers of the supervisor as JSON, without their envelope; path tokens as `path` and, where need be, `path_b64`."""

from typing import Any

import msgspec

from protocol.messages import Answer, Part
from protocol.paths import describe, is_plain

_ENVELOPE = ("type", "v", "id")
_PATHS = frozenset({"path", "current", "out", "root", "directory"})


def row(message: Answer | Part) -> dict[str, Any]:
    """Returns a message as JSON data."""
    found: dict[str, Any] = msgspec.to_builtins(message)
    for name in _ENVELOPE:
        found.pop(name, None)
    return _readable(found)


def token_of(given: dict[str, Any]) -> str | None:
    """Returns the path token that a client means: `path`, or `path_b64` where the name is not UTF-8; None: neither."""
    raw = given.get("path_b64")
    if isinstance(raw, str):
        return f"//base64:{raw}"
    path = given.get("path")
    return path if isinstance(path, str) else None


def _readable(found: dict[str, Any]) -> dict[str, Any]:
    made: dict[str, Any] = {}
    for key, value in found.items():
        if isinstance(value, dict):
            made[key] = _readable(value)
        elif isinstance(value, list):
            made[key] = [_readable(each) if isinstance(each, dict) else each for each in value]
        elif key in _PATHS and isinstance(value, str) and not is_plain(value):
            made |= {key + name.removeprefix("path"): text for name, text in describe(value).items()}
        else:
            made[key] = value
    return made
