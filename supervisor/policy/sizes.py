"""Bytes for people: KB, MB and GB are powers of 1,024 wherever a size is read or told, as docker and systemd take them.

One rule: with two, a limit given as 50 MB is told as 48 MB. Defaults that are sizes are multiples of these.
"""

KB, MB, GB = 1024, 1024**2, 1024**3
_UNITS = ("bytes", "KB", "MB", "GB", "TB")


def human(count_bytes: float) -> str:
    """Returns a size as people read it, in units of 1,024 (`312 MB`, `1.5 GB`); JSON carries the bytes."""
    value, unit = float(count_bytes), 0
    while abs(value) >= 1000 and unit < len(_UNITS) - 1:
        value /= 1024
        unit += 1
    if unit == 0:
        return f"{count_bytes:.0f} bytes"
    return f"{value:.1f} {_UNITS[unit]}" if abs(value) < 10 else f"{value:.0f} {_UNITS[unit]}"
