"""The Pool while the temp disk is full, and when it has retention swept: timelines."""

import msgspec

from protocol import messages as m
from supervisor.policy import commands as c
from supervisor.policy import events as e
from supervisor.policy.retention import Retention
from supervisor.policy.status import why_not_working
from tests.policy.story import CLIENT, Story


def grants(commands: list[c.Command]) -> int:
    """How many leases were granted."""
    return sum(isinstance(each, c.TellWorker) and isinstance(each.message, m.Grant) for each in commands)


def notes(commands: list[c.Command], kind: str) -> list[str]:
    """What was noted of a kind."""
    return [each.message for each in commands if isinstance(each, c.Note) and each.kind == kind]


def test_nothing_is_granted_while_the_temp_disk_is_full_and_work_goes_on_when_it_has_room() -> None:
    story = Story().start()
    filled = story.feed(e.TempFilled(reason="100 MB are free there, 256 MB wanted"))
    assert notes(filled, "temp_full") == ["the temp disk is nearly full: 100 MB are free there, 256 MB wanted"]
    story.submit("b1", [f"p{number}.jpg" for number in range(4)])
    assert grants(story.pass_time(5)) == 0
    assert why_not_working(story.pool.state) == (
        "the disk of the temp directory is nearly full: 100 MB are free there, 256 MB wanted"
    )
    eased = story.feed(e.TempEased())
    assert len(notes(eased, "temp_eased")) == 1
    assert grants(eased) > 0
    assert why_not_working(story.pool.state) is None


def test_requests_about_temp_files_go_to_their_keeper() -> None:
    story = Story().start()
    for request in (m.TempStats(id=4), m.TempReap(id=5, dry_run=True)):
        heard = story.feed(e.RequestReceived(peer=CLIENT, request=request))
        assert heard == [c.AskTemp(peer=CLIENT, request=request)]


def test_retention_is_swept_at_the_start_and_each_minute_but_not_while_the_journal_stands_still() -> None:
    retention = Retention()
    story = Story(retention=retention)

    def sweeps(seconds: float) -> int:
        count = 0
        for _ in range(int(seconds)):
            story.clock.step(1)
            heard = story.pool.handle(e.Tick(), story.clock.now)
            count += heard.count(c.SweepRetention(retention=retention))
            due = story.pool.next_deadline()
            assert due is not None and due > story.clock.now - 60
        return count

    assert sweeps(1) == 1
    assert sweeps(59) == 0
    assert sweeps(120) == 2
    story.pool.handle(e.JournalStalled(reason="full"), story.clock.now)
    assert sweeps(300) == 0
    story.pool.handle(e.JournalRecovered(), story.clock.now)
    assert sweeps(1) <= 1


def test_what_was_forgotten_is_noted_with_the_reason() -> None:
    story = Story()
    heard = story.feed(e.BatchesDropped(dropped=[("b1", "not used for 90 min, the limit is 60")], thinned=["b2"]))
    assert notes(heard, "retention") == [
        "batch b1 is forgotten: not used for 90 min, the limit is 60",
        "batch b2: its large results are dropped, its verdicts stay",
    ]


def test_without_retention_nothing_is_swept() -> None:
    story = Story()
    assert msgspec.structs.asdict(story.pool.state.settings)["retention"] is None
    assert not any(isinstance(each, c.SweepRetention) for each in story.feed(e.Tick()))
