"""Parts as real child processes: started, heard, looked at, stopped, killed with all they started."""

import os
import queue
import select
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator

import pytest

from supervisor.mechanism.chores import Chores
from supervisor.mechanism.parts import PartArrived, PartProcesses, Program
from supervisor.policy.events import PartExited, PartStarted
from tests.end_to_end.bed import lives, wait_for

PATIENT = "import signal, sys; print('ready', flush=True); signal.pause()"
STUBBORN = f"import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); {PATIENT}"
PARENT = f"import subprocess, sys; print(subprocess.Popen([sys.executable, '-c', {STUBBORN!r}]).pid, flush=True); " + (
    PATIENT.replace("'ready'", "'child started'")
)
BABBLER = "import sys; sys.stdout.buffer.write(b'one\\ntwo\\n\\xff\\n' + b'x' * 100_000); sys.exit(3)"


class Stage:
    """Part processes with the loop's side played by hand."""

    def __init__(self, **sources: str) -> None:
        self.said: list[str] = []
        self.letters: queue.Queue[PartArrived | PartExited] = queue.Queue()
        self.chores = Chores(self.said.append)
        self.chores.start()
        programs = [Program(name=name, argv=[sys.executable, "-c", source]) for name, source in sources.items()]
        programs.append(Program(name="absent", argv=["/nowhere/at/all"]))
        self.parts = PartProcesses(programs=programs, chores=self.chores, post=self.letters.put, say=self.said.append)

    def start(self, name: str, incarnation: int = 1) -> PartStarted:
        """Starts a part and takes it in."""
        self.parts.start(name, incarnation)
        letter = self.letters.get(timeout=30)
        assert isinstance(letter, PartArrived)
        return self.parts.arrived(letter)

    def look(self) -> list[PartExited]:
        """One turn of the loop."""
        ready, _, _ = select.select(list(self.parts.descriptors()), [], [], 0.02)
        return self.parts.take(ready)

    def until_said(self, line: str) -> None:
        wait_for(lambda: self.look() or line in self.said, f"the part says {line!r}; it said {self.said}")

    def end(self) -> PartExited:
        """Waits for the next end."""
        return wait_for(self.look, "a part ends")[0]


@pytest.fixture
def stage() -> Iterator[Stage]:
    stage = Stage(patient=PATIENT, stubborn=STUBBORN, parent=PARENT, babbler=BABBLER)
    try:
        yield stage
    finally:
        stage.parts.close()
        stage.chores.close(10)


def test_a_part_is_started_heard_looked_at_and_stopped(stage: Stage) -> None:
    started = stage.start("patient", 7)
    assert (started.name, started.incarnation) == ("patient", 7)
    stage.until_said("patient: ready")
    assert os.getpgid(started.pid) == started.pid, "Ctrl-C in the terminal is the supervisor's alone"
    (sample,) = stage.parts.sample()
    assert (sample.role, sample.pid) == ("patient", started.pid)
    assert 2_000_000 < sample.rss_bytes < 200_000_000
    stage.parts.stop("patient", 6, kill=True)
    assert stage.look() == [], "that was another incarnation"
    stage.parts.stop("patient", 7, kill=False)
    assert stage.end() == PartExited(name="patient", incarnation=7, exit_code=-signal.SIGTERM)
    assert stage.parts.sample() == []
    assert stage.parts.descriptors() == set()


def test_one_that_ignores_term_is_killed(stage: Stage) -> None:
    stage.start("stubborn")
    stage.until_said("stubborn: ready")
    stage.parts.stop("stubborn", 1, kill=False)
    assert stage.look() == []
    stage.parts.stop("stubborn", 1, kill=True)
    assert stage.end().exit_code == -signal.SIGKILL


def test_what_a_part_started_ends_with_it(stage: Stage) -> None:
    stage.start("parent")
    stage.until_said("parent: ready")
    child = int(next(line for line in stage.said if line != "parent: ready" and line[8:].isdigit())[8:])
    assert lives(child)
    stage.parts.stop("parent", 1, kill=False)
    assert stage.end().exit_code == -signal.SIGTERM
    wait_for(lambda: not lives(child), "its child, which ignores TERM, is gone too")


def test_its_last_words_are_heard_in_bounds(stage: Stage) -> None:
    stage.start("babbler")
    assert stage.end().exit_code == 3
    assert stage.said[:3] == ["babbler: one", "babbler: two", "babbler: \N{REPLACEMENT CHARACTER}"]
    assert all(len(line) < 3_000 for line in stage.said)


def test_a_command_that_is_not_there_says_so(stage: Stage) -> None:
    stage.start("absent")
    assert stage.end().exit_code == 127
    assert stage.said == ["absent: /nowhere/at/all cannot be started: No such file or directory"]


@pytest.mark.skipif(sys.platform != "linux", reason="the parent-death signal is Linux's")
def test_a_part_never_outlives_its_supervisor(stage: Stage) -> None:
    supervisor = textwrap.dedent(f"""
        import signal, sys
        from supervisor.mechanism.chores import Chores
        from supervisor.mechanism.parts import PartProcesses, Program
        chores = Chores(print)
        chores.start()
        def post(letter):
            print(letter.process.pid, flush=True)
        program = Program(name="stubborn", argv=[sys.executable, "-c", {STUBBORN!r}])
        PartProcesses(programs=[program], chores=chores, post=post, say=print).start("stubborn", 1)
        signal.pause()
    """)
    parent = subprocess.Popen([sys.executable, "-c", supervisor], stdout=subprocess.PIPE)
    try:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        assert lives(pid)
        parent.kill()
        wait_for(lambda: not lives(pid), "the part dies with the supervisor")
    finally:
        parent.kill()
        parent.wait()
        if parent.stdout is not None:
            parent.stdout.close()
