"""Parts of one's own: the tables [parts.NAME] of supervisor.toml, processes that live and die with the supervisor.

[parts.watch-folder]
command = ["python", "-m", "my_folder_watch"]   # run with SUPERVISOR_STATE set
essential = false                               # stopped in an emergency, started again when it is over
memory = "200M"                                 # replaced when it holds more [200M]
"""

import re
from typing import Any

import msgspec

from supervisor.policy.sizes import MB
from supervisor.values import parse

MAX_PARTS = 20
MEMORY_BYTES = 200 * MB
_NAME = re.compile(r"[a-z][a-z0-9-]{0,31}")
RESERVED = ("supervisor", "template", "worker", "gateway")
_KEYS = ("command", "essential", "memory")


class PartCommand(msgspec.Struct, frozen=True, kw_only=True):
    """A part as configured; `memory_bytes` is the RSS at which it is replaced, None: no limit."""

    argv: list[str]
    essential: bool = False
    memory_bytes: int | None = MEMORY_BYTES


def read_parts(table: object) -> tuple[dict[str, PartCommand], list[str]]:
    """Returns the parts of the table `parts` by name, and a sentence for each fault."""
    if not isinstance(table, dict):
        return {}, [f"key parts: tables [parts.NAME] are needed, not {table!r}"]
    if len(table) > MAX_PARTS:
        return {}, [f"key parts: {len(table)} parts, at most {MAX_PARTS} are allowed"]
    parts: dict[str, PartCommand] = {}
    faults: list[str] = []
    for name, held in table.items():
        found = _faults_of(name, held)
        faults += [f"key parts.{name}: {fault}" for fault in found]
        if not found:
            parts[name] = PartCommand(
                argv=held["command"],
                essential=held.get("essential", False),
                memory_bytes=_memory(held.get("memory", MEMORY_BYTES)),
            )
    return parts, faults


def _memory(value: object) -> int | None:
    found: Any = parse("size", value)
    return found if found is None else int(found)


def _faults_of(name: str, held: object) -> list[str]:
    if not _NAME.fullmatch(name):
        return ["a name is a small letter, then small letters, digits or '-', at most 32"]
    if name in RESERVED:
        return [f"{name!r} is the name of a process of the pool; choose another one"]
    if not isinstance(held, dict):
        return [f'command = ["PROGRAM", ...] is needed in a table [parts.{name}], not {held!r}']
    faults = [f"there is no key {key!r}; there are {', '.join(_KEYS)}" for key in held if key not in _KEYS]
    command = held.get("command")
    if not isinstance(command, list) or not command or not all(isinstance(word, str) and word for word in command):
        faults.append(f'command = ["PROGRAM", "ARGUMENT", ...] is needed, not {command!r}')
    if not isinstance(held.get("essential", False), bool):
        faults.append(f"essential is true or false, not {held['essential']!r}")
    try:
        _memory(held.get("memory", MEMORY_BYTES))
    except ValueError as error:
        faults.append(f"memory: {error}")
    return faults
