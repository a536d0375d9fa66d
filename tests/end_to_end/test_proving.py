"""health, monitor, stress and leak-test on real supervisors."""

import json
import signal

from tests.end_to_end.bed import Bed, wait_for


def test_health_knows_ready_from_alive(bed: Bed) -> None:
    assert bed.run("health").code == 3
    bed.write_config(slow=[{"operation": "misbehave.hang", "seconds": 20}])
    supervisor = bed.start()
    wait_for(lambda: bed.run("health").code == 0, "it is ready")
    assert bed.run("health", "--json").last == {"ready": True, "live": True, "reasons": []}
    bed.run("pause")
    paused = bed.run("health", "--json")
    assert paused.code == 1
    assert "paused" in paused.last["reasons"][0]
    assert bed.run("health", "--live").code == 0, "it lives all the same"
    bed.run("resume")
    assert bed.run("health").code == 0
    client = bed.client()
    batch = bed.submit(client, bed.fill(1), recipe="slow", out=None)
    wait_for(lambda: client.progress(batch).counts.leased, "the image is in progress")
    supervisor.signal(signal.SIGTERM)
    wait_for(lambda: client.status().draining, "it drains")
    draining = bed.run("health", "--json")
    assert draining.code == 1
    assert "it is draining" in draining.last["reasons"]


def test_monitor_prints_a_line_a_look(bed: Bed) -> None:
    bed.start()
    plain = bed.run("monitor", "--count", "2", "--every", "0.1s")
    assert plain.code == 0
    lines = plain.out.splitlines()
    assert len(lines) == 2
    assert all("supervisor:" in line and "template:" in line for line in lines)
    rows = bed.run("monitor", "--count", "2", "--every", "0.1s", "--json").rows
    assert [row["processes"][0]["role"] for row in rows] == ["supervisor", "supervisor"]
    assert rows[0]["at"] <= rows[1]["at"]


def test_a_stress_scenario_passes(bed: Bed) -> None:
    ended = bed.run("stress", "saw-tooth", "--json", seconds=120)
    assert ended.code == 0, ended.err
    (scenario,) = ended.last["scenarios"]
    assert scenario["passed"]
    assert scenario["done"] == scenario["items"] > 0
    assert 0 < scenario["peak_bytes"] <= scenario["budget_bytes"]
    assert bed.run("stress", "flood").code == 2


def test_a_leak_is_found_with_its_size(bed: Bed) -> None:
    step = json.dumps({"operation": "misbehave.leak", "bytes": 500_000})
    leaking = bed.run("leak-test", "--images", "40", "--every", "5", "--step", step, "--json", seconds=120)
    assert leaking.code == 1, leaking.err
    assert leaking.last["leaks"]
    assert leaking.last["growth"]["private"]["confidence"] >= 0.9
    assert 400_000 < leaking.last["growth"]["private"]["bytes_an_image"] < 600_000
    assert [row["images"] for row in leaking.last["figures"]] == list(range(5, 45, 5))
    sound = bed.run("leak-test", "--images", "40", "--every", "5", "--step", '{"operation": "noop"}', seconds=120)
    assert sound.code == 0, sound.err
    assert "no leak" in sound.err
