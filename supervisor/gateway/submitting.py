"""A batch from paths that a request names, or from what it uploaded: checked, opened, filled, closed.

Everything below the allowed roots is looked at here, in a thread of its own, with the walk and the naming that the
command line has: the same files become the same items with the same outputs. A directory of a million images takes
longer than a request may; so the answer to one is given when the batch is open and the rest goes on.
"""

import asyncio
import os
import stat
from collections.abc import Callable
from typing import Any

import msgspec

from protocol.client import Client, OpenedBatch
from protocol.errors import Abandoned, GalleryError, UsageError
from protocol.messages import BatchClosed
from protocol.paths import from_token, to_token
from supervisor.gateway.clients import Clients
from supervisor.gateway.places import Outside, Places
from supervisor.naming import Directory, Files, Source, directory_source, may_clash, relative
from supervisor.recipes import needs_output
from supervisor.walk import Walk

PATHS_MOST = 10_000
PATIENCE_SECONDS = 20.0
"""So long a request waits for its submission to be complete; a walk of 100,000 files takes about 2 s."""


class Wanted(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The body of `POST /batches`. `paths` are files and directories, `out` a directory; tokens, absolute."""

    paths: list[str]
    recipe: str | None = None
    out: str | None = None
    base: str | None = None
    batch: str | None = None
    overwrite: bool = False
    strict: bool = False
    priority: int = 0
    kind: str = "default"


class Submission(msgspec.Struct, frozen=True, kw_only=True):
    """Items to be submitted. `sources` lie below the allowed roots, and so does `out`."""

    sources: list[Source]
    recipe: str
    out: bytes | None
    wanted: Wanted
    skip: frozenset[bytes] = frozenset()


def read_wanted(body: bytes) -> Wanted:
    """Returns what a request wants. Raises UsageError that says what is wrong with it."""
    try:
        wanted = msgspec.json.decode(body, type=Wanted)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise UsageError(f"the request's body is not what is wanted here: {error}") from error
    if not wanted.paths:
        raise UsageError("paths is empty: name files or directories, or upload images as multipart/form-data")
    if len(wanted.paths) > PATHS_MOST:
        raise UsageError(f"{len(wanted.paths):,} paths in one request; the limit is {PATHS_MOST:,}: name directories")
    return wanted


def plan(wanted: Wanted, places: Places, recipe: str) -> Submission:
    """Returns the submission of named paths. Raises Outside, UsageError. Looks at the disk."""
    base = _place(places, wanted.base) if wanted.base is not None else None
    out = _place(places, wanted.out) if wanted.out is not None else None
    if out is not None and os.path.lexists(out) and not os.path.isdir(out):
        raise UsageError("out is there already and is no directory")
    found = [_place(places, path) for path in dict.fromkeys(wanted.paths)]
    sources: list[Source] = []
    files: list[bytes] = []
    for named, path in zip(dict.fromkeys(wanted.paths), found, strict=True):
        if _is_directory(named, path):
            if path == out:
                raise UsageError(f"out is the input directory {named} itself: name another one")
            sources.append(directory_source(path, base, several=len(found) > 1))
        else:
            files.append(path)
    if files:
        root = base or b"/"
        names = [relative(path, root) for path in files]
        if None in names:
            raise UsageError("a file is not below base; name a directory that holds all the files, or leave base away")
        sources.append(Files(root, tuple(name for name in names if name)))
    skip = frozenset([out]) if out is not None else frozenset()
    return Submission(sources=sources, recipe=wanted.recipe or recipe, out=out, wanted=wanted, skip=skip)


async def submit(clients: Clients, submission: Submission) -> tuple[bool, dict[str, Any]]:
    """Submits; returns whether the batch is complete, and what to tell. Raises the GalleryError of the supervisor.

    A batch that is not complete after PATIENCE_SECONDS goes on being filled.
    """
    loop = asyncio.get_running_loop()
    opened: asyncio.Future[str] = loop.create_future()

    def tell(name: str) -> None:
        loop.call_soon_threadsafe(opened.set_result, name)

    work = clients.submit(lambda client: _fill(client, submission, tell, clients))
    try:
        closed = await asyncio.wait_for(asyncio.shield(work), PATIENCE_SECONDS)
    except TimeoutError:
        if not opened.done():
            raise
        work.add_done_callback(lambda done: done.cancelled() or done.exception())  # the batch itself tells the rest
        return False, {"batch": opened.result(), "items": None, "ignored": None}
    return True, {"batch": closed.batch, "items": closed.items, "ignored": closed.ignored}


def _fill(client: Client, submission: Submission, tell: Callable[[str], None], clients: Clients) -> BatchClosed:
    wanted = submission.wanted
    welcome = client.hello()
    recipe = next((each for each in welcome.recipes if each.name == submission.recipe), None)
    if recipe is not None and submission.out is None and needs_output(recipe):
        raise UsageError(
            f"recipe {recipe.name!r} writes files: say where with 'out', a directory below an allowed root"
        )
    target = client.open_batch(
        batch=wanted.batch, recipe=submission.recipe, out=None if submission.out is None else to_token(submission.out),
        overwrite=wanted.overwrite, strict=wanted.strict, priority=wanted.priority, kind=wanted.kind,
        hold=may_clash(submission.sources),
    )  # fmt: skip
    tell(target.name)
    if wanted.batch is not None and not (known := client.progress(target.name)).open:
        return BatchClosed(batch=known.batch, items=known.items, ignored=known.ignored)  # submitted before
    try:
        return target.close(_add_all(target, submission, clients))
    except Abandoned:
        raise
    except GalleryError:
        client.cancel(target.name)
        raise


def _add_all(target: OpenedBatch, submission: Submission, clients: Clients) -> int:
    ignored = 0

    def between() -> None:
        if clients.stopping:
            raise UsageError("the gateway stops: the submission is not complete and was cancelled; submit it again")

    for source in submission.sources:
        match source:
            case Directory(root=root, prefix=prefix):
                walk = Walk(root, submission.skip, lambda _: None)
                target.add(to_token(root), walk, to_token(prefix), between)
                ignored += walk.ignored
            case Files(root=root, names=names):
                target.add(to_token(root), map(to_token, names), between=between)
    return ignored


def _place(places: Places, token: str) -> bytes:
    try:
        return places.resolve(from_token(token))
    except ValueError as error:
        raise UsageError(str(error)) from error
    except Outside as error:
        raise Outside(f"{token[:200]}: {error}") from error


def _is_directory(named: str, path: bytes) -> bool:
    try:
        found = os.stat(path)
    except OSError as error:
        raise UsageError(f"{named[:200]}: {error.strerror}") from error
    if not stat.S_ISDIR(found.st_mode) and not stat.S_ISREG(found.st_mode):
        raise UsageError(f"{named[:200]}: neither a file nor a directory")
    return stat.S_ISDIR(found.st_mode)
