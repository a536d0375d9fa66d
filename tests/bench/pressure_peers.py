"""Peers of the pressure benchmark, each as its manual shows it: `python -m tests.bench.pressure_peers NAME ...`.

Four workers, the work of `pressure_work`, and what the peer itself offers against memory running out: a limit a child
(Celery), a limit a worker (Dask), a child's number of tasks (Pool), free memory before a start (GNU parallel). Each
runs until it has come to its end, or stands still, or is killed.
"""

import argparse
import importlib
import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from functools import partial

from tests.bench import pressure_work

CHILD_KILOBYTES = 100_000
"""What Celery's manual calls max-memory-per-child; Dask's limit a worker is the same."""
TASKS_A_CHILD = 100
CELERY_APP = "tests.bench.pressure_celery"


def pool(files: list[str], out: str, verdicts: str, workers: int) -> None:
    """multiprocessing.Pool."""
    import multiprocessing

    context = multiprocessing.get_context("fork")
    with context.Pool(workers, maxtasksperchild=TASKS_A_CHILD) as made:
        work = partial(pressure_work.thumbnails, out=out, verdicts=verdicts)
        for _ in made.imap_unordered(work, files, chunksize=4):
            pass


def loky(files: list[str], out: str, verdicts: str, workers: int) -> None:
    """joblib's executor, which replaces workers that leak and breaks when one dies."""
    from loky import get_reusable_executor

    executor = get_reusable_executor(max_workers=workers)
    waiting = [executor.submit(pressure_work.thumbnails, path, out, verdicts) for path in files]
    for each in waiting:
        each.result()


def dask(files: list[str], out: str, verdicts: str, workers: int) -> None:
    """A local cluster of Dask with a memory limit a worker."""
    distributed = importlib.import_module("distributed")  # untyped, and missing on most machines
    with (
        distributed.LocalCluster(
            n_workers=workers, threads_per_worker=1, memory_limit=CHILD_KILOBYTES * 1000, dashboard_address=None
        ) as cluster,
        distributed.Client(cluster) as client,
    ):
        work = partial(pressure_work.thumbnails, out=out, verdicts=verdicts)
        for _ in distributed.as_completed(client.map(work, files, pure=False)):
            pass


def celery(files: list[str], out: str, verdicts: str, workers: int) -> None:
    """A Celery worker on a Redis of its own, which lies outside the group only in that it is started before."""
    from tests.bench.pressure_celery import thumbnails

    for path in files:
        thumbnails.delay(path, out, verdicts)
    options = [f"--concurrency={workers}", f"--max-memory-per-child={CHILD_KILOBYTES}", "--loglevel=ERROR"]
    os.execv(sys.executable, [sys.executable, "-m", "celery", "-A", CELERY_APP, "worker", *options])


def parallel(files: list[str], out: str, verdicts: str, workers: int) -> None:
    """GNU parallel, which waits for free memory before each start, with vipsthumbnail."""
    script = (
        'name=$(basename "$1"); vipsthumbnail "$1" --size 256x256 -o "$2/$name.256.webp[Q=80]" && '
        'vipsthumbnail "$1" --size 1024x1024 -o "$2/$name.1024.webp[Q=80]"; code=$?; '
        'case $code in 0) said=done;; 12[6-9]|1[3-9]?) exit $code;; *) said="failed $code";; esac; '
        'printf "%s\\t%s\\n" "$name" "$said" >> "$3"'
    )
    with tempfile.NamedTemporaryFile("w", suffix=".sh") as file:
        file.write(script)
        file.flush()
        options = ["--will-cite", "-j", str(workers), "--memfree", "100M"]
        subprocess.run(
            ["parallel", *options, "sh", file.name, "{}", out, verdicts],
            input="\n".join(files), text=True, check=False,
        )  # fmt: skip


PEERS: dict[str, tuple[str, Callable[[list[str], str, str, int], None]]] = {
    "pool": ("multiprocessing.Pool", pool),
    "loky": ("loky", loky),
    "dask": ("Dask, 100 MB a worker", dask),
    "celery": ("Celery, max-memory-per-child 100 MB, acks late", celery),
    "parallel": ("GNU parallel --memfree + vipsthumbnail", parallel),
}


def lacking(name: str) -> str | None:
    """Returns what a peer needs and this machine has not, None where it can run."""
    modules = {"loky": ("loky",), "dask": ("distributed",), "celery": ("celery", "redis")}.get(name, ())
    programs = {"celery": ("redis-server",), "parallel": ("parallel", "vipsthumbnail")}.get(name, ())
    missing = [module for module in modules if importlib.util.find_spec(module) is None]
    missing += [program for program in programs if shutil.which(program) is None]
    return ", ".join(missing) or None


def main() -> None:
    """Works through the files of a list."""
    parser = argparse.ArgumentParser()
    parser.add_argument("name", choices=PEERS)
    parser.add_argument("list")
    parser.add_argument("out")
    parser.add_argument("verdicts")
    parser.add_argument("--workers", type=int, default=4)
    given = parser.parse_args()
    with open(given.list, encoding="utf-8") as file:
        files = file.read().splitlines()
    PEERS[given.name][1](files, given.out, given.verdicts, given.workers)


if __name__ == "__main__":
    main()
