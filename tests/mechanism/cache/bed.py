"""A real cache in a directory of its own, with images and outputs as a worker would leave them."""

import hashlib
import os
import queue
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from random import Random
from typing import Any

import msgspec

from protocol.paths import to_token
from supervisor.mechanism.cache.delivering import Deliverer
from supervisor.mechanism.cache.finder import Answers, Finder, stamp_of
from supervisor.mechanism.cache.keeper import Keeper
from supervisor.mechanism.cache.store import Store
from supervisor.mechanism.cache.thread import CacheThread
from supervisor.policy.cache.asked import LookUpItems, Made, MadeOutput, MadeStep, StoreItems, Wanted
from supervisor.policy.cache.keys import CacheStep, step_of
from supervisor.policy.cache.settings import CacheSettings

TOKEN = "0123abcd"
THUMBS = step_of("thumbnail", 1, {"sizes": [256, 1024], "quality": 80})
PROBE = step_of("probe", 1, {})
WAIT_SECONDS = 20.0
SMALL, LARGE = 2_000, 40_000


def settings(**changes: Any) -> CacheSettings:
    """Settings for a small cache."""
    return CacheSettings(**{"limit_bytes": 50_000_000, "limit_entries": 1000, **changes})


class Clock:
    """Seconds since the epoch, moved by the test."""

    def __init__(self) -> None:
        self.now = 1_700_000_000.0

    def __call__(self) -> float:
        return self.now


def old(path: Path, seconds: float = 10.0) -> None:
    """Gives a file an earlier modification time; its change time cannot be set and is told to have been long ago."""
    then = time.time_ns() - int(seconds * 1e9)
    os.utime(path, ns=(then, then))


class Bed:
    """A store with a finder and a keeper around it, and directories `in` and `out`."""

    def __init__(self, directory: Path, **changes: Any) -> None:
        self.directory = directory
        self.images, self.out, self.cache = directory / "in", directory / "out", directory / "cache"
        self.images.mkdir(exist_ok=True)
        self.out.mkdir(exist_ok=True)
        self.clock = Clock()
        self.said: list[str] = []
        self.settings = settings(**changes)
        self.open()

    def open(self) -> None:
        """Opens the cache, again if need be."""
        self.store = Store(str(self.cache), self.settings, self.said.append, self.clock, Random(7))
        self.deliverer = Deliverer(str(self.cache), TOKEN, self.store.cloner)
        self.finder, self.keeper = Finder(self.store, self.deliverer), Keeper(self.store)

    def close(self) -> None:
        """Closes the cache in good order."""
        self.store.close()
        self.deliverer.close()

    def image(self, name: str, content: bytes | None = None) -> Path:
        """Writes an image."""
        path = self.images / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if content is not None else name.encode() * 50)
        return path

    def made(
        self,
        name: str,
        size_bytes: int = LARGE,
        number: int = 0,
        steps: Sequence[CacheStep] = (THUMBS,),
        **changes: Any,
    ) -> Made:
        """Works on an image as a worker would: writes its outputs (two a step that makes thumbnails)."""
        path = self.images / name
        content = path.read_bytes()
        stamp = stamp_of(os.fsencode(path))
        assert stamp is not None
        results = []
        for step in steps:
            outputs = []
            if step.operation == "thumbnail":
                for label, size in (("256", size_bytes // 4), ("1024", size_bytes)):
                    final = self.out / f"{name}.{label}.webp"
                    final.parent.mkdir(parents=True, exist_ok=True)
                    final.write_bytes(picture(content, label, size))
                    outputs.append(MadeOutput(to_token(os.fsencode(final)), 10, 20, size))
            values = b"{}" if outputs else msgspec.json.encode({"width": len(content)})
            results.append(MadeStep(0.25, outputs, values))
        fields: dict[str, Any] = {
            "id": number, "stem": name, "content": hashlib.sha256(content).hexdigest(), "stamp": stamp,
            "hashed_at_ns": time.time_ns() + 10**9, "steps": results,
        }  # fmt: skip
        return Made(**fields | changes)

    def keep(self, *made: Made, steps: Sequence[CacheStep] = (THUMBS,)) -> list[bool]:
        """Keeps what was made and commits."""
        command = StoreItems(batch="b", out=self.out_token, steps=tuple(steps), items=list(made))
        kept = [self.keeper.keep(command, one) for one in made]
        self.store.commit()
        return kept

    def filled(self, *names: str, size_bytes: int = LARGE, steps: Sequence[CacheStep] = (THUMBS,)) -> None:
        """Makes images, their outputs, and keeps them."""
        for name in names:
            self.image(name)
        assert all(self.keep(*(self.made(name, size_bytes, steps=steps) for name in names), steps=steps))

    def wanted(
        self, *names: str, steps: Sequence[CacheStep] = (THUMBS,), owned: bool = False, **changes: Any
    ) -> LookUpItems:
        """The command that looks items up; item i is the i-th name."""
        items = [Wanted(number, os.fsencode(self.images / name), name, owned) for number, name in enumerate(names)]
        fields: dict[str, Any] = {"batch": "b", "out": self.out_token, "steps": tuple(steps), "items": items}
        return LookUpItems(**fields | changes)

    def find(self, *names: str, steps: Sequence[CacheStep] = (THUMBS,), owned: bool = False, **changes: Any) -> Answers:
        """Looks items up."""
        answers = self.finder.look_up(self.wanted(*names, steps=steps, owned=owned, **changes))
        self.store.commit()
        return answers

    @property
    def out_token(self) -> str:
        """The output directory."""
        return to_token(os.fsencode(self.out))

    def blobs(self) -> list[Path]:
        """Every file below the blob directory."""
        return sorted(path for path in (self.cache / "blobs").rglob("*") if path.is_file())

    def outputs(self) -> dict[str, bytes]:
        """Every output by its name."""
        return {path.name: path.read_bytes() for path in sorted(self.out.rglob("*")) if path.is_file()}

    def right(self, name: str, size_bytes: int = LARGE) -> dict[str, bytes]:
        """What the outputs of an image must be."""
        content = (self.images / name).read_bytes()
        return {
            f"{name}.256.webp": picture(content, "256", size_bytes // 4),
            f"{name}.1024.webp": picture(content, "1024", size_bytes),
        }


def picture(content: bytes, label: str, size_bytes: int) -> bytes:
    """The bytes of an output, which follow from the image alone."""
    return Random(hashlib.sha256(content + label.encode()).digest()).randbytes(size_bytes)


class Threaded:
    """A cache thread and its events."""

    def __init__(self, bed: Bed) -> None:
        self.events: queue.Queue[Any] = queue.Queue()
        self.said: list[str] = []
        self.thread = CacheThread(str(bed.cache), bed.settings, TOKEN, self.events.put, self.said.append)

    def event(self) -> Any:
        """Returns the next event."""
        return self.events.get(timeout=WAIT_SECONDS)


def wait_until(fact: Callable[[], bool], what: str) -> None:
    """Waits for a fact, with a deadline."""
    deadline = time.monotonic() + WAIT_SECONDS
    ticker = queue.Queue[None]()
    while not fact():
        assert time.monotonic() < deadline, f"{what}: not within {WAIT_SECONDS} s"
        try:
            ticker.get(timeout=0.01)
        except queue.Empty:
            pass
