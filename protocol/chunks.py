"""How many names one message of a submission carries: enough to share a commit, few enough for a frame."""

from collections.abc import Iterator

from protocol.messages import MAX_NAMES_A_CHUNK

CHUNK_NAMES = 5_000
"""Names a chunk once a submission is in full flow. The first chunks are smaller, so that work starts early."""

FIRST_CHUNK_NAMES = 200

CHUNK_CHARACTERS = 600_000
"""Bounds the frame: the worst character takes 6 bytes in JSON, 3.6 MB in all, below MAX_FRAME_BYTES."""

assert CHUNK_NAMES <= MAX_NAMES_A_CHUNK


def bounded(names: list[str]) -> Iterator[list[str]]:
    """Splits a chunk until its frame is certain to fit."""
    if len(names) == 1 or sum(map(len, names)) <= CHUNK_CHARACTERS:
        yield names
        return
    middle = len(names) // 2
    yield from bounded(names[:middle])
    yield from bounded(names[middle:])
