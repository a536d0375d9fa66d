"""The metrics as Prometheus's own parser reads them."""

import pytest
from prometheus_client.parser import text_string_to_metric_families

from protocol.messages import CacheReport, Durations, LastDeath, QueueStatus, RecipeTotals, Status, Totals, WorkerStatus
from supervisor.gateway import metrics
from tests.gateway.web import Web

Samples = dict[str, dict[tuple[tuple[str, str], ...], float]]


def parsed(text: str) -> tuple[dict[str, str], Samples]:
    """Returns the type of each family, and its samples by labels."""
    kinds: dict[str, str] = {}
    samples: Samples = {}
    for family in text_string_to_metric_families(text):
        kinds[family.name] = family.type
        assert family.documentation, family.name
        for sample in family.samples:
            samples.setdefault(sample.name, {})[tuple(sorted(sample.labels.items()))] = sample.value
    return kinds, samples


def status() -> Status:
    worker = WorkerStatus(
        slot=0, pid=7, state="BUSY", rss_bytes=100, private_bytes=60, baseline_bytes=50, soft_bytes=200, hard_bytes=300,
        batch_size=8, items_done=5, current=None, recycles=1, restarts=2, last_death=LastDeath(cause="x", at=1.0),
    )  # fmt: skip
    return Status(
        version="1", pid=1, uptime_seconds=2.5, level="warning", pressure=0.8123, budget_bytes=1000, used_bytes=812,
        queue=QueueStatus(pending=3, leased=4), workers=[worker], totals=Totals(restarts=2, kills=1, batch_shrinks=6),
        by_recipe=[RecipeTotals(recipe='we"b\\', operations=["thumbnail", "probe"], outcomes={"done": 5, "failed": 1})],
        durations=Durations(bounds_seconds=[0.1, 1.0], counts=[3, 2, 1], sum_seconds=9.5),
        recycles_by_reason={"soft": 1}, deaths_by_cause={"signal 11": 2},
    )  # fmt: skip


def test_a_page_says_what_the_status_says() -> None:
    cache = CacheReport(stats={"hits": 9, "misses": 1, "policy": "cost", "bytes": 77}, steps=[])
    kinds, samples = parsed(metrics.write(status(), None, cache))
    assert samples["gallery_items_total"] == {
        (("operation", "thumbnail+probe"), ("outcome", "done"), ("recipe", 'we"b\\')): 5,
        (("operation", "thumbnail+probe"), ("outcome", "failed"), ("recipe", 'we"b\\')): 1,
    }
    assert samples["gallery_item_duration_seconds_bucket"] == {
        (("le", "0.1"),): 3,
        (("le", "1"),): 5,
        (("le", "+Inf"),): 6,
    }
    assert samples["gallery_item_duration_seconds_count"] == {(): 6}
    assert samples["gallery_item_duration_seconds_sum"] == {(): 9.5}
    assert samples["gallery_worker_rss_bytes"] == {(("slot", "0"),): 100}
    assert samples["gallery_batch_size"] == {(("slot", "0"),): 8}
    assert samples["gallery_worker_recycles_total"] == {(("reason", "soft"),): 1}
    assert samples["gallery_worker_deaths_total"] == {(("cause", "signal 11"),): 2}
    assert samples["gallery_queue_depth"] == {(): 7}
    assert samples["gallery_memory_pressure"] == {(): 0.8123}
    assert [labels for labels, value in samples["gallery_memory_level"].items() if value] == [(("level", "warning"),)]
    assert samples["gallery_cache_hits_total"] == {(): 9} and samples["gallery_cache_bytes"] == {(): 77}
    assert kinds["gallery_item_duration_seconds"] == "histogram"
    assert "gallery_temp_bytes" not in samples, "what is not known is left out"


def test_nobody_there_is_a_figure_too() -> None:
    assert parsed(metrics.write(None, None, None))[1] == {"gallery_up": {(): 0}}


def test_names_follow_the_conventions() -> None:
    kinds, samples = parsed(metrics.write(status(), None, None))
    for name, kind in kinds.items():
        assert name.startswith("gallery_")
        if kind == "counter":
            assert f"{name}_total" in samples, name


NAMED = (
    "gallery_worker_rss_bytes", "gallery_batch_size", "gallery_queue_depth", "gallery_memory_budget_bytes",
    "gallery_memory_used_bytes", "gallery_memory_pressure", "gallery_memory_level", "gallery_temp_bytes",
    "gallery_loop_turn_seconds", "gallery_items_total", "gallery_item_duration_seconds_bucket",
)  # fmt: skip


@pytest.mark.usefixtures("web")
def test_a_real_scrape_agrees_with_the_batch_that_was_run(web: Web) -> None:
    web.bed.fill(5)
    batch = web.post("/batches", {"paths": [web.bed.photos], "recipe": "stop"}).json["batch"]
    web.finish(batch)
    answer = web.get("/metrics")
    assert answer.headers["content-type"] == metrics.CONTENT_TYPE
    samples = parsed(answer.body.decode())[1]
    assert set(NAMED) <= set(samples)
    assert samples["gallery_up"] == {(): 1}
    assert samples["gallery_items_total"] == {(("operation", "noop"), ("outcome", "done"), ("recipe", "stop")): 5}
    assert samples["gallery_item_duration_seconds_count"] == {(): 5}
