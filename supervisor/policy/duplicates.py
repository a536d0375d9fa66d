"""Which image of a group is the best, and what the others take: what `duplicates` tells of groups of alike images.

The best is the one with the most pixels, then the most bytes, then the first by name: a copy made smaller or compressed
again loses to its origin. What could be freed is what the others take on the disk; a file with two names is counted
once, and not at all where the best is one of its names.
"""

from collections.abc import Callable, Iterable, Sequence

import msgspec

from supervisor.policy.alike import distance


class Picture(msgspec.Struct, frozen=True, kw_only=True):
    """An image that has a hash or a vector. `path` is its token; `width` and `height` in pixels, 0 where nobody knows;
    `size_bytes` and `file` (device and inode) as they are now, None where they cannot be told."""

    path: str
    width: int = 0
    height: int = 0
    hash: int | None = None
    size_bytes: int | None = None
    file: tuple[int, int] | None = None


class Group(msgspec.Struct, frozen=True, kw_only=True):
    """Alike images, the best first. `distance_max`: how far the farthest is from the best: in bits, or 1 - cosine."""

    pictures: list[Picture]
    distance_max: float
    freed_bytes: int


def best_first(pictures: Iterable[Picture]) -> list[Picture]:
    """Returns the images, the one to keep first."""
    return sorted(pictures, key=lambda each: (-each.width * each.height, -(each.size_bytes or 0), each.path))


def bits_apart(ordered: Sequence[Picture]) -> float:
    """Returns in how many bits the farthest differs from the first."""
    return max(distance(ordered[0].hash or 0, each.hash or 0) for each in ordered)


def group_of(pictures: Iterable[Picture], how_far: Callable[[Sequence[Picture]], float] = bits_apart) -> Group:
    """Returns the group of alike images; `how_far` tells how far the farthest is from the first."""
    ordered = best_first(pictures)
    return Group(pictures=ordered, distance_max=how_far(ordered), freed_bytes=_freed(ordered))


def most_first(groups: Iterable[Group]) -> list[Group]:
    """Returns the groups, those that would free most first."""
    return sorted(groups, key=lambda group: (-group.freed_bytes, group.pictures[0].path))


def _freed(ordered: Sequence[Picture]) -> int:
    known = {ordered[0].file} - {None}
    total = 0
    for each in ordered[1:]:
        if each.file is None or each.file not in known:
            total += each.size_bytes or 0
            known.add(each.file)
    return total
