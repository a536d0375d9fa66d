"""What is left when an operation is over, and how long it takes to be gone.

After every batch of photos the pool is cleaned by itself. From the decision that the batch is over to the one that the
clean-up is: that is a full clean-up. The supervisor's own part is what its actions took, by the clean-up's record. Then
one is asked for while nothing else happens, so that the longest turn of the loop is that of the clean-up.
"""

import os
import shutil
import statistics
import tempfile
import threading
import time
from collections.abc import Iterator

from protocol.client import Client
from protocol.messages import (
    Cleanup,
    CleanupReport,
    Decision,
    EmergencyCleanup,
    EmergencyStatus,
    EmergencyStatusRequest,
)
from protocol.paths import to_token
from tests.bench import pictures
from tests.bench.house import House, until
from tests.bench.rows import Row, row
from tests.bench.terms import Terms

WORKERS = 4
FULL_SECONDS, OWN_SECONDS, LEFT_SHARE, TURN_SECONDS = 5.0, 0.2, 1.1, 0.005
QUIET_SECONDS = 11.0
"""The longest turn is told of the last ten seconds."""
PING_SECONDS = 0.001
WORK_OVER = "the work is over"


def run(terms: Terms) -> Iterator[Row]:
    """A batch of camera photos a run, thumbnails in two sizes."""
    place = tempfile.mkdtemp(prefix="bench-cleanup-")
    try:
        if terms.gallery is not None:
            root, names = terms.gallery, pictures.found(terms.gallery)[: terms.count(200, 40)]
        else:
            root = os.path.join(place, "photos")
            names = pictures.camera(root, terms.count(80, 20))
        with House("--cache", "no", workers=WORKERS) as house:
            yield from _measured(terms, house, place, root, names)
    finally:
        shutil.rmtree(place, ignore_errors=True)


def _measured(terms: Terms, house: House, place: str, root: str, names: list[str]) -> Iterator[Row]:
    full: list[float] = []
    own: list[float] = []
    left: list[float] = []
    turns: list[float] = []
    held: list[float] = []
    replaced = 0
    tokens = [to_token(os.fsencode(name)) for name in names]
    for number in range(terms.runs):
        seconds, cleanup = _after_a_batch(house, os.path.join(place, f"out{number}"), root, tokens)
        again = any(action.name.startswith("replace worker") for action in cleanup.actions)
        replaced += again
        full.append(seconds)
        own.append(sum(action.seconds for action in cleanup.actions if action.owner == "supervisor"))
        left.append(1.0 if again else cleanup.after_bytes / cleanup.baseline_bytes)
        turn, longest = _asked_for(house)
        turns.append(turn)
        held.append(longest)
    images = f"{len(names)} photos, {WORKERS} workers"
    yield row("full clean-up after a batch", full, "s", at_most=FULL_SECONDS, p95_at_most=FULL_SECONDS, beside=images)
    yield row("the supervisor's own part", own, "s", at_most=OWN_SECONDS, p95_at_most=OWN_SECONDS)
    beside = f"{replaced} of {terms.runs} replaced workers (counted as 1)"
    yield row("used after it ÷ at rest", left, "x", at_most=LEFT_SHARE, p95_at_most=LEFT_SHARE, beside=beside)
    beside = f"longest answer to a client meanwhile {1000 * statistics.median(held):.1f} ms"
    yield row("longest turn of the loop meanwhile", turns, "s", at_most=TURN_SECONDS, beside=beside)


def _after_a_batch(house: House, out: str, root: str, tokens: list[str]) -> tuple[float, Cleanup]:
    """Returns how long it took from the end of the work to the end of the clean-up, and its record."""
    known = max((decision.number for decision in house.client.decisions()), default=0)
    house.run("thumbs", root, tokens, out)
    told: dict[str, Decision] = {}

    def over() -> bool:
        for decision in house.client.decisions(after=known, limit=1000):
            if decision.kind == "finished":
                told["finished"] = decision
            elif decision.kind in ("cleanup", "cleanup_short") and WORK_OVER in decision.message:
                told["cleanup"] = decision
        return len(told) == 2

    until(over, "the pool is cleaned after the batch", 4 * FULL_SECONDS)
    status = house.client.request(EmergencyStatusRequest())
    assert isinstance(status, EmergencyStatus)
    last = [cleanup for cleanup in status.cleanups if cleanup.reason == WORK_OVER][-1]
    return told["cleanup"].at - told["finished"].at, last


def _asked_for(house: House) -> tuple[float, float]:
    """Returns the longest turn of the loop during one that is asked for, and the longest wait of a client that asks
    for something small all the while."""
    time.sleep(QUIET_SECONDS)
    endpoint, longest = house.client.endpoint, 0.0
    asked = threading.Thread(target=_clean, args=(endpoint,))
    with Client(endpoint) as other:
        other.hello()
        asked.start()
        while asked.is_alive():
            began = time.perf_counter()
            other.hello()
            longest = max(longest, time.perf_counter() - began)
            time.sleep(PING_SECONDS)
    asked.join()
    return house.status().loop_turn_max_seconds, longest


def _clean(endpoint: str) -> None:
    with Client(endpoint) as client:
        answer = client.request(EmergencyCleanup(tier="moderate"), timeout_seconds=2 * FULL_SECONDS)
    assert isinstance(answer, CleanupReport)
