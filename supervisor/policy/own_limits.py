"""The supervisor and its template, watched and limited like the workers.

The supervisor above its limit empties what it can spare (the cache's memory level, freed memory that its allocator
keeps); above it still, it says so, again and again at a slow pace: it cannot be recycled without stopping. The
template above its limit is renewed: every worker is forked from it, so what it gained, all of them would hold. One
that was born above the limit would be renewed for ever: then the limit is wrong, and that is said instead.
"""

import msgspec

from supervisor.policy.commands import Command, GiveBackMemory, Note, RenewTemplate, TrimCache
from supervisor.policy.events import PartSample
from supervisor.policy.sizes import human
from supervisor.policy.watch_settings import WatchSettings

CLEAN_EVERY_SECONDS = 30.0
"""A clean-up of its own must show in its memory before the next is worth it."""
TELL_EVERY_SECONDS = 300.0


class OwnWatch(msgspec.Struct):
    """What was done about the supervisor and the template, and when."""

    cleaned_at: float | None = None
    told_at: float | None = None
    template_pid: int = 0
    template_born_bytes: int = 0
    """Its memory at the first look."""
    template_told: bool = False

    def look(self, parts: list[PartSample], settings: WatchSettings, has_cache: bool, now: float) -> list[Command]:
        """Takes in a look and returns what it calls for."""
        commands: list[Command] = []
        for part in parts:
            if part.role == "supervisor":
                commands += self._supervisor(part, settings.max_supervisor_rss_bytes, has_cache, now)
            elif part.role == "template":
                commands += self._template(part, settings.max_template_rss_bytes)
        return commands

    def _supervisor(self, part: PartSample, limit: int | None, has_cache: bool, now: float) -> list[Command]:
        if limit is None or part.rss_bytes < limit:
            return []
        if self.cleaned_at is not None and now - self.cleaned_at < CLEAN_EVERY_SECONDS:
            return []
        again = self.cleaned_at is not None and now - self.cleaned_at < 2 * CLEAN_EVERY_SECONDS
        self.cleaned_at = now
        commands: list[Command] = [TrimCache(tier="emergency")] if has_cache else []
        commands.append(GiveBackMemory())
        if not again or self.told_at is None or now - self.told_at >= TELL_EVERY_SECONDS:
            self.told_at = now
            what = "and its clean-up did not help" if again else "its stores are emptied"
            commands.append(_note(part, limit, f"{what} ('supervisor memory -v' shows who holds what)"))
        return commands

    def _template(self, part: PartSample, limit: int | None) -> list[Command]:
        if part.pid != self.template_pid:
            self.template_pid, self.template_born_bytes, self.template_told = part.pid, part.rss_bytes, False
        if limit is None or part.rss_bytes < limit or self.template_told:
            return []
        self.template_told = True
        if self.template_born_bytes >= limit:
            why = "and was so from its start: renewing it would not help, raise watch.max_template_rss_bytes"
            return [_note(part, limit, why)]
        return [_note(part, limit, "it is renewed, and its workers with it"), RenewTemplate()]


def _note(part: PartSample, limit: int, what: str) -> Note:
    return Note(
        kind="own_limit",
        message=f"the {part.role} holds {human(part.rss_bytes)}, its limit is {human(limit)}: {what}",
        figures={"role": part.role, "rss_bytes": part.rss_bytes, "limit_bytes": limit},
    )
