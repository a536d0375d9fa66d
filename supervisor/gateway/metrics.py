"""Prometheus text: the pool's figures under the names and units that its conventions ask for.

Names begin with `gallery_`; sizes are bytes, times seconds, ratios 0 to 1; what only grows ends in `_total`. Written
here because the format is thirty lines and a client library would be the largest module of this process (10 MB); the
tests read it with Prometheus's own parser. Sources: `status`, `temp stats`, `cache stats`; what one of them cannot
tell now is left out, as Prometheus wants it, rather than shown as 0.
"""

from collections.abc import Iterable, Mapping
from typing import Literal

from protocol.messages import CacheReport, Durations, Status, TempUsage, WorkerStatus

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
LEVELS = ("normal", "elevated", "warning", "critical", "emergency", "protection")
WORKER_STATES = ("STARTING", "IDLE", "BUSY", "DRAINING", "STOPPING", "KILLING", "GONE")

Kind = Literal["gauge", "counter", "histogram"]
Sample = tuple[Mapping[str, str], float]


class Page:
    """Metrics families as text."""

    def __init__(self) -> None:
        self._lines: list[str] = []

    def family(self, name: str, kind: Kind, text: str, samples: Iterable[Sample]) -> None:
        """Adds a family: its help and type, then its samples. One without samples is left out."""
        lines = [_sample(name, labels, value) for labels, value in samples]
        if lines:
            self._lines += [f"# HELP {name} {_escaped(text, quoted=False)}", f"# TYPE {name} {kind}", *lines]

    def value(self, name: str, kind: Kind, text: str, value: float) -> None:
        """Adds a family of one sample without labels."""
        self.family(name, kind, text, [({}, value)])

    def durations(self, name: str, text: str, found: Durations) -> None:
        """Adds a histogram: counts that grow from bound to bound."""
        if not found.counts:
            return
        self._lines += [f"# HELP {name} {_escaped(text, quoted=False)}", f"# TYPE {name} histogram"]
        total = 0
        for bound, count in zip([*map(_number, found.bounds_seconds), "+Inf"], found.counts, strict=True):
            total += count
            self._lines.append(_sample(f"{name}_bucket", {"le": bound}, total))
        self._lines += [_sample(f"{name}_sum", {}, found.sum_seconds), _sample(f"{name}_count", {}, total)]

    def text(self) -> str:
        """Returns the page."""
        return "\n".join(self._lines) + "\n"


def write(status: Status | None, temp: TempUsage | None, cache: CacheReport | None) -> str:
    """Returns the page; `status` None: the supervisor does not answer, which is a figure too."""
    page = Page()
    page.value("gallery_up", "gauge", "Whether the supervisor answers.", status is not None)
    if status is not None:
        _pool(page, status)
        _work(page, status)
        _workers(page, status.workers)
    if temp is not None:
        _temp(page, temp)
    if cache is not None:
        _cache(page, cache)
    return page.text()


def _pool(page: Page, status: Status) -> None:
    page.family("gallery_info", "gauge", "The version of the supervisor.", [({"version": status.version}, 1)])
    page.value("gallery_uptime_seconds", "gauge", "Time since the supervisor started.", status.uptime_seconds)
    page.value("gallery_memory_budget_bytes", "gauge", "What all processes together may use.", status.budget_bytes)
    page.value("gallery_memory_used_bytes", "gauge", "What all processes together use.", status.used_bytes)
    page.value("gallery_memory_pressure", "gauge", "Memory used as a share of the budget.", status.pressure)
    levels = [({"level": level}, float(level == status.level)) for level in LEVELS]
    page.family("gallery_memory_level", "gauge", "1 for the memory level the pool is at.", levels)
    page.value("gallery_draining", "gauge", "Whether the supervisor finishes its work and stops.", status.draining)
    page.value("gallery_paused", "gauge", "Whether the pool is paused.", status.paused is not None)
    page.value(
        "gallery_loop_turn_seconds", "gauge", "99th percentile of the turns of the supervisor's loop since its start.",
        status.loop_turn_p99_seconds,
    )  # fmt: skip


def _work(page: Page, status: Status) -> None:
    queue, totals = status.queue, status.totals
    page.value("gallery_queue_depth", "gauge", "Images that wait or are worked on.", queue.pending + queue.leased)
    page.value("gallery_queue_pending", "gauge", "Images that wait.", queue.pending)
    page.value("gallery_queue_leased", "gauge", "Images in the hands of workers.", queue.leased)
    items: list[Sample] = [
        ({"recipe": row.recipe, "operation": "+".join(row.operations), "outcome": outcome}, count)
        for row in status.by_recipe
        for outcome, count in sorted(row.outcomes.items())
    ]
    page.family("gallery_items_total", "counter", "Images by recipe, its operations, and what became of them.", items)
    page.durations("gallery_item_duration_seconds", "How long workers worked on an image.", status.durations)
    recycles: list[Sample] = [({"reason": why}, count) for why, count in sorted(status.recycles_by_reason.items())]
    page.family("gallery_worker_recycles_total", "counter", "Planned replacements of workers by reason.", recycles)
    deaths: list[Sample] = [({"cause": why}, count) for why, count in sorted(status.deaths_by_cause.items())]
    page.family("gallery_worker_deaths_total", "counter", "Unplanned ends of workers by cause.", deaths)
    page.value("gallery_worker_restarts_total", "counter", "Workers replaced after they died.", totals.restarts)
    page.value("gallery_worker_kills_total", "counter", "Workers killed by the supervisor.", totals.kills)
    page.value("gallery_batch_shrinks_total", "counter", "How often batch sizes were halved.", totals.batch_shrinks)


def _workers(page: Page, workers: list[WorkerStatus]) -> None:
    there = [({"slot": str(worker.slot)}, worker) for worker in workers]
    warm = [(slot, worker) for slot, worker in there if worker.baseline_bytes]

    def gauge(name: str, text: str, samples: list[Sample]) -> None:
        page.family(name, "gauge", text, samples)

    gauge("gallery_worker_rss_bytes", "Resident memory of a worker.", [(s, w.rss_bytes) for s, w in there])
    gauge("gallery_worker_private_bytes", "Memory of a worker alone.", [(s, w.private_bytes) for s, w in there])
    gauge("gallery_worker_baseline_bytes", "Memory of a worker at rest.", [(s, w.baseline_bytes) for s, w in warm])
    gauge("gallery_worker_soft_bytes", "Where a worker is trimmed.", [(s, w.soft_bytes) for s, w in warm])
    gauge("gallery_worker_hard_bytes", "Where a worker is killed.", [(s, w.hard_bytes) for s, w in warm])
    gauge("gallery_batch_size", "Images a worker is given at once.", [(s, w.batch_size) for s, w in there])
    states: list[Sample] = [({**s, "state": at}, float(w.state == at)) for s, w in there for at in WORKER_STATES]
    gauge("gallery_worker_state", "1 for the state a worker is in.", states)
    done: list[Sample] = [(s, w.items_done) for s, w in there]
    page.family("gallery_worker_items_total", "counter", "Images that a slot's workers settled.", done)


def _temp(page: Page, temp: TempUsage) -> None:
    page.value("gallery_temp_bytes", "gauge", "What temp files of workers take.", temp.bytes)
    page.value("gallery_temp_files", "gauge", "Temp files of workers.", temp.files)
    page.value(
        "gallery_temp_open_deleted_bytes", "gauge", "Temp files without a name that are still open.",
        temp.open_deleted_bytes,
    )  # fmt: skip
    page.value(
        "gallery_temp_reaped_bytes_total", "counter", "Stale temp files deleted since the start.",
        temp.reaped_bytes_total,
    )  # fmt: skip


def _cache(page: Page, cache: CacheReport) -> None:
    stats = cache.stats
    figures: list[tuple[str, str, Kind, str]] = [
        ("hits", "gallery_cache_hits_total", "counter", "Results that the cache had."),
        ("misses", "gallery_cache_misses_total", "counter", "Results that the cache had not."),
        ("culled", "gallery_cache_culled_total", "counter", "Results that had to go."),
        ("entries", "gallery_cache_entries", "gauge", "Results kept."),
        ("bytes", "gallery_cache_bytes", "gauge", "What the cache takes on the disk."),
        ("limit_bytes", "gallery_cache_limit_bytes", "gauge", "What the cache may take on the disk."),
        ("memory_bytes", "gallery_cache_memory_bytes", "gauge", "What the cache holds in memory."),
    ]
    for key, name, kind, text in figures:
        found = stats.get(key)
        if isinstance(found, int | float):
            page.value(name, kind, text, found)


def _sample(name: str, labels: Mapping[str, str], value: float) -> str:
    inside = ",".join(f'{key}="{_escaped(text, quoted=True)}"' for key, text in labels.items())
    return f"{name}{{{inside}}} {_number(value)}" if inside else f"{name} {_number(value)}"


def _number(value: float) -> str:
    return str(int(value)) if value == int(value) else repr(float(value))


def _escaped(text: str, *, quoted: bool) -> str:
    text = text.replace("\\", r"\\").replace("\n", r"\n")
    return text.replace('"', r"\"") if quoted else text
