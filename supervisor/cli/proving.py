"""A proving ground: a supervisor of its own in a temporary directory, images made by code, and what is seen meanwhile.

For `stress` and `leak-test`: nothing of the user's state is touched, whatever happens, and everything is gone at
the end. What runs is what always runs: a supervisor process with its template, real workers, the real watch.
"""

import contextlib
import json
import os
import struct
import tempfile
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import msgspec

from protocol.client import Client, is_over
from protocol.errors import WaitedTooLong
from protocol.messages import BatchProgress, MemoryReport, Recipe, Status
from protocol.paths import to_token
from supervisor.cli.own import OwnSupervisor
from supervisor.config import read

LOOK_SECONDS = 0.1
_LEVELS = ("normal", "elevated", "warning", "critical", "emergency", "protection")


class Seen(msgspec.Struct):
    """What was seen while a batch ran; the summary tells what it took."""

    progress: BatchProgress | None = None
    highest_level: str = "normal"
    highest_used_bytes: int = 0
    smallest_batch: int = 1 << 30
    status: Status | None = None

    def take(self, report: MemoryReport, progress: BatchProgress) -> None:
        """Takes in a look."""
        self.progress = progress
        self.highest_level = max(self.highest_level, report.level, key=_LEVELS.index)
        self.highest_used_bytes = max(self.highest_used_bytes, report.used_bytes, progress.summary.peak_bytes)
        self.smallest_batch = min([self.smallest_batch, *progress.batch_sizes])


class Ground:
    """A supervisor of its own and its client."""

    def __init__(self, directory: str, client: Client) -> None:
        self.directory = directory
        self.client = client
        self.photos = os.path.join(directory, "photos")
        self.out = os.path.join(directory, "out")

    def run(
        self,
        recipe: str,
        root: str,
        names: Sequence[str],
        patience_seconds: float,
        look: Callable[[MemoryReport, BatchProgress], None] = lambda report, progress: None,
    ) -> Seen:
        """Runs images to the end, looking every tenth of a second. Raises WaitedTooLong."""
        with self.client.open_batch(recipe=recipe, out=to_token(os.fsencode(self.out)), overwrite=True) as batch:
            batch.add(to_token(os.fsencode(root)), list(names))
        seen = Seen()
        deadline = time.monotonic() + patience_seconds
        while True:
            progress = self.client.progress(batch.name)
            report = self.client.memory()
            seen.take(report, progress)
            look(report, progress)
            if is_over(progress):
                seen.status = self.client.status()
                return seen
            if time.monotonic() > deadline:
                left = progress.counts.pending + progress.counts.leased
                raise WaitedTooLong(f"{left:,} of {progress.items:,} images remain after {patience_seconds:g} s")
            time.sleep(LOOK_SECONDS)


@contextlib.contextmanager
def proving_ground(recipes: Sequence[Recipe], **settings: str) -> Iterator[Ground]:
    """Gives a supervisor with these recipes and settings (by flag name, `_` for `-`), and ends it. Raises what keeps
    it from starting."""
    with tempfile.TemporaryDirectory(prefix="proving-", ignore_cleanup_errors=True) as directory:
        config = os.path.join(directory, "supervisor.toml")
        with open(config, "w", encoding="utf-8") as file:
            file.writelines(_recipe(recipe) for recipe in recipes)
        flags = {name.replace("_", "-"): value for name, value in settings.items()}
        flags |= {"state": os.path.join(directory, "s"), "config": config, "cache": "no"}
        own = OwnSupervisor(read(flags), flags)
        try:
            with Client(own.start()) as client:
                ground = Ground(directory, client)
                os.mkdir(ground.photos)
                yield ground
        finally:
            own.stop(now=True)


def _recipe(recipe: Recipe) -> str:
    steps = [_inline({"operation": step.operation, **step.parameters}) for step in recipe.steps]
    return f"[recipes.{recipe.name}]\nsteps = [{', '.join(steps)}]\n"


def _inline(table: dict[str, Any]) -> str:
    return "{ " + ", ".join(f"{key} = {json.dumps(value)}" for key, value in table.items()) + " }"


def make_images(directory: str, count: int, width: int = 640, height: int = 480, kinds: int = 8) -> list[str]:
    """Writes `count` sound PNG images (`kinds` different ones, again and again) and returns their names."""
    several = [_png(width, height, seed) for seed in range(min(kinds, count))]
    names = [f"p{number:05d}.png" for number in range(count)]
    for number, name in enumerate(names):
        with open(os.path.join(directory, name), "wb") as file:
            file.write(several[number % len(several)])
    return names


def _png(width: int, height: int, seed: int) -> bytes:
    """A gradient with a pattern: RGB, 8 bits, filter 0 (PNG specification, section 11)."""
    across = bytes((x * 255 // width + seed * 31) & 255 for x in range(width) for _ in range(3))
    rows = bytearray()
    for y in range(height):
        shift = (y * (seed + 3)) % width * 3
        rows += b"\0" + across[shift:] + across[:shift]
    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    body = zlib.compress(bytes(rows), 1)
    return b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", head) + _chunk(b"IDAT", body) + _chunk(b"IEND", b"")


def _chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
