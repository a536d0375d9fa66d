"""The commands that fetch, settle, charge, cancel and retry items. Each is one statement, however many items:
see the package's docstring for why."""

import sqlite3
from collections.abc import Sequence
from typing import Any

import msgspec
import orjson

from protocol.errors import UnknownBatch
from protocol.paths import item_path
from supervisor.mechanism.journal import batches, remembered, retention
from supervisor.mechanism.journal.records import STATE_NUMBERS, as_text, read_roots, single
from supervisor.policy.commands import CancelItems, FetchItems, ForgetQuarantine, RetryItems
from supervisor.policy.events import (
    ItemsCancelled,
    ItemsFetched,
    ItemsRetried,
    JournalRefused,
    QuarantineForgotten,
)
from supervisor.policy.items import Charge, Item, Settlement

PLAIN_DETAIL = Settlement(id=0, batch="", state="done", tries=0).detail
"""The detail of an item with nothing to tell; it is kept as NULL."""
LARGEST = 2**63 - 1

_items = msgspec.json.Decoder(list[Item], strict=False)

_FIELDS = (
    "'id', i.id, 'batch', b.batch, 'root', i.root, 'stem', i.stem, 'charges', i.charges, "
    "'memory_charges', i.memory_charges, 'outside_kills', i.outside_kills, 'unclean_stops', i.unclean_stops, "
    "'needs_bytes', i.needs_bytes"
)

_FETCH = """SELECT json_group_array(json_object({fields})) FROM
    (SELECT * FROM items WHERE batch = ?1 AND state = 0 AND id > ?2 ORDER BY id LIMIT ?3) i
    JOIN batches b ON b.number = ?1"""

# Newest first: an image that is there every time is found by the first probe. Written means that something
# may stand under its output names: it settled by other means than a cancellation before its first try.
_OWNED = """, 'owned', coalesce((SELECT 1 FROM items o WHERE o.batch IN (SELECT value FROM json_each(?4))
    AND o.stem = i.stem AND (o.state IN (1, 2, 3, 4) OR (o.state = 5 AND o.tries > 0))
    ORDER BY o.batch DESC LIMIT 1), 0)"""

_SETTLE = """UPDATE items NOT INDEXED SET state = json_extract(j.value, '$[1]'), tries = json_extract(j.value, '$[2]'),
    seconds = json_extract(j.value, '$[3]'), peak_bytes = json_extract(j.value, '$[4]'),
    slot = json_extract(j.value, '$[5]'), detail = json_extract(j.value, '$[6]'),
    settled = ?1 + j.key, settled_at = ?2
    FROM json_each(?3) j WHERE items.id = json_extract(j.value, '$[0]') AND items.state = 0"""

_CHARGE = """UPDATE items NOT INDEXED SET charges = json_extract(j.value, '$[1]'),
    memory_charges = json_extract(j.value, '$[2]'), outside_kills = json_extract(j.value, '$[3]'),
    unclean_stops = json_extract(j.value, '$[4]'), needs_bytes = json_extract(j.value, '$[5]')
    FROM json_each(?1) j WHERE items.id = json_extract(j.value, '$[0]') AND items.state = 0"""
_ANY_UNCLEAN = "unclean_stops_counted"


def last_settled(connection: sqlite3.Connection) -> int:
    """Returns the highest number an item was settled under, 0 when none."""
    found: int | None = single(
        connection,
        "SELECT max((SELECT max(settled) FROM items WHERE batch = b.number AND settled IS NOT NULL)) FROM batches b",
    )
    return found or 0


def fetch(connection: sqlite3.Connection, command: FetchItems) -> ItemsFetched:
    """Reads pending items. Looks for earlier outputs and for quarantine only where there are any."""
    number = single(connection, "SELECT number FROM batches WHERE batch = ?", (command.batch,))
    if number is None:
        return ItemsFetched(batch=command.batch, items=[], exhausted=True)
    others = batches.others_with_same_out(connection, number)
    parameters: tuple[Any, ...] = (number, command.after, command.limit)
    fields = _FIELDS
    if others is not None:
        fields += _OWNED
        parameters += (others,)
    text = single(connection, _FETCH.format(fields=fields), parameters)
    items = _items.decode(text)
    retention.own_what_was_written(connection, number, items)
    if items and remembered.any_quarantined(connection):
        _shun(connection, number, items)
    return ItemsFetched(batch=command.batch, items=items, exhausted=len(items) < command.limit)


def _shun(connection: sqlite3.Connection, number: int, items: list[Item]) -> None:
    roots = read_roots(connection, number)
    paths = {item_path(*roots[item.root], item.stem): item for item in items}
    for path, facts in remembered.shunned(connection, number, list(paths)).items():
        paths[path].shunned = facts


def read_items(connection: sqlite3.Connection, ids: list[int]) -> list[Item]:
    """Returns the pending ones among these items."""
    text = single(
        connection,
        f"SELECT json_group_array(json_object({_FIELDS})) FROM (SELECT * FROM items WHERE state = 0 "
        "AND id IN (SELECT value FROM json_each(?)) ORDER BY id) i JOIN batches b ON b.number = i.batch",
        (as_text(ids),),
    )
    items: list[Item] = _items.decode(text)
    return items


def raise_unclean_stops(connection: sqlite3.Connection, ids: list[int]) -> None:
    """One more stop of the supervisor found these in progress."""
    connection.execute(
        "UPDATE items SET unclean_stops = unclean_stops + 1 WHERE state = 0 AND id IN (SELECT value FROM json_each(?))",
        (as_text(ids),),
    )
    connection.execute("INSERT OR REPLACE INTO meta(key, value) VALUES (?, '1')", (_ANY_UNCLEAN,))


def forget_unclean_stops(connection: sqlite3.Connection) -> None:
    """A clean stop ends the row. Reads what waits only where a stop was ever counted."""
    if connection.execute("DELETE FROM meta WHERE key = ?", (_ANY_UNCLEAN,)).rowcount:
        connection.execute("UPDATE items SET unclean_stops = 0 WHERE state = 0 AND unclean_stops > 0")


def settle(connection: sqlite3.Connection, settlements: Sequence[Settlement], first: int, at: float) -> None:
    """Settles what is pending under the numbers from `first`; what is settled already stays as it is."""
    rows = [
        (
            each.id,
            STATE_NUMBERS[each.state],
            each.tries,
            each.seconds,
            each.peak_bytes,
            each.slot,
            None if each.detail == PLAIN_DETAIL else each.detail.decode("utf-8", "replace"),
        )
        for each in settlements
    ]
    try:
        text = orjson.dumps(rows)
    except TypeError:
        # A worker may report any integer; one that no column can hold must not keep the others from the disk.
        text = orjson.dumps([tuple(_clamped(value) for value in row) for row in rows])
    connection.execute(_SETTLE, (first, at, text.decode()))
    for each in settlements:
        if each.quarantine is not None:
            remembered.quarantine(connection, each.id, each.quarantine, at)


def _clamped(value: Any) -> Any:
    return max(-LARGEST, min(value, LARGEST)) if isinstance(value, int) else value


def charge(connection: sqlite3.Connection, charges: Sequence[Charge]) -> None:
    """Keeps the counts of items that go back to the queue."""
    rows = [
        (each.id, each.charges, each.memory_charges, each.outside_kills, each.unclean_stops, each.needs_bytes)
        for each in charges
    ]
    connection.execute(_CHARGE, (as_text(rows),))


def cancel(connection: sqlite3.Connection, command: CancelItems, first: int, at: float) -> tuple[ItemsCancelled, int]:
    """Cancels what is pending but for those named. Returns the event and the next free number of settling."""
    number = single(connection, "SELECT number FROM batches WHERE batch = ?", (command.batch,))
    lowest, highest = connection.execute(
        "SELECT min(id), max(id) FROM items WHERE batch = ? AND state = 0", (number,)
    ).fetchone()
    if lowest is None:
        return ItemsCancelled(batch=command.batch, count=0), first
    cancelled = connection.execute(
        "UPDATE items SET state = 5, settled = ? + id, settled_at = ? "
        "WHERE batch = ? AND state = 0 AND id NOT IN (SELECT value FROM json_each(?))",
        (first - lowest, at, number, as_text(command.except_ids)),
    ).rowcount
    return ItemsCancelled(batch=command.batch, count=cancelled), first + highest - lowest + 1


def put_back(connection: sqlite3.Connection, where: str, parameters: tuple[Any, ...]) -> int:
    """Makes settled items pending again as if they were new; returns how many."""
    return connection.execute(
        "UPDATE items SET state = 0, charges = 0, memory_charges = 0, outside_kills = 0, unclean_stops = 0, "
        "needs_bytes = 0, tries = 0, seconds = NULL, peak_bytes = NULL, slot = NULL, detail = NULL, settled = NULL, "
        f"settled_at = NULL WHERE {where}",
        parameters,
    ).rowcount


def retry(connection: sqlite3.Connection, command: RetryItems) -> ItemsRetried | JournalRefused:
    """Puts failed (and quarantined) items back; images put back are no longer kept away from workers."""
    number = single(connection, "SELECT number FROM batches WHERE batch = ?", (command.batch,))
    if number is None:
        return JournalRefused(
            peer=command.peer,
            request_id=command.request_id,
            code="unknown_batch",
            message=str(UnknownBatch(command.batch)),
        )
    quarantined = 0
    if command.quarantined:
        remembered.forget_of_batch(connection, number)
        quarantined = put_back(connection, "batch = ? AND state = 4", (number,))
    failed = put_back(connection, "batch = ? AND settled IS NOT NULL AND state = 3", (number,))
    if failed or quarantined:
        batches.revive(connection, number)
    return ItemsRetried(
        peer=command.peer,
        request_id=command.request_id,
        record=batches.known(connection, command.batch),
        failed=failed,
        quarantined=quarantined,
    )


def forget(connection: sqlite3.Connection, command: ForgetQuarantine) -> QuarantineForgotten:
    """Drops a remembered image; with `retry` its quarantined items become pending in whatever batch they are."""
    dropped = connection.execute("DELETE FROM quarantine WHERE path = ?", (command.path,)).rowcount
    revived: list[str] = []
    if command.retry:
        for place in remembered.places(connection, command.path):
            if place.state == STATE_NUMBERS["quarantined"]:
                put_back(connection, "id = ?", (place.item,))
                batches.revive(connection, place.number)
                revived.append(place.batch)
    return QuarantineForgotten(
        peer=command.peer,
        request_id=command.request_id,
        known=bool(dropped or revived),
        records=[batches.known(connection, batch) for batch in dict.fromkeys(revived)],
    )
