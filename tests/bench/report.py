"""How rows are shown: a table for people, JSON for programs."""

from collections.abc import Iterable

import msgspec

from tests.bench.rows import Row

_HEAD = ("what", "ours", "p95", "unit", "peer", "ratio", "must reach", "")


def json_line(row: Row, machine: str) -> str:
    """Returns a row as one JSON object on one line, the machine in it."""
    return msgspec.json.encode({**msgspec.structs.asdict(row), "machine": machine}).decode()


def markdown(rows: Iterable[Row]) -> list[str]:
    """Returns a Markdown table: a line a row that has details, a column for each that was compared; each cell says
    images a second, peak in MB, KB written."""
    rows = [row for row in rows if row.details]
    names = list(dict.fromkeys(name for row in rows for name in row.details))
    if not names:
        return []
    lines = [
        "images/s, peak MB, KB written",
        "",
        "| class | " + " | ".join(names) + " | ratio |",
        "|---" * (len(names) + 2) + "|",
    ]
    for row in rows:
        cells = []
        for name in names:
            one = row.details.get(name)
            cells.append(
                f"{_figure(one.images_per_second)}, {one.peak_bytes / 1e6:,.0f} MB, {one.out_bytes / 1e3:,.0f} KB"
                if one is not None
                else "–"
            )
        ratio = f"{row.ratio:.2f} × {row.peer_name}" if row.ratio is not None else "–"
        lines.append(f"| {row.name} | " + " | ".join(cells) + f" | {ratio} |")
    return lines


def table(rows: Iterable[Row]) -> list[str]:
    """Returns the lines of the table, each row's note below it."""
    rows = list(rows)
    cells = [_HEAD, *(_cells(row) for row in rows)]
    widths = [max(len(line[column]) for line in cells) for column in range(len(_HEAD))]
    lines = [_line(_HEAD, widths), "  ".join("-" * width for width in widths)]
    for row, line in zip(rows, cells[1:], strict=True):
        lines.append(_line(line, widths))
        if row.beside:
            lines.append(f"    {row.beside}")
    return lines


def _cells(row: Row) -> tuple[str, ...]:
    peer = f"{_figure(row.peer)} {row.peer_name}" if row.peer is not None else (row.peer_name or "")
    verdict = {True: "met", False: "MISSED", None: ""}[row.met]
    ratio = f"{row.ratio:.3f}" if row.ratio is not None else ""
    return row.name, _figure(row.ours), _figure(row.p95), row.unit, peer, ratio, row.target or "", verdict


def _figure(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def _line(cells: Iterable[str], widths: list[int]) -> str:
    return "  ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)).rstrip()
