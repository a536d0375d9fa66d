"""The cache: single look-ups beside diskcache, second runs, hit rates, and what a million entries take.

The look-ups are measured on the store itself, on the same disk as the peer and turn about with it; what the
thread and the loop add is part of the second runs. diskcache is asked as it comes, but for its culling, which is
switched off; both keep the same bytes. Every `put` here is committed by itself, as diskcache's are; the
supervisor commits in groups.
"""

import hashlib
import importlib
import math
import os
import queue
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from random import Random
from typing import Any

import msgspec

from protocol.paths import to_token
from supervisor.mechanism.cache import CacheThread, Store
from supervisor.mechanism.cache.finder import stamp_of
from supervisor.mechanism.cache.values import NewOutput, NewValue
from supervisor.policy.cache.asked import LookUpItems, Made, MadeOutput, MadeStep, StoreItems, Wanted
from supervisor.policy.cache.keys import step_of
from supervisor.policy.cache.settings import CacheSettings, make_policy
from tests.bench.house import ROOT
from tests.bench.rows import Row, against, missing, row
from tests.bench.terms import Terms
from tests.policy.cache.simulator import Exact, Simulator, hit_rate, loop, zipf

STEP = step_of("thumbnail", 1, {"sizes": [256]})
INLINE_BYTES, BLOB_BYTES = 8_000, 60_000
MICRO, MB = 1e6, 1e6
GROUP = 500
WAIT_SECONDS = 300.0


def single(terms: Terms) -> Iterator[Row]:
    """get inline, get blob path, put: rates beside diskcache's, and our p99."""
    count = terms.count(5_000, 2_000)
    runs = [_single_run(count, at) for at in range(terms.runs)]
    for name, at_most in (("get inline", 100), ("get blob path", 200), ("put inline", 1000), ("put blob", 1000)):
        p99s = [run[name][1] for run in runs]
        beside = f"of {count:,} in random order; put: committed one by one"
        theirs = [run[f"diskcache {name}"][1] for run in runs if f"diskcache {name}" in run]
        if theirs:
            beside += f"; diskcache's in the same run: {statistics.median(theirs):,.3g}"
        yield row(f"cache {name}, p99", p99s, "µs", at_most=at_most, beside=beside)
    if not runs[0].get("diskcache get inline"):
        yield missing("cache get and put", "diskcache", "a second")
        return
    for name, peer, target, beside in (
        ("get inline", "get inline", 1.0, "a memory level of 50 MB here, 64 MB of mapped file there: as they come"),
        ("get inline, index", "get inline", None, "no memory level; every value is checked by its SHA-256"),
        ("get blob path", "get blob path", 1.0, "the peer hands out an open file: the nearest it has to a path"),
        ("put inline", "put inline", None, "with checksum, totals and the policy's books"),
        ("put blob", "put blob", None, "with checksum and a description from which a lost index is rebuilt"),
    ):
        ours, theirs = [run[name][0] for run in runs], [run[f"diskcache {peer}"][0] for run in runs]
        yield against(f"cache {name}", ours, "diskcache", theirs, "a second", ratio_at_least=target, beside=beside)


def _single_run(count: int, seed: int) -> dict[str, tuple[float, float]]:
    directory = tempfile.mkdtemp(prefix="bench-cache-")
    try:
        random = Random(seed)
        figures = _ours(os.path.join(directory, "ours"), count, random)
        figures |= _diskcache(os.path.join(directory, "theirs"), count, random)
        return figures
    finally:
        shutil.rmtree(directory)


def _ours(directory: str, count: int, random: Random) -> dict[str, tuple[float, float]]:
    store = Store(directory, CacheSettings(limit_bytes=1 << 40, limit_entries=1_000_000), print)
    figures = {}
    for kind, size in (("inline", INLINE_BYTES), ("blob", BLOB_BYTES)):
        keys = [random.randbytes(32) for _ in range(count)]
        output = NewOutput("256.webp", 256, 192, size, random.randbytes(size))
        figures[f"put {kind}"] = _timed(partial(_put, store, output), keys)
        random.shuffle(keys)
        if kind == "inline":
            figures["get inline"] = _timed(partial(_get, store), keys)
            store.memory.limit_bytes = 0
            store.trim_memory("emergency")
            figures["get inline, index"] = _timed(partial(_get, store), keys)
        else:
            figures["get blob path"] = _timed(partial(_get, store), keys)
    store.close()
    return figures


def _put(store: Store, output: NewOutput, key: bytes) -> None:
    assert store.put(key, STEP, NewValue(outputs=[output], cost_seconds=0.1, image_bytes=3_000_000))
    store.commit()


def _get(store: Store, key: bytes) -> None:
    assert store.get(key, STEP) is not None


def _diskcache(directory: str, count: int, random: Random) -> dict[str, tuple[float, float]]:
    try:
        diskcache: Any = importlib.import_module("diskcache")
    except ImportError:
        return {}
    figures = {}
    with diskcache.Cache(directory, eviction_policy="none", cull_limit=0, disk_min_file_size=16 * 1024) as cache:
        for kind, size in (("inline", INLINE_BYTES), ("blob", BLOB_BYTES)):
            keys = [random.randbytes(32) for _ in range(count)]
            content = random.randbytes(size)
            figures[f"diskcache put {kind}"] = _timed(partial(_peer_put, cache, content), keys)
            random.shuffle(keys)
            if kind == "inline":
                figures["diskcache get inline"] = _timed(partial(_peer_get, cache), keys)
            else:
                figures["diskcache get blob path"] = _timed(partial(_peer_open, cache), keys)
    return figures


def _peer_put(cache: Any, content: bytes, key: bytes) -> None:
    cache.set(key, content)


def _peer_get(cache: Any, key: bytes) -> None:
    assert cache.get(key) is not None


def _peer_open(cache: Any, key: bytes) -> None:
    cache.get(key, read=True).close()


def _timed(call: Callable[[bytes], object], keys: Sequence[bytes]) -> tuple[float, float]:
    """Returns (calls a second, 99th percentile in microseconds)."""
    times = []
    began = time.perf_counter()
    for key in keys:
        start = time.perf_counter()
        call(key)
        times.append(time.perf_counter() - start)
    passed = time.perf_counter() - began
    times.sort()
    return len(keys) / passed, times[math.ceil(0.99 * (len(times) - 1))] * MICRO


def second_run(terms: Terms) -> Iterator[Row]:
    """A gallery of small files looked up again through the cache's thread: outputs in place, outputs gone."""
    count = terms.count(100_000, 10_000)
    directory = tempfile.mkdtemp(prefix="bench-cache-")
    try:
        in_place, gone = _second_runs(directory, count, terms.runs)
    finally:
        shutil.rmtree(directory)
    beside = f"{count:,} images; an output of {INLINE_BYTES:,} bytes each; the cache's thread alone, without the loop"
    yield row("second run, outputs in place", in_place, "images/s", at_least=20_000, beside=beside)
    yield row("second run, outputs delivered", gone, "files/s", at_least=2_000)


def _second_runs(directory: str, count: int, runs: int) -> tuple[list[float], list[float]]:
    images, out = os.path.join(directory, "in"), os.path.join(directory, "out")
    names = [f"{number % 200:03}/{number}.jpg" for number in range(count)]
    for place in (images, out):
        for number in range(min(200, count)):
            os.makedirs(os.path.join(place, f"{number:03}"))
    events: queue.Queue[Any] = queue.Queue()
    settings = CacheSettings(limit_bytes=1 << 40, limit_entries=1_000_000)
    thread = CacheThread(os.path.join(directory, "cache"), settings, "0" * 8, events.put, print)
    thread.start()
    for start in range(0, count, GROUP):
        made = [_make(images, out, name, at) for at, name in enumerate(names[start : start + GROUP])]
        thread.store(StoreItems(batch="b", out=to_token(out), steps=(STEP,), items=made))
        kept = 0
        while kept < len(made):
            kept += len(events.get(timeout=WAIT_SECONDS).kept)
    in_place, gone = [], []
    for _ in range(runs):
        in_place.append(count / _look_up(thread, events, images, out, names))
        for name in names:
            os.unlink(os.path.join(out, f"{name}.256.webp"))
        gone.append(count / _look_up(thread, events, images, out, names))
    thread.close()
    return in_place, gone


def _make(images: str, out: str, name: str, number: int) -> Made:
    path = os.path.join(images, name)
    content = hashlib.sha256(path.encode()).digest() * 100
    with open(path, "wb") as file:
        file.write(content)
    final = os.path.join(out, f"{name}.256.webp")
    with open(final, "wb") as file:
        file.write(Random(number).randbytes(INLINE_BYTES))
    stamp = stamp_of(os.fsencode(path))
    assert stamp is not None
    output = MadeOutput(to_token(final), 256, 192, INLINE_BYTES)
    return Made(
        id=number,
        stem=name,
        content=hashlib.sha256(content).hexdigest(),
        stamp=stamp,
        hashed_at_ns=time.time_ns() + 10**9,
        steps=[MadeStep(0.1, [output])],
    )


def _look_up(thread: CacheThread, events: "queue.Queue[Any]", images: str, out: str, names: list[str]) -> float:
    began = time.perf_counter()
    for start in range(0, len(names), GROUP):
        items = [
            Wanted(at, os.fsencode(os.path.join(images, name)), name)
            for at, name in enumerate(names[start : start + GROUP])
        ]
        thread.look_up(LookUpItems(batch="b", out=to_token(out), steps=(STEP,), items=items))
        found = 0
        while found < len(items):
            event = events.get(timeout=WAIT_SECONDS)
            assert not event.misses, "everything is cached"
            found += len(event.hits)
    return time.perf_counter() - began


def hit_rates(terms: Terms) -> Iterator[Row]:
    """What the default policy finds again, beside textbook LRU; the traces are the same at every run."""
    objects = terms.count(100_000, 10_000)
    fits = objects // 5
    settings = CacheSettings(limit_bytes=1 << 40, limit_entries=fits)
    for exponent in (0.8, 1.0, 1.2):
        trace = zipf(objects, exponent, objects * 10)
        target = 0.80 if exponent == 1.0 and objects >= 10_000 else None
        yield _hit_row(f"hit rate, Zipf {exponent}, cache 20 % of {objects:,}", settings, trace, target)
    gallery = max(10, objects // 20)
    settings = msgspec.structs.replace(settings, limit_entries=gallery * 4 // 5)
    yield _hit_row(f"hit rate, loop, cache 80 % of {gallery:,}", settings, loop(gallery, 20), 0.70)


def _hit_row(name: str, settings: CacheSettings, trace: Sequence[int], target: float | None) -> Row:
    policy = make_policy("cost", settings)
    ours = hit_rate(Simulator(policy, settings.limit_bytes, settings.limit_entries).request, trace)
    lru = hit_rate(Exact(settings.limit_entries).request, trace)
    return Row(
        name=name,
        ours=ours,
        unit="of requests",
        peer=lru,
        peer_name="exact LRU",
        ratio=ours / lru if lru else None,
        target=f"≥ {target:g}" if target is not None else None,
        met=ours >= target if target is not None else None,
        beside=f"policy {policy.name}, the second half of {len(trace):,} requests",
    )


def index(terms: Terms) -> Iterator[Row]:
    """The index of a million entries, in a process of its own: its file, and its memory beyond that of an empty one."""
    entries = terms.count(1_000_000, 100_000)
    directory = tempfile.mkdtemp(prefix="bench-cache-")
    try:
        command = [sys.executable, "-m", "tests.bench.cache_index", directory, str(entries)]
        told = subprocess.run(command, cwd=ROOT, capture_output=True, check=True).stdout
    finally:
        shutil.rmtree(directory)
    found = msgspec.json.decode(told)
    share = entries / 1_000_000
    beside = "an entry with a blob, the shortcut of its file, and its output's place"
    yield row(f"index of {entries:,} entries", [found["file"] / MB], "MB", at_most=300 * share, beside=beside)
    yield row(f"memory of a store of {entries:,} entries", [found["memory"] / MB], "MB", at_most=30)
