"""Kinds of batches: the tables [retention.KIND] of supervisor.toml, and how long batches of that kind are kept.

    [retention.preview]
    age = "30m"           # not used for so long: forgotten
    count = 20            # more than so many of the kind: the least recently used go
    results_age = "10m"   # large results go before the record [half of the age]

A batch gets its kind from `submit --kind preview`; one of a kind without a table is kept by retention_minutes and
retention_count.
"""

from typing import Any

import msgspec

from supervisor.policy.retention import DEFAULT_KIND, Rule
from supervisor.values import parse

_FIELDS = {"age": "age_seconds", "count": "count", "results_age": "results_age_seconds"}
MAX_KINDS = 100
MAX_NAME_LENGTH = 100


def read_kinds(table: object) -> tuple[dict[str, Rule], list[str]]:
    """Returns the rules of the kinds in the tables below `retention`, and a sentence for each fault."""
    if not isinstance(table, dict):
        return {}, [f"key retention: tables [retention.KIND] are needed, not {table!r}"]
    rules: dict[str, Rule] = {}
    faults: list[str] = []
    if len(table) > MAX_KINDS:
        return {}, [f"key retention: {len(table)} kinds, at most {MAX_KINDS} are allowed"]
    for kind, held in table.items():
        rule, found = _read_one(kind, held)
        faults += [f"key retention.{kind}{fault}" for fault in found]
        if rule is not None and not found:
            rules[kind] = rule
    return rules, faults


def _read_one(kind: str, held: object) -> tuple[Rule | None, list[str]]:
    if not isinstance(held, dict):
        return None, [f": a table [retention.{kind}] with age and count is needed, not {held!r}"]
    if kind == DEFAULT_KIND:
        return None, [": batches without a kind are kept by retention_minutes and retention_count"]
    if not kind or len(kind) > MAX_NAME_LENGTH:
        return None, [f": a kind's name has 1 to {MAX_NAME_LENGTH} letters"]
    fields: dict[str, Any] = {}
    faults = []
    for key, value in held.items():
        if key not in _FIELDS:
            faults.append(f".{key}: there is no such setting; there are {', '.join(_FIELDS)}")
            continue
        try:
            found = parse("count" if key == "count" else "duration", value)
            if found is None:
                raise ValueError("'none' is not possible here")
        except ValueError as error:
            faults.append(f".{key}: {error}")
            continue
        fields[_FIELDS[key]] = found
    if faults:
        return None, faults
    rule = msgspec.structs.replace(Rule(), **fields)
    return rule, [f": {fault}" for fault in rule.check()]
