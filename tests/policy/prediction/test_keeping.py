"""What was learned survives a restart; what cannot be that is left aside, whatever it is."""

import msgspec
import pytest

from supervisor.policy import commands as c
from supervisor.policy import events as e
from supervisor.policy.prediction.keeping import EDITION, EVERY_SECONDS, encode
from supervisor.policy.sizes import MB
from tests.policy.story import Story
from tests.policy.test_pool_predictions import taught


def test_it_is_written_once_a_minute_and_only_when_there_is_something_new() -> None:
    story = taught()
    assert not story.of(c.KeepLearned)
    heard = story.pass_time(EVERY_SECONDS + 1)
    (kept,) = (each for each in heard if isinstance(each, c.KeepLearned))
    assert not [each for each in story.pass_time(3 * EVERY_SECONDS) if isinstance(each, c.KeepLearned)]
    assert kept.content == encode(story.pool.state)


def test_the_next_supervisor_knows_what_this_one_learned() -> None:
    before = taught()
    before.pool.state.widenings.widen(1, "thumbs")
    content = encode(before.pool.state)
    after = Story(workers=2)
    after.feed(e.Remembered(content=content))
    assert not after.notes("learned_unusable")
    assert after.pool.state.predictor.classes == before.pool.state.predictor.classes
    assert after.pool.state.widenings.factors == {(1, "thumbs"): 1.5}
    assert after.pool.state.baselines_known.warm == before.pool.state.baselines_known.warm != {}
    assert encode(after.pool.state) == content
    after.start()
    after.submit("b", ["1.jpg", "2.jpg"])
    assert [lease.reserved_bytes for lease in after.pool.state.leases.values()] == [70 * MB] * 2, "workers are cold"
    for slot in (0, 1):
        after.report(slot)
    after.submit("c", ["3.jpg", "4.jpg"])
    reserved = [lease.reserved_bytes for lease in after.pool.state.leases.values()]
    assert reserved and all(each < 25 * MB for each in reserved), reserved
    told = [each.message.factors for each in after.of(c.TellWorker) if hasattr(each.message, "factors")]
    assert not any(told), "each worker was told with its first grant"


def test_it_is_kept_at_the_stop() -> None:
    story = taught()
    story.feed(e.StopAsked(now=True, reason="test"))
    for slot in (0, 1):
        story.exit(slot, -9)
    assert story.of(c.KeepLearned)
    assert story.of(c.StopLoop)


def _damaged() -> dict[str, bytes]:
    content = encode(taught().pool.state)
    told = msgspec.json.decode(content)

    def changed(**fields: object) -> bytes:
        return msgspec.json.encode({**told, **fields})

    broken = {"low": 1.0, "high": 2.0, "weights": {"9": -1.0}, "unit": 1.0}
    return {
        "half of it": content[: len(content) // 2],
        "nothing": b"",
        "another edition": changed(edition=EDITION + 1),
        "a stranger's": b'{"name": "photo"}',
        "no JSON": b"\x00\xff" * 50,
        "impossible sizes": changed(baselines=[[0, "thumbs#1", -5]]),
        "impossible weights": changed(errors=broken),
        "impossible widening": changed(widenings=[[0, "thumbs", 1e9]]),
        "far too much": content + b" " * (5 << 20),
    }


@pytest.mark.parametrize("what", sorted(_damaged()))
def test_damage_and_foreign_content_are_left_aside_and_told(what: str) -> None:
    story = Story(workers=2)
    story.feed(e.Remembered(content=_damaged()[what]))
    (note,) = story.notes("learned_unusable")
    assert "learned anew" in note.message
    assert not story.pool.state.predictor.items and not story.pool.state.baselines_known.warm
    story.start()
    story.submit("b", ["1.jpg"])
    assert story.grants() == {0: [1]}
