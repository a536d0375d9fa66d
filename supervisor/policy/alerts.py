"""What of all the decisions a person should hear about at once, and how often.

An alert is a decision that says more than that it was taken: a table names those that do. The same alert about the
same subject is not told again within its cooldown (shorter in an emergency), and no more than so many an hour are told
at all; what was held back is counted and told with the next. It goes where decisions go (event socket, log, journal)
as one of kind `alert`, and to the command and the webhook of the settings.
"""

from collections.abc import Callable, Sequence

import msgspec

from supervisor.policy.commands import Command, Note, TellAlert
from supervisor.policy.levels import Level
from supervisor.policy.state import PoolState

REMEMBERED_MAX = 1_000
HOUR_SECONDS = 3_600.0


class Rule(msgspec.Struct, frozen=True):
    """Which alert a decision is: its kind, whether it is an emergency, what it is about, and whether at all."""

    alert: str
    emergency: bool = False
    subject: Callable[[Note], str] = lambda note: ""
    applies: Callable[[Note], bool] = lambda note: True


def _slot(note: Note) -> str:
    return f"worker {note.slot}"


def _path(note: Note) -> str:
    return note.path or ""


def _part(note: Note) -> str:
    return str(note.figures.get("part", ""))


def _backs_off(note: Note) -> bool:
    return bool(note.figures.get("delay_seconds"))


def _is_level(least: Level, most: Level) -> Callable[[Note], bool]:
    def applies(note: Note) -> bool:
        return least <= int(str(note.figures.get("level", 0))) <= most and not note.figures.get("falling")

    return applies


RULES: dict[str, tuple[Rule, ...]] = {
    "level": (
        Rule("memory", False, lambda note: "", _is_level(Level.WARNING, Level.CRITICAL)),
        Rule("memory_emergency", True, lambda note: "", _is_level(Level.EMERGENCY, Level.PROTECTION)),
    ),
    "protection": (Rule("protection", True),),
    "widened": (Rule("thrash", False, _slot),),
    "quarantined": (Rule("quarantine", False, _path),),
    "temp_full": (Rule("disk_full"),),
    "journal_stalled": (Rule("disk_full", False, lambda note: "journal"),),
    "machine_error": (Rule("machine", False, lambda note: note.batch or ""),),
    "start_failed": (Rule("restart_loop", False, _slot, _backs_off),),
    "restart_loop": (Rule("restart_loop", False, _slot),),
    "part_died": (Rule("restart_loop", False, _part, _backs_off),),
    "leak": (Rule("leak", False, lambda note: f"{note.slot} {note.figures.get('subject', '')}"),),
    "stuck": (Rule("stuck", False, _slot),),
}
"""By the kind of the decision."""


def watch(state: PoolState, commands: Sequence[Command], now: float) -> list[Command]:
    """Returns the alerts that these decisions call for."""
    found: list[Command] = []
    for command in commands:
        if isinstance(command, Note) and command.kind in RULES:
            for rule in RULES[command.kind]:
                if rule.applies(command):
                    found += _alert(state, rule, command, now)
    return found


def _alert(state: PoolState, rule: Rule, note: Note, now: float) -> list[Command]:
    alerts, settings = state.alerts, state.settings.alerts
    key = (rule.alert, rule.subject(note))
    cooldown = settings.emergency_cooldown_seconds if rule.emergency else settings.cooldown_seconds
    last = alerts.told.get(key)
    if last is not None and now - last < cooldown:
        alerts.held[key] = alerts.held.get(key, 0) + 1
        return []
    while alerts.recent and now - alerts.recent[0] >= HOUR_SECONDS:
        alerts.recent.popleft()
    if len(alerts.recent) >= settings.per_hour and not rule.emergency:
        alerts.beyond_rate += 1
        return []
    alerts.recent.append(now)
    alerts.told.pop(key, None)
    alerts.told[key] = now
    if len(alerts.told) > REMEMBERED_MAX:
        oldest = next(iter(alerts.told))
        del alerts.told[oldest]
        alerts.held.pop(oldest, None)
    held = alerts.held.pop(key, 0)
    beyond, alerts.beyond_rate = alerts.beyond_rate, 0
    alert = Note(
        kind="alert",
        slot=note.slot,
        batch=note.batch,
        path=note.path,
        message=f"alert, {rule.alert.replace('_', ' ')}: {note.message}{_more(held, beyond)}",
        figures={
            **note.figures,
            "alert": rule.alert,
            "emergency": rule.emergency,
            "held_back": held,
            "held_back_by_rate": beyond,
        },
    )
    return [alert, TellAlert(alert=rule.alert, emergency=rule.emergency, note=alert, at=state.epoch(now))]


def _more(held: int, beyond: int) -> str:
    parts = [f"{held} more like this since the last one"] if held else []
    parts += [f"{beyond} others held back"] if beyond else []
    return f" ({', '.join(parts)})" if parts else ""
