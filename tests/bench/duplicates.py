"""Near-duplicates of 100,000 images: the command on a state directory that knows their hashes, no supervisor running.

The hashes are those of photos as `phash` makes them: 32 of 64 bits; a tenth are copies with up to 4 bits changed. The
files are not there, so that what is measured is reading, grouping and looking for them, and not a disk.
"""

import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from importlib.util import find_spec

import msgspec

from protocol.messages import Recipe, Step
from supervisor.mechanism.journal import batches, items, schema
from supervisor.policy.alike import group_hashes
from supervisor.policy.commands import CreateBatch, InsertItems
from supervisor.policy.items import Settlement
from tests.bench.house import ROOT
from tests.bench.rows import Row, row
from tests.bench.terms import Terms
from tests.mechanism.journal_bed import record

IMAGES = 100_000
DIMENSIONS = 512
_MAKE = f"""
import sys, numpy
from supervisor.mechanism.vectors import Entry, VectorStore
place, count = sys.argv[1], int(sys.argv[2])
store, random = VectorStore(place, "0" * 16, {DIMENSIONS}), numpy.random.default_rng(1)
spread = (1 / numpy.arange(1, {DIMENSIONS} + 1) ** 0.5).astype("float32")
base = random.standard_normal((count, {DIMENSIONS}), dtype="float32") * spread
base[:, 0] += 1
copies = count // 10
source = base[random.integers(0, count - copies, copies)]
base[count - copies:] = source + 0.1 * numpy.abs(source) * random.standard_normal(source.shape, dtype="float32")
rows = base.astype("float16")
store.add([Entry(f"/photos/p{{n:07d}}.jpg", 6000, 4000) for n in range(count)], [row.tobytes() for row in rows])
"""
_SEARCH = f"""
import resource, sys, time
from supervisor.mechanism.vectors import VectorStore, compute_alone, group_vectors
compute_alone()
store = VectorStore(sys.argv[1], "0" * 16, {DIMENSIONS})
matrix, rows = store.matrix(), list(store.newest().values())
groups = group_vectors(matrix, rows, 0.05, store.let_go)
print(time.process_time(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024, len(groups))
"""
CHUNK = 1_000
MB = 1_000_000


def run(terms: Terms) -> Iterator[Row]:
    """Rows of the command by hashes (time, peak), of grouping where all hashes are nearly the same, and of vectors."""
    count = terms.count(IMAGES)
    source = random.Random(1)
    hashes = gallery(count, source)
    with tempfile.TemporaryDirectory(prefix="bench-duplicates-") as state:
        fill(state, hashes)
        took = [command(state) for _ in range(terms.runs)]
    began = time.perf_counter()
    groups = group_hashes(hashes, 6)
    alone = time.perf_counter() - began
    beside = f"of it grouping {alone:.3g} s, {len(groups):,} groups; the longest page took the journal {_page:.3g} ms"
    yield row(f"duplicates among {count:,} images", [seconds for seconds, _ in took], "s", at_most=10, beside=beside)
    yield row("peak of that command", [peak / MB for _, peak in took], "MB", at_most=200)
    flat = [sum(1 << bit for bit in source.sample(range(64), source.randrange(5))) for _ in range(count)]
    seconds = []
    for _ in range(terms.runs):
        began = time.perf_counter()
        group_hashes(flat, 6)
        seconds.append(time.perf_counter() - began)
    yield row("grouping as many flat images, at most 4 bits set", seconds, "s", at_most=10)
    if find_spec("numpy") is not None:
        yield from _vectors(terms, count)


def _vectors(terms: Terms, count: int) -> Iterator[Row]:
    """The search alone, in a process of its own: a tenth are near copies, the numbers spread as those of models are."""
    with tempfile.TemporaryDirectory(prefix="bench-vectors-") as place:
        subprocess.run([sys.executable, "-c", _MAKE, place, str(count)], cwd=ROOT, check=True)
        said = [
            subprocess.run(
                [sys.executable, "-c", _SEARCH, place], cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True
            ).stdout.split()
            for _ in range(terms.runs)
        ]
    beside = f"{DIMENSIONS} numbers, float16; {said[0][2]} groups; processor time of all threads"
    yield row(f"groups among {count:,} vectors", [float(each[0]) for each in said], "s", at_most=10, beside=beside)
    yield row("peak of that process", [int(each[1]) / MB for each in said], "MB", at_most=200)


def gallery(count: int, source: random.Random) -> list[int]:
    """Returns hashes, every tenth a near copy of an earlier one."""
    hashes: list[int] = []
    for number in range(count):
        if number % 10 == 9:
            near = sum(1 << bit for bit in source.sample(range(64), source.randrange(5)))
            hashes.append(source.choice(hashes) ^ near)
        else:
            hashes.append(sum(1 << bit for bit in source.sample(range(64), 32)))
    return hashes


_page = 0.0


def fill(state: str, hashes: list[int]) -> None:
    """Writes a journal that knows them, by the journal's own statements; notes how long its longest page takes."""
    from protocol.messages import ImageHashes, ImageHashesPage
    from supervisor.mechanism.journal import hashes as reading

    global _page
    connection = schema.open_for_writing(os.path.join(state, "queue.db"))
    connection.execute("PRAGMA synchronous = OFF")
    recipe = Recipe(name="hashed", steps=[Step(operation="phash")])
    opened = record("b", recipe=recipe)
    batches.create(connection, CreateBatch(peer=b"", request_id=1, record=opened, resume=False))
    for start in range(0, len(hashes), CHUNK):
        part = hashes[start : start + CHUNK]
        names = [f"2024/holiday/p{start + number:07d}.jpg" for number in range(len(part))]
        chunk = InsertItems(
            peer=b"", request_id=1, batch="b", chunk=start // CHUNK, root="/photos", prefix="", names=names
        )
        batches.insert(connection, chunk)
        values = [
            {"phash": {"phash": f"{each:016x}", "dhash": f"{each:016x}", "width": 6000, "height": 4000}}
            for each in part
        ]
        details = [msgspec.json.encode({"error": None, "outputs": [], "values": v, "warnings": []}) for v in values]
        settled = [
            Settlement(id=start + number + 1, batch="b", state="done", tries=1, detail=detail)
            for number, detail in enumerate(details)
        ]
        items.settle(connection, settled, start + 1, 2.0)
    request = ImageHashes()
    while True:
        began = time.perf_counter()
        page = reading.read(connection, request)
        _page = max(_page, 1000 * (time.perf_counter() - began))
        assert isinstance(page, ImageHashesPage)
        if page.next is None:
            break
        request = ImageHashes(after_batch=page.next[0], after=page.next[1])
    connection.close()


def command(state: str) -> tuple[float, int]:
    """Runs it; returns its seconds and the peak of its memory in bytes, as the kernel counted."""
    words = [sys.executable, "-m", "supervisor", "duplicates", "--state", state, "--json"]
    with tempfile.TemporaryFile("w+") as said:
        began = time.perf_counter()
        child = subprocess.Popen(words, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=said)
        _, status, used = os.wait4(child.pid, 0)
        seconds = time.perf_counter() - began
        child.returncode = os.waitstatus_to_exitcode(status)
        said.seek(0)
        text = said.read()
    assert child.returncode == 0 and "images are left out" in text, text
    return seconds, used.ru_maxrss * 1024
