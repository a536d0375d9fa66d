"""Settings that change while the pool runs.

What is decided with is replaced as a whole, between two events: no decision ever sees half of a change. What may not
change under running workers (their number, their sandbox, the recipes their template was made for) is told by name
and waits for a restart.
"""

import msgspec

from protocol.messages import Problem, SettingChange, SettingsReport
from supervisor.policy.cleanup_settings import AlertSettings, CleanupSettings
from supervisor.policy.commands import Command, Note, Reply
from supervisor.policy.hours import Hours
from supervisor.policy.lease_book import LeaseSettings
from supervisor.policy.retention import Retention
from supervisor.policy.state import PoolState
from supervisor.policy.watch_settings import WatchSettings


class LiveSettings(msgspec.Struct, frozen=True, kw_only=True):
    """What of the pool's settings can change; the names are those of PoolSettings."""

    watch: WatchSettings
    leases: LeaseSettings
    cleanup: CleanupSettings
    alerts: AlertSettings
    item_timeout_seconds: float
    timeout_tries: int
    drain_seconds: float
    between: Hours | None
    batch_size_max: int
    queue_max_items: int
    batches_max: int
    abandon_seconds: float
    min_workers: int
    idle_shrink_seconds: float
    exit_when_idle_seconds: float | None
    retention: Retention | None


class SettingsChanged(msgspec.Struct, frozen=True, kw_only=True):
    """The settings were read anew and are sound. `peer`: who asked, None for a signal. `settings` is None where they
    are not sound: nothing is changed then, and `faults` says why."""

    peer: bytes | None
    request_id: int | str
    settings: LiveSettings | None
    changed: list[SettingChange] = []
    saved_to: str | None = None
    faults: str = ""


def on_settings_changed(state: PoolState, event: SettingsChanged, now: float) -> list[Command]:
    """Takes the new settings, says what is different, and looks at once: a limit may have been passed by this."""
    if event.settings is None:
        return _refused(event)
    values = {name: getattr(event.settings, name) for name in event.settings.__struct_fields__}
    state.settings = msgspec.structs.replace(state.settings, **values)
    watch = event.settings.watch
    state.levels.settings = state.widenings.settings = watch
    for slot in state.slots:
        slot.batch_size.bound(event.settings.batch_size_max, "the largest allowed was changed")
    if event.settings.retention is not None:
        state.sweep_at = now if state.sweep_at is None else min(state.sweep_at, now)
    state.sample_at = min(state.sample_at, now)
    state.queue.abandon_at = now
    notes: list[Command] = [_note(change) for change in event.changed]
    if event.peer is None:
        return notes or [Note(kind="settings", message="the settings were read again: nothing has changed")]
    report = SettingsReport(id=event.request_id, changed=event.changed, saved_to=event.saved_to)
    return [*notes, Reply(peer=event.peer, answer=report)]


def _refused(event: SettingsChanged) -> list[Command]:
    if event.peer is None:
        return [Note(kind="settings_refused", message=f"the settings stay as they were: {event.faults}")]
    problem = Problem(id=event.request_id, code="usage", fault="caller", message=event.faults, exit_code=2)
    return [Reply(peer=event.peer, answer=problem)]


def _note(change: SettingChange) -> Note:
    when = {"now": "", "new workers": " (for workers started from now on)", "restart": " (only after a restart)"}
    return Note(
        kind="settings",
        message=f"setting {change.key}: {change.old} -> {change.new}{when[change.takes_effect]}",
        figures={"key": change.key, "old": change.old, "new": change.new, "takes_effect": change.takes_effect},
    )
