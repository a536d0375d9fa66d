"""One group of commands as one transaction, and what it is answered with.

Chunks, settlements and charges that stand side by side become one statement each; notes, which nothing waits
for, one at the end. Every other command acts in its place, so that each sees what came before it.
"""

import contextlib
import sqlite3
from collections.abc import Sequence
from typing import assert_never

from supervisor.mechanism.journal import batches, items, remembered, retention
from supervisor.policy.commands import (
    CancelItems,
    ChangeBatch,
    ChargeItems,
    CreateBatch,
    FetchItems,
    ForgetQuarantine,
    InsertItems,
    Note,
    RetryItems,
    SealBatch,
    SettleItems,
    SweepRetention,
)
from supervisor.policy.events import AnyEvent, ItemsCommitted

JournalCommand = (
    CreateBatch
    | InsertItems
    | SealBatch
    | FetchItems
    | SettleItems
    | ChargeItems
    | ChangeBatch
    | CancelItems
    | RetryItems
    | ForgetQuarantine
    | SweepRetention
    | Note
)
Queued = tuple[JournalCommand, float]
"""A command and when it was submitted (seconds since the epoch)."""

DECISIONS_KEPT = 50_000
"""Where nobody says; a decision takes some 300 bytes."""
SETTLEMENTS_AN_EVENT = 500
"""A large group is told in pieces, so that no turn of the loop takes long over one."""


def rows_of(command: JournalCommand) -> int:
    """Returns how many rows a command touches, as far as it says so itself."""
    match command:
        case InsertItems(names=rows) | SettleItems(settlements=rows) | ChargeItems(charges=rows):
            return len(rows)
        case FetchItems(limit=limit):
            return limit
        case SweepRetention():
            return retention.ROWS_A_STEP
    return 1


class Writer:
    """Executes groups on the journal's connection; not thread safe."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self.decisions_kept = DECISIONS_KEPT
        self._next_settled = items.last_settled(connection) + 1
        self._looks: dict[str, float] = {}
        self._swept = retention.Step()

    def execute(self, group: Sequence[Queued]) -> list[AnyEvent]:
        """Commits the group and returns its events in order. Raises what SQLite raises, with nothing kept."""
        connection = self._connection
        self._swept = retention.Step()
        connection.execute("BEGIN IMMEDIATE")
        try:
            events = self._run(group)
            connection.execute("COMMIT")
        except BaseException:
            # SQLite has rolled back by itself after some errors (disk full among them).
            with contextlib.suppress(sqlite3.Error):
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
            raise
        if any(isinstance(command, SweepRetention) for command, _ in group):
            self._looks.clear()
            if self._swept.freed and not self._swept.more:
                # The pages at the end are free, but only a checkpoint cuts the file. A reader may be in the way.
                connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()
        return events

    @property
    def sweep_goes_on(self) -> bool:
        """Whether the sweep in the last group was a step of several."""
        return self._swept.more

    def looked_at(self, batch: str, at: float) -> None:
        """A look at a batch counts as use; it is written with the next sweep."""
        if batch in self._looks or len(self._looks) < retention.MAX_LOOKS:
            self._looks[batch] = at

    def _sweep(self, command: SweepRetention, at: float) -> list[AnyEvent]:
        self._swept = retention.step(self._connection, command, at, self._looks)
        return [self._swept.event] if self._swept.event is not None else []

    def _run(self, group: Sequence[Queued]) -> list[AnyEvent]:
        events: list[AnyEvent] = []
        notes: list[tuple[Note, float]] = []
        alike: list[JournalCommand] = []
        for command, at in group:
            if isinstance(command, Note):
                notes.append((command, at))
                continue
            if alike and not _go_together(alike[-1], command):
                events += self._act(alike, at)
                alike = []
            alike.append(command)
        if alike:
            events += self._act(alike, group[-1][1])
        if notes:
            remembered.add_notes(self._connection, notes, self.decisions_kept)
        return events

    def _act(self, alike: list[JournalCommand], at: float) -> list[AnyEvent]:
        """`alike` is one command, or several that go together."""
        connection = self._connection
        command = alike[0]
        match command:
            case InsertItems():
                return [*batches.insert_run(connection, [each for each in alike if isinstance(each, InsertItems)])]
            case SettleItems():
                return self._settle([each for each in alike if isinstance(each, SettleItems)], at)
            case ChargeItems():
                charged = [each for each in alike if isinstance(each, ChargeItems)]
                items.charge(connection, [charge for each in charged for charge in each.charges])
                return []
            case FetchItems():
                return [items.fetch(connection, command)]
            case CreateBatch():
                return [batches.create(connection, command)]
            case SealBatch():
                return [batches.seal(connection, command)]
            case ChangeBatch():
                return [batches.change(connection, command)]
            case CancelItems():
                event, self._next_settled = items.cancel(connection, command, self._next_settled, at)
                return [event]
            case RetryItems():
                return [items.retry(connection, command)]
            case ForgetQuarantine():
                return [items.forget(connection, command)]
            case SweepRetention():
                return self._sweep(command, at)
            case Note():
                remembered.add_notes(connection, [(command, at)], self.decisions_kept)
                return []
        assert_never(command)

    def _settle(self, commands: list[SettleItems], at: float) -> list[AnyEvent]:
        settlements = [settlement for command in commands for settlement in command.settlements]
        events: list[AnyEvent] = []
        for start in range(0, len(settlements), SETTLEMENTS_AN_EVENT):
            # A statement for each piece: encoding a large one would keep the interpreter from the loop for long.
            piece = settlements[start : start + SETTLEMENTS_AN_EVENT]
            items.settle(self._connection, piece, self._next_settled, at)
            self._next_settled += len(piece)
            events.append(ItemsCommitted(settlements=piece))
        return events


def _go_together(one: JournalCommand, other: JournalCommand) -> bool:
    match one, other:
        case (SettleItems(), SettleItems()) | (ChargeItems(), ChargeItems()):
            return True
        case InsertItems(), InsertItems():
            return (one.batch, one.root, one.prefix) == (other.batch, other.root, other.prefix)
    return False
