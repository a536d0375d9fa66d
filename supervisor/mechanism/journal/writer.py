"""One group of commands as one transaction, and what it is answered with.

Settlements and charges that stand side by side become one statement; notes, which nothing waits for, one at
the end. Every other command acts in its place, so that each sees what came before it.
"""

import contextlib
import sqlite3
from collections.abc import Sequence
from typing import assert_never

from supervisor.mechanism.journal import batches, items, remembered
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
)
from supervisor.policy.events import AnyEvent, ItemsCommitted
from supervisor.policy.items import Charge, Settlement

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
    | Note
)
Queued = tuple[JournalCommand, float]
"""A command and when it was submitted (seconds since the epoch)."""

SETTLEMENTS_AN_EVENT = 500
"""A large group is told in pieces, so that no turn of the loop takes long over one."""


def rows_of(command: JournalCommand) -> int:
    """Returns how many rows a command touches, as far as it says so itself."""
    match command:
        case InsertItems(names=rows) | SettleItems(settlements=rows) | ChargeItems(charges=rows):
            return len(rows)
        case FetchItems(limit=limit):
            return limit
    return 1


class Writer:
    """Executes groups on the journal's connection; not thread safe."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self._next_settled = items.last_settled(connection) + 1

    def execute(self, group: Sequence[Queued]) -> list[AnyEvent]:
        """Commits the group and returns its events in order. Raises what SQLite raises, with nothing kept."""
        connection = self._connection
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
        return events

    def _run(self, group: Sequence[Queued]) -> list[AnyEvent]:
        events: list[AnyEvent] = []
        settlements: list[Settlement] = []
        charges: list[Charge] = []
        notes: list[tuple[Note, float]] = []
        for command, at in group:
            match command:
                case Note():
                    notes.append((command, at))
                    continue
                case SettleItems() if not charges:
                    settlements += command.settlements
                    continue
                case ChargeItems() if not settlements:
                    charges += command.charges
                    continue
            self._flush(settlements, charges, at, events)
            match command:
                case SettleItems():
                    settlements = list(command.settlements)
                case ChargeItems():
                    charges = list(command.charges)
                case _:
                    events.append(self._act(command, at))
        if group:
            self._flush(settlements, charges, group[-1][1], events)
        if notes:
            remembered.add_notes(self._connection, notes)
        return events

    def _flush(self, settlements: list[Settlement], charges: list[Charge], at: float, events: list[AnyEvent]) -> None:
        if settlements:
            items.settle(self._connection, settlements, self._next_settled, at)
            self._next_settled += len(settlements)
            for start in range(0, len(settlements), SETTLEMENTS_AN_EVENT):
                events.append(ItemsCommitted(settlements=settlements[start : start + SETTLEMENTS_AN_EVENT]))
            settlements.clear()
        if charges:
            items.charge(self._connection, charges)
            charges.clear()

    def _act(
        self,
        command: CreateBatch
        | InsertItems
        | SealBatch
        | FetchItems
        | ChangeBatch
        | CancelItems
        | RetryItems
        | ForgetQuarantine,
        at: float,
    ) -> AnyEvent:
        connection = self._connection
        match command:
            case InsertItems():
                return batches.insert(connection, command)
            case FetchItems():
                return items.fetch(connection, command)
            case CreateBatch():
                return batches.create(connection, command)
            case SealBatch():
                return batches.seal(connection, command)
            case ChangeBatch():
                return batches.change(connection, command)
            case CancelItems():
                event, self._next_settled = items.cancel(connection, command, self._next_settled, at)
                return event
            case RetryItems():
                return items.retry(connection, command)
            case ForgetQuarantine():
                return items.forget(connection, command)
        assert_never(command)
