"""Sizes, durations and other values as people write them, and back.

Sizes: K, M, G and T, KB and so on, KiB and so on are all powers of 1,024, as `policy.sizes` tells them.
Durations: ms, s, m, h, d, or plain seconds.
"""

import math
import os
import re
from typing import Any, Literal

from supervisor.policy.hours import Hours
from supervisor.policy.sizes import KB, human

Kind = Literal["size", "duration", "count", "number", "switch", "path", "text", "address", "hours", "secret"]

SECRET_CHARACTERS = 16
"""A shorter secret can be guessed over a fast network."""

_NUMBER = re.compile(r"([+-]?\d+(?:_\d+)*(?:\.\d+)?)\s*([A-Za-z]*)", re.ASCII)
_HOURS = re.compile(r"(\d{1,2}):(\d\d)\s*-\s*(\d{1,2}):(\d\d)", re.ASCII)
_SIZES = {"": 1, "b": 1}
for _power, _letter in enumerate("kmgt", start=1):
    _SIZES[_letter] = _SIZES[f"{_letter}b"] = _SIZES[f"{_letter}ib"] = KB**_power
_SECONDS = {"": 1.0, "ms": 0.001, "s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0, "d": 86400.0}
_YES, _NO = ("yes", "true", "on", "1"), ("no", "false", "off", "0")


def parse(kind: Kind, value: object, base_directory: str | None = None) -> Any:
    """Returns the value of a setting, given as text or as a TOML value. Raises ValueError that says what is wanted.

    A relative path is taken from `base_directory`, else from the current directory.
    """
    match kind:
        case "size":
            return parse_size(value)
        case "duration":
            return parse_duration(value)
        case "count":
            return _count(value)
        case "number":
            return _number(value)
        case "switch":
            return _switch(value)
        case "path":
            return _path(value, base_directory)
        case "text":
            if not isinstance(value, str) or not value:
                raise ValueError(f"{value!r} is no text")
            return value
        case "address":
            return parse_address(value)
        case "hours":
            return parse_hours(value)
        case "secret":
            if not isinstance(value, str) or len(value) < SECRET_CHARACTERS or not value.isascii() or " " in value:
                raise ValueError(f"a secret has {SECRET_CHARACTERS} characters or more, ASCII, no spaces")
            return value


def parse_address(value: object) -> tuple[str, int]:
    """Returns host and port of `HOST:PORT`, `[IPV6]:PORT` or `:PORT` (every interface); 0 is any free port.

    Raises ValueError.
    """
    host, colon, port = value.rpartition(":") if isinstance(value, str) else ("", "", "")
    bare = host.removeprefix("[").removesuffix("]")
    wrong = not colon or not port.isascii() or not port.isdigit() or int(port) > 65535 or (":" in bare and bare == host)
    if wrong:
        raise ValueError(f"{value!r} is not an address like 127.0.0.1:8080, [::1]:8080 or :8080 (every interface)")
    return bare or "0.0.0.0", int(port)


def parse_hours(value: object) -> Hours | None:
    """Returns the hours of `22:00-06:00`; `none` is None. Raises ValueError."""
    if value == "none":
        return None
    found = _HOURS.fullmatch(value.strip()) if isinstance(value, str) else None
    hours, minutes = (
        ([], []) if found is None else (list(map(int, found.group(1, 3))), list(map(int, found.group(2, 4))))
    )
    if found is None or max(hours) > 23 or max(minutes) > 59:
        raise ValueError(f"{value!r} is not two times of the day like 22:00-06:00")
    begin, end = (60 * hour + minute for hour, minute in zip(hours, minutes, strict=True))
    if begin == end:
        raise ValueError(f"{value!r} begins when it ends; leave it out to work always, or say 'none'")
    return Hours(begin, end)


def show_address(host: str, port: int) -> str:
    """Returns an address as people write it."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def parse_size(value: object) -> int | None:
    """Returns bytes; `none` is None. Raises ValueError."""
    if value == "none":
        return None
    number, unit = _split(value, "a size like 512M, 1.5G or 2000000")
    if unit.lower() not in _SIZES or number < 0:
        raise ValueError(f"{value!r} is not a size like 512M, 1.5G or 2000000 (units: K M G T, powers of 1024)")
    return int(number * _SIZES[unit.lower()])


def parse_duration(value: object) -> float | None:
    """Returns seconds; `none` is None. Raises ValueError."""
    if value == "none":
        return None
    number, unit = _split(value, "a duration like 500ms, 30s, 5m or 90")
    if unit not in _SECONDS or number < 0:
        raise ValueError(f"{value!r} is not a duration like 500ms, 30s, 5m or 90 (units: ms s m h d)")
    return number * _SECONDS[unit]


def show_duration(seconds: float) -> str:
    """Returns a duration for people: `350 ms`, `12.3 s`, `4 min 05 s`, `2 h 10 min`."""
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes = int(seconds // 60)
    if minutes < 60:
        return f"{minutes} min {int(seconds % 60):02} s"
    if minutes < 2880:
        return f"{minutes // 60} h {minutes % 60:02} min"
    return f"{minutes // 1440} d {minutes // 60 % 24} h"


def _split(value: object, wanted: str) -> tuple[float, str]:
    if isinstance(value, int | float) and not isinstance(value, bool):
        if not math.isfinite(value):
            raise ValueError(f"{value!r} is not {wanted}")
        return float(value) if isinstance(value, float) else value, ""
    found = _NUMBER.fullmatch(value.strip()) if isinstance(value, str) else None
    if found is None:
        raise ValueError(f"{value!r} is not {wanted}")
    text = found[1]
    return (float(text) if "." in text else int(text)), found[2]


def _count(value: object) -> int:
    number, unit = _split(value, "a whole number")
    if unit or number != int(number):
        raise ValueError(f"{value!r} is not a whole number")
    return int(number)


def _number(value: object) -> float:
    number, unit = _split(value, "a number")
    if unit:
        raise ValueError(f"{value!r} is not a number")
    return number


def _switch(value: object) -> bool:
    if isinstance(value, bool):
        return value
    if isinstance(value, str) and value.lower() in (*_YES, *_NO):
        return value.lower() in _YES
    raise ValueError(f"{value!r} is neither yes nor no")


def _path(value: object, base_directory: str | None) -> str:
    if not isinstance(value, str) or not value or "\0" in value:
        raise ValueError(f"{value!r} is not a path")
    # Two leading slashes would survive normpath (POSIX lets them mean something else); here they never do.
    return "/" + os.path.normpath(os.path.join(base_directory or os.getcwd(), os.path.expanduser(value))).lstrip("/")


def show(kind: Kind, value: object) -> str:
    """Returns a value as people read and write it."""
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if kind == "size" and isinstance(value, int | float):
        return human(value)
    if kind == "duration" and isinstance(value, int | float):
        return show_duration(value)
    if kind == "address" and isinstance(value, tuple):
        return show_address(*value)
    return "(secret)" if kind == "secret" else str(value)
