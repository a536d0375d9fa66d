"""The peer of the thumbnail benchmark: a bare multiprocessing.Pool that makes the same files by the same calls.

It calls the workers' own functions (the same header, decoder, resizing and encoder, the same write and rename), at
the same niceness, with as many processes. It keeps no queue, syncs nothing, watches nothing and would hang for
ever if a process died: what is left is the cost of the images alone.
"""

import multiprocessing
import os
import time
from multiprocessing.pool import Pool

from protocol.launch import ImageLimits
from protocol.messages import Recipe
from protocol.paths import to_token
from supervisor.recipes import BUILT_IN
from tests.bench.peers import as_born
from workers import limits
from workers.images import with_vips
from workers.operations import Work
from workers.publish import Publisher
from workers.recipe import compile_recipe
from workers.source import Source

ANY_BYTES = 1 << 62


class _Nobody:
    """Nobody is told which file is unfinished."""

    def partial(self, path: bytes) -> None:
        """Says nothing."""


def start(workers: int, nice: int, idle_io: bool) -> Pool:
    """Returns a pool whose processes are warm: forked after every library was loaded."""
    os.environ.setdefault("VIPS_CONCURRENCY", "1")
    with_vips.library()
    compile_recipe(BUILT_IN["thumbs"])
    context = multiprocessing.get_context("fork")
    return context.Pool(workers, initializer=_prepare, initargs=(nice, idle_io))


def seconds(pool: Pool, names: list[str], root: str, out: str, chunk: int) -> float:
    """Returns how long the pool takes for all images."""
    recipe = BUILT_IN["thumbs"]
    began = time.perf_counter()
    for _ in pool.imap_unordered(_one, [(recipe, root, name, out) for name in names], chunksize=chunk):
        pass
    return time.perf_counter() - began


def _prepare(nice: int, idle_io: bool) -> None:
    as_born()
    limits.step_back(nice=nice, idle_io=idle_io, oom_score_adj=0)


def _one(task: tuple[Recipe, str, str, str]) -> None:
    recipe, root, name, out = task
    compiled = compile_recipe(recipe)
    path = os.fsencode(os.path.join(root, name))
    publisher = Publisher(os.fsencode(out), to_token(os.fsencode(name)), "0", _Nobody(), replace=False)
    with Source(path, name, ImageLimits(), _ignore, strict=False) as source:
        side, beside = compiled.side(source.header), compiled.beside(source.header)
        source.admit(side, beside, ANY_BYTES)
        source.decoded(side)
        work = Work(os.path.basename(path), source, publisher, _ignore)
        for step in compiled.steps:
            step.operation.run(work, step.parameters)


def _ignore(warning: str) -> None:
    pass
