"""The note of emergency protection in a real directory."""

import os
import time
from pathlib import Path

from supervisor.mechanism.protection import NOTE_NAME, NoteKeeper, read_note, stops_before, write_note


def test_a_note_is_read_as_it_was_written_and_removed_when_there_is_nothing_to_say(tmp_path: Path) -> None:
    where = str(tmp_path)
    assert read_note(where).stops == []
    write_note(where, [1.0, 2.0])
    assert read_note(where).stops == [1.0, 2.0]
    write_note(where, [])
    write_note(where, [])
    assert os.listdir(where) == []


def test_a_damaged_note_says_nothing(tmp_path: Path) -> None:
    (tmp_path / NOTE_NAME).write_text('{"stops": "never"}')
    assert stops_before(str(tmp_path), 4, 3_600.0).at == []


def test_stops_that_count_are_kept_and_a_note_without_any_is_removed(tmp_path: Path) -> None:
    where, now = str(tmp_path), time.time()
    write_note(where, [now - 1_000, now - 500])
    assert stops_before(where, 4, 3_600.0).at == [now - 1_000, now - 500]
    assert (tmp_path / NOTE_NAME).exists()
    for outdated in (now - 90_000, now + 90_000):
        write_note(where, [outdated])
        assert stops_before(where, 4, 3_600.0).at == []
        assert not (tmp_path / NOTE_NAME).exists()


def test_a_note_whose_chore_never_ran_is_written_at_the_end_and_only_the_last_one(tmp_path: Path) -> None:
    keeper = NoteKeeper(str(tmp_path), print)
    keeper.want([1.0])
    keeper.want([1.0, 2.0])
    keeper.close()
    assert read_note(str(tmp_path)).stops == [1.0, 2.0]
    late = keeper.want([])
    late()
    assert not (tmp_path / NOTE_NAME).exists()
    write_note(str(tmp_path), [3.0])
    late()
    keeper.close()
    assert read_note(str(tmp_path)).stops == [3.0], "what is written is not written again"


def test_a_directory_that_refuses_is_told_at_the_end(tmp_path: Path) -> None:
    said: list[str] = []
    keeper = NoteKeeper(str(tmp_path / "gone"), said.append)
    keeper.want([1.0])
    keeper.close()
    assert len(said) == 1
    assert "the note of emergency protection cannot be written" in said[0]
