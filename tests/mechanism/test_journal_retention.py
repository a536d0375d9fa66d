"""Retention on a real journal: bounded steps, looks that count, a file that shrinks, outputs that stay ours."""

import random
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from protocol.messages import Batches, ListBatches, Progress, Results
from supervisor.mechanism.journal import OfflineReader, schema
from supervisor.mechanism.journal import retention as module
from supervisor.policy.commands import SweepRetention
from supervisor.policy.events import BatchesDropped
from supervisor.policy.retention import Retention, Rule
from tests.mechanism.journal_bed import Bed, settlement, wait_until

NOW = 1_000_000.0
SHORT = Retention(general=Rule(age_seconds=3600, count=3))


class Db:
    """A journal's file with batches made by hand, and the sweep step by step."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.connection = schema.open_for_writing(path)
        self.settled = 0

    def batch(self, name: str, items: int, minutes: float, *, state: str = "finished", out: str = "/out") -> int:
        """A batch that ended so many minutes ago; returns its number."""
        at = NOW - minutes * 60
        finished = at if state in ("finished", "cancelled") else None
        number = self.connection.execute(
            "INSERT INTO batches(batch, recipe, out, overwrite, strict, priority, hold, kind, opened_at, open, state, "
            'finished_at, items, summary) VALUES (?, \'{"name":"r","steps":[]}\', ?, 0, 0, 0, 0, \'default\', ?, 0, '
            "?, ?, ?, '{}')",
            (name, out, at, state, finished, items),
        ).lastrowid
        assert number is not None
        self.connection.execute("INSERT INTO roots VALUES (?, 0, '/in', '')", (number,))
        large = '{"values":{"text":"' + "x" * 3000 + '"},"outputs":[{"path":"/out/a"}],"warnings":["odd"]}'
        rows = [(number, f"{name}-{n}.jpg", large, self.settled + n + 1, at) for n in range(items)]
        self.connection.execute("BEGIN")
        self.connection.executemany(
            "INSERT INTO items(batch, root, stem, state, tries, detail, settled, settled_at) VALUES (?,0,?,1,1,?,?,?)",
            rows,
        )
        self.connection.execute("COMMIT")
        self.settled += items
        return number

    def step(self, retention: Retention, looks: dict[str, float] | None = None) -> module.Step:
        """One step in its transaction."""
        self.connection.execute("BEGIN IMMEDIATE")
        done = module.step(self.connection, SweepRetention(retention=retention), NOW, looks or {})
        self.connection.execute("COMMIT")
        return done

    def sweep(self, retention: Retention, looks: dict[str, float] | None = None) -> list[module.Step]:
        """All steps."""
        steps = [self.step(retention, looks)]
        while steps[-1].more:
            steps.append(self.step(retention))
            assert len(steps) < 1000
        return steps

    def count(self, table: str) -> int:
        """Rows of a table."""
        found: int = self.connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0]
        return found

    def names(self) -> list[str]:
        """Batches that are there."""
        return [row[0] for row in self.connection.execute("SELECT batch FROM batches ORDER BY number")]


@pytest.fixture
def db(tmp_path: Path) -> Iterator[Db]:
    db = Db(str(tmp_path / "queue.db"))
    yield db
    db.connection.close()


def test_what_is_due_goes_with_everything_that_was_its_own(db: Db) -> None:
    db.batch("old", 10, 90)
    db.batch("kept", 5, 10)
    steps = db.sweep(SHORT)
    assert steps[0].event is not None and steps[0].event.dropped[0][0] == "old"
    assert (db.names(), db.count("items"), db.count("roots"), db.count("dropping")) == (["kept"], 5, 1, 0)


def test_what_is_not_finished_is_never_dropped(db: Db) -> None:
    for number, state in enumerate(("accepted", "running", "paused")):
        db.batch(f"b{number}", 2, 1e5, state=state)
    db.sweep(SHORT)
    assert len(db.names()) == 3


def test_a_step_touches_a_bounded_number_of_rows_and_survives_a_kill_between_any_two(db: Db) -> None:
    db.batch("old", 3_500, 90)
    for expected in (3_500, 2_500, 1_500, 500):
        assert db.step(SHORT).more
        assert db.count("items") == expected
        assert db.names() == [], "nobody sees it half gone"
        db.connection.close()
        db.connection = schema.open_for_writing(db.path)
    db.sweep(SHORT)
    assert (db.count("items"), db.count("dropping")) == (0, 0)


def test_a_look_counts_as_use_and_is_kept(db: Db) -> None:
    for number in range(5):
        db.batch(f"b{number}", 1, 50 - number)
    db.sweep(SHORT, looks={"b0": NOW - 5})
    assert db.names() == ["b0", "b3", "b4"]
    db.batch("b5", 1, 1)
    db.sweep(SHORT)
    assert db.names() == ["b0", "b4", "b5"]


def test_large_results_go_first_and_verdicts_and_outputs_stay(db: Db) -> None:
    db.batch("big", 1_500, 40)
    steps = db.sweep(SHORT)
    assert [each.event.thinned for each in steps if each.event is not None] == [["big"]]
    assert db.names() == ["big"]
    details = {row[0] for row in db.connection.execute("SELECT detail FROM items")}
    assert details == {'{"outputs":[{"path":"/out/a"}],"warnings":["odd","values dropped by retention"]}'}
    assert all(each.event is None for each in db.sweep(SHORT)), "once"


def test_the_file_shrinks(db: Db, tmp_path: Path) -> None:
    db.batch("old", 4_000, 90)
    db.connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    before = (tmp_path / "queue.db").stat().st_size
    steps = db.sweep(SHORT)
    assert any(each.freed for each in steps)
    db.connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    assert (tmp_path / "queue.db").stat().st_size < before / 5
    assert db.connection.execute("PRAGMA integrity_check").fetchone()[0] == "ok"


def test_outputs_of_forgotten_batches_may_still_be_replaced(tmp_path: Path) -> None:
    bed = Bed(str(tmp_path))
    first, second = bed.filled(["a.jpg", "b.jpg"])
    bed.settle(settlement(first.id))
    bed.settle(settlement(second.id, "cancelled", tries=0))
    bed.finish()
    bed.close()
    db = Db(str(tmp_path / "queue.db"))
    db.sweep(SHORT)
    assert (db.names(), db.count("items")) == ([], 0)
    db.connection.close()
    bed = Bed(str(tmp_path))
    again = bed.filled(["a.jpg", "b.jpg", "c.jpg"], batch="b2")
    assert {item.stem: item.owned for item in again} == {"a.jpg": True, "b.jpg": False, "c.jpg": False}
    elsewhere = bed.filled(["a.jpg"], batch="b3", out="/elsewhere")
    assert not elsewhere[0].owned
    bed.close()


def test_names_of_forgotten_outputs_are_bounded(db: Db, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "WRITTEN_MAX", 20_000)
    chance = random.Random(1)
    for _ in range(1_200):
        names = [[chance.getrandbits(64) - 2**63] for _ in range(50)]
        db.connection.execute("BEGIN")
        db.connection.executemany("INSERT INTO written VALUES (?)", names)
        db.connection.execute("COMMIT")
        module._forget_written(db.connection, len(names))
    assert 5_000 < db.count("written") < 40_000


def test_sizes_are_told_where_asked_for(db: Db, tmp_path: Path) -> None:
    db.batch("big", 1_000, 1)
    db.batch("small", 10, 1)
    with OfflineReader(str(tmp_path)) as reader:
        told, plain = reader.answer(ListBatches(sizes=True)), reader.answer(ListBatches())
    assert isinstance(told, Batches) and isinstance(plain, Batches)
    rows = {row.batch: row for row in told.batches}
    assert 2_900_000 < (rows["big"].bytes or 0) < 3_700_000
    assert 25_000 < (rows["small"].bytes or 0) < 40_000
    assert rows["big"].used_at == NOW - 60
    assert [row.bytes for row in plain.batches] == [None, None]


def test_a_real_journal_sweeps_on_by_itself_and_counts_looks(tmp_path: Path) -> None:
    path = str(tmp_path / "queue.db")
    db = Db(path)
    for number in range(5):
        db.batch(f"b{number}", 1_200, 50 - number)
    db.connection.execute("UPDATE batches SET finished_at = number")
    db.connection.close()
    bed = Bed(str(tmp_path))
    bed.ask(Results(batch="b0", limit=1))
    bed.ask(Progress(batch="b1"))
    bed.journal.submit(SweepRetention(retention=Retention(general=Rule(age_seconds=1e9, count=2))))
    assert [name for name, _ in bed.expect(BatchesDropped).dropped] == ["b2", "b3", "b4"]
    with OfflineReader(str(tmp_path)) as reader:
        wait_until(lambda: reader._connection.execute("SELECT count(*) FROM items").fetchone()[0] == 2_400)
    bed.close()
    db.connection = schema.open_for_writing(path)
    assert db.names() == ["b0", "b1"]
    db.connection.close()


def test_a_sweep_that_fails_stops_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> module.Step:
        raise sqlite3.OperationalError("no such column")

    monkeypatch.setattr(module, "step", fail)
    bed = Bed(str(tmp_path))
    bed.journal.submit(SweepRetention(retention=SHORT))
    assert bed.filled(["a.jpg"])
    bed.close()
