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
CHUNK = 1_000
MB = 1_000_000


def run(terms: Terms) -> Iterator[Row]:
    """Three rows: the command's time, its peak, and the grouping alone where all hashes are nearly the same."""
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
