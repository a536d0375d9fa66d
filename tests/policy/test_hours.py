"""Work is begun only within its hours: a story of an evening, a night and a morning."""

import msgspec
import pytest

from protocol import messages as m
from supervisor.policy.hours import Hours
from supervisor.policy.live import LiveSettings, SettingsChanged
from supervisor.values import parse_hours
from tests.policy.story import CLIENT, Story, names

NIGHT = Hours(22 * 60, 6 * 60)
HOUR = 3600.0


def at(story: Story, hour: float) -> None:
    """The machine's clock says so at the next look."""
    story.clock.step(1.0)
    story.second_of_day = hour * HOUR
    story.look()


def reason(story: Story) -> str | None:
    status = story.ask(m.StatusRequest()) and story.answer()
    assert isinstance(status, m.Status)
    return status.paused


@pytest.mark.parametrize(
    ("hours", "inside", "outside"),
    [
        (NIGHT, [22, 23.99, 0, 5.99], [6, 12, 21.99]),
        (Hours(9 * 60 + 30, 17 * 60), [9.5, 12, 16.99], [9.49, 17, 0, 23]),
        (Hours(23 * 60, 0), [23, 23.99], [0, 12, 22.99]),
    ],
)
def test_hours_may_go_past_midnight(hours: Hours, inside: list[float], outside: list[float]) -> None:
    assert [hours.hold(hour * HOUR) for hour in inside] == [True] * len(inside)
    assert [hours.hold(hour * HOUR) for hour in outside] == [False] * len(outside)


def test_hours_are_written_as_people_do() -> None:
    assert parse_hours("22:00-06:00") == parse_hours(" 22:00 - 6:00 ") == NIGHT
    assert str(NIGHT) == "22:00-06:00" and parse_hours("none") is None


@pytest.mark.parametrize("text", ["22-6", "24:00-06:00", "22:60-06:00", "22:00", "22:00-22:00", "", 22])
def test_what_is_no_hours_says_what_is_wanted(text: object) -> None:
    with pytest.raises(ValueError, match=r"22:00-06:00|leave it out"):
        parse_hours(text)


def test_what_waits_begins_with_its_hours_and_what_runs_at_their_end_is_finished() -> None:
    story = Story(between=NIGHT).start()
    at(story, 18)
    (told,) = story.notes("paused")
    assert told.message.startswith("outside its hours, 22:00-06:00: it goes on at 22:00 (")
    story.submit("b", names(40))
    at(story, 21.99)
    assert story.states() == ["IDLE", "IDLE"], "accepted, and not begun"
    assert reason(story) is not None and "it goes on at 22:00" in str(reason(story))
    assert not story.notes("paused"), "told once"

    at(story, 22)
    assert story.states() == ["BUSY", "BUSY"] and reason(story) is None
    at(story, 3)
    held = story.lease(0)

    at(story, 6)
    assert story.notes("paused") and story.lease(0) == held
    story.report(0)
    story.report(1)
    at(story, 12)
    assert story.states() == ["IDLE", "IDLE"]
    assert "done" in story.on_disk("b").values() and "pending" in story.on_disk("b").values()


def test_nobody_is_kept_for_work_that_waits_for_its_hours() -> None:
    story = Story(between=NIGHT, idle_shrink_seconds=60.0).start()
    at(story, 12)
    story.submit("b", names(40))
    for minute in range(3):
        story.pass_time(60)
        at(story, 12 + minute / 60)
        for slot, state in enumerate(story.states()):
            if state == "STOPPING":
                story.exit(slot, 0)
    assert sorted(story.states()) == ["-", "IDLE"], "one is let go, and not woken by what waits"
    at(story, 22)
    story.pass_time(1)
    assert "BUSY" in story.states() and "-" not in story.states(), "its hours have begun: both are wanted"


def test_hours_change_while_it_runs_and_a_pause_stands_beside_them() -> None:
    story = Story(between=NIGHT).start()
    at(story, 12)
    story.submit("b", names(40))
    story.ask(m.PauseWork(reason="backup"))
    held = story.pool.state.settings
    live = LiveSettings(**{name: getattr(held, name) for name in LiveSettings.__struct_fields__})
    always = msgspec.structs.replace(live, between=None)
    story.feed(SettingsChanged(peer=CLIENT, request_id=3, settings=always))
    at(story, 12.1)
    assert reason(story) == "backup" and story.states() == ["IDLE", "IDLE"]
    story.ask(m.ResumeWork())
    assert story.states() == ["BUSY", "BUSY"]


def test_without_a_time_of_day_nothing_stands_still() -> None:
    story = Story(between=NIGHT).start()
    story.submit("b", names(4))
    story.look()
    assert story.states() == ["BUSY", "BUSY"]
