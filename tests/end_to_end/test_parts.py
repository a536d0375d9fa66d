"""Parts in a real supervisor: they live and die with it, and are started again when killed."""

import os
import signal
import sys

import pytest

from tests.end_to_end.bed import Bed, lives, wait_for

PART = """
import os, signal
with open(os.environ["SUPERVISOR_STATE"] + "/part-pid.new", "w") as file:
    file.write(str(os.getpid()))
os.replace(file.name, file.name.removesuffix(".new"))
print("here I am", flush=True)
signal.pause()
"""


def pid_of_part(bed: Bed, before: int = 0) -> int:
    """Waits for a part that is not the one before."""

    def look() -> int:
        try:
            with open(os.path.join(bed.state, "part-pid"), encoding="ascii") as file:
                found = int(file.read())
        except FileNotFoundError:
            return 0
        return found if found != before else 0

    return wait_for(look, "the part runs")


def add_part(bed: Bed, name: str, source: str, essential: bool = False, memory: str = "200M") -> None:
    """Adds a part to supervisor.toml."""
    path = os.path.join(bed.directory, f"{name}.py")
    with open(path, "w", encoding="utf-8") as file:
        file.write(source)
    with open(bed.config, "a", encoding="utf-8") as file:
        flag = str(essential).lower()
        file.write(f"[parts.{name}]\ncommand = ['{sys.executable}', '{path}']\nessential = {flag}\n")
        file.write(f'memory = "{memory}"\n')


def test_a_part_lives_with_the_supervisor_and_is_replaced_when_it_dies(bed: Bed) -> None:
    add_part(bed, "meter", PART)
    command = bed.start()
    first = pid_of_part(bed)
    wait_for(lambda: "meter: here I am" in command.said(), "what the part writes is in the log")
    os.kill(first, signal.SIGKILL)
    second = pid_of_part(bed, first)
    wait_for(lambda: "meter ended (exit code -9); it starts again in 0.0 s" in command.said(), "its death is told")
    command.signal(signal.SIGTERM)
    assert command.wait().code == 0
    assert not lives(second)


def test_a_part_dies_with_a_supervisor_that_is_killed(bed: Bed) -> None:
    add_part(bed, "meter", PART)
    command = bed.start()
    part = pid_of_part(bed)
    command.signal(signal.SIGKILL)
    wait_for(lambda: not lives(part), "the part is gone")


@pytest.mark.parametrize(
    ("table", "fault"),
    [
        ("[parts.Meter]\ncommand = ['x']", "key parts.Meter: a name is a small letter"),
        ("[parts.meter]\ncommand = 'x'", 'key parts.meter: command = ["PROGRAM", "ARGUMENT", ...] is needed'),
        ("[parts.meter]\ncommand = ['x']\nmemory = 'much'", "key parts.meter: memory: "),
        ("[parts.meter]\ncommand = ['x']\nessential = 1", "key parts.meter: essential is true or false, not 1"),
        ("[parts.meter]\ncommand = ['x']\nnice = 1", "key parts.meter: there is no key 'nice'"),
    ],
)
def test_a_table_that_makes_no_sense_is_refused_with_its_place(bed: Bed, table: str, fault: str) -> None:
    with open(bed.config, "w", encoding="utf-8") as file:
        file.write(table)
    ended = bed.run("start")
    assert ended.code == 2
    assert fault in ended.err
