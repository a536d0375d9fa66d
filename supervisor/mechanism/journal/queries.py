"""Requests that only read, as functions of the database and of what the pool knows of unfinished batches.

Every answer fits one frame: pages are cut by their bytes as well as by their rows.
"""

import sqlite3
from typing import Any

import msgspec

from protocol import messages as m
from protocol.errors import UnknownBatch
from protocol.paths import describe, item_path
from supervisor.mechanism.journal import hashes, remembered
from supervisor.mechanism.journal.records import (
    STATE_NAMES,
    STATE_NUMBERS,
    as_text,
    read_batches,
    read_roots,
    single,
)
from supervisor.policy.commands import LiveBatch

PAGE_BYTES = 3 * 1024 * 1024
"""Leaves a quarter of MAX_FRAME_BYTES to the envelope and to escapes."""
BATCHES_AT_MOST = 1_000
RESULTS_AT_MOST = 5_000
DECISIONS_AT_MOST = 2_000
QUARANTINE_AT_MOST = 10_000
SIZE_SAMPLE = 200
ROW_BYTES = 70
"""A row's numbers and its entries in the indexes, names and details apart; measured over 100,000 rows."""
BATCH_BYTES = 700

Live = dict[str, LiveBatch]


class _Detail(msgspec.Struct):
    error: msgspec.Raw = msgspec.Raw(b"null")
    outputs: msgspec.Raw = msgspec.Raw(b"[]")
    values: msgspec.Raw = msgspec.Raw(b"{}")
    warnings: msgspec.Raw = msgspec.Raw(b"[]")


class _Row(msgspec.Struct, array_like=True):
    settled: int
    root: int
    stem: str
    state: int
    tries: int
    seconds: float | None
    peak_bytes: int | None
    slot: int | None
    detail: str | None


_PLAIN = _Detail()
_detail = msgspec.json.Decoder(_Detail)
_rows = msgspec.json.Decoder(list[_Row])
_decisions = msgspec.json.Decoder(list[m.Decision])
_entries = msgspec.json.Decoder(list[m.QuarantineEntry])
_encode = msgspec.json.encode

_PAGE = """SELECT json_group_array(json_array(settled, root, stem, state, tries, seconds, peak_bytes, slot, detail))
    FROM (SELECT *, sum(size) OVER (ORDER BY settled {order}) - size AS before FROM
        (SELECT *, coalesce(length(CAST(detail AS BLOB)), 0) AS size FROM items
         WHERE batch = ?1 AND settled > ?2 {states} ORDER BY settled {order} LIMIT ?3))
    WHERE before < ?4"""

_DECISIONS = """SELECT json_group_array(json_object('number', number, 'at', at, 'kind', kind, 'message', message,
    'slot', slot, 'batch', batch, 'path', path, 'figures', json(figures)))
    FROM (SELECT * FROM (SELECT * FROM decisions WHERE {where} ORDER BY number {order} LIMIT ?) ORDER BY number)"""

_ENTRIES = """SELECT json_group_array(json_object('path', path, 'at', at, 'kind', kind, 'message', message,
    'recipe', recipe, 'size_bytes', size_bytes, 'mtime_ns', mtime_ns, 'evidence', json(evidence)))
    FROM (SELECT *, sum(length(path) + length(message) + length(evidence) + 200) OVER
        (ORDER BY at DESC, path, version) AS total FROM quarantine WHERE {where}
        ORDER BY at DESC, path, version LIMIT ?)
    WHERE total <= ?"""


def answer(connection: sqlite3.Connection, request: m.AnyRequest, live: Live) -> m.AnyAnswer:
    """Returns the answer to a request that reads, a Problem to any other and to one about an unknown batch."""
    match request:
        case m.Results():
            return _results(connection, request)
        case m.ImageHashes():
            return hashes.read(connection, request)
        case m.Progress():
            return _progress(connection, request, live)
        case m.ListBatches():
            return _batches(connection, request, live)
        case m.Why():
            return _why(connection, request)
        case m.Events():
            return _events(connection, request)
        case m.QuarantineList():
            return _quarantine(connection, request)
    name = type(request).__name__
    return m.Problem(
        id=request.id, code="no_supervisor", fault="caller", message=f"{name} needs a running supervisor", exit_code=3
    )


def _unknown(request_id: int | str, batch: str) -> m.Problem:
    error = UnknownBatch(batch)
    return m.Problem(id=request_id, code=error.code, fault=error.fault, message=str(error), exit_code=error.exit_code)


# ---- batches -------------------------------------------------------------------------------------


def _progress(connection: sqlite3.Connection, request: m.Progress, live: Live) -> m.AnyAnswer:
    found = read_batches(connection, "batch = ?", (request.batch,), live, with_roots=False)
    if not found:
        return _unknown(request.id, request.batch)
    record = found[0][1]
    return m.BatchProgress(
        id=request.id,
        batch=record.batch,
        state=record.state,
        open=record.open,
        recipe=record.recipe.name,
        out=record.out,
        items=record.items,
        ignored=record.ignored,
        counts=record.counts,
        summary=record.summary,
        paused=record.paused,
        abandoned_at=record.abandoned_at,
    )


def _batches(connection: sqlite3.Connection, request: m.ListBatches, live: Live) -> m.Batches:
    limit = max(0, min(request.limit, BATCHES_AT_MOST))
    found = read_batches(connection, "true ORDER BY number DESC LIMIT ?", (limit,), live, with_roots=False)
    return m.Batches(
        id=request.id,
        batches=[
            m.BatchRow(
                batch=record.batch,
                state=record.state,
                recipe=record.recipe.name,
                out=record.out,
                opened_at=record.opened_at,
                finished_at=record.finished_at,
                priority=record.priority,
                kind=record.kind,
                items=record.items,
                ignored=record.ignored,
                counts=record.counts,
                abandoned_at=record.abandoned_at,
                used_at=_used_at(connection, number),
                bytes=_about_bytes(connection, number, record.items) if request.sizes else None,
            )
            for number, record in found
        ],
    )


def _used_at(connection: sqlite3.Connection, number: int) -> float | None:
    used: float | None = single(connection, "SELECT max(used_at, finished_at) FROM batches WHERE number = ?", (number,))
    return used


def _about_bytes(connection: sqlite3.Connection, number: int, items: int) -> int:
    """Returns about what a batch takes: the mean of its first rows, times their number."""
    rows, taken = connection.execute(
        "SELECT count(*), coalesce(sum(2 * length(stem) + coalesce(length(CAST(detail AS BLOB)), 0)), 0) "
        "FROM (SELECT stem, detail FROM items WHERE batch = ? ORDER BY stem LIMIT ?)",
        (number, SIZE_SAMPLE),
    ).fetchone()
    return BATCH_BYTES + (int(items * (ROW_BYTES + taken / rows)) if rows else 0)


# ---- results -------------------------------------------------------------------------------------


def _results(connection: sqlite3.Connection, request: m.Results) -> m.AnyAnswer:
    number = single(connection, "SELECT number FROM batches WHERE batch = ?", (request.batch,))
    if number is None:
        return _unknown(request.id, request.batch)
    limit = max(1, min(request.limit, RESULTS_AT_MOST))
    states = ""
    parameters: tuple[Any, ...] = (number, request.after, limit, PAGE_BYTES)
    if request.states:
        states = "AND state IN (SELECT value FROM json_each(?5))"
        wanted = [STATE_NUMBERS[state] for state in request.states if state in STATE_NUMBERS]
        parameters += (as_text(wanted),)
    found = _rows.decode(
        single(connection, _PAGE.format(states=states, order="DESC" if request.newest else "ASC"), parameters)
    )
    roots = read_roots(connection, number) if found else []
    lines: list[msgspec.Raw] = []
    total = taken = 0
    for row in found:
        line = _line(row, roots)
        if len(line) > PAGE_BYTES:
            line = _line(row, roots, without_values=True)
        if lines and total + len(line) > PAGE_BYTES:
            break
        lines.append(msgspec.Raw(line))
        total += len(line) + 1
        taken += len(row.detail or "")
    cut = len(lines) < len(found) or taken >= PAGE_BYTES // 4
    more = not request.newest and (len(lines) == limit or cut)
    return m.ResultsPage(
        id=request.id,
        batch=request.batch,
        results=lines,
        next=found[len(lines) - 1].settled if lines and more else None,
    )


def _line(row: _Row, roots: list[tuple[str, str]], without_values: bool = False) -> bytes:
    detail = _PLAIN if row.detail is None else _detail.decode(row.detail)
    values, warnings = detail.values, detail.warnings
    if without_values:
        warnings = msgspec.Raw(_encode([f"values of {len(bytes(values)):,} bytes left out: they fit no message"]))
        values = msgspec.Raw(b"{}")
    state = STATE_NAMES[row.state]
    fields: dict[str, Any] = {
        **describe(item_path(*roots[row.root], row.stem)),
        "state": state,
        "error": detail.error,
        "attempts": row.tries,
        "outputs": detail.outputs,
        "values": values,
        "seconds": row.seconds or 0.0,
        "peak_bytes": row.peak_bytes or 0,
        "worker": row.slot,
        "cached": state == "cached",
        "warnings": warnings,
    }
    return _encode(fields)


# ---- decisions -----------------------------------------------------------------------------------


def _events(connection: sqlite3.Connection, request: m.Events) -> m.Decisions:
    if request.after < 0:
        found = _read_decisions(connection, "true", "DESC", (), request.limit)
    else:
        found = _read_decisions(connection, "number > ?", "ASC", (request.after,), request.limit)
    return m.Decisions(id=request.id, decisions=_fitting(found, newest=request.after < 0))


def _why(connection: sqlite3.Connection, request: m.Why) -> m.Decisions:
    found: list[m.Decision] = []
    if request.slot is not None:
        found = _read_decisions(connection, "slot = ?", "DESC", (request.slot,), request.limit)
    if request.path is not None:
        found += _read_decisions(connection, "path = ?", "DESC", (request.path,), request.limit)
        found += _verdicts(connection, request.path)
    return m.Decisions(id=request.id, decisions=_fitting(found, newest=True))


def _read_decisions(
    connection: sqlite3.Connection, where: str, order: str, parameters: tuple[Any, ...], limit: int
) -> list[m.Decision]:
    limit = max(1, min(limit, DECISIONS_AT_MOST))
    found: list[m.Decision] = _decisions.decode(
        single(connection, _DECISIONS.format(where=where, order=order), (*parameters, limit))
    )
    return found


def _fitting(decisions: list[m.Decision], *, newest: bool) -> list[m.Decision]:
    """Drops what does not fit a frame: the oldest of the last ones, or the end of a page."""
    kept: list[m.Decision] = []
    total = 0
    for decision in reversed(decisions) if newest else decisions:
        total += len(_encode(decision)) + 1
        if total > PAGE_BYTES:
            break
        kept.append(decision)
    return kept[::-1] if newest else kept


def _verdicts(connection: sqlite3.Connection, path: str) -> list[m.Decision]:
    """What became of the image in each batch, said like a decision."""
    return [_verdict(connection, path, place) for place in remembered.places(connection, path)]


def _verdict(connection: sqlite3.Connection, path: str, place: remembered.Place) -> m.Decision:
    tries, seconds, peak_bytes, slot, detail, settled_at, opened_at = connection.execute(
        "SELECT i.tries, i.seconds, i.peak_bytes, i.slot, i.detail, i.settled_at, b.opened_at "
        "FROM items i JOIN batches b ON b.number = i.batch WHERE i.id = ?",
        (place.item,),
    ).fetchone()
    state = STATE_NAMES[place.state]
    error = None if detail is None else msgspec.json.decode(bytes(_detail.decode(detail).error))
    said = f": {error['kind']}: {error['message']}" if isinstance(error, dict) else ""
    return m.Decision(
        number=0,
        at=settled_at if settled_at is not None else opened_at,
        kind=state,
        message=f"in batch {place.batch}: {state}{said}",
        slot=slot,
        batch=place.batch,
        path=path,
        figures={"attempts": tries, "seconds": seconds or 0.0, "peak_bytes": peak_bytes or 0},
    )


# ---- quarantine ----------------------------------------------------------------------------------


def _quarantine(connection: sqlite3.Connection, request: m.QuarantineList) -> m.QuarantineEntries:
    where, parameters = ("true", ()) if request.path is None else ("path = ?", (request.path,))
    text = single(connection, _ENTRIES.format(where=where), (*parameters, QUARANTINE_AT_MOST, PAGE_BYTES))
    return m.QuarantineEntries(id=request.id, entries=_entries.decode(text))
