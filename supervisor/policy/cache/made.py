"""What a worker made of an image, as the cache takes it in."""

import msgspec


class FileStamp(msgspec.Struct, frozen=True, array_like=True):
    """What fstat(2) says of a file: as long as all five are the same, so is the content."""

    device: int
    inode: int
    size_bytes: int
    mtime_ns: int
    ctime_ns: int


class MadeOutput(msgspec.Struct, frozen=True):
    """A published output: the token of its final path, and what the result says of it."""

    path: str
    width: int
    height: int
    size_bytes: int


class MadeStep(msgspec.Struct, frozen=True):
    """What one step made: `values` is the JSON object it returned, `seconds` the time that a hit will save."""

    seconds: float
    outputs: list[MadeOutput] = []
    values: bytes = b"{}"


class Made(msgspec.Struct, frozen=True, kw_only=True):
    """A done item, its row committed. `steps` in the order of the recipe's. `content` was computed from the bytes
    that were worked on, between two looks at `stamp` that agreed; `hashed_at_ns` (since the epoch) is the first
    look's time. `warnings` is a JSON list, without those that are about the moment."""

    id: int
    stem: str
    content: str
    stamp: FileStamp
    hashed_at_ns: int
    steps: list[MadeStep]
    warnings: bytes = b"[]"
