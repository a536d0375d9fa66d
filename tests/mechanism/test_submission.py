"""A job given to a supervisor: what is sent, what is told, and what happens when it is refused."""

import argparse
import os
from pathlib import Path

import pytest

from protocol.client import Client, OpenedBatch
from protocol.errors import OutputClash, Refused
from protocol.messages import (
    AddItems,
    Answer,
    AnyRequest,
    BatchOpened,
    CancelBatch,
    CloseBatch,
    OpenBatch,
    Problem,
    Progress,
    Recipe,
    Step,
    Welcome,
)
from supervisor.cli import main
from supervisor.cli.submission import Job, Submitted, add_job_arguments, read_job, submit
from supervisor.recipes import BUILT_IN
from tests.mechanism.test_client import Script, Server, Start, accepting, progress, serve

__all__ = ["serve"]  # a fixture


def job_of(*words: str) -> Job:
    parser = argparse.ArgumentParser()
    add_job_arguments(parser)
    return read_job(parser.parse_args(words), "thumbs")


def welcome(state: Path) -> Welcome:
    return Welcome(
        version="t", pid=1, state_directory=str(state), workers=1, recipes=list(BUILT_IN.values()), events_endpoint="x"
    )


def give(server: Server, job: Job, state: Path, batch: str | None = None) -> tuple[Submitted, list[OpenedBatch]]:
    opened: list[OpenedBatch] = []
    with Client(server.endpoint) as client:
        return submit(client, welcome(state), job, batch=batch, opened=opened.append), opened


def put(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"")


def sent(server: Server) -> list[tuple[str, str, list[str]]]:
    return [(r.root, r.prefix, r.names) for r in server.requests if isinstance(r, AddItems)]


def test_a_directory_is_not_held_and_its_output_is_no_input(tmp_path: Path, serve: Start) -> None:
    photos = tmp_path / "photos"
    put(photos, "a.jpg", "sub/b.jpg", "notes.txt", "out/a.jpg.256.webp", "state/x.jpg")
    server = serve(accepting)
    done, opened = give(server, job_of(str(photos), "--out", str(photos / "out")), photos / "state")
    assert sent(server) == [(str(photos), "", ["a.jpg", "sub/b.jpg"])]
    (first,) = [r for r in server.requests if isinstance(r, OpenBatch)]
    assert (first.hold, first.out, first.recipe) == (False, str(photos / "out"), "thumbs")
    assert done.ignored == 1
    assert [batch.name for batch in opened] == ["b1"]


def test_several_sources_keep_their_last_component_and_are_held_where_they_may_clash(
    tmp_path: Path, serve: Start
) -> None:
    put(tmp_path, "x/p/1.jpg", "y/p/1.jpg", "single.jpg")
    server = serve(accepting)
    words = [str(tmp_path / "x/p"), str(tmp_path / "y/p"), str(tmp_path / "single.jpg")]
    give(server, job_of(*words, "--out", str(tmp_path / "out")), tmp_path / "state")
    assert sent(server) == [
        (words[0], "p", ["1.jpg"]),
        (words[1], "p", ["1.jpg"]),
        ("/", "", [words[2][1:]]),
    ]
    assert [r.hold for r in server.requests if isinstance(r, OpenBatch)] == [True]


def refusing(problem: Problem, *, resumed: bool = False) -> Script:
    def script(request: AnyRequest) -> list[Answer]:
        match request:
            case AddItems():
                return [Problem(id=request.id, code=problem.code, fault=problem.fault, message=problem.message,
                                exit_code=problem.exit_code)]  # fmt: skip
            case OpenBatch():
                return [BatchOpened(id=request.id, batch="b1", resumed=resumed, next_chunk=0)]
            case CancelBatch():
                return [progress(request.id, "cancelled")]
        return []

    return script


CLASH = Problem(code="clash", fault="caller", message="a and b", exit_code=2)
BUSY = Problem(code="busy", fault="machine", message="the queue is full", exit_code=4)


@pytest.mark.parametrize(("problem", "kind"), [(CLASH, OutputClash), (BUSY, Refused)])
def test_what_is_refused_is_cancelled(tmp_path: Path, serve: Start, problem: Problem, kind: type[Exception]) -> None:
    put(tmp_path, "p/1.jpg")
    server = serve(refusing(problem))
    with pytest.raises(kind):
        give(server, job_of(str(tmp_path / "p"), "--out", str(tmp_path / "o")), tmp_path / "state")
    assert isinstance(server.requests[-1], CancelBatch)
    assert not any(isinstance(r, CloseBatch) for r in server.requests)


def test_a_resumed_batch_keeps_what_it_had(tmp_path: Path, serve: Start) -> None:
    put(tmp_path, "p/1.jpg")
    server = serve(refusing(BUSY, resumed=True))
    with pytest.raises(Refused):
        give(server, job_of(str(tmp_path / "p"), "--out", str(tmp_path / "o")), tmp_path / "state")
    assert not any(isinstance(r, CancelBatch) for r in server.requests)


def test_submitting_a_finished_batch_of_that_name_again_adds_nothing(tmp_path: Path, serve: Start) -> None:
    put(tmp_path, "p/1.jpg")

    def script(request: AnyRequest) -> list[Answer]:
        return [progress(request.id)] if isinstance(request, Progress) else accepting(request)

    server = serve(script)
    job = job_of(str(tmp_path / "p"), "--out", str(tmp_path / "o"))
    done, _ = give(server, job, tmp_path / "state", batch="b1")
    assert done.items == 2
    assert sent(server) == []


def test_the_fingerprint_names_the_job(tmp_path: Path) -> None:
    put(tmp_path, "a/1.jpg", "b/1.jpg")
    a, b, out = str(tmp_path / "a"), str(tmp_path / "b"), str(tmp_path / "o")
    thumbs = BUILT_IN["thumbs"]
    same = job_of(a, b, "--out", out).fingerprint(thumbs)
    assert job_of(b, a + "/", "--out", out + "/").fingerprint(thumbs) == same
    others = [
        job_of(a, "--out", out).fingerprint(thumbs),
        job_of(a, b, "--out", out + "2").fingerprint(thumbs),
        job_of(a, b, "--out", out, "--strict").fingerprint(thumbs),
        job_of(a, b, "--out", out, "--overwrite").fingerprint(thumbs),
        job_of(a, b, "--out", out, "--base", str(tmp_path)).fingerprint(thumbs),
        job_of(a, b, "--out", out).fingerprint(Recipe(name="thumbs", steps=[Step(operation="probe")])),
    ]
    assert len({same, *others}) == 7


def test_wrong_use_is_told_before_anything_is_asked(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    state = f"--state={tmp_path / 'state'}"
    cases = [
        (["stat"], 2, "do you mean 'start'?"),
        (["run", f"{tmp_path}/gone", "--out", "o", state], 2, "gone: No such file or directory"),
        (["run", str(tmp_path), state], 2, "say where with --out"),
        (["submit", str(tmp_path), "--out", f"{tmp_path}/o", state], 3, "no supervisor runs on the state directory"),
        (["results", "b1", state], 3, "no supervisor runs"),
        (["status", "--socket", f"{tmp_path}/s"], 3, "(--socket)"),
        (["why", "worker", "x", state], 2, "the number of a slot"),
        (["why", "0", state], 3, "no supervisor runs"),
        (["why", "worker", "0", "--limit", "-5", state], 2, "'-5' is no whole number of 1 or more"),
        (["events", "--limit", "many", state], 2, "'many' is no whole number of 0 or more"),
        (["quarantine", "show", state], 2, "name the image"),
        (["quarantine", state], 3, "no supervisor runs"),
        (["temp", state], 3, "no supervisor runs"),
        (["emergency", state], 3, "no supervisor runs"),
        (["start", "--workers", "many", state], 2, "flag --workers: 'many' is not a whole number"),
    ]
    for words, code, expected in cases:
        assert main(words) == code, words
        found = capsys.readouterr()
        assert expected in found.err, words
        assert found.out == "", words
        assert "Traceback" not in found.err
    assert not os.path.exists(tmp_path / "state")
