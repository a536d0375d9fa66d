"""Emergency verbs against a real supervisor, and emergency protection under a budget that is far too small."""

import json
import os

from tests.end_to_end.bed import Bed, settled, wait_for

TINY = "36M"
"""Less than a supervisor and two workers hold at rest: the level is protection from the first look."""


def test_clean_ups_by_hand_tell_what_each_action_freed(bed: Bed) -> None:
    bed.start()
    for number, tier in enumerate(("gentle", "moderate", "aggressive", "emergency"), 1):
        ended = bed.run("emergency", "cleanup", tier, "--json")
        assert ended.code == 0, ended.err
        report = ended.last
        assert (report["number"], report["tier"]) == (number, tier)
        assert {action["error"] for action in report["actions"]} == {None}
        owners = {action["owner"] for action in report["actions"]}
        assert {"supervisor", "worker 0", "worker 1"} <= owners
        assert report["baseline_bytes"] > 0
    told = bed.run("emergency", "gc", "2", "--json").last
    by_owner = [action["owner"] for action in told["actions"] if action["name"] == "gc"]
    assert sorted(by_owner) == ["supervisor", "worker 0", "worker 0", "worker 1", "worker 1"]
    status = bed.run("emergency", "status", "--json").last
    assert {tier["tier"]: tier["runs"] for tier in status["tiers"]} == {
        "gentle": 1,
        "moderate": 1,
        "aggressive": 1,
        "emergency": 1,
    }
    assert [cleanup["number"] for cleanup in status["cleanups"]] == [1, 2, 3, 4, 5]
    text = bed.run("emergency", "status")
    assert "clean-up 4 (emergency; asked by a client)" in text.out
    assert "emergency protection is on, 0 of 3 attempts made" in text.out


def test_protection_is_switched_and_all_is_reset_with_a_confirmation(bed: Bed) -> None:
    bed.start()
    assert "protection is off" in bed.run("emergency", "protection", "off").out
    assert "protection is off" in bed.run("emergency", "protection").out
    assert "protection is on" in bed.run("emergency", "protection", "on").out
    bed.run("emergency", "cleanup", "gentle")
    refused = bed.run("emergency", "reset")
    assert refused.code == 2
    assert "--confirm" in refused.err
    status = bed.run("emergency", "reset", "--confirm", "--json").last
    assert {tier["rests_seconds"] for tier in status["tiers"]} == {0.0}


def test_wrong_use_says_what_is_possible(bed: Bed) -> None:
    for words, sentence in (
        (("cleanup", "panic"), "there is no tier 'panic'; choose one of gentle, moderate, aggressive, emergency"),
        (("gc", "often"), "gc takes a number of cycles, not 'often'"),
        (("protection", "maybe"), "emergency protection takes on, off or status, not 'maybe'"),
    ):
        ended = bed.run("emergency", *words)
        assert ended.code == 2
        assert sentence in ended.err
    assert bed.run("emergency", "status").code == 3, "nobody is there"


def test_protection_stops_in_order_twice_then_fewer_workers_finish_what_was_accepted(bed: Bed) -> None:
    bed.write_config(nothing=[{"operation": "noop"}])
    first = bed.start()
    client = bed.client()
    client.pause()
    batch = bed.submit(client, bed.fill(20), recipe="nothing")
    bed.run("stop")
    assert first.wait().code == 0
    for stops in (1, 2):
        ended = bed.command("start", memory=TINY).wait(60)
        assert ended.code == 75, ended.err
        assert "emergency protection, attempt 3 of 3" in ended.err
        assert "stopped by emergency protection" in ended.err
        with open(os.path.join(bed.state, "protection.json"), "rb") as file:
            assert len(json.load(file)["stops"]) == stops
    last = bed.start(memory=TINY)
    wait_for(lambda: "starts with 1 workers instead of 2" in last.said(), "the smaller start is told")
    client = bed.client()
    wait_for(lambda: "work goes on slowly" in last.said(), "one worker at rest is not stopped", 60)
    client.resume()
    wait_for(lambda: settled(client.progress(batch)) == 20, "all that was accepted is done", 60)
    assert client.progress(batch).counts.done == 20
    status = bed.run("emergency", "status", "--json").last["protection"]
    assert (status["workers"], status["workers_configured"], len(status["stops"])) == (1, 2, 2)
    bed.run("stop")
    assert last.wait().code == 0
    note = os.path.join(bed.state, "protection.json")
    assert os.path.exists(note), "that was not calm"
    calm = bed.start(memory="400M")
    client = bed.client()
    batch = bed.submit(client, bed.fill(3), recipe="nothing")
    wait_for(lambda: settled(client.progress(batch)) == 3, "the next batch is done")
    bed.run("stop")
    assert calm.wait().code == 0
    assert not os.path.exists(note), calm.said()


def test_a_trace_is_replayed_and_tells_what_was_decided(bed: Bed) -> None:
    trace = os.path.join(bed.directory, "trace")
    ended = bed.command("start", memory=TINY, trace=trace).wait(60)
    assert ended.code == 75
    replayed = bed.run("why", "--replay", trace, "--json")
    assert replayed.code == 0, replayed.err
    told = [(row["kind"], row["message"]) for row in replayed.rows]
    assert told[0][1].startswith("memory level normal -> protection")
    assert told[1][1].startswith("emergency protection, attempt 1 of 3")
    assert {message for kind, message in told if kind == "level"} <= set(_messages(ended.err))
    with open(trace, "w", encoding="utf-8") as file:
        file.write("no trace\n")
    refused = bed.run("why", "--replay", trace)
    assert refused.code == 2
    assert "not a line of a trace" in refused.err


def _messages(log: str) -> list[str]:
    """The log's lines without their time."""
    return [line[9:] for line in log.splitlines()]
