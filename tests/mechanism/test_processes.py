"""Worker processes as the supervisor sees them: real ones, from their start to every way of ending."""

import fcntl
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from protocol.launch import PLAN_VARIABLE, TemplatePlan
from supervisor.mechanism.processes import Processes, StartError, wait_for_orphans
from tests.mechanism.real_pool import RealPool, ended, real_pool, recipe, wait_until

HOME = str(Path(__file__).parents[2])
ODD = "tests.mechanism.odd_worker"


@pytest.fixture
def odd() -> Iterator[RealPool]:
    with real_pool(entry=ODD) as pool:
        yield pool


def wait_for_file(path: str) -> str:
    wait_until(lambda: os.path.exists(path) and os.path.getsize(path) > 0, f"{path} written")
    return Path(path).read_text()


def test_exit_status_is_told_by_the_template(odd: RealPool) -> None:
    worker = odd.start(endpoint="exit:3")
    assert ended(worker)
    assert worker.exit_code(5) == 3
    assert worker.exit_code() == 3, "asking again tells the same"


def test_exit_status_255_is_not_taken_for_an_unknown_one(odd: RealPool) -> None:
    worker = odd.start(endpoint="exit:255")
    assert ended(worker)
    assert worker.exit_code(5) == 255


def test_kill_is_seen_through_the_pidfd_with_its_signal(odd: RealPool) -> None:
    marker = os.path.join(odd.directory, "marker")
    worker = odd.start(endpoint=f"spin:{marker}")
    wait_for_file(marker)
    assert not worker.gone()
    assert worker.exit_code(0) is None
    worker.kill()
    worker.release()
    assert ended(worker)
    assert worker.gone()
    assert worker.exit_code(5) == -signal.SIGKILL
    worker.terminate()
    worker.kill()


def test_kill_takes_what_the_worker_started_along(odd: RealPool) -> None:
    marker = os.path.join(odd.directory, "marker")
    worker = odd.start(endpoint=f"family:{marker}")
    helper = os.pidfd_open(int(wait_for_file(marker)))
    worker.kill()
    assert ended(worker) and ended(helper)
    os.close(helper)


def test_terminate_ends_a_worker_that_waits(odd: RealPool) -> None:
    marker = os.path.join(odd.directory, "marker")
    worker = odd.start(endpoint=f"wait:{marker}")
    wait_for_file(marker)
    worker.terminate()
    assert ended(worker)
    assert worker.exit_code(5) == -signal.SIGTERM


def test_death_of_the_template_takes_its_workers_and_the_next_start_makes_another(odd: RealPool) -> None:
    markers = [os.path.join(odd.directory, name) for name in ("spinning", "waiting")]
    workers = [odd.start(endpoint=f"spin:{markers[0]}"), odd.start(endpoint=f"wait:{markers[1]}")]
    for marker in markers:
        wait_for_file(marker)
    first, pidfd = odd.processes.template_pid, odd.processes.template_pidfd
    assert first is not None and pidfd is not None and odd.processes.template_alive()
    os.kill(first, signal.SIGKILL)
    assert ended(pidfd)
    assert not odd.processes.template_alive()
    for worker in workers:
        assert ended(worker)
        assert worker.exit_code() is None, "who would have told died too"
    late = odd.start(endpoint="exit:4")
    assert ended(late)
    assert late.exit_code(5) == 4
    assert odd.processes.template_pid != first


def test_close_takes_the_workers_along_and_leaves_no_trace_in_the_environment() -> None:
    before = dict(os.environ)
    with tempfile.TemporaryDirectory(prefix="gs-") as directory:
        pool = RealPool(directory, entry=ODD)
        assert os.environ != before
        marker = os.path.join(directory, "marker")
        worker = pool.start(endpoint=f"spin:{marker}")
        wait_for_file(marker)
        pool.processes.close()
        assert ended(worker)
        assert not os.path.exists(pool.processes.death_pipe_path)
        assert wait_for_orphans(pool.processes.life_lock_path, 30)
        pool.close()
    assert dict(os.environ) == before


def sockets_in(directory: str) -> set[str]:
    return {name for name in os.listdir(directory) if name.startswith("listener-")}


COMMAND = """
import os, sys
with open(os.path.join(sys.argv[1], "imports"), "a") as file:
    file.write(f"{__name__} ")

if __name__ == "__main__":
    from tests.mechanism.real_pool import RealPool, ended
    pool = RealPool(sys.argv[1], entry="tests.mechanism.odd_worker")
    worker = pool.start(endpoint=f"modules:{sys.argv[1]}/modules")
    assert ended(worker) and worker.exit_code(5) == 0
    pool.close()
    assert sys.modules["__main__"].__file__ == __file__, "ours is back in its place"
"""


def test_no_child_has_the_command_line_or_the_supervisor_in_it() -> None:
    with tempfile.TemporaryDirectory(prefix="gs-") as directory:
        command = Path(directory, "command.py")
        command.write_text(COMMAND)
        environment = os.environ | {"PYTHONPATH": HOME}
        subprocess.run([sys.executable, str(command), directory], check=True, env=environment, timeout=60)
        assert Path(directory, "imports").read_text() == "__main__ ", "imported once, by the one who runs it"
        found = Path(directory, "modules").read_text().split("\n")
    assert "workers.entry" in found, "the template is warm"
    assert "main=None" in found
    assert not [name for name in found if name.startswith("supervisor")]


def test_the_template_keeps_of_the_environment_what_libraries_need(
    odd: RealPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATABASE_PASSWORD", "secret")
    monkeypatch.setenv("LC_MESSAGES", "C")
    listing = os.path.join(odd.directory, "environment")
    worker = odd.start(endpoint=f"environment:{listing}")
    assert ended(worker)
    found = Path(listing).read_text().split("\n")
    assert "LC_MESSAGES" in found and "PATH" in found
    assert "DATABASE_PASSWORD" not in found and PLAN_VARIABLE not in found


def test_no_resource_tracker_runs(odd: RealPool) -> None:
    odd.start(endpoint="exit:0")
    me = os.getpid()
    children = Path(f"/proc/{me}/task/{me}/children").read_text().split()
    commands = [Path(f"/proc/{child}/cmdline").read_bytes() for child in children]
    assert not [command for command in commands if b"resource_tracker" in command]


def test_a_template_that_cannot_be_prepared_says_why() -> None:
    with real_pool([recipe("no-such-operation")]) as pool:
        with pytest.raises(StartError, match="no-such-operation"):
            pool.processes.prepare()
        assert not pool.processes.template_alive()
        with pytest.raises(StartError, match="no-such-operation"):
            pool.start()


def test_a_template_of_another_parent_leaves_with_a_reason() -> None:
    with real_pool() as pool:
        pool.processes.close()
        plan = TemplatePlan(supervisor_pid=1, recipes=[], report_path=pool.plan.report_path)
        processes = Processes(run_directory=pool.directory, plan=plan)
        try:
            with pytest.raises(StartError, match="could not be prepared"):
                processes.prepare()
        finally:
            processes.close()


def test_a_template_that_is_not_ready_in_time_is_killed() -> None:
    with real_pool(prepare_seconds=0.0) as pool:
        with pytest.raises(StartError, match="not ready after 0 s"):
            pool.processes.prepare()
        assert not pool.processes.template_alive()


def test_orphans_are_waited_for() -> None:
    with tempfile.TemporaryDirectory(prefix="gs-") as directory:
        path = os.path.join(directory, "life-lock")
        assert wait_for_orphans(path, 0), "no supervisor was ever here"
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT)
        fcntl.flock(descriptor, fcntl.LOCK_SH)
        assert not wait_for_orphans(path, 0.02)
        os.close(descriptor)
        assert wait_for_orphans(path, 0)


SUPERVISOR = """
import os, sys, time
from tests.mechanism.real_pool import RealPool, wait_until

if __name__ == "__main__":
    pool = RealPool(sys.argv[1], entry="tests.mechanism.odd_worker")
    for number, word in enumerate(["spin", "wait"]):
        marker = os.path.join(sys.argv[1], word)
        pool.start(number, endpoint=f"{word}:{marker}")
        wait_until(lambda: os.path.exists(marker), marker)
    print(pool.processes.template_pid, *[worker.pid for worker in pool.workers], flush=True)
    time.sleep(3600)
"""


def test_death_of_the_supervisor_takes_everything_along_even_from_inside_a_decoder() -> None:
    with tempfile.TemporaryDirectory(prefix="gs-") as directory:
        child = subprocess.Popen(
            [sys.executable, "-c", SUPERVISOR, directory],
            stdout=subprocess.PIPE,
            env=os.environ | {"PYTHONPATH": HOME},
        )
        assert child.stdout is not None
        with child:
            pidfds = [os.pidfd_open(int(pid)) for pid in child.stdout.readline().split()]
            assert len(pidfds) == 3
            assert not wait_for_orphans(os.path.join(directory, "life-lock"), 0)
            child.kill()
            for pidfd in pidfds:
                assert ended(pidfd)
                os.close(pidfd)
        assert wait_for_orphans(os.path.join(directory, "life-lock"), 30)
        assert len(sockets_in(directory)) == 1
        Processes(
            run_directory=directory, plan=TemplatePlan(supervisor_pid=os.getpid(), recipes=[], report_path="")
        ).close()
        assert not sockets_in(directory), "the next one clears up what it left"
