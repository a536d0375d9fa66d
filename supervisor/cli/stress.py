"""`stress`: fills memory on purpose, with real workers under a small budget, and judges what the supervisor does.

Each scenario is a recipe that misbehaves and a verdict. All of them share what must always hold: every image has its
verdict, nobody was taken by the kernel, and the total stayed within the budget.
"""

import argparse
import subprocess
import sys
import time
from collections.abc import Callable

import msgspec

from protocol.errors import UsageError, WaitedTooLong
from protocol.messages import BatchProgress, MemoryReport, Recipe, Step
from supervisor.cli.options import Verb
from supervisor.cli.output import print_json, say, table
from supervisor.cli.own import child_environment
from supervisor.cli.proving import Ground, Seen, make_images, proving_ground
from supervisor.policy.sizes import MB, human

BUDGET = "400M"
WORKERS = "2"
PATIENCE_SECONDS = 120.0
NEIGHBOUR_BYTES = 300 * MB
NEIGHBOUR_LEAVES = NEIGHBOUR_BYTES // 2
"""What the machine has available beyond the minimum when the neighbour comes: half of what it takes."""
NEIGHBOUR_STAYS_SECONDS = 3.0
_EXAMPLES = """  supervisor stress               all scenarios, some two minutes
  supervisor stress spike leak
  supervisor stress --json"""

_EATS = (
    "import sys; held = b'\\xa5' * int(sys.argv[1]); sys.stdout.write('holds\\n'); sys.stdout.flush(); sys.stdin.read()"
)


class Outcome(msgspec.Struct, kw_only=True):
    """How a scenario went; `faults` are sentences, none: passed."""

    scenario: str
    seconds: float
    faults: list[str]
    items: int = 0
    done: int = 0
    peak_bytes: int = 0
    budget_bytes: int = 0
    level: str = ""
    shrinks: int = 0
    recycles: int = 0
    kills: int = 0
    oom_kills: int = 0


class Scenario(msgspec.Struct, frozen=True):
    """`steps` misbehave at each of `items` images; `judge` returns what was not as it must be."""

    about: str
    steps: list[Step]
    items: int
    judge: Callable[[Seen], list[str]] = lambda seen: []
    neighbour: bool = False
    settings: dict[str, str] = {}


def _all_done(seen: Seen) -> list[str]:
    progress = seen.progress
    assert progress is not None
    missing = progress.items - progress.counts.done
    return [f"{missing} of {progress.items} images were not done"] if missing else []


def _leaks_are_recycled(seen: Seen) -> list[str]:
    assert seen.progress is not None
    faults = _all_done(seen)
    if not seen.progress.summary.recycles:
        faults.append("no leaking worker was recycled")
    if seen.progress.summary.kills:
        faults.append(f"{seen.progress.summary.kills} leaking workers had to be killed: they were not recycled in time")
    return faults


def _neighbour_was_noticed(seen: Seen) -> list[str]:
    noticed = seen.highest_level in ("critical", "emergency", "protection")
    return _all_done(seen) + ([] if noticed else [f"the neighbour raised the level only to {seen.highest_level}"])


SCENARIOS = {
    "ramp": Scenario(
        "images that take memory slowly",
        [Step("misbehave.allocate", {"bytes": 60 * MB, "bytes_per_second": 200 * MB})],
        20,
        _all_done,
    ),
    "spike": Scenario(
        "images that take much at once, for a moment",
        [Step("misbehave.allocate", {"bytes": 70 * MB, "seconds": 0.05})],
        40,
        _all_done,
    ),
    "leak": Scenario(
        "5 MB kept for ever at each image",
        [Step("misbehave.leak", {"bytes": 5 * MB}), Step("misbehave.hang", {"seconds": 0.05})],
        80,
        _leaks_are_recycled,
    ),
    "fragmentation": Scenario(
        "a heap left in pieces at each image",
        [Step("misbehave.fragment", {"bytes": 24 * MB})],
        40,
        _all_done,
    ),
    "saw-tooth": Scenario(
        "every other image takes much, the others nothing",
        [Step("misbehave.allocate", {"bytes": 70 * MB, "only": "*[02468].png"})],
        60,
        _all_done,
    ),
    "neighbour": Scenario(
        "another process eats the machine's memory, then leaves",
        [Step("misbehave.hang", {"seconds": 0.1})],
        60,
        _neighbour_was_noticed,
        True,
    ),
}  # fmt: skip


def _configure(parser: argparse.ArgumentParser) -> None:
    about = "; ".join(f"{name}: {scenario.about}" for name, scenario in SCENARIOS.items())
    parser.add_argument("scenarios", nargs="*", metavar="SCENARIO", help=f"{about} [all]")


def _run(arguments: argparse.Namespace) -> int:
    unknown = [name for name in arguments.scenarios if name not in SCENARIOS]
    if unknown:
        raise UsageError(f"there is no scenario {unknown[0]!r}; there are {', '.join(SCENARIOS)}")
    outcomes = []
    for name in arguments.scenarios or SCENARIOS:
        say(f"{name}: {SCENARIOS[name].about} ...")
        outcomes.append(_try(name, SCENARIOS[name]))
    failed = any(outcome.faults for outcome in outcomes)
    if arguments.json:
        rows = [{**msgspec.to_builtins(outcome), "passed": not outcome.faults} for outcome in outcomes]
        print_json({"passed": not failed, "scenarios": rows})
    else:
        head = ("SCENARIO", "", "SECONDS", "DONE", "PEAK", "BUDGET", "LEVEL", "SHRUNK", "RECYCLED", "KILLED", "BY OOM")
        print(table(head, map(_row, outcomes), right="SECONDS DONE PEAK BUDGET SHRUNK RECYCLED KILLED BY OOM"))
    for outcome in outcomes:
        for fault in outcome.faults:
            say(f"{outcome.scenario}: {fault}")
    return 1 if failed else 0


def _row(outcome: Outcome) -> tuple[object, ...]:
    return (
        outcome.scenario, "FAILED" if outcome.faults else "passed", f"{outcome.seconds:.1f}",
        f"{outcome.done}/{outcome.items}", human(outcome.peak_bytes), human(outcome.budget_bytes), outcome.level,
        outcome.shrinks, outcome.recycles, outcome.kills, outcome.oom_kills,
    )  # fmt: skip


def _try(name: str, scenario: Scenario) -> Outcome:
    began = time.monotonic()
    recipe = Recipe(name="stress", steps=scenario.steps)
    try:
        with proving_ground([recipe], workers=WORKERS, memory=BUDGET, **scenario.settings) as ground:
            names = make_images(ground.photos, scenario.items, 64, 48)
            seen = _with_neighbour(ground, names) if scenario.neighbour else _alone(ground, names)
    except WaitedTooLong as error:
        return Outcome(scenario=name, seconds=time.monotonic() - began, faults=[str(error)])
    return _judged(name, scenario, seen, time.monotonic() - began)


def _judged(name: str, scenario: Scenario, seen: Seen, seconds: float) -> Outcome:
    progress = seen.progress
    assert progress is not None
    summary = progress.summary
    faults = scenario.judge(seen)
    if summary.oom_kills:
        faults.append(f"the kernel took {summary.oom_kills} workers")
    if seen.highest_used_bytes > summary.budget_bytes:
        faults.append(f"{human(seen.highest_used_bytes)} were used of {human(summary.budget_bytes)}")
    return Outcome(
        scenario=name,
        seconds=round(seconds, 1),
        faults=faults,
        items=progress.items,
        done=progress.counts.done,
        peak_bytes=seen.highest_used_bytes,
        budget_bytes=summary.budget_bytes,
        level=seen.highest_level,
        shrinks=summary.batch_shrinks,
        recycles=sum(summary.recycles.values()),
        kills=summary.kills,
        oom_kills=summary.oom_kills,
    )


def _alone(ground: Ground, names: list[str]) -> Seen:
    return ground.run("stress", ground.photos, names, PATIENCE_SECONDS)


def _with_neighbour(ground: Ground, names: list[str]) -> Seen:
    """The minimum that must stay free is set so that the neighbour's memory crosses it: a real process, a real
    crossing, on a machine of any size."""
    available = ground.client.memory().available_bytes
    minimum = max(MB, available - NEIGHBOUR_LEAVES)
    ground.client.change_settings({"watch.min_free_system_bytes": str(minimum)})
    neighbour = _Neighbour()
    try:
        return ground.run("stress", ground.photos, names, PATIENCE_SECONDS, neighbour.look)
    finally:
        neighbour.leave()


class _Neighbour:
    """A process that comes when a tenth is done, holds its memory for a while, and leaves."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._came_at = 0.0
        self._left = False

    def look(self, report: MemoryReport, progress: BatchProgress) -> None:
        """Comes and goes."""
        if self._process is None and not self._left and progress.counts.done * 10 >= progress.items:
            command = [sys.executable, "-I", "-c", _EATS, str(NEIGHBOUR_BYTES)]
            self._process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=child_environment()
            )
            assert self._process.stdout is not None
            self._process.stdout.readline()
            self._came_at = time.monotonic()
        if self._process is not None and time.monotonic() - self._came_at > NEIGHBOUR_STAYS_SECONDS:
            self.leave()

    def leave(self) -> None:
        """Ends it, if it came."""
        process, self._process, self._left = self._process, None, True
        if process is not None:
            process.kill()
            process.communicate()


VERBS = {"stress": Verb(_configure, _run, settings=frozenset(), examples=_EXAMPLES)}
