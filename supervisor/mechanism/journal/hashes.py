"""What images look like, read page by page from the values of their results.

A page is bounded by what is read for it, not by what is found: the journal's thread has others to serve. Batches whose
recipe has no such operation are passed over whole. Grouping is for whoever asks; it takes seconds.
"""

import sqlite3
from typing import Any

import msgspec

from protocol import messages as m
from protocol.errors import UnknownBatch
from protocol.paths import item_path
from supervisor.mechanism.journal.records import read_roots, single

ROWS_A_PAGE = 1_000
READ_BYTES = 1024 * 1024
"""About 10 ms of the journal's thread. A row that is larger by itself is a page of its own."""
BATCHES_A_PAGE = 50
SENT_BYTES = 2 * 1024 * 1024
LARGEST_SIDE = 2**31

_OPERATIONS = {"phash": "phash", "dhash": "phash", "vector": "embed"}
"""By what is asked for: the operation that has it among its values."""

_PAGE = """SELECT json_group_array(json_array(settled, root, stem, detail)) FROM
    (SELECT *, sum(size) OVER (ORDER BY settled) - size AS before FROM
        (SELECT settled, root, stem, detail, coalesce(length(CAST(detail AS BLOB)), 0) AS size FROM items
         WHERE batch = ?1 AND settled > ?2 AND state IN (1, 2) ORDER BY settled LIMIT ?3))
    WHERE before < ?4"""

_NEXT = """SELECT number FROM batches b WHERE number >= ?1 AND EXISTS (SELECT 1 FROM json_each(b.recipe, '$.steps') s
    WHERE json_extract(s.value, '$.operation') = ?2) ORDER BY number LIMIT ?3"""

_LAST = """SELECT max((SELECT max(settled) FROM items WHERE batch = b.number AND settled IS NOT NULL)) FROM batches b"""


class _Values(msgspec.Struct):
    values: dict[str, msgspec.Raw] = {}


class _Row(msgspec.Struct, array_like=True):
    settled: int
    root: int
    stem: str
    detail: str | None


_rows = msgspec.json.Decoder(list[_Row])
_values = msgspec.json.Decoder(_Values)


def read(connection: sqlite3.Connection, request: m.ImageHashes) -> m.AnyAnswer:
    """Returns the next page, a Problem for an unknown batch."""
    last = single(connection, _LAST) or 0
    if request.batch is not None:
        number = single(connection, "SELECT number FROM batches WHERE batch = ?", (request.batch,))
        if number is None:
            error = UnknownBatch(request.batch)
            return m.Problem(
                id=request.id, code=error.code, fault=error.fault, message=str(error), exit_code=error.exit_code
            )
        numbers = [number]
    else:
        found = connection.execute(_NEXT, (request.after_batch, _OPERATIONS[request.by], BATCHES_A_PAGE)).fetchall()
        numbers = [row[0] for row in found]
    images: list[m.ImageHash] = []
    place = _fill(connection, request, numbers, images)
    if place is None and request.batch is None and len(numbers) == BATCHES_A_PAGE:
        place = (numbers[-1] + 1, 0)
    return m.ImageHashesPage(id=request.id, images=images, next=place, last=last)


def _fill(
    connection: sqlite3.Connection, request: m.ImageHashes, numbers: list[int], images: list[m.ImageHash]
) -> tuple[int, int] | None:
    """Reads the batches until the page is full; returns where the next one begins, None when they are at their end."""
    rows_left, read_left, sent_left = ROWS_A_PAGE, READ_BYTES, SENT_BYTES
    for number in numbers:
        after = max(request.since, request.after if number == request.after_batch else 0)
        if rows_left <= 0 or read_left <= 0 or sent_left <= 0:
            return number, after
        text = single(connection, _PAGE, (number, after, rows_left, read_left))
        rows = _rows.decode(text)
        roots = read_roots(connection, number) if rows else []
        for row in rows:
            image = _image(row, roots, request.by)
            if image is not None:
                sent_left -= len(image.path) + len(image.value) + 100
                if sent_left < 0 and images:
                    return number, after
                images.append(image)
            after = row.settled
        taken = sum(len(row.detail or "") for row in rows)
        if len(rows) == rows_left or taken >= read_left // 4:
            # Characters are fewer than bytes, at most by four: rather one empty page more than a row left out.
            return number, after
        rows_left, read_left = rows_left - len(rows), read_left - taken
    return None


def _image(row: _Row, roots: list[tuple[str, str]], by: str) -> m.ImageHash | None:
    if row.detail is None:
        return None
    try:
        values = _values.decode(row.detail).values
        own = _object(values, _OPERATIONS[by])
    except msgspec.DecodeError:
        return None  # an operation of a third party may say anything
    value = own.get(by)
    if not isinstance(value, str) or not value:
        return None
    width, height = _size(own) or _size(_object(values, "probe")) or (0, 0)
    model = own.get("model", "")
    return m.ImageHash(
        path=item_path(*roots[row.root], row.stem),
        value=value,
        width=width,
        height=height,
        model=model if isinstance(model, str) else "",
    )


def _object(values: dict[str, msgspec.Raw], operation: str) -> dict[str, Any]:
    found = msgspec.json.decode(values[operation]) if operation in values else None
    return found if isinstance(found, dict) else {}


def _size(values: dict[str, Any]) -> tuple[int, int] | None:
    width, height = values.get("width"), values.get("height")
    if isinstance(width, int) and isinstance(height, int) and 0 < width < LARGEST_SIDE and 0 < height < LARGEST_SIDE:
        return width, height
    return None
