"""What has to be put back, and when: at the end of an item, of a lease, of the worker.

An operation that opens or borrows something says so where it does, and need not be there when it is time
to give it back. Tasks of a moment run in the order of their priority (lowest first, then as they were
added); one that fails stops no other: its failure is a sentence that becomes a warning of the item.
"""

import enum
import inspect
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

MAX_TASKS = 1_000
"""Far above any recipe's need: a task added an item and never run would be a leak, and is refused as one."""

ASYNC_SECONDS = 10.0
"""An asynchronous task is given up after that; a synchronous one is bounded by its item's time limit."""

Task = Callable[[], object]
"""Called without arguments; what it returns is ignored, unless it can be awaited: then it is."""


class Moment(enum.Enum):
    """When a task is run."""

    ITEM = "item"
    LEASE = "lease"
    WORKER = "worker"


@dataclass(frozen=True, order=True)
class _Entry:
    priority: int
    number: int
    name: str = field(compare=False)
    task: Task = field(compare=False)
    once: bool = field(compare=False)


class CleanupRegistry:
    """The tasks of one worker."""

    def __init__(self) -> None:
        self._entries: dict[Moment, list[_Entry]] = {moment: [] for moment in Moment}
        self._number = 0

    def add(self, moment: Moment, name: str, task: Task, *, priority: int = 100, once: bool = False) -> None:
        """Adds a task under a name that says what it puts back; `once`: it is forgotten after it ran.

        Raises ValueError beyond MAX_TASKS tasks of a moment.
        """
        entries = self._entries[moment]
        if len(entries) >= MAX_TASKS:
            raise ValueError(f"{name}: {MAX_TASKS} tasks wait for the end of one {moment.value} already; add once=True")
        self._number += 1
        entries.append(_Entry(priority, self._number, name, task, once))
        entries.sort()

    def remove(self, moment: Moment, name: str) -> None:
        """Forgets the tasks of that name; none is no fault."""
        self._entries[moment] = [entry for entry in self._entries[moment] if entry.name != name]

    def has(self, moment: Moment) -> bool:
        """Tells whether anything is to be run then."""
        return bool(self._entries[moment])

    def run(self, moment: Moment) -> list[str]:
        """Runs the tasks of a moment and returns a sentence for each that failed."""
        entries = self._entries[moment]
        if not entries:
            return []
        self._entries[moment] = [entry for entry in entries if not entry.once]
        warnings = []
        for entry in entries:
            try:
                _run(entry.task)
            except Exception as error:  # whatever one task does, the others have their turn
                warnings.append(f"clean-up {entry.name!r} failed: {type(error).__name__}: {error}")
        return warnings


def _run(task: Task) -> None:
    result = task()
    if not inspect.isawaitable(result):
        return
    import asyncio  # 3 MB, loaded by those alone who bring an asynchronous task

    async def wait(awaitable: Awaitable[object]) -> None:
        await asyncio.wait_for(awaitable, ASYNC_SECONDS)

    asyncio.run(wait(result))
