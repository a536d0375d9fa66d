"""Emergency verbs against a real supervisor, and emergency protection where nothing that it can do helps."""

import json
import os
import signal
from pathlib import Path

from tests.end_to_end.bed import Bed, Command, Ended, settled, wait_for
from tests.end_to_end.test_emergency_drills import HOARDER, part
from tests.end_to_end.test_parts import add_part

TINY = "36M"
"""Less than a supervisor and one worker hold at rest: the level is protection from the first look."""
BUDGET_BYTES = 300_000_000


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


def overwhelmed(bed: Bed, supervisor: Command) -> Ended:
    """Has a part of the house that is never stopped take the whole budget; returns how the supervisor ended."""
    wait_for(lambda: "hoarder: ready" in supervisor.said(), "the hoarder runs")
    Path(bed.state, "hoard").write_text(str(BUDGET_BYTES))
    os.kill(part(bed, "hoarder")["pid"], signal.SIGUSR1)
    return supervisor.wait(60)


def accepted(bed: Bed, images: int) -> str:
    """Has a supervisor with room accept a batch that takes a while, and stop before any is done; returns the batch."""
    bed.write_config(slow=[{"operation": "misbehave.hang", "seconds": 0.5}])
    supervisor = bed.start()
    client = bed.client()
    client.pause()
    batch = bed.submit(client, bed.fill(images), recipe="slow")
    bed.run("stop")
    assert supervisor.wait().code == 0
    return batch


def test_protection_stops_in_order_twice_then_fewer_workers_finish_what_was_accepted(bed: Bed) -> None:
    batch = accepted(bed, 20)
    add_part(bed, "hoarder", HOARDER, essential=True, memory="4G")
    for stops in (1, 2):
        ended = overwhelmed(bed, bed.start(memory=str(BUDGET_BYTES)))
        assert ended.code == 75, ended.err
        assert "emergency protection, attempt 3 of 3" in ended.err
        assert "stopped by emergency protection" in ended.err
        with open(os.path.join(bed.state, "protection.json"), "rb") as file:
            assert len(json.load(file)["stops"]) == stops
    last = bed.start(memory=str(BUDGET_BYTES))
    wait_for(lambda: "starts with 1 workers instead of 2" in last.said(), "the smaller start is told")
    client = bed.client()
    client.resume()
    wait_for(lambda: settled(client.progress(batch)) == 20, "all that was accepted is done", 60)
    assert client.progress(batch).counts.done == 20
    status = bed.run("emergency", "status", "--json").last["protection"]
    assert (status["workers"], status["workers_configured"], len(status["stops"])) == (1, 2, 2)
    bed.run("stop")
    assert last.wait().code == 0
    assert not os.path.exists(os.path.join(bed.state, "protection.json")), "calm again: the next start is a full one"


def test_one_worker_that_is_too_much_at_rest_works_on_slowly_instead_of_stopping_for_ever(bed: Bed) -> None:
    batch = accepted(bed, 20)
    supervisor = bed.start(memory=TINY)
    wait_for(lambda: "work goes on slowly" in supervisor.said(), "three attempts did not help", 60)
    assert "the budget of 36 MB is too small for one worker" in supervisor.said()
    client = bed.client()
    client.resume()
    wait_for(lambda: settled(client.progress(batch)) == 20, "all that was accepted is done", 60)
    assert client.progress(batch).counts.done == 20
    bed.run("stop")
    assert supervisor.wait().code == 0


def test_a_trace_is_replayed_and_tells_what_was_decided(bed: Bed) -> None:
    trace = os.path.join(bed.directory, "trace")
    add_part(bed, "hoarder", HOARDER, essential=True, memory="4G")
    ended = overwhelmed(bed, bed.start(memory=str(BUDGET_BYTES), trace=trace))
    assert ended.code == 75
    replayed = bed.run("why", "--replay", trace, "--json")
    assert replayed.code == 0, replayed.err
    told = [(row["kind"], row["message"]) for row in replayed.rows]
    levels = [message for kind, message in told if kind == "level"]
    assert levels[0].startswith("memory level normal -> ")
    assert " -> protection: " in levels[-1]
    assert any(message.startswith("emergency protection, attempt 1 of 3") for _, message in told)
    assert set(levels) <= set(_messages(ended.err))
    with open(trace, "w", encoding="utf-8") as file:
        file.write("no trace\n")
    refused = bed.run("why", "--replay", trace)
    assert refused.code == 2
    assert "not a line of a trace" in refused.err


def _messages(log: str) -> list[str]:
    """The log's lines without their time."""
    return [line[9:] for line in log.splitlines()]
