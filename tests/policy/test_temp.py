"""Fates of temp directories, and the disk's watermarks: every case, no disk."""

import msgspec
import pytest

from supervisor.policy.sizes import MB
from supervisor.policy.temp import Entry, Room, TempSettings, Watermarks, judge

OURS, THEIRS = "0badcafe", "deadbeef"
SETTINGS = TempSettings()


def fate(entry: Entry, *, private: bool = False, pressed: bool = False) -> bool:
    return judge(entry, OURS, private, pressed, SETTINGS).reap


@pytest.mark.parametrize(
    ("entry", "reaped"),
    [
        (Entry(token=OURS), True),
        (Entry(token=OURS, lock="held"), False),
        (Entry(token=OURS, lock="unknown"), False),
        (Entry(token=OURS, process="alive"), False),
        (Entry(token=OURS, process="elsewhere", age_seconds=1), False),
        (Entry(token=OURS, process="elsewhere", age_seconds=31), True),
        (Entry(token=OURS, is_trash=True), True),
        (Entry(token=OURS, is_trash=True, lock="held"), False),
        (Entry(token=OURS, is_directory=False), True),
        (Entry(token=THEIRS), False),
        (Entry(token=THEIRS, age_seconds=3601), True),
        (Entry(token=THEIRS, age_seconds=3601, lock="held"), False),
        (Entry(token=THEIRS, age_seconds=3601, process="alive"), False),
        (Entry(token=THEIRS, is_trash=True, age_seconds=10), False),
        (Entry(token=THEIRS, is_trash=True, age_seconds=3601), True),
        (Entry(token=THEIRS, is_directory=False, age_seconds=1e9), False),
        (Entry(token=None, age_seconds=1e9), False),
        (Entry(token=None, age_seconds=1e9, is_directory=False), False),
    ],
)
def test_what_is_used_or_not_ours_stays(entry: Entry, reaped: bool) -> None:
    assert fate(entry) is reaped


def test_a_full_disk_takes_what_others_abandoned_but_nothing_in_use() -> None:
    young = Entry(token=THEIRS, age_seconds=60)
    assert fate(young, pressed=True)
    for change in ({"lock": "held"}, {"process": "alive"}, {"process": "elsewhere", "age_seconds": 5}):
        assert not fate(msgspec.structs.replace(young, **change), pressed=True)


def test_strays_go_by_age_where_the_root_is_ours_alone() -> None:
    assert not fate(Entry(token=None, age_seconds=86_399), private=True)
    assert fate(Entry(token=None, age_seconds=86_400), private=True)


def test_admission_stops_at_the_high_mark_and_goes_on_at_the_low_one() -> None:
    marks = Watermarks(SETTINGS)
    told = [
        marks.update(Room(free_bytes=free * MB, size_bytes=100_000 * MB)) is not None
        for free in (1000, 300, 256, 255, 300, 511, 512, 300)
    ]
    assert told == [False, False, False, True, True, True, False, False]


def test_the_reason_names_both_figures() -> None:
    reason = Watermarks(SETTINGS).update(
        Room(free_bytes=100 * MB, size_bytes=100_000 * MB, free_inodes=3, inodes=1_000_000)
    )
    assert reason == "100 MB are free there, 256 MB wanted; 3 files can be made there, 2,000 wanted"


def test_inodes_count_where_the_file_system_counts_them() -> None:
    marks = Watermarks(SETTINGS)
    plenty = {"free_bytes": 10**12, "size_bytes": 10**12}
    assert marks.update(Room(**plenty, free_inodes=0, inodes=0)) is None
    assert marks.update(Room(**plenty, free_inodes=1_999, inodes=1_000_000)) is not None
    assert marks.update(Room(**plenty, free_inodes=3_999, inodes=1_000_000)) is not None
    assert marks.update(Room(**plenty, free_inodes=4_000, inodes=1_000_000)) is None


def test_a_small_disk_has_small_marks() -> None:
    marks = Watermarks(SETTINGS)
    assert marks.update(Room(free_bytes=4 * MB, size_bytes=64 * MB)) is None
    assert marks.update(Room(free_bytes=3 * MB, size_bytes=64 * MB)) is not None
    assert marks.update(Room(free_bytes=6 * MB, size_bytes=64 * MB)) is not None
    assert marks.update(Room(free_bytes=7 * MB, size_bytes=64 * MB)) is None


def test_the_closer_to_the_edge_the_sooner_the_next_look() -> None:
    marks = Watermarks(SETTINGS)
    far, near, beyond = (
        marks.next_look_seconds(Room(free_bytes=free, size_bytes=10**13)) for free in (10**12, 10**9, 0)
    )
    assert far == SETTINGS.look_max_seconds
    assert SETTINGS.look_min_seconds < near < far
    assert beyond == SETTINGS.look_min_seconds


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"pause_free_bytes": 512 * MB}, "resume_free_bytes"),
        ({"pause_free_inodes": 5_000}, "resume_free_inodes"),
        ({"small_disk_share": 0.0}, "small_disk_share"),
        ({"look_min_seconds": 20.0}, "look_min_seconds"),
        ({"sweep_seconds": 0.0}, "sweep_seconds"),
        ({"grace_seconds": -1.0}, "grace_seconds"),
    ],
)
def test_settings_tell_each_fault(change: dict[str, float], fault: str) -> None:
    assert SETTINGS.check() == []
    (told,) = msgspec.structs.replace(SETTINGS, **change).check()
    assert fault in told
