"""The journal's file: made, migrated, refused."""

import os
import sqlite3
import stat
from pathlib import Path

import pytest

from protocol.errors import StateDirectoryUnusable
from supervisor.mechanism.journal import OfflineReader, schema
from tests.mechanism.journal_bed import Bed


def pragma(path: Path, name: str) -> object:
    connection = sqlite3.connect(path)
    try:
        return connection.execute(f"PRAGMA {name}").fetchone()[0]
    finally:
        connection.close()


def test_a_new_file_has_what_can_only_be_set_at_creation(tmp_path: Path) -> None:
    Bed(str(tmp_path)).close()
    path = tmp_path / "queue.db"
    assert pragma(path, "user_version") == len(schema.MIGRATIONS)
    assert pragma(path, "application_id") == schema.APPLICATION_ID
    assert pragma(path, "auto_vacuum") == 2, "incremental"
    assert pragma(path, "journal_mode") == "wal"
    assert pragma(path, "integrity_check") == "ok"
    assert os.listdir(tmp_path) == ["queue.db"], "a clean stop leaves no WAL"


def test_the_connection_waits_for_the_disk(tmp_path: Path) -> None:
    connection = schema.open_for_writing(str(tmp_path / "queue.db"))
    assert connection.execute("PRAGMA synchronous").fetchone()[0] == 2, "FULL"
    connection.close()


def test_an_older_file_is_migrated_and_keeps_its_rows(tmp_path: Path) -> None:
    path = str(tmp_path / "queue.db")
    Bed(str(tmp_path)).close()
    older = sqlite3.connect(path)
    older.execute("INSERT INTO meta VALUES ('kept', 'yes')")
    older.commit()
    older.close()
    newer = schema.open_for_writing(path, [*schema.MIGRATIONS, ("ALTER TABLE meta ADD COLUMN more TEXT",)])
    assert newer.execute("SELECT value, more FROM meta WHERE key = 'kept'").fetchone() == ("yes", None)
    assert newer.execute("PRAGMA user_version").fetchone()[0] == len(schema.MIGRATIONS) + 1
    newer.close()


def test_a_migration_that_fails_changes_nothing(tmp_path: Path) -> None:
    path = str(tmp_path / "queue.db")
    Bed(str(tmp_path)).close()
    broken = ("ALTER TABLE meta ADD COLUMN more TEXT", "INSERT INTO nowhere VALUES (1)")
    with pytest.raises(StateDirectoryUnusable, match="nowhere"):
        schema.open_for_writing(path, [*schema.MIGRATIONS, broken])
    assert pragma(tmp_path / "queue.db", "user_version") == len(schema.MIGRATIONS)
    Bed(str(tmp_path)).close()


def test_a_newer_file_is_refused_with_both_numbers_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "queue.db"
    Bed(str(tmp_path)).close()
    schema.open_for_writing(str(path), [*schema.MIGRATIONS, *([("SELECT 1",)] * 6)]).close()
    before = path.read_bytes()
    for opener in (Bed, OfflineReader):
        with pytest.raises(StateDirectoryUnusable, match=r"schema 9.*up to 3.*--state"):
            opener(str(tmp_path))
    assert path.read_bytes() == before


@pytest.mark.parametrize("damage", ["garbage", "header kept"])
def test_a_damaged_file_is_refused_with_the_way_out(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "queue.db"
    bed = Bed(str(tmp_path))
    bed.filled([f"{n}.jpg" for n in range(500)])
    bed.close()
    kept = path.read_bytes()[: 100 if damage == "header kept" else 0]
    path.write_bytes(kept + b"\x5a" * 40_000)
    with pytest.raises(StateDirectoryUnusable, match=r"damaged.*(-wal).*--state"):
        Bed(str(tmp_path))


def test_a_file_of_another_program_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "queue.db"
    other = sqlite3.connect(path)
    other.execute("CREATE TABLE theirs(x)")
    other.commit()
    other.close()
    before = path.read_bytes()
    with pytest.raises(StateDirectoryUnusable, match="another program"):
        Bed(str(tmp_path))
    assert path.read_bytes() == before


def test_a_directory_in_its_place_is_refused(tmp_path: Path) -> None:
    (tmp_path / "queue.db").mkdir()
    with pytest.raises(StateDirectoryUnusable, match="cannot be opened"):
        Bed(str(tmp_path))


def test_odd_characters_in_the_directory_are_part_of_its_name(tmp_path: Path) -> None:
    odd = tmp_path / "a?b#c%20 d"
    odd.mkdir()
    Bed(str(odd)).close()
    with OfflineReader(str(odd)):
        assert stat.S_ISREG((odd / "queue.db").stat().st_mode)
