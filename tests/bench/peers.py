"""The peers of the standard library: what runs no-op items there, without a disk, a watch or a promise."""

import multiprocessing
import signal
import time
from concurrent.futures import ProcessPoolExecutor

CHUNK = 64
"""Their best size here: from there on a larger one gains nothing."""


def as_born() -> None:
    """Undoes what a forked process has of ours: our handler of SIGTERM, by which a pool ends its processes."""
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def nothing(name: str) -> str:
    """The no-op item."""
    return name


def pool_per_second(names: list[str], workers: int) -> float:
    """Returns items a second of multiprocessing.Pool, its workers warm."""
    with multiprocessing.get_context("fork").Pool(workers, initializer=as_born) as pool:
        pool.map(nothing, names[: workers * CHUNK])
        began = time.perf_counter()
        for _ in pool.imap_unordered(nothing, names, chunksize=CHUNK):
            pass
        return len(names) / (time.perf_counter() - began)


def executor_per_second(names: list[str], workers: int, chunk: int = 1) -> float:
    """Returns items a second of ProcessPoolExecutor, its workers warm; `chunk` 1 is how it is used."""
    context = multiprocessing.get_context("fork")
    with ProcessPoolExecutor(workers, mp_context=context, initializer=as_born) as pool:
        list(pool.map(nothing, names[: workers * CHUNK], chunksize=1))
        began = time.perf_counter()
        for _ in pool.map(nothing, names, chunksize=chunk):
            pass
        return len(names) / (time.perf_counter() - began)
