"""The ring file of the memory history, on a real disk."""

import os
from pathlib import Path

import pytest

from protocol.errors import StateDirectoryUnusable
from protocol.messages import History as HistoryRequest
from supervisor.mechanism.history_file import HistoryFile, page_offline, read_history
from supervisor.mechanism.state import HISTORY_FILE
from supervisor.policy.history import History
from tests.policy.test_history import START, fill


def test_what_is_written_is_read_by_the_next_run_and_offline(tmp_path: Path) -> None:
    complaints: list[str] = []
    path = str(tmp_path / HISTORY_FILE)
    history = History(2)
    file = HistoryFile(path, complaints.append)
    assert file.read() == b""
    history.restore(file.read())
    file.write(history.unsaved())
    for minute in range(3):
        end = fill(history, 60.0, start=START + 60.5 * minute)
        file.write(history.unsaved())
    file.close()
    file.write([(0, b"after the end")])

    assert read_history(path) == history.image()
    assert os.stat(path).st_mode & 0o777 == 0o600
    request = HistoryRequest(since=START + 30, id=5)
    assert page_offline(path, request) == history.page(5, START + 30, 0.0, 1_000, end)
    again = HistoryFile(path, complaints.append)
    assert again.read() == history.image()
    again.close()
    assert complaints == []


def test_a_file_of_another_layout_gets_the_new_length(tmp_path: Path) -> None:
    path = str(tmp_path / HISTORY_FILE)
    for slots in (8, 2):
        history = History(slots)
        file = HistoryFile(path, lambda _: None)
        history.restore(file.read())
        file.write(history.unsaved())
        file.close()
        assert os.path.getsize(path) == history.size_bytes


def test_a_disk_that_refuses_is_told_once_and_costs_only_the_file(tmp_path: Path) -> None:
    complaints: list[str] = []
    file = HistoryFile(str(tmp_path / "missing" / HISTORY_FILE), complaints.append)
    file.write([(0, b"x")])
    file.write([(0, b"x")])
    assert file.read() == b""
    file.close()

    full = HistoryFile("/dev/full", complaints.append)
    full.write([(0, b"x")])
    full.write([(0, b"x")])
    full.close()

    assert len(complaints) == 2
    assert "No such file" in complaints[0]
    assert "No space left" in complaints[1]


def test_where_there_is_no_history_the_reader_says_so(tmp_path: Path) -> None:
    with pytest.raises(StateDirectoryUnusable, match="no memory history here"):
        page_offline(str(tmp_path / HISTORY_FILE), HistoryRequest())
