"""`duplicates --by vector`: new vectors are taken from the results into the state directory's stores, then searched."""

import argparse
import base64
import binascii
from collections.abc import Callable, Sequence
from importlib.util import find_spec

from protocol.errors import MachineError
from protocol.messages import ImageHash
from supervisor.cli.duplicates import Asked, Below, iter_pages
from supervisor.cli.find import Answerer
from supervisor.cli.options import client_settings
from supervisor.mechanism.vectors import Entry, Shelf, VectorStore, farthest, group_vectors
from supervisor.policy.duplicates import Group, Picture, group_of


def groups_by_vectors(
    answerer: Answerer,
    asked: Asked,
    arguments: argparse.Namespace,
    seen: Callable[[Sequence[Picture]], list[Picture]],
) -> tuple[list[Group], int]:
    """Returns the groups and how many images have a vector; `seen` leaves out images that are gone. Raises
    MachineError where numpy is missing or the state directory cannot be written."""
    if find_spec("numpy") is None:
        raise MachineError("--by vector needs numpy: install the extra, pip install 'gallery-supervisor[embed]'")
    state = client_settings(arguments).state_directory
    try:
        with Shelf(state, arguments.vectors) as shelf:
            _take_in(answerer, shelf)
            wanted = _wanted(answerer, asked)
            groups: list[Group] = []
            known = 0
            for store in shelf.stores:
                rows = {path: row for path, row in store.newest().items() if wanted(path)}
                known += len(rows)
                groups += _groups(store, rows, asked.cosine, seen)
                store.drop()
            return groups, known
    except OSError as error:
        raise MachineError(f"the vectors in {state} cannot be kept: {error.strerror or error}") from error


def _take_in(answerer: Answerer, shelf: Shelf) -> None:
    since, last = shelf.read_up_to, None
    for page in iter_pages(answerer, "vector", since=since):
        if last is None:
            last = page.last
            if last < since:
                shelf.clear()
                _take_in(answerer, shelf)
                return
        shelf.add((each.model, Entry(each.path, each.width, each.height), _bytes(each)) for each in page.images)
    shelf.finish(last or 0)


def _bytes(image: ImageHash) -> bytes:
    try:
        return base64.b64decode(image.value, validate=True)
    except binascii.Error:
        return b""


def _wanted(answerer: Answerer, asked: Asked) -> Callable[[str], bool]:
    if asked.batch is None:
        return Below(asked.directory)
    paths = {each.path for page in iter_pages(answerer, "vector", asked.batch) for each in page.images}
    return paths.__contains__


def _groups(
    store: VectorStore, rows: dict[str, int], limit: float, seen: Callable[[Sequence[Picture]], list[Picture]]
) -> list[Group]:
    entries, matrix = store.entries(), store.matrix()
    order = list(rows.values())

    def how_far(ordered: Sequence[Picture]) -> float:
        return farthest(matrix, rows[ordered[0].path], [rows[each.path] for each in ordered])

    groups = []
    for places in group_vectors(matrix, order, limit, store.let_go):
        chosen = [entries[order[place]] for place in places]
        there = seen([Picture(path=each.path, width=each.width, height=each.height) for each in chosen])
        if len(there) > 1:
            groups.append(group_of(there, how_far))
    return groups
