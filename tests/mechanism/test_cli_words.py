"""What the command line says to people: a wrong use in one line, why work stands still, one image or several."""

import signal
from pathlib import Path

import msgspec
import pytest

from protocol.messages import BatchProgress, Counts, Summary
from supervisor.cli import main, own
from supervisor.cli.quarantine import evidence_line
from supervisor.cli.tell import Bar, images, other_files


@pytest.mark.parametrize(
    ("words", "wrong"),
    [
        (["run", "--out", "x"], "the following arguments are required: PATH"),
        (["start", "--kind", "x"], "unrecognized arguments: --kind x"),
        (["emergency", "nonsense"], "invalid choice: 'nonsense'"),
    ],
)
def test_a_wrong_use_is_told_in_one_line_with_the_way_out(
    words: list[str], wrong: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.count("\n") == 1 and wrong in said.err
    assert said.err.endswith(f"'supervisor {words[0]} --help' tells more\n")


def test_the_usage_of_start_is_not_hidden_behind_its_settings(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["start", "--help"]) == 0
    usage = capsys.readouterr().out.split("\n\n")[0]
    assert usage.startswith("usage: supervisor start ") and len(usage) < 200
    assert usage.endswith("[--SETTING VALUE ...]")


def test_without_a_terminal_a_pause_is_told_once_for_each_reason(capsys: pytest.CaptureFixture[str]) -> None:
    running = BatchProgress(
        id=1, batch="b1", state="running", open=False, recipe="thumbs", out=None, items=2, ignored=0,
        counts=Counts(pending=2), summary=Summary(),
    )  # fmt: skip
    full = msgspec.structs.replace(running, paused="the disk of the outputs is full")
    backup = msgspec.structs.replace(running, paused="backup")
    with Bar() as bar:
        for progress in (running, full, full, running, full, backup):
            bar.show(progress)
    assert capsys.readouterr().err.splitlines() == [
        "batch b1 waits: the disk of the outputs is full",
        "batch b1 waits: backup",
    ]


def test_evidence_is_told_in_the_units_of_people() -> None:
    assert evidence_line("rss_curve", [[0.013, 28 << 20], [1.5, 1 << 30]]) == (
        "memory before its end: 28 MB at 0.013 s, 1.0 GB at 1.5 s"
    )
    assert evidence_line("step", 0) == "step: 1", "as the message counts"
    assert evidence_line("peak_bytes", 42 << 20) == "peak: 42 MB"
    assert evidence_line("exit_code", -11) == "exit code: -11"
    assert evidence_line("cause", "signal 11") == "cause: signal 11"


def test_one_image_is_one() -> None:
    assert [images(0), images(1), images(1234)] == ["0 images", "1 image", "1,234 images"]
    assert [other_files(1), other_files(0)] == ["1 other file ignored", "0 other files ignored"]


def test_an_interrupt_before_anything_was_submitted_is_told_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(_: object) -> str:
        raise KeyboardInterrupt

    monkeypatch.setattr(own.OwnSupervisor, "start", interrupted)
    monkeypatch.setattr(signal, "signal", lambda *_: None)  # this process' handlers are pytest's
    words = ["run", str(tmp_path), "--out", str(tmp_path / "out"), "--state", str(tmp_path / "state")]
    assert main(words) == 130
    assert capsys.readouterr().err.splitlines() == ["interrupted before anything was submitted"]
