"""The memory report told from the state: who holds what, limits, thresholds, and every store with its limit."""

import msgspec
import pytest

from protocol import messages as m
from supervisor.policy import commands as c
from supervisor.policy import events as e
from supervisor.policy.sizes import MB
from supervisor.policy.watch_settings import WatchSettings
from tests.policy.story import OWN_BYTES, Story, names
from tests.simulation.journal import Journal, JournalCommand


class SlowToSettle(Journal):
    """A journal whose settlements wait for their outputs until it catches up; all else is committed at once."""

    def __init__(self) -> None:
        super().__init__()
        self._aside: list[JournalCommand] | None = []

    def submit(self, command: JournalCommand) -> None:
        if self._aside is not None and isinstance(command, c.SettleItems):
            self._aside.append(command)
        else:
            super().submit(command)

    def catch_up(self) -> None:
        """From now on it settles at once."""
        aside, self._aside = self._aside or [], None
        for command in aside:
            self.submit(command)


def told(story: Story) -> m.MemoryReport:
    """What `memory` is answered."""
    story.ask(m.MemoryRequest(id=7))
    report = story.answer()
    assert isinstance(report, m.MemoryReport)
    return report


def look(story: Story, used_by_group: int | None = None, **fields: int) -> None:
    """A look at the whole with the supervisor and its template told one by one."""
    parts = [
        e.PartSample(role="supervisor", pid=1, rss_bytes=40 * MB, shared_bytes=10 * MB),
        e.PartSample(role="template", pid=2, rss_bytes=30 * MB, shared_bytes=9 * MB, swap_bytes=MB),
    ]
    story.feed(
        e.Sampled(
            workers=[
                e.WorkerSample(
                    slot=slot, incarnation=1, rss_bytes=70 * MB, shared_bytes=20 * MB, item=0, item_started=0.0,
                    items_done=0, swap_bytes=2 * MB,
                )
                for slot in (0, 1)
            ],
            own_bytes=OWN_BYTES,
            cgroup_used_bytes=used_by_group,
            budget_bytes=fields.get("budget", story.budget_bytes),
            available_bytes=10_000 * MB,
            parts=parts,
            budget_source="cgroup v2: /a" if used_by_group is not None else "machine",
        )
    )  # fmt: skip


def test_every_process_is_told_with_its_parts() -> None:
    story = Story().start()
    incarnation = story.worker(0).incarnation
    memory = m.Memory(70 * MB, 12 * MB, 3 * MB)
    beat = m.Heartbeat(slot=0, incarnation=incarnation, memory=memory, items_done=0, current=None)
    story.say(0, beat)
    look(story)
    report = told(story)
    assert [(p.role, p.slot, p.private_bytes, p.shared_bytes, p.swap_bytes) for p in report.processes] == [
        ("supervisor", None, 30 * MB, 10 * MB, 0),
        ("template", None, 21 * MB, 9 * MB, MB),
        ("worker", 0, 50 * MB, 20 * MB, 2 * MB),
        ("worker", 1, 50 * MB, 20 * MB, 2 * MB),
    ]
    worker = report.processes[2]
    assert (worker.heap_bytes, worker.native_bytes) == (12 * MB, 38 * MB)
    assert (worker.baseline_bytes or 0) < (worker.soft_bytes or 0) < (worker.recycle_bytes or 0)
    assert (report.budget_source, report.used_source) == ("machine", "own processes")


def test_where_each_level_begins_follows_the_budget_of_the_moment() -> None:
    story = Story().start()
    look(story, used_by_group=100 * MB, budget=1000 * MB)
    report = told(story)
    assert report.used_bytes == 100 * MB
    assert (report.budget_source, report.used_source) == ("cgroup v2: /a", "control group")
    assert report.thresholds["elevated_bytes"] == 750 * MB
    assert report.thresholds["protection_bytes"] == 980 * MB
    assert report.thresholds["min_free_system_bytes"] == WatchSettings().min_free_system_bytes


def test_a_level_that_is_only_held_is_told_in_memory_in_status_and_once_in_the_log() -> None:
    story = Story().start()
    look(story, used_by_group=850 * MB, budget=1000 * MB)
    assert told(story).level_held is None
    notes = []
    for _ in range(60):
        story.clock.step(0.1)
        look(story, used_by_group=780 * MB, budget=1000 * MB)
        notes += story.notes("level_held")

    held = told(story).level_held
    assert held is not None and (held.now, held.pressure, held.eases_below) == ("elevated", 0.78, 0.77)
    assert held.between_seconds == pytest.approx(5.9)
    story.ask(m.StatusRequest())
    status = story.answer()
    assert isinstance(status, m.Status) and (status.level, status.level_held) == ("warning", held)
    assert [note.message for note in notes] == ["memory level warning (held: 78% now, eases below 77% for 2 s)"]
    assert notes[0].figures["eases_below"] == 0.77

    for _ in range(30):
        story.clock.step(0.1)
        look(story, used_by_group=100 * MB, budget=1000 * MB)
        notes += story.notes("level")
    assert notes[-1].message.startswith("memory level warning -> normal") and "; held for " in notes[-1].message
    assert told(story).level_held is None


def test_the_limit_on_the_total_is_a_budget_too() -> None:
    story = Story(watch=WatchSettings(max_total_bytes=200 * MB)).start()
    look(story)
    report = told(story)
    assert (report.budget_bytes, report.budget_source) == (200 * MB, "watch.max_total_bytes")
    assert report.level == "critical", "there were 180 MB of 200 MB at the start"


def test_every_store_of_the_policy_has_a_limit() -> None:
    story = Story(queue_max_items=1000).start()
    story.holding = True
    story.submit("b1", names(30))
    story.commit()
    stores = {store.name: store for store in told(story).stores}
    assert stores["unfinished batches"].count == 1
    assert stores["items on the disk"].limit_count == 1000
    without = [store.name for store in stores.values() if store.limit_count is None and store.limit_bytes is None]
    assert without == []


def test_a_disk_that_is_behind_stops_what_would_be_begun_until_it_has_caught_up() -> None:
    journal = SlowToSettle()
    story = Story(journal=journal, verdicts_max=6, window_items=8, fetch_items=4, batch_size_max=2).start()
    story.submit("b1", names(40))
    peak = 0
    for _ in range(40):
        for slot in (0, 1):
            if story.lease(slot):
                story.report(slot)
        story.look()
        verdicts = next(one for one in told(story).stores if one.name == "verdicts on their way to the disk")
        assert verdicts.limit_count == 6 + 8 + 2 * 2 and (verdicts.bytes or 0) >= verdicts.count * 1_000
        peak = max(peak, verdicts.count)
    assert 6 <= peak <= 18
    assert (story.lease(0), story.lease(1)) == ([], []), "nothing more is begun"
    journal.catch_up()
    story.look()
    for _ in range(40):
        for slot in (0, 1):
            if story.lease(slot):
                story.report(slot)
        story.look()
    assert set(story.on_disk("b1").values()) == {"done"}
    assert story.journal.records["b1"].state == "finished"


def test_large_verdicts_stop_it_by_their_bytes() -> None:
    story = Story(verdicts_max_bytes=5_000, batch_size_max=1).start()
    story.submit("b1", names(4))
    story.holding = True
    text = m.ItemReport(id=story.lease(0)[0], outcome="done", seconds=0.1, values=msgspec.Raw(b'"%b"' % (b"x" * 9_000)))
    story.report(0, items=[text])
    story.look()
    assert not story.lease(0)
    assert story.pool.state.queue.settling_bytes > 9_000
    story.commit()
    assert story.pool.state.queue.settling_bytes == 0 and story.lease(0)


def test_batches_on_their_way_to_the_disk_count_as_well() -> None:
    story = Story(batches_max=2).start()
    story.holding = True
    for number in range(2):
        story.ask(m.OpenBatch(id=number, batch=f"b{number}"))
        assert not story.of(c.Reply)
    story.ask(m.OpenBatch(id=2, batch="b2"))
    answer = story.answer()
    assert isinstance(answer, m.Problem) and answer.code == "busy"


def test_a_batch_too_many_is_refused_but_not_one_that_is_known() -> None:
    story = Story(batches_max=1).start()
    story.submit("b1", names(5), close=False, fingerprint="mine")
    story.ask(m.OpenBatch(batch="b2"))
    answer = story.answer()
    assert isinstance(answer, m.Problem)
    assert answer.code == "busy"
    assert "batches_max" in answer.message
    story.ask(m.OpenBatch(batch="b1"))
    assert isinstance(story.answer(), m.BatchOpened)
    story.ask(m.OpenBatch(batch="b3", fingerprint="mine", resume=True))
    assert isinstance(story.answer(), m.BatchOpened)
