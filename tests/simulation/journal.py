"""The journal as the policy sees it: what is committed survives, in the order in which it was submitted.

A model of `supervisor.mechanism.journal` in plain dictionaries. Commands wait in memory until `commit`, which
executes all of them as one group; a crash forgets what waits. Settlements with outputs pass another queue first
(the outputs are synced there), so that later commands may overtake them.
"""

from collections.abc import Callable
from typing import Any

import msgspec

from protocol.messages import Counts
from protocol.paths import item_path
from supervisor.policy import commands as c
from supervisor.policy import events as e
from supervisor.policy.items import BatchRecord, Item

JournalCommand = (
    c.CreateBatch | c.InsertItems | c.SealBatch | c.FetchItems | c.SettleItems | c.ChargeItems | c.ChangeBatch
    | c.CancelItems | c.RetryItems | c.ForgetQuarantine
)  # fmt: skip
OVER = ("finished", "cancelled")


class Violation(AssertionError):
    """Something happened that must never happen."""


class Row(msgspec.Struct):
    """One item on disk."""

    item: Item
    state: str = "pending"
    kind: str | None = None
    settled: int = 0


class Journal:
    """All that is on disk, and the commands on their way there."""

    def __init__(self) -> None:
        self.records: dict[str, BatchRecord] = {}
        self.rows: dict[int, Row] = {}
        self.of_batch: dict[str, list[int]] = {}
        self.quarantined_paths: set[str] = set()
        self.cancelled: set[str] = set()
        """Batches whose cancellation is on disk."""
        self.waiting: list[JournalCommand] = []
        self.clean = True
        self._act: dict[type, Callable[[Any], e.AnyEvent | None]] = {
            c.CreateBatch: self._create, c.InsertItems: self._insert, c.SealBatch: self._seal,
            c.FetchItems: self._fetch, c.SettleItems: self._settle, c.ChargeItems: self._charge,
            c.ChangeBatch: self._change, c.CancelItems: self._cancel, c.RetryItems: self._retry,
            c.ForgetQuarantine: self._forget,
        }  # fmt: skip

    def submit(self, command: JournalCommand) -> None:
        """Takes a command; it counts from the next commit on."""
        self.waiting.append(command)

    def commit(self) -> list[e.AnyEvent]:
        """Executes what waits as one group and returns what the policy is told."""
        group, self.waiting = self.waiting, []
        events = [self._act[type(command)](command) for command in group]
        return [event for event in events if event is not None]

    def crash(self) -> None:
        """Forgets what was not committed."""
        self.waiting.clear()
        self.clean = False

    def recover(self, in_progress: list[int]) -> e.Recovered:
        """What a supervisor finds when it starts."""
        found = [self.rows[number] for number in in_progress if number in self.rows] if not self.clean else []
        suspects = [row for row in found if row.state == "pending"]
        for row in suspects:
            row.item.unclean_stops += 1
        records = [self.record(name) for name, record in self.records.items() if record.finished_at is None]
        clean, self.clean = self.clean, True
        return e.Recovered(records=records, in_progress=[_copy(row.item) for row in suspects], clean=clean)

    # ---- looking ---------------------------------------------------------------------------------

    def record(self, name: str) -> BatchRecord:
        """Returns a batch as it stands on disk."""
        record = self.records[name]
        counts = dict.fromkeys(Counts.__struct_fields__, 0)
        for number in self.of_batch[name]:
            counts[self.rows[number].state] += 1
        return msgspec.structs.replace(record, counts=Counts(**counts), items=len(self.of_batch[name]))

    def pending(self, name: str) -> list[int]:
        """Returns the items of a batch without a verdict, ascending."""
        return [number for number in self.of_batch[name] if self.rows[number].state == "pending"]

    def path(self, item: Item) -> str:
        """Returns an item's path."""
        return item_path(*self.records[item.batch].roots[item.root], item.stem)

    def _set(self, name: str, **changes: object) -> None:
        self.records[name] = msgspec.structs.replace(self.records[name], **changes)

    # ---- commands --------------------------------------------------------------------------------

    def _create(self, command: c.CreateBatch) -> e.AnyEvent:
        name = command.record.batch
        resumed = False
        known = self.records.get(name)
        if known is not None and known.abandoned_at is not None and known.state != "cancelled":
            resumed = True
            self._reopen(name)
        if known is None:
            alike = [
                old.batch
                for old in self.records.values()
                if command.resume
                and old.fingerprint == command.record.fingerprint is not None
                and (old.state not in OVER or (old.state == "finished" and old.abandoned_at is not None))
            ]
            if alike:
                name, resumed = alike[-1], True
                self._reopen(name)
            else:
                self.records[name] = command.record
                self.of_batch[name] = []
        return e.BatchCreated(
            peer=command.peer, request_id=command.request_id, record=self.record(name), resumed=resumed
        )

    def _reopen(self, name: str) -> None:
        self._set(name, open=True, abandoned_at=None)
        if self.records[name].state in OVER:
            self._set(name, state="running", paused=None, finished_at=None)

    def _insert(self, command: c.InsertItems) -> e.AnyEvent:
        record = self.records.get(command.batch)
        if record is None:
            return self._refused(command, "unknown_batch")
        place = (command.root, command.prefix)
        added = 0
        if command.chunk >= record.next_chunk:
            if record.abandoned_at is not None and record.state != "cancelled":
                return self._refused(command, "abandoned")
            if record.state in OVER or not record.open:
                return self._refused(command, "closed")
            if command.chunk > record.next_chunk:
                return self._refused(command, "bad_chunk")
            if place not in record.roots:
                self._set(command.batch, roots=[*record.roots, place])
            root = self.records[command.batch].roots.index(place)
            known = {self.rows[number].item.stem for number in self.of_batch[command.batch]}
            for stem in command.names:
                if stem not in known:
                    number = len(self.rows) + 1
                    self.rows[number] = Row(Item(id=number, batch=command.batch, root=root, stem=stem))
                    self.of_batch[command.batch].append(number)
                    added += 1
            self._set(command.batch, next_chunk=command.chunk + 1)
        return e.ItemsInserted(
            peer=command.peer,
            request_id=command.request_id,
            batch=command.batch,
            chunk=command.chunk,
            added=added,
            known=len(command.names) - added,
            root=self.records[command.batch].roots.index(place),
            root_path=command.root,
            prefix=command.prefix,
        )

    def _refused(self, command: c.InsertItems | c.SealBatch | c.RetryItems, code: str) -> e.JournalRefused:
        insert = isinstance(command, c.InsertItems)
        return e.JournalRefused(
            peer=command.peer, request_id=command.request_id, code=code, message=code, was_insert=insert
        )

    def _seal(self, command: c.SealBatch) -> e.AnyEvent:
        if command.batch not in self.records:
            return self._refused(command, "unknown_batch")
        if command.abandoned_at is None or self.records[command.batch].open:
            self._set(command.batch, open=False, ignored=command.ignored, abandoned_at=command.abandoned_at)
        return e.BatchSealed(
            peer=command.peer,
            request_id=command.request_id,
            batch=command.batch,
            items=len(self.of_batch[command.batch]),
            ignored=command.ignored,
            abandoned_at=self.records[command.batch].abandoned_at,
        )

    def _fetch(self, command: c.FetchItems) -> e.AnyEvent:
        ids = [number for number in self.pending(command.batch) if number > command.after][: command.limit]
        items = [_copy(self.rows[number].item) for number in ids]
        for item in items:
            item.shunned = (1, 1, "v") if self.path(item) in self.quarantined_paths else None
        return e.ItemsFetched(batch=command.batch, items=items, exhausted=len(items) < command.limit)

    def _settle(self, command: c.SettleItems) -> e.AnyEvent:
        for settlement in command.settlements:
            row = self.rows[settlement.id]
            if row.state != "pending":
                raise Violation(f"item {settlement.id} is settled as {settlement.state}, but it is {row.state} already")
            row.state = settlement.state
            row.settled += 1
            if settlement.quarantine is not None:
                row.kind = settlement.quarantine.kind
                self.quarantined_paths.add(self.path(row.item))
        return e.ItemsCommitted(settlements=command.settlements)

    def _charge(self, command: c.ChargeItems) -> None:
        for charge in command.charges:
            row = self.rows[charge.id]
            if row.state == "pending":
                for name in ("charges", "memory_charges", "outside_kills", "unclean_stops", "needs_bytes"):
                    setattr(row.item, name, getattr(charge, name))

    def _change(self, command: c.ChangeBatch) -> e.AnyEvent:
        self._set(command.batch, state=command.state, paused=command.paused, finished_at=command.finished_at)
        return e.BatchChanged(batch=command.batch)

    def _cancel(self, command: c.CancelItems) -> e.AnyEvent:
        self.cancelled.add(command.batch)
        ids = set(self.pending(command.batch)) - set(command.except_ids)
        for number in ids:
            self.rows[number].state = "cancelled"
        return e.ItemsCancelled(batch=command.batch, count=len(ids))

    def _retry(self, command: c.RetryItems) -> e.AnyEvent:
        if command.batch not in self.records:
            return self._refused(command, "unknown_batch")
        rows = [self.rows[number] for number in self.of_batch[command.batch]]
        failed = [row for row in rows if row.state == "failed"]
        quarantined = [row for row in rows if row.state == "quarantined" and command.quarantined]
        self._put_back(command.batch, [*failed, *quarantined])
        return e.ItemsRetried(
            peer=command.peer,
            request_id=command.request_id,
            record=self.record(command.batch),
            failed=len(failed),
            quarantined=len(quarantined),
        )

    def _put_back(self, batch: str, rows: list[Row]) -> None:
        for row in rows:
            self.quarantined_paths.discard(self.path(row.item))
            old = row.item
            row.item = Item(id=old.id, batch=old.batch, root=old.root, stem=old.stem)
            row.state, row.kind = "pending", None
        if rows:
            self.cancelled.discard(batch)
            self._set(batch, state="running", paused=None, finished_at=None)

    def _forget(self, command: c.ForgetQuarantine) -> e.AnyEvent:
        known = command.path in self.quarantined_paths
        self.quarantined_paths.discard(command.path)
        revived = []
        for name in self.records if command.retry else ():
            rows = [self.rows[number] for number in self.of_batch[name]]
            mine = [row for row in rows if row.state == "quarantined" and self.path(row.item) == command.path]
            self._put_back(name, mine)
            revived += [name] if mine else []
        return e.QuarantineForgotten(
            peer=command.peer,
            request_id=command.request_id,
            known=known or bool(revived),
            records=[self.record(name) for name in revived],
        )


def _copy(item: Item) -> Item:
    return msgspec.structs.replace(item)
