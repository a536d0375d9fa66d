"""What is told of a group: which image is kept, how far the others are, what they take."""

from supervisor.policy.duplicates import Picture, best_first, group_of, most_first


def test_the_best_has_most_pixels_then_most_bytes_then_the_first_name() -> None:
    small = Picture(path="/a", width=10, height=10, size_bytes=900)
    large = Picture(path="/z", width=20, height=20, size_bytes=100)
    larger_file = Picture(path="/y", width=20, height=20, size_bytes=200)
    twin = Picture(path="/x", width=20, height=20, size_bytes=200)
    unknown = Picture(path="/0")
    assert best_first([unknown, small, large, larger_file, twin]) == [twin, larger_file, large, small, unknown]


def test_the_distance_is_that_of_the_farthest_from_the_best() -> None:
    best = Picture(path="/a", width=9, height=9, hash=0b0111)
    near, far = Picture(path="/b", hash=0b0011), Picture(path="/c", hash=0b1000)
    assert group_of([far, near, best]).distance_max == 4
    assert group_of([far, best], lambda ordered: 0.25).distance_max == 0.25


def test_only_what_another_name_does_not_hold_is_freed() -> None:
    best = Picture(path="/a", width=9, height=9, size_bytes=100, file=(1, 1))
    linked = Picture(path="/b", width=9, height=9, size_bytes=100, file=(1, 1))
    copy = Picture(path="/c", width=9, height=9, size_bytes=70, file=(1, 2))
    copy_linked = Picture(path="/d", width=9, height=9, size_bytes=70, file=(1, 2))
    unseen = Picture(path="/e", width=9, height=9)
    assert group_of([unseen, copy_linked, linked, copy, best]).freed_bytes == 70
    little = group_of([best, linked])
    assert most_first([little, group_of([best, copy])])[-1] is little
