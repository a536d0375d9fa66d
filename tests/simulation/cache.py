"""The cache as the policy sees it: it answers every item once, in one part or two, sooner or later.

Images of a kind with near numbers have the same content (`good-3`, `good-4`). What was kept is found for
as long as the cache keeps it; a look-up may be slow or give up (a miss that tells no content), and its answer may
find the batch cancelled, read again, or gone.
"""

from collections.abc import Callable
from functools import partial
from random import Random

import msgspec

from protocol.messages import ItemMade, StepMade
from supervisor.policy.cache.asked import CacheHit, CacheMiss, LookedUp, LookUpItems, Made, Stored, StoreItems, Wanted
from supervisor.policy.cache.keys import step_of

STEPS = (step_of("noop", 1, {}),)
ALIKE = 10
MADE = ItemMade((1, 2, 3, 4, 5), 6, [StepMade(0.01)], msgspec.Raw(b"[]"))
_DETAIL = b'{"error":null,"outputs":[],"values":{},"warnings":[]}'

Later = Callable[[float, Callable[[], LookedUp | Stored]], None]


def content_of(stem: str) -> str:
    """Returns what an image is, by its name: some have the same content."""
    kind, number = stem.split("-")
    return f"{kind}-{int(number) // ALIKE}"


class Cache:
    """Contents that were kept; what is under way dies with the supervisor that asked."""

    def __init__(self, random: Random, later: Later) -> None:
        self.kept: set[str] = set()
        self.full = False
        """Its disk has no room: nothing more is kept."""
        self._random = random
        self._later = later

    def look_up(self, command: LookUpItems) -> None:
        """Answered by LookedUp once or twice, in parts that may overtake those of other look-ups."""
        items = list(command.items)
        parts = [items]
        if len(items) > 1 and self._random.random() < 0.4:
            cut = self._random.randrange(1, len(items))
            parts = [items[:cut], items[cut:]]
        for part in parts:
            self._later(self._delay(), partial(self._answer, command, part))

    def store(self, command: StoreItems) -> None:
        """Answered by Stored once or twice."""
        items = list(command.items)
        cut = self._random.randrange(len(items) + 1) if self._random.random() < 0.3 else len(items)
        for part in (items[:cut], items[cut:]):
            if part:
                self._later(self._delay(), partial(self._keep, command, part))

    def _delay(self) -> float:
        slow = self._random.random()
        if slow < 0.02:
            return self._random.uniform(1.0, 6.0)
        return self._random.uniform(0.0, 0.3 if slow < 0.2 else 0.01)

    def _answer(self, command: LookUpItems, items: list[Wanted]) -> LookedUp:
        hits, misses = [], []
        for wanted in items:
            content = content_of(wanted.stem)
            known = self._random.random()
            if content in self.kept and known < 0.95:
                hits.append(CacheHit(wanted.id, _DETAIL, [wanted.stem] if known < 0.5 else [], 0.01))
            elif known < 0.97:
                misses.append(CacheMiss(wanted.id, content, content.encode()))
            else:
                misses.append(CacheMiss(wanted.id, "", self._random.choice([b"", wanted.path])))
        return LookedUp(batch=command.batch, hits=hits, misses=misses)

    def _keep(self, command: StoreItems, items: list[Made]) -> Stored:
        if self._random.random() < 0.05:
            self.kept.clear()
        kept = [made for made in items if self._random.random() < 0.85 and not self.full]
        self.kept |= {content_of(made.stem) for made in kept}
        ids = {made.id for made in kept}
        return Stored(batch=command.batch, kept=sorted(ids), dropped=[m.id for m in items if m.id not in ids])
