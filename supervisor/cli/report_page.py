"""The report as one HTML page: no script, nothing from elsewhere, so that it can be mailed and kept.

The plot is SVG made here of the history's columns: a line for the total and one for each worker, the budget above them,
marks where something happened to a worker. Whatever comes from file names is escaped.
"""

from collections.abc import Iterable, Sequence
from html import escape
from typing import Any

from protocol.messages import HistoryPage
from supervisor.cli.output import shown, when
from supervisor.cli.report import GROUPS_LISTED, Report, facts
from supervisor.cli.tell import result_path
from supervisor.policy.sizes import human
from supervisor.values import show_duration

WIDTH, HEIGHT = 960, 300
LEFT, RIGHT, TOP, BOTTOM = 64, 12, 12, 28
MARKS = {
    "recycle": "recycled",
    "death": "died",
    "kill": "killed",
    "shrink": "batch size halved",
    "level": "level changed",
}
"""The kinds of marks that are drawn, with their words; a shrink is one of many and drawn thin."""
MARKS_MOST = 400
WORKERS_MOST = 8
_STYLE = """
:root { color-scheme: light dark; --page: #fff; --ink: #16191d; --quiet: #5b6570; --line: #dfe3e8; --accent: #1f6feb;
  --warn: #9a6700; --bad: #c62828; --s0: #c2570c; --s1: #1a7f37; --s2: #a02c8c; --s3: #7a5af5; --s4: #0b7f8a;
  --s5: #8a6d00; --s6: #b3261e; --s7: #4b5563; }
@media (prefers-color-scheme: dark) { :root { --page: #14181d; --ink: #e8ebef; --quiet: #9aa4af; --line: #2b323b;
  --accent: #6ba4ff; --warn: #e0b03c; --bad: #ff7b72; --s0: #f0955a; --s1: #57c774; --s2: #e58ad4; --s3: #b39dff;
  --s4: #4fc3cf; --s5: #d9b84a; --s6: #ff8a80; --s7: #aab4c0; } }
body { margin: 0 auto; max-width: 1000px; padding: 1rem; background: var(--page); color: var(--ink);
  font: 15px/1.5 system-ui, sans-serif; }
h1 { font-size: 1.3rem; } h2 { font-size: 1.05rem; margin: 1.6rem 0 .4rem; }
table { border-collapse: collapse; width: 100%; } .scroll { overflow-x: auto; }
th, td { text-align: left; padding: .25rem .75rem .25rem 0; border-bottom: 1px solid var(--line); vertical-align: top;
  overflow-wrap: anywhere; }
th { font-weight: 500; color: var(--quiet); white-space: nowrap; } .n { text-align: right; white-space: nowrap; }
svg { width: 100%; height: auto; } svg text { fill: var(--quiet); font: 11px system-ui, sans-serif; }
.quiet { color: var(--quiet); } .bad { color: var(--bad); white-space: nowrap; }
.grid { stroke: var(--line); } .budget { stroke: var(--bad); stroke-dasharray: 6 4; fill: none; }
.total { stroke: var(--accent); fill: none; stroke-width: 2; } .worker { fill: none; stroke-width: 1.2; }
.recycle { stroke: var(--warn); } .death, .kill { stroke: var(--bad); } .level, .shrink { stroke: var(--quiet); }
.shrink { stroke-dasharray: 1 3; }
"""

_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<title>{title}</title>
<style>{style}</style>
</head>
<body>
{body}
</body>
</html>
"""


def page(report: Report) -> str:
    """Returns the page."""
    title = f"Batch {report.progress.batch}"
    parts = [
        f"<h1>{escape(title)}</h1>",
        _table(None, ((escape(name), escape(value)) for name, value in facts(report))),
        "<h2>Memory</h2>",
        _plot(report.history),
        *_images("Slowest images", report.slowest),
        *_images("Fattest images", report.fattest),
        *_failures(report),
        *_duplicates(report),
    ]
    return _PAGE.format(title=escape(title), style=_STYLE, body="\n".join(parts))


def _table(head: Sequence[str] | None, rows: Iterable[Sequence[str]], right: int = 0) -> str:
    """Returns a table of cells that are HTML already; the first `right` columns are figures."""
    lines = []
    if head is not None:
        cells = (f"<th{' class=n' if place < right else ''}>{name}</th>" for place, name in enumerate(head))
        lines.append(f"<tr>{''.join(cells)}</tr>")
    for row in rows:
        kinds = ["th" if head is None else "td", *["td"] * (len(row) - 1)]
        figures = [" class=n" if place < right else "" for place in range(len(row))]
        cells = (f"<{kind}{n}>{cell}</{kind}>" for kind, n, cell in zip(kinds, figures, row, strict=True))
        lines.append(f"<tr>{''.join(cells)}</tr>")
    return '<div class="scroll"><table>\n' + "\n".join(lines) + "\n</table></div>"


def _images(title: str, results: list[dict[str, Any]]) -> list[str]:
    if not results:
        return []
    rows = (
        (show_duration(result["seconds"] or 0.0), human(result["peak_bytes"] or 0), escape(result_path(result)))
        for result in results
    )
    return [f"<h2>{title}</h2>", _table(("Time", "Memory", "Image"), rows, right=2)]


def _failures(report: Report) -> list[str]:
    if not report.failures:
        return ["<h2>Failures</h2>", '<p class="quiet">None.</p>']
    kinds = ", ".join(f"{number:,} {escape(kind)}" for kind, number in sorted(report.failures_by_kind.items()))
    rows = []
    for result in report.failures:
        error = result.get("error") or {}
        kind, message = error.get("kind") or result["state"], error.get("message") or ""
        rows.append((f'<span class="bad">{escape(kind)}</span>', escape(result_path(result)), escape(message)))
    left = report.failures_count - len(report.failures)
    more = [f'<p class="quiet">and {left:,} more</p>'] if left else []
    return ["<h2>Failures</h2>", f"<p>{kinds}</p>", _table(("Kind", "Image", "Reason"), rows), *more]


def _duplicates(report: Report) -> list[str]:
    if not report.hashed:
        return []
    if not report.groups:
        return ["<h2>Near-duplicates</h2>", f'<p class="quiet">None among {report.hashed:,} images.</p>']
    rows = [
        (human(group.freed_bytes), "<br>".join(escape(shown(each.path)) for each in group.pictures))
        for group in report.groups[:GROUPS_LISTED]
    ]
    left = len(report.groups) - len(rows)
    more = [f'<p class="quiet">and {left:,} more groups</p>'] if left else []
    told = f"<p>{len(report.groups):,} groups among {report.hashed:,} images; the first of each is the one to keep.</p>"
    return ["<h2>Near-duplicates</h2>", told, _table(("In the others", "Images"), rows, right=1), *more]


def _plot(history: HistoryPage | None) -> str:
    if history is None or len(history.at) < 2:
        return '<p class="quiet">No memory of that time is kept: the supervisor was not asked while it knew.</p>'
    begin, end = history.at[0], max(history.at[-1], history.at[0] + 1e-3)
    top = max(*history.used_bytes, *history.budget_bytes) * 1.08 or 1.0

    def x(at: float) -> float:
        return LEFT + (at - begin) / (end - begin) * (WIDTH - LEFT - RIGHT)

    def y(value: float) -> float:
        return HEIGHT - BOTTOM - value / top * (HEIGHT - TOP - BOTTOM)

    def line(values: Sequence[int | None], kind: str, colour: str = "") -> str:
        runs = _runs(history.at, values)
        path = "".join("M" + "L".join(f"{x(at):.1f} {y(value):.1f}" for at, value in run) for run in runs)
        return f'<path class="{kind}"{colour} d="{path}"/>' if path else ""

    parts = [f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="Memory over time">']
    for place in range(5):
        value = top / 1.08 * place / 4
        parts.append(f'<path class="grid" d="M{LEFT} {y(value):.1f}H{WIDTH - RIGHT}"/>')
        parts.append(f'<text x="{LEFT - 6}" y="{y(value) + 4:.1f}" text-anchor="end">{human(value)}</text>')
        at = begin + (end - begin) * place / 4
        anchor = "start" if place == 0 else "end" if place == 4 else "middle"
        parts.append(f'<text x="{x(at):.1f}" y="{HEIGHT - 8}" text-anchor="{anchor}">{when(at)[11:]}</text>')
    parts += _marks(history, x)
    for worker in history.workers[:WORKERS_MOST]:
        parts.append(line(worker.rss_bytes, "worker", f' style="stroke: var(--s{worker.slot % 8})"'))
    parts += [line(history.used_bytes, "total"), line(history.budget_bytes, "budget"), "</svg>"]
    peak = max(history.used_bytes)
    return "\n".join(parts) + (
        f'<p class="quiet">Thick: all processes, at most {human(peak)}; thin: each worker; dashed: the budget of '
        f"{human(history.budget_bytes[-1])}. Upright: {', '.join(MARKS.values())}.</p>"
    )


def _marks(history: HistoryPage, x: Any) -> list[str]:
    found = [mark for mark in history.marks if mark.kind in MARKS and history.at[0] <= mark.at <= history.at[-1]]
    lines = []
    for mark in found[:MARKS_MOST]:
        whose = "" if mark.slot is None else f"worker {mark.slot} "
        told = escape(f"{when(mark.at)[11:]} {whose}{MARKS[mark.kind]}")
        place = f"M{x(mark.at):.1f} {TOP}V{HEIGHT - BOTTOM}"
        lines.append(f'<path class="{mark.kind}" d="{place}"><title>{told}</title></path>')
    return lines


def _runs(at: Sequence[float], values: Sequence[int | None]) -> list[list[tuple[float, int]]]:
    """Returns the stretches in which there is a value."""
    runs: list[list[tuple[float, int]]] = [[]]
    for moment, value in zip(at, values, strict=True):
        if value is None:
            runs.append([])
        else:
            runs[-1].append((moment, value))
    return [run for run in runs if run]
