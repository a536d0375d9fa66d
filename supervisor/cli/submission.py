"""A job as the command line names it, and how it is given to a supervisor."""

import argparse
import hashlib
import os
from collections.abc import Callable, Iterator

import msgspec

from protocol.client import Client, OpenedBatch
from protocol.errors import Abandoned, GalleryError, OutputClash, Refused, UsageError
from protocol.messages import BatchClosed, Recipe, Welcome
from protocol.paths import from_token, to_token
from supervisor.cli.output import say
from supervisor.cli.sources import check_output, listed_names, read_sources
from supervisor.naming import Directory, Files, Listing, Source, absolute, may_clash
from supervisor.policy.retention import DEFAULT_KIND
from supervisor.recipes import needs_output
from supervisor.walk import Walk

MAX_WARNINGS = 20
"""Unreadable directories named on standard error; the others are counted."""


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """What is to be done with which files. `out` and `base` are absolute paths."""

    sources: list[Source]
    recipe: str
    out: bytes | None
    base: bytes | None
    overwrite: bool
    strict: bool
    priority: int
    kind: str = DEFAULT_KIND

    def fingerprint(self, definition: Recipe) -> str:
        """Returns the name of the job: the same paths, output, recipe and parameters give the same one."""
        digest = hashlib.sha256()
        parts = [msgspec.json.encode(definition), self.out or b"", self.base or b""]
        parts += [b"overwrite" if self.overwrite else b"", b"strict" if self.strict else b""]
        parts += sorted(_identity(source) for source in self.sources)
        for part in parts:
            digest.update(b"%d:" % len(part) + part)
        return digest.hexdigest()


class Submitted(msgspec.Struct, frozen=True, kw_only=True):
    """What became of a submission."""

    batch: str
    items: int
    ignored: int
    unreadable: int
    resumed: bool


def add_job_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds what `submit` and `run` have in common."""
    parser.add_argument("paths", nargs="+", metavar="PATH", help="image, directory, @LIST of files, or - (a list)")
    parser.add_argument("--out", metavar="DIR", help="where the outputs go; made when it is not there")
    parser.add_argument("--base", metavar="DIR", help="name the outputs of single files relative to this directory")
    parser.add_argument("--overwrite", action="store_true", help="replace foreign files at an output's name")
    parser.add_argument("--strict", action="store_true", help="fail an image that decodes only in part")
    parser.add_argument("--priority", type=int, default=0, metavar="N", help="higher runs first [0]")
    parser.add_argument("--kind", default=DEFAULT_KIND, help="kind of batch: how long it is kept may differ by kind")
    parser.add_argument("-0", dest="nul", action="store_true", help="names in lists are separated by NUL")


def read_job(arguments: argparse.Namespace, recipe: str) -> Job:
    """Returns the job of a command line. Raises UsageError before anything is submitted."""
    current = os.getcwdb()
    out = None if arguments.out is None else absolute(os.fsencode(arguments.out), current)
    base = None if arguments.base is None else absolute(os.fsencode(arguments.base), current)
    sources = read_sources(arguments.paths, arguments.base, arguments.nul)
    check_output(sources, out)
    return Job(
        sources=sources, recipe=recipe, out=out, base=base,
        overwrite=arguments.overwrite, strict=arguments.strict, priority=arguments.priority, kind=arguments.kind,
    )  # fmt: skip


def check_recipe(job: Job, recipes: dict[str, Recipe]) -> None:
    """Raises UsageError where the recipe, if it is known here, writes files and no --out says where."""
    recipe = recipes.get(job.recipe)
    if recipe is not None and job.out is None and needs_output(recipe):
        raise UsageError(f"recipe {job.recipe!r} writes files: say where with --out DIR")


def submit(
    client: Client,
    welcome: Welcome,
    job: Job,
    *,
    batch: str | None = None,
    resume: bool = False,
    opened: Callable[[OpenedBatch], None],
    between: Callable[[], None] | None = None,
) -> Submitted:
    """Opens a batch, adds every item and closes it; `opened` is called as soon as it is on disk.

    A clash of outputs, a bad list or a refusal cancels the batch and is raised; a batch that was resumed is
    left as it is.
    """
    recipes = {recipe.name: recipe for recipe in welcome.recipes}
    check_recipe(job, recipes)
    fingerprint = job.fingerprint(recipes[job.recipe]) if job.recipe in recipes else None
    out = None if job.out is None else to_token(job.out)
    target = client.open_batch(
        batch=batch, recipe=job.recipe, out=out, overwrite=job.overwrite, strict=job.strict, priority=job.priority,
        kind=job.kind, hold=may_clash(job.sources), fingerprint=fingerprint, resume=resume,
    )  # fmt: skip
    opened(target)
    if batch is not None and (known := _known_complete(client, batch)) is not None:
        return known
    filler = _Filler(target, job, welcome, between)
    try:
        closed = filler.fill()
    except Abandoned:
        raise  # it says how to go on, and what it has is worked on
    except (UsageError, Refused) as error:
        _give_up(client, target, error)
        raise
    return Submitted(
        batch=target.name, items=closed.items, ignored=closed.ignored, unreadable=filler.unreadable,
        resumed=target.resumed,
    )  # fmt: skip


class _Filler:
    def __init__(self, target: OpenedBatch, job: Job, welcome: Welcome, between: Callable[[], None] | None) -> None:
        self.unreadable = 0
        self._target = target
        self._job = job
        self._between = between
        inside = [job.out] if job.out is not None else []
        inside.append(from_token(welcome.state_directory))
        self._skip = frozenset(os.path.realpath(path) for path in inside)

    def fill(self) -> BatchClosed:
        ignored = 0
        for source in self._job.sources:
            match source:
                case Directory(root=root, prefix=prefix):
                    walk = Walk(root, self._skip, self._warn)
                    self._add(root, walk, prefix)
                    ignored += walk.ignored
                case Files(root=root, names=names):
                    self._add(root, (to_token(name) for name in names))
                case Listing(root=root):
                    self._add(root, listed_names(source))
        if self.unreadable > MAX_WARNINGS:
            say(f"warning: {self.unreadable:,} files and directories could not be read in all")
        return self._target.close(ignored)

    def _add(self, root: bytes, names: "Walk | Iterator[str]", prefix: bytes = b"") -> None:
        self._target.add(to_token(root), names, to_token(prefix), self._between)

    def _warn(self, text: str) -> None:
        self.unreadable += 1
        if self.unreadable <= MAX_WARNINGS:
            say(f"warning: {text}")


def _known_complete(client: Client, batch: str) -> Submitted | None:
    """Returns what is known of a batch of that name that was closed before: submitting it again is harmless."""
    progress = client.progress(batch)
    if progress.open:
        return None
    return Submitted(batch=batch, items=progress.items, ignored=progress.ignored, unreadable=0, resumed=False)


def _give_up(client: Client, target: OpenedBatch, error: GalleryError) -> None:
    if target.resumed:
        say(f"batch {target.name} keeps what it had")
        return
    try:
        client.cancel(target.name)
    except GalleryError as failed:
        say(f"batch {target.name} could not be cancelled: {failed}")
        return
    if not isinstance(error, OutputClash):
        say(f"batch {target.name} was cancelled: its submission is not complete")


def _identity(source: Source) -> bytes:
    match source:
        case Directory(root=root, prefix=prefix):
            return b"directory\0" + root + b"\0" + prefix
        case Files(root=root, names=names):
            return b"files\0" + root + b"\0" + b"\0".join(names)
        case Listing(path=path, root=root):
            full = b"-" if path == "-" else absolute(os.fsencode(path), os.getcwdb())
            return b"list\0" + root + b"\0" + full
