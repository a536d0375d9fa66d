"""A child of the cache's benchmark: fills an index and tells its size and what it takes of memory, as JSON.

    python -m tests.bench.cache_index DIRECTORY ENTRIES

An entry as one image leaves it: the entry itself (one output in a blob), the shortcut of its file, and where its
output stands. Memory is read after everything was written, and again after a tenth of it was looked up.
"""

import os
import sys
import time
from random import Random

import msgspec

from supervisor.mechanism.cache.index import Row, entry_key
from supervisor.mechanism.cache.records import Record, StoredOutput, pack
from supervisor.mechanism.cache.store import Store
from supervisor.policy.cache.asked import FileStamp
from supervisor.policy.cache.entry import Entry
from supervisor.policy.cache.keys import step_of
from supervisor.policy.cache.settings import CacheSettings

GROUP = 10_000
STEP = step_of("thumbnail", 1, {"sizes": [1024]})


def main(directory: str, entries: int) -> None:
    """Fills, looks up, prints."""
    settings = CacheSettings(limit_bytes=1 << 50, limit_entries=max(entries, 1_000_000))
    before = _resident_bytes()
    store = Store(directory, settings, print)
    random = Random(1)
    now = int(time.time())
    number = store.index.step_number(STEP)
    assert number is not None
    for start in range(0, entries, GROUP):
        _fill(store, random, number, range(start, min(entries, start + GROUP)), now)
    filled = _resident_bytes()
    for start in range(0, entries // 10, 500):
        asked = [(64768, at * 7, random.getrandbits(63)) for at in range(start, min(entries // 10, start + 500))]
        for row in store.index.look_up(asked, [number]):
            store.note_hit(entry_key(bytes.fromhex(row.content), number), number)
        store.commit()
    store.close()
    after = _resident_bytes()
    size = os.path.getsize(os.path.join(directory, "cache.db"))
    print(msgspec.json.encode({"file": size, "memory": max(filled, after) - before}).decode())


def _fill(store: Store, random: Random, number: int, numbers: range, now: int) -> None:
    index = store.index
    for at in numbers:
        content = random.randbytes(32)
        size = 100_000 + random.getrandbits(16)
        output = StoredOutput("1024.webp", 1024, 768, size, random.randbytes(16))
        index.insert(content, number, Row(pack(Record([output])), None, size, 150_000, now), now)
        store.policy.admit(Entry(entry_key(content, number), size, 0.15, now, now), now)
        stamp_ns = 1_600_000_000_000_000_000 + random.getrandbits(57)
        index.add_shortcut(FileStamp(64768, at * 7, 3_000_000 + at, stamp_ns, stamp_ns + 1000), content, now)
        index.add_size(3_000_000 + at)
        index.add_placed([(random.getrandbits(63), content[:8] + random.randbytes(16), now)])
    store.commit()


def _resident_bytes() -> int:
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
