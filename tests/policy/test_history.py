"""The memory of the past, as stories: seconds, hours, days, a restart with other workers."""

from protocol.messages import Mark
from supervisor.policy.history import DEFAULT_ROWS, History, read_image
from supervisor.policy.rings import Row
from supervisor.policy.sizes import MB

BUDGET = 500 * MB
START = 1_700_000_000.0


def row(at: float, used: int = 100, level: int = 0, rss: list[int | None] | None = None, size: int = 4) -> Row:
    """A look at two workers; sizes in MB."""
    sizes = [60, None] if rss is None else rss
    return Row(
        at=at,
        used_bytes=used * MB,
        used_low_bytes=used * MB,
        budget_bytes=BUDGET,
        level=level,
        rss_bytes=[None if each is None else each * MB for each in sizes],
        batch_sizes=[size, size],
    )


def fill(history: History, seconds: float, every: float = 0.5, start: float = START, *, resting: bool = False) -> float:
    """Looks for so long, used MB counting the seconds up; returns the date of the end."""
    steps = int(seconds / every)
    for number in range(steps + 1):
        history.note(row(start + number * every, used=int(number * every)), resting=resting)
    return start + steps * every


def test_a_second_of_looks_is_one_row_with_its_extremes() -> None:
    history = History(2)
    for at, used, level, rss in ((0.0, 100, 0, 60), (0.3, 300, 3, 200), (0.7, 90, 1, 50), (1.0, 120, 0, 70)):
        history.note(row(START + at, used, level, [rss, None], size=int(10 - at * 4)), resting=False)

    page = history.page(7, None, 0.0, 100, START + 1)

    assert (page.id, page.at, page.since, page.until) == (7, [START + 1.0], START + 1, START + 1)
    assert (page.used_bytes, page.used_low_bytes, page.budget_bytes) == ([300 * MB], [90 * MB], [BUDGET])
    assert [page.levels[level] for level in page.level] == ["critical"]
    assert [(each.slot, each.rss_bytes, each.batch_size) for each in page.workers] == [
        (0, [200 * MB], [6]),
        (1, [None], [None]),
    ]


def test_while_all_rest_a_row_stands_for_ten_seconds_until_work_begins() -> None:
    history = History(2)
    end = fill(history, 25.0, every=1.0, resting=True)
    history.note(row(end + 1.0, used=400), resting=False)

    page = history.page(0, None, 0.0, 100, end + 1)

    assert [at - START for at in page.at] == [10.0, 20.0, 26.0]
    assert page.used_bytes[-1] == 400 * MB
    assert (page.period_seconds, page.rest_seconds) == (1.0, 10.0)


def test_days_fit_and_size_is_known_from_the_start() -> None:
    history = History(4, rows=1_000)
    size = history.size_bytes
    end = fill(history, 40_000.0, every=2.0)

    assert history.size_bytes == size == len(history.image())
    assert history.count <= history.limit_count == 3_000
    fine = history.page(0, end - 600, 0.0, 5_000, end)
    assert len(fine.at) == 300
    hours = history.page(0, end - 9_000, 0.0, 5_000, end)
    assert hours.period_seconds == 10.0
    assert hours.at[0] - (end - 9_000) <= 20.0
    assert hours.at[-1] == end, "the newest rows of the finer tier are on the page too"
    all_of_it = history.page(0, None, 0.0, 5_000, end)
    assert all_of_it.period_seconds == 120.0
    assert all_of_it.at[0] - START <= 140.0
    assert all_of_it.at == sorted(set(all_of_it.at))


def test_a_page_keeps_to_its_limit_and_resolution_and_loses_no_peak() -> None:
    history = History(2)
    end = fill(history, 500.0)
    history.note(row(end + 0.5, used=9_999), resting=False)
    end = fill(history, 500.0, start=end + 1.0)

    limited = history.page(0, None, 0.0, 100, end)
    coarse = history.page(0, None, 60.0, 5_000, end)

    assert 90 <= len(limited.at) <= 100
    assert max(limited.used_bytes) == max(coarse.used_bytes) == 9_999 * MB
    gaps = [after - before for before, after in zip(coarse.at, coarse.at[1:], strict=False)]
    assert min(gaps[:-1]) >= 59.0
    assert coarse.period_seconds == 60.0


def test_a_follower_asks_for_what_came_after_its_last_page() -> None:
    history = History(2)
    end = fill(history, 10.0)
    first = history.page(0, None, 0.0, 1_000, end)
    fill(history, 5.0, start=end + 0.5)

    second = history.page(0, first.until, 0.0, 1_000, end + 5.5)

    assert second.since == first.until < second.at[0]
    assert len(second.at) == 5
    assert history.page(0, second.until, 0.0, 1_000, end + 6).until == second.until


def test_marks_are_kept_with_their_figures_and_are_bounded() -> None:
    history = History(2)
    history.mark(START, "level", None, 3)
    history.mark(START + 1, "recycle", 1)
    history.mark(START + 2, "shrink", 0, 8)

    assert history.page(0, START, 0.0, 10, START).marks == [
        Mark(START + 1, "recycle", 1),
        Mark(START + 2, "shrink", 0, 8),
    ]
    for number in range(5_000):
        history.mark(START + 3 + number, "death", 0)
    marks = history.page(0, None, 0.0, 10, START).marks
    assert len(marks) == 1_000
    assert marks[-1].at == START + 5_002


def test_a_restart_goes_on_with_what_the_file_holds() -> None:
    first = History(2)
    file = File(first)
    end = fill(first, 3_000.0)
    first.mark(end, "death", 1)
    file.write(first)
    assert bytes(file.data) == first.image(), "the pieces make the very same file"

    second = History(2)
    second.restore(bytes(file.data))

    assert second.page(0, None, 0.0, 5_000, end) == first.page(0, None, 0.0, 5_000, end)
    file.write(second)
    fill(second, 100.0, start=end + 60)
    file.write(second)
    found = read_image(bytes(file.data))
    assert found is not None
    assert found.page(0, None, 0.0, 5_000, end + 200) == second.page(0, None, 0.0, 5_000, end + 200)


def test_a_restart_with_more_workers_and_other_sizes_keeps_the_past() -> None:
    first = History(1, rows=1_000)
    end = fill(first, 100.0)
    more = History(3, rows=2_000)
    more.restore(first.image())

    page = more.page(0, None, 0.0, 5_000, end)

    assert page.used_bytes == first.page(0, None, 0.0, 5_000, end).used_bytes
    assert [set(each.rss_bytes) for each in page.workers] == [{60 * MB}, {None}, {None}]
    fewer = History(1, rows=1_000)
    fewer.restore(more.image())
    assert fewer.page(0, None, 0.0, 5_000, end) == first.page(0, None, 0.0, 5_000, end)


def test_a_file_that_is_none_of_ours_or_torn_harms_nothing() -> None:
    history = History(2)
    end = fill(history, 100.0)
    image = bytearray(history.image())
    for strange in (b"", b"x" * 40, bytes(image[:5_000]), b"\0" * len(image)):
        fresh = History(2)
        fresh.restore(strange)
        assert fresh.count == 0

    place = history.tiers[0].offset + 50 * history.layout.size
    image[place : place + history.layout.size] = b"\xff" * history.layout.size
    torn = read_image(bytes(image))

    assert torn is not None
    assert len(torn.page(0, None, 0.0, 5_000, end).at) == len(history.page(0, None, 0.0, 5_000, end).at) - 1


def test_many_workers_cost_little_and_a_page_of_them_fits_a_frame() -> None:
    history = History(500)
    assert history.size_bytes < 3_000_000
    wide = Row(
        at=START,
        used_bytes=1 << 36,
        used_low_bytes=1 << 36,
        budget_bytes=1 << 36,
        level=5,
        rss_bytes=[1 << 30] * 500,
        batch_sizes=[512] * 500,
    )
    for number in range(3_000):
        wide.at += 1.0
        history.note(Row(**{name: getattr(wide, name) for name in wide.__struct_fields__}), resting=False)
        assert number < 3_000
    page = history.page(0, None, 0.0, 5_000, wide.at)
    assert len(page.workers) == 64
    numbers = sum(len(each.rss_bytes) + len(each.batch_size) for each in page.workers)
    assert numbers <= 300_000


def test_what_a_supervisor_keeps_in_all() -> None:
    assert DEFAULT_ROWS >= 1_000
    assert History(4).size_bytes < 500_000


class File:
    """The ring file as bytes."""

    def __init__(self, history: History) -> None:
        self.data = bytearray()
        history.restore(b"")
        self.write(history)

    def write(self, history: History) -> None:
        """Takes what is not saved yet."""
        for place, piece in history.unsaved():
            if place == 0:
                self.data = bytearray(piece)
            self.data[place : place + len(piece)] = piece
