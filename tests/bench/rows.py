"""A row of the report, and the few statistics it is made of."""

import math
import statistics
from collections.abc import Sequence
from typing import Literal

import msgspec


class Detail(msgspec.Struct, frozen=True):
    """What one of those compared took; `peak_bytes` above what its process held before (of a program: the whole)."""

    images_per_second: float
    peak_bytes: int
    out_bytes: int
    processor_seconds: float


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """One figure. `ratio` is ours ÷ peer; `target` what must be reached, `met` None where there is no target."""

    name: str
    ours: float | None
    unit: str
    peer: float | None = None
    peer_name: str | None = None
    ratio: float | None = None
    target: str | None = None
    met: bool | None = None
    p95: float | None = None
    runs: int = 1
    beside: str = ""
    """The bare probe of the same minutes, and what else a reader of the figure should know."""
    details: dict[str, Detail] = {}
    """By the name of each compared, ours first: for the table that `--markdown` prints."""


def row(
    name: str,
    values: Sequence[float],
    unit: str,
    *,
    at_least: float | None = None,
    at_most: float | None = None,
    p95_at_most: float | None = None,
    beside: str = "",
) -> Row:
    """Returns the row of our own values, judged by their median (and 95th percentile)."""
    middle = statistics.median(values)
    edge = p95(values) if at_least is None else p95(values, better="more")
    wanted = [
        f"≥ {at_least:,g}" if at_least is not None else "",
        f"≤ {at_most:,g}" if at_most is not None else "",
        f"p95 ≤ {p95_at_most:,g}" if p95_at_most is not None else "",
    ]
    met = (
        (at_least is None or middle >= at_least)
        and (at_most is None or middle <= at_most)
        and (p95_at_most is None or edge <= p95_at_most)
    )
    target = ", ".join(filter(None, wanted)) or None
    return Row(
        name=name,
        ours=middle,
        unit=unit,
        target=target,
        met=met if target else None,
        p95=edge if len(values) > 1 else None,
        runs=len(values),
        beside=beside,
    )


def against(
    name: str,
    ours: Sequence[float],
    peer_name: str,
    peer: Sequence[float],
    unit: str,
    *,
    better: Literal["more", "less"] = "more",
    ratio_at_least: float | None = None,
    beside: str = "",
) -> Row:
    """Returns the row of a comparison; runs of the same number were made one after the other and are compared as
    pairs. The ratio says how much better we are, above 1, whether more or less of the unit is better."""
    pairs = zip(ours, peer, strict=True)
    ratio = statistics.median(mine / theirs if better == "more" else theirs / mine for mine, theirs in pairs)
    return Row(
        name=name,
        ours=statistics.median(ours),
        unit=unit,
        peer=statistics.median(peer),
        peer_name=peer_name,
        ratio=ratio,
        target=f"ratio ≥ {ratio_at_least:g}" if ratio_at_least is not None else None,
        met=ratio >= ratio_at_least if ratio_at_least is not None else None,
        p95=p95(ours, better=better),
        runs=len(ours),
        beside=beside,
    )


def missing(name: str, peer_name: str, unit: str) -> Row:
    """Returns the row of a peer that is not installed."""
    return Row(name=name, ours=None, unit=unit, peer_name=peer_name, runs=0, beside=f"{peer_name} is not installed")


def p95(values: Sequence[float], better: Literal["more", "less"] = "less") -> float:
    """Returns what 95 % of the values are as good as, or better: of a few values, the worst."""
    ordered = sorted(values, reverse=better == "more")
    return ordered[min(len(ordered) - 1, math.ceil(0.95 * (len(ordered) - 1)))]
