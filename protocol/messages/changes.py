"""Settings changed while the supervisor runs: all that was asked for, or nothing."""

from typing import Literal

from protocol.messages.answers import Answer
from protocol.messages.base import Part
from protocol.messages.requests import Request

TakesEffect = Literal["now", "new workers", "restart"]


class ChangeSettings(Request, frozen=True, kw_only=True):
    """Changes settings by key path (`watch.elevated_share`) to values as one would write them (`512M`, `90s`, `none`).
    With no changes, the settings file is read anew, as on SIGHUP. `save` also writes them to the settings file.
    Answer: `SettingsReport`, or a Problem with every fault; then nothing was changed."""

    changes: dict[str, str] = {}
    save: bool = False


class SettingChange(Part, frozen=True, kw_only=True):
    """One setting that is not as it was. `takes_effect`: now, with workers started from now on, or only when the
    supervisor is started anew."""

    key: str
    old: str
    new: str
    takes_effect: TakesEffect


class SettingsReport(Answer, frozen=True, kw_only=True):
    """What was changed. `saved_to` is the settings file they were written to, None where they last until a restart."""

    changed: list[SettingChange]
    saved_to: str | None = None
