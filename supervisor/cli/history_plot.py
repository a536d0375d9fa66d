"""The memory history as a picture: total against budget and levels, every worker, batch sizes, what happened.

Three panels share the line of time. The curve of the total is a band from the lowest to the highest of each row, so
that a short peak is not lost when a day is drawn; gaps in which no supervisor ran stay gaps.
"""

import math
from datetime import datetime
from typing import Any

from protocol.errors import UsageError
from protocol.messages import HistoryPage, MarkKind
from supervisor.policy.sizes import MB

_COLOURS = {"elevated": "#f6e58d", "warning": "#ffbe76", "critical": "#ff9f68", "emergency": "#ff7979",
            "protection": "#d63031"}  # fmt: skip
_MARKS: dict[MarkKind, tuple[str, str]] = {
    "recycle": ("v", "#0984e3"), "death": ("x", "#d63031"), "kill": ("X", "#6c0000"), "leak": ("D", "#8e44ad"),
    "cleanup": ("s", "#00b894"),
}  # fmt: skip
"""Marks on the curves of workers; starts and stops are lines."""


def draw(page: HistoryPage, path: str) -> None:
    """Draws the page into a file; its ending names the format. Raises UsageError: matplotlib is missing, no such
    format."""
    try:
        from matplotlib import dates
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise UsageError(
            "a picture needs matplotlib, which is not installed: pip install 'gallery-supervisor[plot]' (or "
            "'supervisor history --json' for the figures)"
        ) from error
    figure = Figure(figsize=(12, 9), layout="constrained")
    FigureCanvasAgg(figure)
    whole, workers, sizes = figure.subplots(3, 1, sharex=True, height_ratios=(3, 3, 1.6))
    times = [datetime.fromtimestamp(at) for at in page.at]
    breaks = _breaks(page)
    _draw_whole(whole, page, times, breaks)
    _draw_workers(workers, page, times, breaks)
    _draw_sizes(sizes, page, times, breaks)
    for axes in (whole, workers, sizes):
        axes.grid(alpha=0.3)
        axes.margins(x=0.01)
        _draw_runs(axes, page)
    _date_axis(sizes.xaxis, dates)
    try:
        figure.savefig(path, dpi=110)
    except ValueError as error:
        raise UsageError(f"{path} cannot be drawn: {error}") from error
    except OSError as error:
        raise UsageError(f"{path} cannot be written: {error.strerror}; name another file") from error


def _date_axis(axis: Any, dates: Any) -> None:
    locator = dates.AutoDateLocator()
    axis.set_major_locator(locator)
    axis.set_major_formatter(dates.ConciseDateFormatter(locator))


def _breaks(page: HistoryPage) -> set[int]:
    """The rows before which no supervisor ran."""
    longest = 1.5 * max(page.period_seconds, page.rest_seconds) + 2.0
    return {n for n in range(1, len(page.at)) if page.at[n] - page.at[n - 1] > longest}


def _broken(values: list[Any], breaks: set[int]) -> list[float]:
    """The values in MB, with nothing where the line is to be broken."""
    return [math.nan if value is None or n in breaks else value / MB for n, value in enumerate(values)]


def _draw_whole(axes: Any, page: HistoryPage, times: list[datetime], breaks: set[int]) -> None:
    used = _broken(page.used_bytes, breaks)
    budget = _broken(page.budget_bytes, breaks)
    axes.fill_between(times, _broken(page.used_low_bytes, breaks), used, step="pre", color="#2d98da", alpha=0.35)
    axes.plot(times, used, drawstyle="steps-pre", color="#2d6cda", linewidth=1.4, label="used by all")
    axes.plot(times, budget, color="#2d3436", linestyle="--", linewidth=1.2, label="budget")
    highest = max(page.used_bytes) / MB
    top = max(page.budget_bytes) / MB
    axes.set_ylim(0, 1.08 * (top if highest > 0.2 * top else highest * 1.5))
    for number, name in enumerate(page.levels):
        if number == 0 or number not in page.level:
            continue
        there = [level == number for level in page.level]
        axes.fill_between(
            times, 0, 1, where=there, step="pre", transform=axes.get_xaxis_transform(), color=_COLOURS[name],
            alpha=0.5, linewidth=0, label=name,
        )  # fmt: skip
    axes.set_ylabel("all together, MB")
    axes.legend(loc="upper left", fontsize=8, ncols=4)
    axes.set_title(f"memory, {times[0]:%Y-%m-%d %H:%M:%S} to {times[-1]:%Y-%m-%d %H:%M:%S}", fontsize=11)


def _draw_workers(axes: Any, page: HistoryPage, times: list[datetime], breaks: set[int]) -> None:
    for worker in page.workers:
        label = f"worker {worker.slot}" if len(page.workers) <= 16 else None
        rss = _broken(worker.rss_bytes, breaks)
        axes.plot(times, rss, drawstyle="steps-pre", linewidth=1, label=label, zorder=2)
    named: set[str] = set()
    for mark in page.marks:
        if mark.kind not in _MARKS:
            continue
        shape, colour = _MARKS[mark.kind]
        at = datetime.fromtimestamp(mark.at)
        axes.scatter(
            [at], [_height(page, mark.at, mark.slot)], marker=shape, color=colour, s=34, zorder=3,
            label=None if mark.kind in named else mark.kind,
        )  # fmt: skip
        named.add(mark.kind)
    axes.set_ylim(bottom=0)
    axes.set_ylabel("each worker, MB")
    axes.legend(loc="upper left", fontsize=8, ncols=6)


def _height(page: HistoryPage, at: float, slot: int | None) -> float:
    """Where a mark belongs: on its worker's curve, as it was before."""
    if slot is None or slot >= len(page.workers):
        return 0.0
    rss = page.workers[slot].rss_bytes
    near = min(range(len(page.at)), key=lambda n: abs(page.at[n] - at))
    return max((size or 0 for size in rss[max(0, near - 1) : near + 1]), default=0) / MB


def _draw_sizes(axes: Any, page: HistoryPage, times: list[datetime], breaks: set[int]) -> None:
    for worker in page.workers:
        sizes = [math.nan if size is None or n in breaks else size for n, size in enumerate(worker.batch_size)]
        axes.plot(times, sizes, drawstyle="steps-pre", linewidth=1)
    axes.set_yscale("log", base=2)
    axes.yaxis.set_major_formatter("{x:.0f}")
    axes.set_ylim(bottom=0.8)
    axes.set_ylabel("batch size")


def _draw_runs(axes: Any, page: HistoryPage) -> None:
    for mark in page.marks:
        if mark.kind in ("start", "stop"):
            colour = "#00b894" if mark.kind == "start" else "#636e72"
            axes.axvline(datetime.fromtimestamp(mark.at), color=colour, linestyle=":", linewidth=1)
