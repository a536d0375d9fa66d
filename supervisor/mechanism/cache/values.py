"""From what a step made to an entry's row: few bytes go into the row, many become blobs."""

from collections.abc import Sequence

import msgspec

from supervisor.mechanism.cache.blobs import Blobs
from supervisor.mechanism.cache.copying import read_whole
from supervisor.mechanism.cache.index import Row
from supervisor.mechanism.cache.records import ABOUT_FORMAT, About, Record, StoredOutput, check_of, pack
from supervisor.policy.cache.keys import CacheStep


class NewOutput(msgspec.Struct, frozen=True):
    """An output to be kept: its bytes, or an open file that holds nothing else."""

    suffix: str
    width: int
    height: int
    size_bytes: int
    content: bytes | None = None
    source: int | None = None


class NewValue(msgspec.Struct, frozen=True, kw_only=True):
    """What a step made of an image of `image_bytes`, and what it took."""

    outputs: Sequence[NewOutput] = ()
    values: bytes = b"{}"
    warnings: bytes = b"[]"
    cost_seconds: float
    image_bytes: int

    @property
    def size_bytes(self) -> int:
        """What it takes of the cache's limit."""
        return sum(output.size_bytes for output in self.outputs) + len(self.values) + len(self.warnings)


def publish_value(
    blobs: Blobs, condemned: set[str], content: bytes, step: CacheStep, new: NewValue, now: int, *, inline: bool
) -> Row:
    """Publishes the blobs there are to be and returns the row; a name published again is `condemned` no more.

    Raises OSError where the disk refuses, ValueError where an output is not what was said.
    """
    outputs, parts = [], []
    for at, output in enumerate(new.outputs):
        if inline:
            part = _bytes_of(output)
            check = check_of(part)
            parts.append(part)
        else:
            name = blobs.name(content, step.key, at)
            condemned.discard(name)
            check = blobs.publish(name, output.size_bytes, source=output.source, content=output.content)
        outputs.append(StoredOutput(output.suffix, output.width, output.height, output.size_bytes, check))
    record = Record(outputs, new.values, new.warnings)
    cost_us = int(new.cost_seconds * 1e6)
    if not inline and outputs:
        about = About(ABOUT_FORMAT, step.operation, step.version, step.key, cost_us, now, new.image_bytes, record)
        blobs.describe(blobs.name(content, step.key, 0), pack(about))
    # Values above the inline limit that come without any output have nowhere else to be.
    value = b"".join(parts) if inline or not outputs else None
    return Row(pack(record), value, new.size_bytes, cost_us, now)


def _bytes_of(output: NewOutput) -> bytes:
    if output.content is not None:
        if len(output.content) != output.size_bytes:
            raise ValueError(f"{output.suffix}: {len(output.content):,} bytes, not {output.size_bytes:,}")
        return output.content
    assert output.source is not None
    return b"".join(read_whole(output.source, output.size_bytes, 1 << 20))
