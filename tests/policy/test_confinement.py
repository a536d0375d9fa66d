"""Timelines of the sandbox's roots: who starts with what, who must give way, and that it comes to an end."""

from random import Random

from protocol.messages import Grant, ItemError, ItemReport, Memory, Ready, Recipe, Report, Step
from supervisor.policy import commands as c
from supervisor.policy import events as e
from supervisor.policy.confinement import NEEDS_MAX, OUTSIDE_TRIES
from supervisor.policy.items import BatchRecord, Item
from supervisor.policy.pool import Pool
from supervisor.policy.sizes import MB
from supervisor.policy.state import PoolSettings
from supervisor.policy.watch_settings import WatchSettings

PROBE = Recipe(name="probe", steps=[Step(operation="probe")])
MEMORY = Memory(50 * MB, 10 * MB, MB)


class Timeline:
    """A pool of one worker that does as it is told; `clock` goes on with each step."""

    def __init__(self, confined: bool = True) -> None:
        self.clock = 100.0
        settings = PoolSettings(
            workers=1, recipes={"probe": PROBE}, watch=WatchSettings(), budget_bytes=4_000 * MB, confined=confined
        )
        self.pool = Pool(settings, Random(1), self.clock)
        self.commands: list[c.Command] = []
        self.started: list[c.StartWorker] = []
        self.grants: list[Grant] = []

    def handle(self, event: e.AnyEvent) -> list[c.Command]:
        """One event; a start is answered by a worker that gets ready, a look by figures."""
        self.clock += 0.01
        commands = self.pool.handle(event, self.clock)
        self.commands += commands
        for command in commands:
            match command:
                case c.StartWorker():
                    self.started.append(command)
                case c.TellWorker(message=Grant() as grant):
                    self.grants.append(grant)
        return commands

    @property
    def incarnation(self) -> int:
        """Of the worker now in the slot."""
        return self.pool.state.slots[0].incarnation

    def ready(self) -> list[c.Command]:
        """The worker that was started last is warm, and has been looked at."""
        ready = Ready(slot=0, incarnation=self.incarnation, pid=7, memory=MEMORY, sandbox="landlock 6")
        commands = self.handle(e.WorkerStarted(slot=0, incarnation=self.incarnation, pid=7))
        commands += self.handle(e.WorkerSaid(slot=0, incarnation=self.incarnation, message=ready))
        return commands + self.look()

    def look(self) -> list[c.Command]:
        """The worker is looked at."""
        sample = e.WorkerSample(
            slot=0, incarnation=self.incarnation, rss_bytes=50 * MB, shared_bytes=0, item=0, item_started=0.0,
            items_done=0,
        )  # fmt: skip
        return self.handle(
            e.Sampled(
                workers=[sample], own_bytes=50 * MB, cgroup_used_bytes=None, budget_bytes=4_000 * MB,
                available_bytes=8_000 * MB,
            )
        )  # fmt: skip

    def exited(self) -> list[c.Command]:
        """The worker has left in good order."""
        gone = e.WorkerExited(slot=0, incarnation=self.incarnation, exit_code=0, item=0, step=-1, path="", partial=b"")
        return self.handle(gone)

    def batch(self, name: str, roots: list[str], items: list[tuple[int, str]], out: str | None = "/out") -> None:
        """A batch on disk, its items read: (number of the root, stem)."""
        record = BatchRecord(
            batch=name, recipe=PROBE, out=out, overwrite=False, strict=False, priority=0, hold=False,
            fingerprint=None, kind="default", opened_at=0.0, open=False, items=len(items),
            roots=[(root, "") for root in roots],
        )  # fmt: skip
        self.handle(e.Recovered(records=[record], in_progress=[], clean=True))
        first = 1_000_000 * len(self.pool.state.queue.batches)
        rows = [Item(id=first + n, batch=name, root=root, stem=stem) for n, (root, stem) in enumerate(items)]
        self.handle(e.ItemsFetched(batch=name, items=rows, exhausted=True))

    def settle(self, **outcome: object) -> list[c.Command]:
        """The worker reports its whole lease."""
        grant = self.grants[-1]
        fields: dict[str, object] = {"outcome": "done", "seconds": 0.001} | outcome
        items = [ItemReport(id=item.id, **fields) for item in grant.items]  # type: ignore[arg-type]
        report = Report(
            slot=0, incarnation=self.incarnation, lease=grant.lease, items=items, handed_back=[], finished=True,
            memory=MEMORY,
        )  # fmt: skip
        return self.handle(e.WorkerSaid(slot=0, incarnation=self.incarnation, message=report))

    def granted_stems(self) -> list[str]:
        """What was granted so far, in order."""
        return [item.stem for grant in self.grants for item in grant.items]


def _terminated(commands: list[c.Command]) -> bool:
    return any(isinstance(command, c.TerminateWorker) for command in commands)


def test_a_worker_starts_with_the_roots_of_the_batches_at_hand() -> None:
    line = Timeline()
    line.batch("b1", ["/photos", "/more"], [(0, "a.jpg")])
    line.batch("b2", ["/other"], [(0, "b.jpg")], out="/out2")
    line.handle(e.Tick())
    start = line.started[-1]
    assert line.started[0].roots_read == ["/more", "/photos"]  # the second batch came after the start
    line.ready()
    assert line.granted_stems() == ["a.jpg"]
    commands = line.settle()
    assert _terminated(commands), "what is next is outside its rules"
    line.exited()
    start = line.started[-1]
    assert (start.roots_read, start.roots_write) == (["/more", "/other", "/photos"], ["/out", "/out2"])
    line.ready()
    assert line.granted_stems() == ["a.jpg", "b.jpg"]
    assert line.pool.state.totals["recycles"] == 1


def test_an_idle_worker_without_roots_is_started_afresh_as_soon_as_there_is_one() -> None:
    line = Timeline()
    line.handle(e.Tick())
    line.ready()
    assert line.started[-1].roots_read == [] and line.pool.state.slots[0].worker is not None
    line.batch("b1", ["/photos"], [(0, "a.jpg")])
    assert any(isinstance(command, c.TerminateWorker) for command in line.commands)
    assert not line.grants
    line.exited()
    assert line.started[-1].roots_read == ["/photos"]
    line.ready()
    assert line.granted_stems() == ["a.jpg"]
    assert line.pool.state.totals["recycles"] == 0, "a start completed is no recycle"
    assert line.pool.state.slots[0].last_death is None, "and no death"


def test_named_files_are_allowed_one_by_one_and_a_lease_ends_where_the_rules_end() -> None:
    line = Timeline()
    names = [(0, f"home/me/{number:04}.jpg") for number in range(NEEDS_MAX + 100)]
    line.batch("b1", ["/"], names)
    line.ready()  # begun before the first names were read: it has no roots, and is started afresh
    line.exited()
    line.ready()
    lives = 1
    while len(line.granted_stems()) < len(names):
        if _terminated(line.settle()):
            line.exited()
            line.ready()
            lives += 1
    assert all("/" not in start.roots_read for start in line.started)
    assert all(len(start.roots_read) <= NEEDS_MAX for start in line.started)
    assert line.started[1].roots_read[0] == "/home/me/0000.jpg"
    assert 2 <= lives <= 4
    assert line.granted_stems() == [stem for _, stem in names]


def test_a_file_outside_its_rules_gets_a_worker_of_its_own_and_then_fails() -> None:
    line = Timeline()
    line.batch("b1", ["/photos"], [(0, "link.jpg")])
    line.handle(e.Tick())
    line.ready()
    outside = {"outcome": "outside", "error": ItemError(kind="io", message="/photos/link.jpg cannot be read")}
    for _ in range(OUTSIDE_TRIES):
        line.settle(**outside)
        if line.pool.state.slots[0].worker is not None and line.pool.state.slots[0].worker.state == "STOPPING":
            line.exited()
            line.ready()
    assert "/photos/link.jpg" in line.started[-1].roots_read
    commands = line.settle(**outside)
    settled = [command for command in commands if isinstance(command, c.SettleItems)]
    assert settled and settled[0].settlements[0].state == "failed"
    assert b"--sandbox off" in settled[0].settlements[0].detail
    assert not line.pool.state.leases


def test_after_an_error_of_the_machine_the_output_directory_gets_fresh_rules() -> None:
    line = Timeline()
    line.batch("b1", ["/photos"], [(0, "a.jpg")])
    line.handle(e.Tick())
    line.ready()
    line.settle(outcome="machine", error=ItemError(kind="io", message="no right"))
    line.clock += 3.0
    line.handle(e.Tick())
    line.clock += 1.0
    commands = line.look()
    assert _terminated(commands)
    line.exited()
    line.ready()
    assert line.granted_stems() == ["a.jpg", "a.jpg"]


def test_without_a_sandbox_nobody_gives_way() -> None:
    line = Timeline(confined=False)
    line.handle(e.Tick())
    line.ready()
    line.batch("b1", ["/photos"], [(0, "a.jpg")])
    line.batch("b2", ["/"], [(0, "b.jpg")])
    assert line.granted_stems() == ["a.jpg"]
    line.settle()
    assert line.granted_stems() == ["a.jpg", "b.jpg"]
    assert len(line.started) == 1 and line.started[0].roots_read == []
