"""Workers as the loop holds them: real ones, told to end before the letter that brings them was read."""

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import pytest

from supervisor.mechanism.chores import Chores
from supervisor.mechanism.crew import Crew
from supervisor.mechanism.memory import BudgetFinder
from supervisor.policy.events import AnyEvent, WorkerExited
from tests.mechanism.real_pool import SLOTS, RealPool, ended, real_pool, wait_until


def _never(*_: object) -> NoReturn:
    raise AssertionError("nothing is started by this crew")


def _crew(pool: RealPool) -> Crew:
    return Crew(
        processes=pool.processes,
        chores=Chores(_never),
        post=_never,
        describe=_never,
        recorder_path=pool.recorder_path,
        slots=SLOTS,
        finder=BudgetFinder(),
    )


@pytest.mark.parametrize(
    ("tell", "number"),
    [
        ([Crew.terminate], signal.SIGTERM),
        ([Crew.kill], signal.SIGKILL),
        ([Crew.terminate, Crew.kill], signal.SIGKILL),
        ([Crew.kill, Crew.terminate], signal.SIGKILL),
    ],
)
def test_worker_told_to_end_before_it_is_at_hand_gets_what_it_was_told(
    tell: list[Callable[[Crew, int, int], None]], number: int
) -> None:
    with real_pool(entry="tests.mechanism.odd_worker") as pool:
        crew = _crew(pool)
        marker = Path(pool.directory, "marker")
        worker = pool.start(endpoint=f"wait:{marker}")
        wait_until(lambda: marker.exists() and os.path.getsize(marker) > 0, "the worker waits")
        for each in tell:
            each(crew, worker.slot, worker.incarnation)
        crew.arrived(worker)
        assert ended(worker)
        pool.workers.remove(worker)  # the crew lets its descriptors go
        descriptor = worker.fileno()
        gone: list[AnyEvent] = []

        def told() -> bool:
            gone.extend(crew.exits({descriptor}, 0.0))
            return bool(gone)

        wait_until(told, "its end is told")
        crew.close()
        assert [event.exit_code for event in gone if isinstance(event, WorkerExited)] == [-number]
