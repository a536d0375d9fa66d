"""What images look like, read from the journal: every one once, in bounded pages, whatever stands in the values."""

import sqlite3
from collections.abc import Iterator

import msgspec
import pytest

from protocol.messages import ImageHash, ImageHashes, ImageHashesPage, Problem, Recipe, Step
from supervisor.mechanism.journal import batches, hashes, items, retention, schema
from supervisor.policy.commands import CreateBatch, InsertItems, SweepRetention
from supervisor.policy.items import Settlement
from supervisor.policy.retention import Retention, Rule
from tests.mechanism.journal_bed import record

HASHED = Recipe(name="hashed", steps=[Step(operation="phash")])
PLAIN = Recipe(name="plain", steps=[Step(operation="thumbnail")])


@pytest.fixture
def connection(tmp_path: object) -> Iterator[sqlite3.Connection]:
    """A journal's database."""
    opened = schema.open_for_writing(f"{tmp_path}/queue.db")
    yield opened
    opened.close()


def settle(
    connection: sqlite3.Connection, batch: str, values: list[object], first: int, recipe: Recipe = HASHED
) -> None:
    """A batch whose items have these values, settled from that number on."""
    opened = CreateBatch(peer=b"", request_id=1, record=record(batch, recipe=recipe), resume=False)
    batches.create(connection, opened)
    names = [f"{batch}-{number}.jpg" for number in range(len(values))]
    batches.insert(
        connection, InsertItems(peer=b"", request_id=1, batch=batch, chunk=0, root="/p", prefix="", names=names)
    )
    ids = [row[0] for row in connection.execute("SELECT id FROM items ORDER BY id DESC LIMIT ?", (len(values),))][::-1]
    settlements = [
        Settlement(
            id=number, batch=batch, state="done", tries=1,
            detail=msgspec.json.encode({"error": None, "outputs": [], "values": value, "warnings": []}),
        )
        for number, value in zip(ids, values, strict=True)
    ]  # fmt: skip
    items.settle(connection, settlements, first, 2.0)


def read_all(connection: sqlite3.Connection, **fields: object) -> tuple[list[ImageHash], int]:
    """Returns every image of every page, and how many pages there were."""
    request = msgspec.convert(fields, ImageHashes) if fields else ImageHashes()
    found: list[ImageHash] = []
    for pages in range(1, 1_000):
        page = hashes.read(connection, request)
        assert isinstance(page, ImageHashesPage)
        found += page.images
        if page.next is None:
            return found, pages
        request = msgspec.structs.replace(request, after_batch=page.next[0], after=page.next[1])
    raise AssertionError("the pages do not end")


def value(number: int, **more: object) -> dict[str, object]:
    """What `phash` tells of an image."""
    return {"phash": {"phash": f"{number:016x}", "dhash": f"{number + 1:016x}", **more}}


def test_each_image_is_told_once_however_many_pages(
    connection: sqlite3.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    settle(connection, "a", [value(n) for n in range(250)], 1)
    settle(connection, "b", [{}] * 40, 1_000, PLAIN)
    settle(connection, "c", [value(n) for n in range(1_000, 1_055)], 2_000)
    expected = [f"{n:016x}" for n in (*range(250), *range(1_000, 1_055))]
    for rows, read, sent, several in ((1_000, 2**20, 2**21, 50), (7, 2**20, 2**21, 1), (90, 3_000, 900, 2)):
        for name, bound in (
            ("ROWS_A_PAGE", rows), ("READ_BYTES", read), ("SENT_BYTES", sent), ("BATCHES_A_PAGE", several),
        ):  # fmt: skip
            monkeypatch.setattr(hashes, name, bound)
        found, pages = read_all(connection)
        assert [each.value for each in found] == expected
        assert (pages == 1) == (rows == 1_000)
        assert [each.value for each in read_all(connection, batch="c")[0]] == expected[250:]
        assert [each.value for each in read_all(connection, since=2_049)[0]] == expected[-5:]
    assert [each.value for each in read_all(connection, by="dhash")[0]][:2] == [f"{n:016x}" for n in (1, 2)]
    page = hashes.read(connection, ImageHashes())
    assert isinstance(page, ImageHashesPage) and page.last == 2_054


def test_sizes_come_from_the_operation_or_else_from_probe(connection: sqlite3.Connection) -> None:
    probed = {"probe": {"width": 30, "height": 20}}
    settle(connection, "a", [value(1, width=4, height=3) | probed, value(2) | probed, value(3)], 1)
    assert [(each.path, each.width, each.height) for each in read_all(connection)[0]] == [
        ("/p/a-0.jpg", 4, 3), ("/p/a-1.jpg", 30, 20), ("/p/a-2.jpg", 0, 0),
    ]  # fmt: skip


@pytest.mark.parametrize(
    "odd", [{"phash": "ff00"}, {"phash": {"phash": 7}}, {"phash": {"phash": ""}}, {"phash": None}, {"other": {}}]
)
def test_values_that_are_something_else_are_passed_over(connection: sqlite3.Connection, odd: object) -> None:
    settle(connection, "a", [odd, value(9, width=-1, height=2**40)], 1)
    assert [(each.value, each.width) for each in read_all(connection)[0]] == [(f"{9:016x}", 0)]


def test_an_unknown_batch_is_said(connection: sqlite3.Connection) -> None:
    answer = hashes.read(connection, ImageHashes(batch="nobody"))
    assert isinstance(answer, Problem) and answer.code == "unknown_batch"
    assert read_all(connection) == ([], 1)


def test_hashes_are_kept_when_retention_drops_the_large_results(connection: sqlite3.Connection) -> None:
    large = {"probe": {"width": 3, "height": 2, "exif": "x" * 2_000}}
    settle(connection, "a", [value(1, width=3, height=2) | large, large], 1)
    connection.execute("UPDATE batches SET state = 'finished', finished_at = 10")
    sweep = SweepRetention(retention=Retention(general=Rule(age_seconds=1_000, results_age_seconds=100)))
    for _ in range(3):
        retention.step(connection, sweep, 500.0, {})
    left = [row[0] for row in connection.execute("SELECT detail FROM items ORDER BY id")]
    assert "exif" not in left[0] and "probe" not in left[0] and "values" not in msgspec.json.decode(left[1])
    assert all("values dropped" in detail for detail in left)
    assert [(each.value, each.width) for each in read_all(connection)[0]] == [(f"{1:016x}", 3)]
