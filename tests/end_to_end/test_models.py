"""Models on a real supervisor: measured, unloaded under real pressure, refused and had again, switched, let go when
idle; and models that cannot be used."""

import errno
import os
import signal
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest

from protocol.client import Client
from protocol.messages import ModelMemory
from supervisor.policy.sizes import MB
from tests.end_to_end.bed import Bed, Command, make_bed, settled, wait_for
from tests.end_to_end.groups import MemoryGroup, memory_group
from tests.end_to_end.test_emergency_drills import HOARDER, part
from tests.end_to_end.test_parts import add_part
from tests.onnx_models import hollow_model, pooling_model

missing = [name for name in ("numpy", "onnxruntime") if find_spec(name) is None]
pytestmark = pytest.mark.skipif(bool(missing), reason=f"not installed: {', '.join(missing)} (the extra 'embed')")

BUDGET_BYTES = 600_000_000
WEIGHTS_BYTES = 30_000_000
"""Both as measured: what is refused and what is granted at `AMPLY_CRITICAL` hangs on these very figures."""
WIDE_CRITICAL = {
    "SUPERVISOR_WATCH_ELEVATED_SHARE": "0.50",
    "SUPERVISOR_WATCH_WARNING_SHARE": "0.55",
    "SUPERVISOR_WATCH_CRITICAL_SHARE": "0.60",
    "SUPERVISOR_WATCH_EMERGENCY_SHARE": "0.98",
    "SUPERVISOR_WATCH_PROTECTION_SHARE": "0.99",
}
"""Critical from 60 to 98 % of the budget: no clean-up moves the level out of there."""
AMPLY_CRITICAL = 0.75
"""Of the budget. A worker loads the runtime, some 120 MB or 20 %, before it asks for a model: that must not make it an
emergency, nor as much less, given back or counted twice before, end it."""
BRISK = {
    "SUPERVISOR_WATCH_LEVEL_HOLD_SECONDS": "0.2s",
    "SUPERVISOR_WATCH_INTERVAL_IDLE_SECONDS": "0.1s",
    "SUPERVISOR_WATCH_INTERVAL_REST_SECONDS": "0.1s",
}
"""Figures of a moment ago, also of an idle pool, and a level that is left soon: nobody waits for what is tested
elsewhere."""


def model_file(bed: Bed, name: str, content: bytes) -> str:
    """Puts a model where neither photos nor outputs are."""
    path = Path(bed.directory, "models", name)
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(content)
    return os.fspath(path)


def with_recipes(bed: Bed, **models: bytes) -> None:
    """Writes recipes that embed by these models, and one without."""
    embedding = {
        name: [{"operation": "embed", "model": model_file(bed, f"{name}.onnx", content), "size": 32}]
        for name, content in models.items()
    }
    bed.write_config(plain=[{"operation": "phash"}], **embedding)


def warm(bed: Bed, client: Client, names: list[str]) -> None:
    """Has the worker's baseline measured before any model is loaded."""
    client.wait(bed.submit(client, names, recipe="plain", out=None), 60)
    wait_for(lambda: all(worker.soft_bytes for worker in client.status().workers), "all workers are warm")


def done(bed: Bed, client: Client, names: list[str], recipe: str) -> None:
    """Works through the photos; every one is done."""
    progress = client.wait(bed.submit(client, names, recipe=recipe, out=None), 60)
    assert progress.counts.done == len(names), progress


def told(client: Client, kind: str) -> list[str]:
    """What was told of a kind of decision, oldest first."""
    return [one.message for one in client.decisions(after=0, limit=1000) if one.kind == kind]


def held(client: Client) -> list[ModelMemory]:
    """The models that workers hold."""
    return client.memory().models


def hoard(bed: Bed, supervisor: Command, client: Client, share: float) -> int:
    """Has a part of the house take what is missing to that share of the budget; returns its pid."""
    wait_for(lambda: "hoarder: ready" in supervisor.said(), "the hoarder runs")
    pid: int = part(bed, "hoarder")["pid"]
    Path(bed.state, "hoard").write_text(str(int(share * BUDGET_BYTES) - client.status().used_bytes))
    os.kill(pid, signal.SIGUSR1)
    return pid


def wait_until_critical(client: Client) -> None:
    """Waits for the level and for all of the hoard: while it grows, the level comes before the memory is gone."""
    all_of_it = int((AMPLY_CRITICAL - 0.03) * BUDGET_BYTES)
    wait_for(lambda: client.status().used_bytes > all_of_it and client.status().level == "critical", "it is critical")


@pytest.fixture
def hoarded(bed: Bed) -> Bed:
    """A bed with one model and a part that takes memory when it is told to."""
    with_recipes(bed, one=pooling_model(weight_bytes=WEIGHTS_BYTES))
    add_part(bed, "hoarder", HOARDER, essential=True, memory="4G")
    bed.environment |= WIDE_CRITICAL | BRISK
    return bed


def test_an_idle_workers_model_goes_under_real_pressure_and_is_loaded_again_after(hoarded: Bed) -> None:
    bed, names = hoarded, hoarded.fill(6)
    supervisor = bed.start(memory=str(BUDGET_BYTES), workers="1", protection="no")
    client = bed.client()
    warm(bed, client, names)
    done(bed, client, names, "one")
    wait_for(lambda: [model for model in held(client) if model.uses == len(names)], "its uses are told")
    [model] = held(client)
    assert WEIGHTS_BYTES < model.bytes < 200 * MB
    used_bytes = client.status().used_bytes
    pid = hoard(bed, supervisor, client, 0.80)
    wait_for(lambda: told(client, "model_unloaded"), "the model is gone")
    assert held(client) == []
    room_bytes = int(0.80 * BUDGET_BYTES) - WEIGHTS_BYTES
    wait_for(lambda: used_bytes < client.status().used_bytes < room_bytes, "its memory is back beside the hoard")
    os.kill(pid, signal.SIGUSR2)
    wait_for(lambda: client.status().level == "normal", "memory is there again", 60)
    done(bed, client, names, "one")
    assert len(told(client, "model_loaded")) == 2


def test_a_busy_workers_model_goes_under_real_pressure_and_no_image_is_lost(bed: Bed) -> None:
    names = bed.fill(60)
    one = {"operation": "embed", "model": model_file(bed, "one.onnx", pooling_model(weight_bytes=WEIGHTS_BYTES))}
    bed.write_config(
        plain=[{"operation": "phash"}], slow=[one | {"size": 32}, {"operation": "misbehave.hang", "seconds": 0.05}]
    )
    add_part(bed, "hoarder", HOARDER, essential=True, memory="4G")
    bed.environment |= WIDE_CRITICAL | BRISK
    supervisor = bed.start(memory=str(BUDGET_BYTES), workers="1", protection="no")
    client = bed.client()
    warm(bed, client, names[:6])
    batch = bed.submit(client, names, recipe="slow", out=None)
    wait_for(lambda: settled(client.progress(batch)) > 5 and held(client), "the model is in use")
    pid = hoard(bed, supervisor, client, 0.80)
    wait_for(lambda: told(client, "model_unloaded"), "the model is gone")
    os.kill(pid, signal.SIGUSR2)
    assert client.wait(batch, 90).counts.done == len(names)
    assert {row["attempts"] for row in bed.results(client, batch).values()} == {1}
    assert len(told(client, "model_loaded")) >= 2


def test_a_model_refused_while_memory_is_critical_is_loaded_later_and_nothing_is_lost(hoarded: Bed) -> None:
    bed, names = hoarded, hoarded.fill(6)
    supervisor = bed.start(memory=str(BUDGET_BYTES), workers="1", protection="no")
    client = bed.client()
    warm(bed, client, names)
    pid = hoard(bed, supervisor, client, AMPLY_CRITICAL)
    wait_until_critical(client)
    batch = bed.submit(client, names, recipe="one", out=None)
    wait_for(lambda: client.memory().memory_leases.refused_total, "the model is refused")
    refusal = client.memory().memory_leases.last_refusal
    assert refusal is not None and refusal.startswith("model one.onnx ")
    assert "are asked for, and the memory level is critical" in refusal, told(client, "level")
    wait_for(lambda: client.progress(batch).paused, "the batch waits")
    waits = client.progress(batch).paused
    assert waits is not None and "cannot be loaded now" in waits and refusal in waits
    assert settled(client.progress(batch)) == 0 and held(client) == []
    assert f"last refusal: {refusal}" in bed.run("memory", "-v").out
    os.kill(pid, signal.SIGUSR2)
    assert client.wait(batch, 60).counts.done == len(names)
    rows = bed.results(client, batch)
    assert {row["attempts"] for row in rows.values()} == {1}, "waiting is no attempt"


def test_a_model_refused_for_long_fails_its_images_with_the_reason_and_they_can_be_retried(hoarded: Bed) -> None:
    bed, names = hoarded, hoarded.fill(3)
    supervisor = bed.start(memory=str(BUDGET_BYTES), workers="1", protection="no", leases_refused_seconds="10ms")
    client = bed.client()
    warm(bed, client, names)
    pid = hoard(bed, supervisor, client, AMPLY_CRITICAL)
    wait_until_critical(client)
    batch = bed.submit(client, names, recipe="one", out=None)
    assert client.wait(batch, 60).counts.failed == len(names)
    for row in bed.results(client, batch).values():
        assert row["error"]["kind"] == "memory"
        assert "cannot be loaded now" in row["error"]["message"]
        assert "are asked for, and the memory level is critical" in row["error"]["message"]
        assert "raise --memory or lower --workers" in row["error"]["message"]
    os.kill(pid, signal.SIGUSR2)
    wait_for(lambda: client.status().level == "normal", "memory is there again", 60)
    client.retry(batch)
    assert client.wait(batch, 60).counts.done == len(names)


def test_one_model_makes_room_for_another_is_told_by_memory(bed: Bed) -> None:
    names = bed.fill(6)
    with_recipes(
        bed, one=pooling_model(weight_bytes=WEIGHTS_BYTES), two=pooling_model(cell=4, weight_bytes=WEIGHTS_BYTES)
    )
    bed.start(memory="300M", workers="1")
    client = bed.client()
    warm(bed, client, names)
    done(bed, client, names, "one")
    listed = bed.run("memory", "-v").out
    [row] = [line for line in listed.splitlines() if "one.onnx" in line and "model one" not in line]
    assert "MODEL" in listed and "MB" in row
    [first] = held(client)
    done(bed, client, names, "two")
    assert [model.name.split()[0] for model in held(client)] == ["two.onnx"]
    [gone] = told(client, "model_unloaded")
    assert f"unloaded the model {first.name}" in gone and "makes room for two.onnx" in gone
    kinds = [one.kind for one in client.decisions(after=0, limit=1000) if one.kind.startswith("model_")]
    assert kinds == ["model_loaded", "model_unloaded", "model_loaded"]
    [unloaded] = [one for one in client.decisions(after=0, limit=1000) if one.kind == "model_unloaded"]
    assert unloaded.figures["freed_bytes"] > WEIGHTS_BYTES // 2, "it was given back before the other came"
    assert "one.onnx" not in bed.run("memory", "-v").out.split("models")[-1]


def test_a_model_that_nobody_uses_goes_and_is_loaded_again_when_somebody_does(bed: Bed) -> None:
    names = bed.fill(3)
    with_recipes(bed, one=pooling_model(weight_bytes=WEIGHTS_BYTES))
    bed.start(memory="300M", workers="1", leases_model_idle_seconds="200ms")
    client = bed.client()
    done(bed, client, names, "one")
    wait_for(lambda: told(client, "model_unloaded"), "it goes when nobody uses it")
    wait_for(lambda: not held(client), "and is not told any more")
    assert "not used for 0.2 s" in told(client, "model_unloaded")[-1]
    assert "one.onnx" not in bed.run("memory", "-v").out.split("models")[-1]
    loaded = len(told(client, "model_loaded"))
    done(bed, client, names, "one")
    assert len(told(client, "model_loaded")) > loaded


def test_models_that_cannot_be_used_say_why_and_the_others_work(bed: Bed) -> None:
    names = bed.fill(3)
    with_recipes(bed, good=pooling_model(kind=2), two_inputs=pooling_model(inputs=2), huge=pooling_model())
    head, size_bytes = hollow_model(120 * MB)
    with open(os.path.join(bed.directory, "models", "huge.onnx"), "wb") as file:
        file.write(head)
        file.truncate(size_bytes)
    bed.start(memory="300M", workers="1")
    client = bed.client()
    for recipe, kind, sentence in (
        ("huge", "too_large", " are all there can be under 300 MB; raise --memory"),
        ("two_inputs", "unsupported", "has 2 inputs, and one image is all there is to give"),
    ):
        batch = bed.submit(client, names, recipe=recipe, out=None)
        assert client.wait(batch, 60).counts.failed == len(names)
        for row in bed.results(client, batch).values():
            assert row["error"]["kind"] == kind
            assert sentence in row["error"]["message"]
    done(bed, client, names, "good")


@pytest.mark.parametrize("content", [b"no model at all", None])
def test_a_supervisor_with_what_is_no_model_says_so_and_does_not_start(bed: Bed, content: bytes | None) -> None:
    with_recipes(bed, broken=content or b"")
    path = Path(bed.directory, "models", "broken.onnx")
    if content is None:
        path.unlink()
    ended = bed.run("start", "--workers", "1")
    assert ended.code != 0
    assert f"{path} {'cannot be read' if content is None else 'is no ONNX model'}" in ended.err, ended.err


@pytest.fixture
def group() -> Iterator[MemoryGroup]:
    with memory_group(BUDGET_BYTES) as made:
        yield made


def test_a_lowered_limit_of_the_group_unloads_a_model_and_nobody_is_killed(group: MemoryGroup) -> None:
    with make_bed() as bed:
        bed.prefix = group.prefix
        names = bed.fill(6)
        with_recipes(bed, one=pooling_model(weight_bytes=WEIGHTS_BYTES))
        bed.environment |= BRISK
        bed.start(workers="1", protection="no")
        client = bed.client()
        warm(bed, client, names)
        before_bytes = client.status().used_bytes
        done(bed, client, names, "one")
        assert len(held(client)) == 1
        wait_for(lambda: client.status().used_bytes > before_bytes + WEIGHTS_BYTES, "a look saw the model's memory")

        def squeezed() -> bool:
            if told(client, "model_unloaded"):
                return True
            try:
                group.set_limit(int(client.status().used_bytes / 0.84))  # anew: what is used may be less by now
            except OSError as error:
                if error.errno != errno.EBUSY:  # more is used than a look has seen: the kernel keeps the limit it has
                    raise
            return False

        wait_for(squeezed, "the model is unloaded")
        wait_for(lambda: not held(client), "and no model is told any more")
        group.set_limit(BUDGET_BYTES)
        wait_for(lambda: client.status().level == "normal", "memory is there again", 60)
        done(bed, client, names, "one")
        assert group.oom_kills() == 0
