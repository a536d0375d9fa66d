"""Every cell of the worker's table, and what follows from the table as a whole."""

import itertools
from typing import get_args

import pytest

from protocol.messages import WorkerState
from supervisor.policy.worker import TABLE, Effect, IllegalEvent, Worker, WorkerEvent, step

EXPECTED = """
            Ready      Granted  Settled         StopAsked       DeadlinePassed  KillAsked     Exited
STARTING    IDLE       -        -               STOPPING+TERM   KILLING+KILL    KILLING+KILL  GONE+LOSE
IDLE        -          BUSY     -               STOPPING+TERM   STOPPING+TERM   KILLING+KILL  GONE+LOSE
BUSY        -          -        IDLE            DRAINING+DRAIN  KILLING+KILL    KILLING+KILL  GONE+LOSE
DRAINING    -          -        STOPPING+TERM   DRAINING        KILLING+KILL    KILLING+KILL  GONE+LOSE
STOPPING    STOPPING   -        STOPPING        STOPPING        KILLING+KILL    KILLING+KILL  GONE+LOSE
KILLING     KILLING    -        KILLING         KILLING         KILLING+STUCK   KILLING       GONE+LOSE
GONE        -          -        -               -               -               -             -
"""
SHORT = {
    Effect.NOTHING: "",
    Effect.DRAIN: "+DRAIN",
    Effect.TERMINATE: "+TERM",
    Effect.KILL: "+KILL",
    Effect.REPORT_STUCK: "+STUCK",
    Effect.LOSE_LEASE: "+LOSE",
}
STATES: list[WorkerState] = list(TABLE)
CELLS = list(itertools.product(STATES, WorkerEvent))


def worker(state: WorkerState) -> Worker:
    return Worker(slot=3, incarnation=7, state=state, started_at=1.0, deadline=9.0, lease=4, cause="because")


def tried(state: WorkerState, event: WorkerEvent) -> str:
    """What a worker in this state does on this event, as the table above writes it."""
    one = worker(state)
    try:
        effect = step(one, event)
    except IllegalEvent:
        return "-"
    return one.state + SHORT[effect]


def as_text(table: dict[WorkerState, list[str]]) -> str:
    lines = [["", *(event.value for event in WorkerEvent)], *([state, *cells] for state, cells in table.items())]
    return "\n".join("".join(f"{cell:16}" for cell in line).rstrip() for line in lines)


def test_every_cell_is_decided_as_written_here() -> None:
    rows = [line.split() for line in EXPECTED.strip().splitlines()]
    assert rows[0] == [event.value for event in WorkerEvent]
    expected = {row[0]: row[1:] for row in rows[1:]}
    found = {state: [tried(state, event) for event in WorkerEvent] for state in STATES}
    assert found == expected, f"the table is\n{as_text(found)}"


@pytest.mark.parametrize(("state", "event"), CELLS)
def test_the_illegal_changes_nothing_and_says_what_it_was(state: WorkerState, event: WorkerEvent) -> None:
    one, same = worker(state), worker(state)
    if TABLE[state][event] is None:
        with pytest.raises(IllegalEvent, match=f"^worker 3 is {state}: {event.value} is not possible$"):
            step(one, event)
        assert one == same
    else:
        step(one, event)
        same.state = one.state
        assert one == same, "a step changes the state alone"


def test_every_state_is_decided_for_every_event() -> None:
    assert set(TABLE) == set(get_args(WorkerState))
    assert all(set(row) == set(WorkerEvent) for row in TABLE.values())


def test_gone_is_final() -> None:
    assert [tried("GONE", event) for event in WorkerEvent] == ["-"] * len(WorkerEvent)


@pytest.mark.parametrize("state", [state for state in STATES if state != "GONE"])
def test_an_exit_ends_every_life_and_loses_the_lease(state: WorkerState) -> None:
    assert tried(state, WorkerEvent.EXITED) == "GONE+LOSE"


@pytest.mark.parametrize("state", [state for state in STATES if state != "GONE"])
@pytest.mark.parametrize("first", [WorkerEvent.STOP_ASKED, WorkerEvent.KILL_ASKED])
def test_every_stop_ends_in_killing_if_the_worker_does_nothing(state: WorkerState, first: WorkerEvent) -> None:
    one = worker(state)
    effects = [step(one, first)]
    for _ in range(3):
        effects.append(step(one, WorkerEvent.DEADLINE_PASSED))
    assert one.state == "KILLING"
    assert effects[-1] is Effect.REPORT_STUCK
    assert step(one, WorkerEvent.EXITED) is Effect.LOSE_LEASE


def test_a_stop_asked_twice_signals_once() -> None:
    for state in STATES:
        if state != "GONE":
            one = worker(state)
            step(one, WorkerEvent.STOP_ASKED)
            assert step(one, WorkerEvent.STOP_ASKED) is Effect.NOTHING
