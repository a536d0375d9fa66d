"""How memory went over time, and what was found in it: the answers to `history` and `leaks`.

A page is made of columns, not of rows: one list a figure, all of the same length as `at`, so that an hour of four
workers is some 100 KB and a picture is drawn from it as it is. Sizes are bytes, dates seconds since the epoch. A
figure that there was none of (no worker in the slot) is None.
"""

from typing import Annotated, Literal

import msgspec

from protocol.messages.answers import Answer
from protocol.messages.base import Number, Part
from protocol.messages.memory import Collection, Leak, Trend
from protocol.messages.requests import Request

HISTORY_ROWS_AT_MOST = 5_000

MarkKind = Literal["level", "recycle", "death", "kill", "shrink", "cleanup", "leak", "pause", "stop", "start"]
"""What is marked on the line of time; further kinds are added at the end."""


class History(Request, frozen=True, kw_only=True):
    """Asks for the memory of the past. Answer: `HistoryPage`.

    `since` is a date; None: as far back as is kept. Rows lie at least `resolution` seconds apart; neighbours are
    merged to get there, and to keep within `limit` rows. To follow, ask again with the last page's `until`.
    """

    since: float | None = None
    resolution: Annotated[float, msgspec.Meta(ge=0.0)] = 0.0
    limit: Number = 1_000


class WorkerHistory(Part, frozen=True, kw_only=True):
    """One worker's columns: the highest RSS (swap included) within each row's time, and its batch size at the end."""

    slot: int
    rss_bytes: list[int | None]
    batch_size: list[int | None]


class Mark(Part, frozen=True, array_like=True):
    """Something that happened: when, what, to which worker (None: to the whole), and a figure that goes with it: of a
    level its place in `levels`, of a shrink the new batch size, else 0."""

    at: float
    kind: MarkKind
    slot: int | None
    figure: int = 0


class HistoryPage(Answer, frozen=True, kw_only=True):
    """Columns, oldest first. `at[i]` is the end of row i. A row stands for `period_seconds`; while all workers rest it
    stands for up to `rest_seconds`. Where rows lie further apart than both, no supervisor ran."""

    since: float
    until: float
    """The date of the last row, `since` where there is none."""
    period_seconds: float
    rest_seconds: float
    at: list[float]
    used_bytes: list[int]
    """The highest of the total within the row's time."""
    used_low_bytes: list[int]
    """The lowest."""
    budget_bytes: list[int]
    level: list[int]
    """The highest level, as its place in `levels`."""
    levels: list[str]
    workers: list[WorkerHistory]
    marks: list[Mark]


class LeaksRequest(Request, frozen=True, kw_only=True):
    """Asks what grows. Answer: `LeaksReport`."""


class LeaksReport(Answer, frozen=True, kw_only=True):
    """Leaks that were found, where the figures are heading, and what giving memory back has given."""

    leaks: list[Leak]
    trends: list[Trend]
    collection: list[Collection]
    items_watched: int
    """Item boundaries that were looked at since the start."""
