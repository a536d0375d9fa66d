"""What is alerted about: once in its cooldown, deduplicated by subject, no more than so many an hour."""

from typing import Any

from supervisor.policy import alerts
from supervisor.policy import commands as c
from supervisor.policy import events as e
from supervisor.policy.cleanup_settings import AlertSettings
from supervisor.policy.commands import Note
from tests.policy.story import Story
from tests.policy.test_cleanup import REST, look, story


def told(made: Story, note: Note) -> list[str]:
    """The alerts that a decision calls for, as messages."""
    found = alerts.watch(made.pool.state, [note], made.clock.now)
    notes = [each for each in found if isinstance(each, Note)]
    assert len(found) == 2 * len(notes), "each is told inside and outside"
    return [each.message for each in notes]


def quarantined(path: str) -> Note:
    return Note(kind="quarantined", path=path, message=f"{path} killed two workers")


def test_the_same_is_told_again_only_after_its_cooldown_with_what_was_held_back() -> None:
    made = story()
    assert told(made, quarantined("/a")) == ["alert, quarantine: /a killed two workers"]
    made.clock.step(200)
    assert told(made, quarantined("/a")) == []
    assert told(made, quarantined("/b")) == ["alert, quarantine: /b killed two workers"], "another subject"
    made.clock.step(100)
    assert told(made, quarantined("/a")) == [
        "alert, quarantine: /a killed two workers (1 more like this since the last one)"
    ]


def test_no_more_than_so_many_an_hour_and_the_rest_is_counted() -> None:
    made = story(alerts=AlertSettings(per_hour=2))
    sent = [told(made, quarantined(f"/{number}")) for number in range(5)]
    assert [len(each) for each in sent] == [1, 1, 0, 0, 0]
    made.clock.step(3_601)
    assert told(made, quarantined("/9")) == ["alert, quarantine: /9 killed two workers (3 others held back)"]


def test_what_is_remembered_is_bounded() -> None:
    made = story(alerts=AlertSettings(per_hour=1_000_000))
    for number in range(alerts.REMEMBERED_MAX + 50):
        told(made, quarantined(f"/{number}"))
    assert len(made.pool.state.alerts.told) == alerts.REMEMBERED_MAX


def test_everyday_decisions_are_no_alerts() -> None:
    for kind in ("shrunk", "trimmed", "recycle", "finished", "cleanup", "stopped"):
        assert told(story(), Note(kind=kind, message="so it goes")) == []


def kinds(heard: list[c.Command]) -> list[tuple[str, bool]]:
    return [(each.alert, each.emergency) for each in heard if isinstance(each, c.TellAlert)]


def test_levels_from_warning_on_alert_and_emergencies_have_a_shorter_cooldown() -> None:
    made = story(protection=False, item_timeout_seconds=600.0)
    assert kinds(look(made, 760)) == []
    assert kinds(look(made, 810)) == [("memory", False)]
    assert kinds(look(made, 960)) == [("memory_emergency", True)]

    def pass_over(seconds: float, used: int) -> list[tuple[str, bool]]:
        found = []
        for _ in range(round(seconds)):
            made.clock.step(1.0)
            found += kinds(look(made, used))
        return found

    assert pass_over(30, REST) == [], "falling is no alert"
    assert pass_over(1, 960) == [], "within 60 s"
    assert pass_over(40, REST) == []
    assert pass_over(1, 960) == [("memory_emergency", True)]


def test_protection_and_full_disks_and_restart_loops_alert() -> None:
    made = story()
    assert ("protection", True) in kinds(look(made, 990))
    assert kinds(made.feed(e.TempFilled(reason="200 MB free"))) == [("disk_full", False)]
    made = Story(workers=1)
    heard: list[tuple[str, bool]] = []
    made.feed(e.Tick())
    for _ in range(6):
        if made.pool.state.slots[0].worker is not None:
            heard += kinds(made.exit(0, -11))
        made.clock.step(60.0 if heard else 0.1)
        made.feed(e.Tick())
    assert heard[0] == ("restart_loop", False)


def test_an_alert_carries_the_figures_of_its_decision() -> None:
    figures: dict[str, Any] = {"factor": 1.5}
    note = Note(kind="widened", slot=3, message="worker 3: its allowance is widened", figures=figures)
    (alert, _) = alerts.watch(story().pool.state, [note], 0.0)
    assert isinstance(alert, Note)
    assert (alert.kind, alert.slot) == ("alert", 3)
    assert alert.figures == {
        "factor": 1.5,
        "alert": "thrash",
        "emergency": False,
        "held_back": 0,
        "held_back_by_rate": 0,
    }
