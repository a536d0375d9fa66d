"""Settings that change while the pool runs: taken as a whole, told with old and new, acted on at once."""

import msgspec

from protocol import messages as m
from supervisor.policy import commands as c
from supervisor.policy import events as e
from supervisor.policy.live import LiveSettings, SettingsChanged
from supervisor.policy.sizes import MB
from supervisor.policy.watch_settings import WatchSettings
from tests.policy.story import CLIENT, Story, names


def live(story: Story, **fields: object) -> LiveSettings:
    """The settings in force, with these changes."""
    held = story.pool.state.settings
    now = LiveSettings(**{name: getattr(held, name) for name in LiveSettings.__struct_fields__})
    return msgspec.structs.replace(now, **fields)


def change(story: Story, *changes: m.SettingChange, peer: bytes | None = CLIENT, **fields: object) -> None:
    """The settings were read anew and are these."""
    told = SettingsChanged(peer=peer, request_id=3, settings=live(story, **fields), changed=list(changes))
    story.feed(told)


ONE = m.SettingChange(key="watch.critical_share", old="0.9", new="0.5", takes_effect="now")


def test_a_request_and_a_signal_have_the_settings_read() -> None:
    story = Story().start()
    request = m.ChangeSettings(changes={"watch.critical_share": "0.5"})
    story.ask(request)
    assert story.of(c.Reconfigure) == [c.Reconfigure(peer=CLIENT, request=request)]
    story.feed(e.ReloadAsked())
    assert story.of(c.Reconfigure) == [c.Reconfigure(peer=None, request=m.ChangeSettings())]


def test_a_threshold_that_is_lowered_acts_with_the_next_look() -> None:
    story = Story().start()
    assert story.pool.state.level.word == "normal"
    watch = WatchSettings(elevated_share=0.3, warning_share=0.4, critical_share=0.45)
    change(story, ONE, watch=watch)
    assert story.answer() == m.SettingsReport(id=3, changed=[ONE])
    (note,) = story.notes("settings")
    assert note.message == "setting watch.critical_share: 0.9 -> 0.5"
    assert note.figures == {"key": "watch.critical_share", "old": "0.9", "new": "0.5", "takes_effect": "now"}
    assert story.of(c.TakeSample), "it looks at once"
    story.look()
    assert story.pool.state.level.word == "critical", "180 of 390 MB"


def test_limits_of_workers_follow() -> None:
    story = Story().start()
    hard = story.pool.state.limits(story.pool.state.slots[0]).hard_bytes
    change(story, watch=WatchSettings(max_worker_rss_bytes=100 * MB))
    assert story.pool.state.limits(story.pool.state.slots[0]).hard_bytes == 100 * MB < hard


def test_the_largest_batch_follows_and_what_is_larger_shrinks() -> None:
    story = Story().start()
    slot = story.pool.state.slots[0]
    slot.batch_size.size = 64
    change(story, batch_size_max=8)
    assert slot.batch_size.size == 8
    story.submit("b1", names(200))
    assert max(map(len, story.grants().values())) <= 8


def test_an_item_timeout_counts_for_the_item_in_progress() -> None:
    story = Story(item_timeout_seconds=60.0).start()
    story.submit("b1", names(1))
    story.clock.step(5)
    story.look()
    assert "BUSY" in story.states()
    change(story, item_timeout_seconds=1.0)
    story.look()
    assert "KILLING" in story.states()


def test_what_is_refused_changes_nothing_and_says_why() -> None:
    story = Story().start()
    before = story.pool.state.settings
    story.feed(SettingsChanged(peer=CLIENT, request_id=3, settings=None, faults="one\ntwo"))
    answer = story.answer()
    assert isinstance(answer, m.Problem)
    assert (answer.message, answer.exit_code) == ("one\ntwo", 2)
    story.feed(SettingsChanged(peer=None, request_id=0, settings=None, faults="one"))
    assert "stay as they were: one" in story.notes("settings_refused")[0].message
    assert story.pool.state.settings == before


def test_a_shrunk_pool_wakes_when_it_shall_not_shrink_any_more() -> None:
    story = Story(workers=2, idle_shrink_seconds=5.0).start()
    story.pass_time(6)
    story.exit(0, 0)
    assert story.states() == ["-", "IDLE"]
    change(story, idle_shrink_seconds=0.0)
    assert story.states() == ["STARTING", "IDLE"]
