"""Traces: what a pool decided from what it saw is decided again from the trace alone."""

import msgspec
import pytest

from supervisor.policy import commands as c
from supervisor.policy.replay import TraceHead, TraceLook, keep_head, read_line, replay
from tests.policy.test_cleanup import REST, answer, look, story


def lines_of(heard: list[c.Command]) -> list[bytes]:
    return [each.line for each in heard if isinstance(each, c.KeepTrace)]


def traced() -> tuple[list[bytes], list[str]]:
    """A pool that goes through all levels and back: its trace, and what it decided."""
    told = story(trace=True, protection=False)
    lines = lines_of(keep_head(told.pool.state))
    said: list[str] = []
    for used in (REST, 760, 810, 910, 960, 700, 500, REST):
        for _ in range(30):
            told.clock.step(0.1)
            heard = look(told, used)
            lines += lines_of(heard)
            said += [each.message for each in heard if isinstance(each, c.Note) and each.kind == "level"]
            for each in heard:
                if isinstance(each, c.CleanUp):
                    answer(told, each.number)
    return lines, said


def test_a_replay_decides_what_was_decided() -> None:
    lines, said = traced()
    assert len(lines) == 1 + 8 * 30
    found = list(replay(map(read_line, lines)))
    assert [each.note.message for each in found if each.note.kind == "level"] == said
    assert len(said) == 5, "up through four levels, and down"
    tiers = [each.note.figures["tier"] for each in found if each.note.kind in ("cleanup", "cleanup_short")]
    assert tiers[:4] == ["gentle", "moderate", "aggressive", "emergency"]


def test_other_thresholds_decide_otherwise() -> None:
    lines, said = traced()
    head, *looks = map(read_line, lines)
    assert isinstance(head, TraceHead)
    watch = msgspec.structs.replace(head.watch, emergency_share=0.97, protection_share=0.99)
    found = list(replay([msgspec.structs.replace(head, watch=watch), *looks]))
    assert not any("-> emergency" in each.note.message for each in found)
    assert any("-> emergency" in message for message in said)


def test_nothing_is_kept_unless_it_is_asked_for() -> None:
    assert lines_of(look(story(), 800)) == []


def test_what_is_no_trace_is_refused() -> None:
    with pytest.raises(ValueError, match="not a line of a trace"):
        read_line(b'{"type":"look"}')
    lines, _ = traced()
    with pytest.raises(ValueError, match="no head"):
        list(replay([read_line(lines[1])]))
    assert isinstance(read_line(lines[1]), TraceLook)
