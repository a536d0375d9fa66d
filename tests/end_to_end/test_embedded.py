"""The embedded API as a program uses it: functions of its own over real files, results typed, crashes contained."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from protocol.errors import Refused, UsageError
from supervisor import Result, Supervisor
from tests.end_to_end.bed import ROOT, lives, wait_for


class Facts(msgspec.Struct):
    """What a function may return."""

    name: str
    size: int


@pytest.fixture(scope="module")
def supervisor() -> Iterator[Supervisor]:
    with Supervisor(workers=2, settings={"drain": "1s"}) as made:
        yield made


@pytest.fixture
def paths(tmp_path: Path) -> list[str]:
    """Six files: a (1 byte) to f (6 bytes)."""
    found = []
    for number, name in enumerate("abcdef", 1):
        (tmp_path / name).write_bytes(b"x" * number)
        found.append(str(tmp_path / name))
    return found


def test_a_closure_over_files_gives_typed_results_in_order(supervisor: Supervisor, paths: list[str]) -> None:
    factor = 10

    def facts(path: str) -> Facts:
        return Facts(os.path.basename(path), os.path.getsize(path) * factor)

    asked = [*reversed(paths), paths[0]]
    results = list(supervisor.map(facts, asked))
    assert [result.path for result in results] == asked
    assert {type(result) for result in results} == {Result}
    assert all(result.ok for result in results)
    assert [result.value["size"] for result in results] == [60, 50, 40, 30, 20, 10, 10]
    assert all(result.worker in (0, 1) and result.peak_bytes > 0 for result in results)
    assert list(supervisor.map(facts, [])) == []


def test_what_goes_wrong_with_one_file_is_told_and_harms_no_other(supervisor: Supervisor, paths: list[str]) -> None:
    def trouble(path: str) -> int:
        name = os.path.basename(path)
        if name == "b":
            raise ValueError("no b, please")
        if name == "c":
            os.kill(os.getpid(), signal.SIGSEGV)
        return len(name)

    asked = [*paths, os.path.join(os.path.dirname(paths[0]), "gone")]
    results = {os.path.basename(result.path): result for result in supervisor.map(trouble, asked, ordered=False)}
    states = {name: result.state for name, result in results.items()}
    assert states == {
        "a": "done", "b": "failed", "c": "quarantined", "d": "done", "e": "done", "f": "done", "gone": "failed",
    }  # fmt: skip
    failed, killed, gone = results["b"].error, results["c"].error, results["gone"].error
    assert failed is not None and "ValueError" in failed.message and "no b, please" in failed.message
    assert killed is not None and "SIGSEGV" in killed.message
    assert gone is not None and gone.kind == "io"
    again = list(supervisor.map(os.path.getsize, paths))
    assert [result.value for result in again] == [1, 2, 3, 4, 5, 6], "what one function did is not held against another"


def test_a_new_function_waits_for_maps_under_way(supervisor: Supervisor, paths: list[str]) -> None:
    under_way = supervisor.map(os.path.getsize, paths)
    assert next(under_way).value == 1
    with pytest.raises(UsageError, match="finish that map first"):
        supervisor.map(lambda path: path, paths)
    assert [result.value for result in under_way] == [2, 3, 4, 5, 6]


def test_a_supervisor_that_is_killed_on_the_way_is_started_again(supervisor: Supervisor, paths: list[str]) -> None:
    results = supervisor.map(os.path.getsize, paths)
    own = supervisor._own
    assert own is not None and own._child is not None
    own._child.kill()
    own._child.wait()
    assert [result.value for result in results] == [1, 2, 3, 4, 5, 6]


def test_what_cannot_be_shipped_is_the_callers_fault(supervisor: Supervisor, paths: list[str]) -> None:
    frame = sys._getframe()
    with pytest.raises(UsageError, match="cannot be shipped"):
        supervisor.map(lambda path: str(frame), paths)
    with pytest.raises(UsageError, match="a function of one path"):
        supervisor.map("os.remove", paths)  # type: ignore[arg-type]


def test_a_setting_that_makes_no_sense_is_refused_at_once() -> None:
    with pytest.raises(UsageError, match="--workers"):
        Supervisor(workers=0)


def test_nothing_is_left_at_the_end(paths: list[str]) -> None:
    with Supervisor(workers=1) as supervisor:
        assert [result.value for result in supervisor.map(os.path.getsize, paths[:2])] == [1, 2]
        state = supervisor._state
        own = supervisor._own
        assert own is not None and own._child is not None
        pid = own._child.pid
    assert not os.path.exists(state)
    wait_for(lambda: not lives(pid), "the supervisor is gone")


def test_the_package_itself_stays_light() -> None:
    code = (
        "import supervisor, sys; "
        "heavy = {'dill', 'multiprocess', 'zmq', 'supervisor.embedded'} & set(sys.modules); "
        "assert not heavy, heavy; supervisor.Supervisor; assert 'supervisor.embedded' in sys.modules"
    )
    environment = {**os.environ, "PYTHONPATH": ROOT}
    found = subprocess.run(
        [sys.executable, "-P", "-c", code], env=environment, capture_output=True, text=True, timeout=30
    )
    assert found.returncode == 0, found.stderr


@pytest.mark.filterwarnings("ignore:pressure callback")
def test_pressure_callbacks_hear_the_levels_and_one_that_raises_is_passed_over(paths: list[str]) -> None:
    heard: list[str] = []
    taken_back: list[str] = []

    def fail(level: str) -> None:
        raise OSError(f"no room at {level}")

    # Less than its processes hold at rest: the level is protection from the first look.
    with Supervisor(workers=1, memory="36M", settings={"protection": "no"}) as tiny:
        tiny.on_pressure(fail)
        tiny.on_pressure(heard.append)
        tiny.on_pressure(taken_back.append).unsubscribe()
        with pytest.raises(Refused, match="memory has run out"):
            list(tiny.map(os.path.getsize, paths))
        wait_for(lambda: "protection" in heard, "the level is told")
    assert taken_back == []


def test_status_imports_no_more_than_it_needs() -> None:
    """People and scripts run it in a loop: 0.07 s of processor time, two thirds of them for zmq and msgspec."""
    code = (
        "import supervisor.cli.status, sys; "
        "heavy = {'ctypes', 'hashlib', 'tempfile', 'tomllib', 'sqlite3', 'psutil', 'orjson', 'PIL', 'tqdm', "
        "'multiprocess', 'supervisor.policy.pool', 'supervisor.policy.history', 'supervisor.policy.cache.windowed'}"
        " & set(sys.modules); assert not heavy, heavy"
    )
    environment = {**os.environ, "PYTHONPATH": ROOT}
    words = [sys.executable, "-P", "-c", code]
    found = subprocess.run(words, env=environment, capture_output=True, text=True, timeout=30)
    assert found.returncode == 0, found.stderr
