"""A real supervisor whose settings change while it runs: by the verb, by SIGHUP, and not at all when they are wrong."""

import json
import signal
import time
from pathlib import Path

from tests.end_to_end.bed import Bed, wait_for


def threshold(bed: Bed, name: str) -> float:
    """A threshold as `memory --json` tells it."""
    found: float = bed.run("memory", "--json").last["thresholds"][name]
    return found


def test_settings_change_by_the_verb_and_by_the_file(bed: Bed) -> None:
    supervisor = bed.start()
    changed = bed.run("config", "set", "watch.critical_share", "0.87", "memory", "900M", "nice", "12", "--json")
    assert changed.code == 0, changed.err
    assert {one["key"]: one["takes_effect"] for one in changed.last["changed"]} == {
        "watch.critical_share": "now",
        "memory": "now",
        "nice": "new workers",
    }
    assert threshold(bed, "critical_share") == 0.87
    wait_for(lambda: bed.run("memory", "--json").last["budget_bytes"] <= 900 << 20, "the budget follows")

    wrong = bed.run("config", "set", "watch.critical_share", "0.5", "item_timeout", "soon")
    assert wrong.code == 2
    assert "item_timeout" in wrong.err
    assert threshold(bed, "critical_share") == 0.87

    with open(bed.config, "a", encoding="utf-8") as file:
        file.write("[watch]\nelevated_share = 0.71\ncritical_share = 0.99\n")
    supervisor.signal(signal.SIGHUP)
    wait_for(lambda: "settings" in supervisor.said(), "it says what it read")
    assert threshold(bed, "elevated_share") == 0.71
    assert threshold(bed, "critical_share") == 0.87, "what was set while running stands above the file"

    Path(bed.config).write_text("[watch]\nelevated_share = 2\n", encoding="utf-8")
    supervisor.signal(signal.SIGHUP)
    wait_for(lambda: "stay as they were" in supervisor.said(), "it refuses the file")
    assert threshold(bed, "elevated_share") == 0.71
    noted = [json.loads(line)["message"] for line in bed.run("events", "--json").out.splitlines()]
    assert any("watch.elevated_share: 0.75 -> 0.71" in message for message in noted)
    supervisor.signal(signal.SIGTERM)
    assert supervisor.wait().code == 0


KEYS = {
    "version", "pid", "uptime_seconds", "level", "pressure", "budget_bytes", "budget_source", "used_bytes",
    "available_bytes", "thresholds", "processes", "memory_leases", "models", "cleanups", "trend", "predictions",
    "leaks", "collection", "stores",
}  # fmt: skip
OF_A_PROCESS = {
    "role", "pid", "rss_bytes", "private_bytes", "shared_bytes", "swap_bytes", "heap_bytes", "native_bytes",
    "baseline_bytes", "soft_bytes", "hard_bytes", "batch_size", "current", "slot", "state",
}  # fmt: skip


def test_the_memory_verb_tells_everything(bed: Bed) -> None:
    bed.start()

    def warm() -> bool:
        processes = bed.run("memory", "--json").last["processes"]
        return all(process["baseline_bytes"] for process in processes if process["role"] == "worker")

    wait_for(warm, "the workers are warm")
    report = bed.run("memory", "--json").last
    assert report.keys() >= KEYS
    assert [process["role"] for process in report["processes"]] == ["supervisor", "template", "worker", "worker"]
    for process in report["processes"]:
        assert process.keys() >= OF_A_PROCESS
        assert process["rss_bytes"] > process["private_bytes"] > 0
    supervisor, _, worker, _ = report["processes"]
    assert supervisor["heap_bytes"] > 1_000_000
    assert worker["heap_bytes"] > 1_000_000
    unlimited = [one["name"] for one in report["stores"] if one["limit_count"] is None and one["limit_bytes"] is None]
    assert unlimited == []
    assert {store["owner"] for store in report["stores"]} >= {"policy", "journal", "chores", "temp", "loop"}
    told = bed.run("memory", "-v")
    assert told.code == 0
    assert "stores" in told.out
    assert "MB" in told.out


def test_a_running_worker_is_profiled(bed: Bed) -> None:
    bed.write_config(
        leaky=[{"operation": "misbehave.leak", "bytes": 20_000}, {"operation": "misbehave.hang", "seconds": 0.05}]
    )
    bed.start(workers="1")
    client = bed.client()
    wait_for(lambda: any(worker.state == "IDLE" for worker in client.status().workers), "the worker is warm")
    bed.submit(client, bed.fill(400), recipe="leaky", out=None)
    wait_for(lambda: client.status().totals.done, "it works")
    told = bed.run("memory", "profile", "0", "--seconds", "1", "--top", "3", "--json", seconds=120).last
    assert told["items"] > 0
    assert told["lines"][0]["place"].split(":")[0].endswith("misbehave.py")
    assert bed.run("memory", "profile").code == 2
    assert bed.run("memory", "profile", "9").code == 2


def test_the_calls_of_a_memory_manager_are_there(bed: Bed) -> None:
    bed.start()
    client = bed.client()
    wait_for(lambda: any(worker.state == "IDLE" for worker in client.status().workers), "a worker is warm")
    assert client.is_active()
    client.pause()
    assert not client.is_active()
    client.resume()
    assert client.is_active()
    assert client.leaks().leaks == []
    assert client.collect_garbage(2).cleanup.actions
    assert client.memory().stall_share is None or 0 <= (client.memory().stall_share or 0.0) <= 1
    lease = client.request_memory(1_000_000, purpose="a test")
    assert any(one.purpose == "a test" for one in client.memory().memory_leases.leases)
    client.release_memory(lease.lease)


def test_work_is_begun_within_its_hours(bed: Bed) -> None:
    now = time.localtime()
    # From two hours on for two hours: however slow the machine, the test is over before they begin.
    begin, end = (now.tm_hour + 2) % 24, (now.tm_hour + 4) % 24
    bed.start("--between", f"{begin:02}:00-{end:02}:00")
    bed.fill(3)
    submitted = bed.run("submit", bed.photos, "--out", bed.out, "--json")
    assert submitted.code == 0, submitted.err
    batch = submitted.last["batch"]
    late = bed.run("wait", batch, "--timeout", "1s")
    assert late.code == 5 and f"it goes on at {begin:02}:00" in late.err
    assert f"it goes on at {begin:02}:00" in bed.run("status").out
    assert bed.run("config", "set", "between", "none").code == 0
    assert bed.run("wait", batch, "--timeout", "60s").code == 0
