"""What a worker gives up when memory is short: its own actions, and those that authors of operations subscribe.

    from workers import pressure

    def forget(tier):            # "gentle", "moderate", "aggressive" or "emergency"
        _loaded.clear()

    subscription = pressure.subscribe(forget, name="unload models", tier="aggressive", owner="ocr")
    ...
    subscription.unsubscribe()

A clean-up of a tier runs the actions of that tier and of those below it, in the order of their priority (lowest
first), between two items, never inside one. Each is measured apart, as the change of the resident size: what an
action frees within the C library's heap shows when `malloc_trim`, the last of all, gives it back.

One that raises is named in the report and passed over. One that runs longer than its time limit is interrupted by
an alarm, which ends Python code and waiting system calls; code that never comes back to Python cannot be interrupted,
and is ended with its worker by the supervisor's watchdog, at the time limit of an item (between the items of a
lease as without one). After FAILURES_ALLOWED failures in a row an action is unsubscribed, and the report says so.

Subscriptions belong to the process. One made while a module is imported in the template is inherited by every
worker; one made by an operation lasts as long as its worker.
"""

import contextlib
import gc
import signal
import threading
import time
from collections.abc import Callable, Iterator
from types import FrameType

from protocol.messages import TIERS, CleanupTier, Freed
from workers.memory import OwnMemory

FAILURES_ALLOWED = 3
"""Failures in a row after which an action is unsubscribed."""
LIMIT_SECONDS = 2.0
"""Time an action may take unless it says otherwise: a full clean-up is to be over within 5 s."""
MAX_SUBSCRIPTIONS = 200
"""Far above any worker's need: one subscription an item, never taken back, would be a leak and is refused as one."""
ERROR_CHARACTERS = 300

OWN = "worker"
NATIVE_PRIORITY, COLLECT_PRIORITY, TRIM_PRIORITY = 700, 800, 900
"""Of the worker's own actions: after those that only let go of objects, which is what subscribers do."""

Callback = Callable[[CleanupTier], object]
"""Called with the tier of the clean-up; what it returns is ignored."""


class HungAction(BaseException):
    """The alarm of an action's time limit. Not an Exception: what is interrupted must not mistake it for one."""


class Subscription:
    """One action."""

    def __init__(
        self,
        callback: Callback,
        *,
        name: str,
        owner: str,
        tier: CleanupTier,
        priority: int,
        limit_seconds: float,
        number: int,
    ) -> None:
        self.callback, self.name, self.owner = callback, name, owner
        self.tier, self.priority, self.limit_seconds = tier, priority, limit_seconds
        self.number = number
        self.failures = 0

    def unsubscribe(self) -> None:
        """Takes it back; a second time is no fault."""
        _subscribed.pop(self.number, None)

    @property
    def active(self) -> bool:
        """Whether it would be called."""
        return self.number in _subscribed


_subscribed: dict[int, Subscription] = {}
_numbers = iter(range(1 << 62))


def subscribe(
    callback: Callback,
    *,
    name: str,
    tier: CleanupTier = "moderate",
    owner: str | None = None,
    priority: int = 100,
    limit_seconds: float = LIMIT_SECONDS,
) -> Subscription:
    """Has `callback` called at clean-ups of `tier` and above.

    `name` says what it gives up ("unload models"), `owner` is the operation (default: the callback's module).
    Raises ValueError for an unknown tier, a limit that is not above 0, and beyond MAX_SUBSCRIPTIONS.
    """
    if tier not in TIERS:
        raise ValueError(f"there is no tier {tier!r}; choose one of {', '.join(TIERS)}")
    if not limit_seconds > 0:
        raise ValueError(f"the time limit of {name!r} is {limit_seconds} s, must be above 0")
    if len(_subscribed) >= MAX_SUBSCRIPTIONS:
        raise ValueError(f"{name}: {MAX_SUBSCRIPTIONS} actions are subscribed already; unsubscribe what has gone")
    subscription = Subscription(
        callback,
        name=name,
        owner=owner if owner is not None else str(getattr(callback, "__module__", None) or "unknown"),
        tier=tier,
        priority=priority,
        limit_seconds=limit_seconds,
        number=next(_numbers),
    )
    _subscribed[subscription.number] = subscription
    return subscription


def subscribed() -> list[Subscription]:
    """Returns what is subscribed, in the order of calling."""
    return sorted(_subscribed.values(), key=lambda one: (one.priority, one.number))


def relieve(tier: CleanupTier, memory: OwnMemory) -> list[Freed]:
    """Runs the actions of a tier; returns what each gave back, in the order they ran. Raises nothing of theirs."""
    own = _own_actions(memory)
    due = [one for one in (*_subscribed.values(), *own) if TIERS.index(one.tier) <= TIERS.index(tier)]
    due.sort(key=lambda one: (one.priority, one.number))
    return [_run(one, tier, memory) for one in due]


def collect(cycles: int, memory: OwnMemory) -> list[Freed]:
    """Collects garbage so many times, then gives freed memory back; each measured apart."""
    _native, collecting, trimming = _own_actions(memory)
    return [_run(one, "gentle", memory) for one in (*[collecting] * cycles, trimming)]


def _own_actions(memory: OwnMemory) -> list[Subscription]:
    def own(number: int, name: str, tier: CleanupTier, priority: int, act: Callable[[], object]) -> Subscription:
        return Subscription(
            lambda _tier: act(),
            name=name,
            owner=OWN,
            tier=tier,
            priority=priority,
            limit_seconds=LIMIT_SECONDS,
            number=number,
        )

    return [
        own(-3, "native caches", "moderate", NATIVE_PRIORITY, memory.drop_native_caches),
        own(-2, "gc", "gentle", COLLECT_PRIORITY, gc.collect),
        own(-1, "malloc_trim", "gentle", TRIM_PRIORITY, memory.trim_malloc),
    ]


def _run(one: Subscription, tier: CleanupTier, memory: OwnMemory) -> Freed:
    before, began = memory.rss_bytes(), time.monotonic()
    error: str | None = None
    try:
        with _alarm(one.limit_seconds):
            one.callback(tier)
    except HungAction:
        error = f"hung: given up after {one.limit_seconds:g} s"
    except Exception as raised:  # whatever one action does, the others have their turn
        error = f"{type(raised).__name__}: {raised}"[:ERROR_CHARACTERS]
    one.failures = one.failures + 1 if error is not None else 0
    if error is not None and one.failures >= FAILURES_ALLOWED and one.active:
        one.unsubscribe()
        error += f" (unsubscribed after {one.failures} failures in a row)"
    return Freed(
        name=one.name,
        owner=one.owner,
        before_bytes=before,
        after_bytes=memory.rss_bytes(),
        seconds=time.monotonic() - began,
        error=error,
    )


@contextlib.contextmanager
def _alarm(seconds: float) -> Iterator[None]:
    """Raises HungAction in the block after the time; signals reach the main thread alone, elsewhere nothing limits."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def ring(_number: int, _frame: FrameType | None) -> None:
        raise HungAction

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
