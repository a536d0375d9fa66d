"""The settings, read anew while the supervisor runs.

The same table, the same order (flag, variable, file) and the same checks as at the start; what was set while running
stands above all of them until the supervisor ends. Either everything is sound and taken, or nothing is: the
running supervisor never has settings that it could not have been started with. What needs a restart keeps its value
here, so that it is told again with every reading until it is true.
"""

import os
from collections.abc import Mapping

import msgspec

from protocol.errors import GalleryError, UsageError
from protocol.messages import ChangeSettings, SettingChange, TakesEffect
from supervisor.config import Config, Reading, default_file, read
from supervisor.mechanism.memory import usable_cores
from supervisor.mechanism.settings_file import write_settings
from supervisor.policy.live import LiveSettings, SettingsChanged
from supervisor.settings import BY_NAME, SETTINGS, Setting, setting_of

NOW = frozenset(
    ["memory", "item-timeout", "drain", "batch-size-max", "queue-max-items", "batches-max", "decisions-kept",
     "min-workers", "idle-shrink", "retention-minutes", "retention-count", "cache-size", "cache-memory",
     "exit-when-idle", "between", "abandon-after"]
)  # fmt: skip
"""Settings that the supervisor itself acts on; those of the tables [watch] and [reaper] are among them."""
NEW_WORKERS = frozenset({"nice", "idle-io"})
"""Settings that a worker is started with; those of the table [limits] are among them."""


def takes_effect(setting: Setting) -> TakesEffect:
    """Returns when a changed setting counts."""
    if setting.name in NOW or setting.section in ("watch", "leases", "reaper", "cleanup", "alerts"):
        return "now"
    return "new workers" if setting.name in NEW_WORKERS or setting.section == "limits" else "restart"


def live_of(config: Config) -> LiveSettings:
    """Returns what of a configuration the policy can take while it runs."""
    return LiveSettings(**{name: getattr(config, name) for name in LiveSettings.__struct_fields__})


class Reconfigurer:
    """Holds the configuration in force. `flags` are those the supervisor was started with. Changes are made in the
    chores thread, one at a time; `config` may be read by any."""

    def __init__(
        self, config: Config, flags: Mapping[str, str | None], environ: Mapping[str, str] | None = None
    ) -> None:
        self.config = config
        self._flags = dict(flags)
        self._environ = dict(os.environ if environ is None else environ)
        self._changes: dict[str, str] = {}
        self._values: dict[str, object] = self._read({}).values

    def change(self, peer: bytes | None, request: ChangeSettings) -> SettingsChanged:
        """Reads the settings with these changes; takes them if they are sound. Raises nothing."""
        try:
            return self._change(peer, request)
        except (GalleryError, OSError) as error:
            return SettingsChanged(peer=peer, request_id=request.id, settings=None, faults=str(error))

    def _change(self, peer: bytes | None, request: ChangeSettings) -> SettingsChanged:
        asked = {_named(key).name: value for key, value in request.changes.items()}
        if not request.save:
            late = [BY_NAME[name].key_path for name in asked if takes_effect(BY_NAME[name]) == "restart"]
            if late:
                raise UsageError(
                    f"{', '.join(late)}: cannot change while the supervisor runs; write it to the settings file "
                    "(config set --save) and start the supervisor anew"
                )
        before = self._values
        changes = self._changes | asked
        reading = self._read(changes)
        config = reading.config(usable_cores())
        saved_to = None
        if request.save:
            saved_to = reading.file or default_file(self._environ)
            write_settings(saved_to, asked)
        changed = _differences(before, reading.values) + _recipes(self.config, config)
        self._changes = changes
        self.config = _in_force(self.config, config)
        self._values = before | {
            name: value for name, value in reading.values.items() if takes_effect(BY_NAME[name]) != "restart"
        }
        return SettingsChanged(
            peer=peer, request_id=request.id, settings=live_of(self.config), changed=changed, saved_to=saved_to
        )

    def _read(self, changes: Mapping[str, str]) -> Reading:
        return read(self._flags, frozenset(BY_NAME) - {"recipe"}, self._environ, changes)


def _named(key: str) -> Setting:
    found = setting_of(key)
    if found is None:
        raise UsageError(f"there is no setting {key!r}; 'supervisor config show' lists them")
    return found


def _differences(before: Mapping[str, object], after: Mapping[str, object]) -> list[SettingChange]:
    return [
        SettingChange(
            key=BY_NAME[name].key_path,
            old=BY_NAME[name].shown(before[name]),
            new=BY_NAME[name].shown(value),
            takes_effect=takes_effect(BY_NAME[name]),
        )
        for name, value in after.items()
        if name in before and before[name] != value
    ]


def _recipes(old: Config, new: Config) -> list[SettingChange]:
    """Workers are forked from a template that was made for the recipes of the start."""
    names = old.recipes.keys() | new.recipes.keys()
    return [
        SettingChange(
            key=f"recipes.{name}",
            old="as loaded" if name in old.recipes else "none",
            new="changed" if name in new.recipes else "none",
            takes_effect="restart",
        )
        for name in sorted(names)
        if old.recipes.get(name) != new.recipes.get(name)
    ]


def _in_force(old: Config, new: Config) -> Config:
    """Returns the new configuration with what needs a restart as it was."""
    fields = {
        setting.field
        for setting in SETTINGS
        if not setting.section and takes_effect(setting) == "restart" and hasattr(old, setting.field)
    }
    kept = {name: getattr(old, name) for name in fields | {"recipes"}}
    return msgspec.structs.replace(new, **kept)
