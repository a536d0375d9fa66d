"""supervisor.toml, changed in place: one line for one setting, everything else left as its author wrote it.

The standard library reads TOML and does not write it. A value that is set is a line of its own here, so replacing or
adding that line is all there is to do; the result is written beside the file and renamed over it.
"""

import json
import os
import re
from collections.abc import Mapping

from supervisor.settings import BY_NAME

_TABLE = re.compile(r"\s*\[")
_BARE = re.compile(r"-?\d+(\.\d+)?|true|false")


def write_settings(path: str, values: Mapping[str, str]) -> None:
    """Writes values (by setting name) into the file at `path`, which is made if need be. Raises OSError."""
    try:
        with open(path, encoding="utf-8") as file:
            text = file.read()
    except FileNotFoundError:
        text = ""
        os.makedirs(os.path.dirname(path) or ".", exist_ok=True)
    for name, value in values.items():
        text = with_value(text, BY_NAME[name].section, BY_NAME[name].key, value)
    unfinished = f"{path}.new"
    with open(unfinished, "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.replace(unfinished, path)


def with_value(text: str, section: str, key: str, value: str) -> str:
    """Returns the text of a TOML file with a key of a table (empty: the top) set to a value."""
    line = f"{key} = {value if _BARE.fullmatch(value) else json.dumps(value)}"
    lines = text.splitlines()
    begin, end = _span(lines, section)
    if begin is None:
        return "\n".join([*lines, *([""] if lines else []), f"[{section}]", line]) + "\n"
    for number in range(begin, end):
        if re.match(rf"\s*{re.escape(key)}\s*=", lines[number]):
            comment = re.search(r"\s#[^\"']*$", lines[number])
            lines[number] = line + (" " + comment[0].strip() if comment else "")
            return "\n".join(lines) + "\n"
    while end > begin and not lines[end - 1].strip():
        end -= 1
    lines.insert(end, line)
    return "\n".join(lines) + "\n"


def _span(lines: list[str], section: str) -> tuple[int | None, int]:
    """Returns the lines between the head of a table and the next one."""
    heads = [number for number, line in enumerate(lines) if _TABLE.match(line)]
    if not section:
        return 0, heads[0] if heads else len(lines)
    for number in heads:
        if re.match(rf"\s*\[\s*{re.escape(section)}\s*\]", lines[number]):
            return number + 1, next((head for head in heads if head > number), len(lines))
    return None, 0
