"""`duplicates --by vector`: new vectors are taken from the results into the state directory's stores, then searched.

No supervisor watches this process: it looks itself at what memory is left to it, and gives way to the workers.
"""

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
from supervisor.mechanism.memory import BudgetFinder
from supervisor.mechanism.vectors import Entry, Shelf, VectorStore, compute_alone, farthest, group_vectors
from supervisor.policy.duplicates import Group, Picture, group_of
from supervisor.policy.near_vectors import headroom_bytes

_GROUPS_AT_ONCE = 32
"""Looked at before the pages of the file that they were read from are given back."""


def groups_by_vectors(
    answerer: Answerer,
    asked: Asked,
    arguments: argparse.Namespace,
    seen: Callable[[Sequence[Picture]], list[Picture]],
) -> tuple[list[Group], int]:
    """Returns the groups and how many images have a vector; `seen` leaves out images that are gone. Raises
    MachineError where numpy is missing, memory is too little or the state directory cannot be written."""
    if find_spec("numpy") is None:
        raise MachineError("--by vector needs numpy: install the extra, pip install 'gallery-supervisor[embed]'")
    compute_alone()
    state = client_settings(arguments).state_directory
    finder = BudgetFinder()

    def headroom() -> int:
        budget = finder.find(0)
        return headroom_bytes(budget.bytes, budget.cgroup_used_bytes, budget.available_bytes)

    try:
        with Shelf(state, arguments.vectors) as shelf:
            _take_in(answerer, shelf)
            wanted = _wanted(answerer, asked)
            groups: list[Group] = []
            known = 0
            for store in shelf.stores:
                rows = {path: row for path, row in store.newest().items() if wanted(path)}
                known += len(rows)
                near = group_vectors(
                    store.matrix(), list(rows.values()), asked.cosine, store.let_go, headroom, exact=arguments.exact
                )
                groups += _groups(store, rows, near, seen)
                store.drop()
            return groups, known
    except OSError as error:
        raise MachineError(f"the vectors in {state} cannot be kept: {error.strerror or error}") from error
    finally:
        finder.close()


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
    store: VectorStore,
    rows: dict[str, int],
    near: Sequence[Sequence[int]],
    seen: Callable[[Sequence[Picture]], list[Picture]],
) -> list[Group]:
    entries, matrix = store.entries(), store.matrix()
    order = list(rows.values())

    def how_far(ordered: Sequence[Picture]) -> float:
        return farthest(matrix, rows[ordered[0].path], [rows[each.path] for each in ordered], store.let_go)

    groups = []
    for number, places in enumerate(near):
        if number % _GROUPS_AT_ONCE == 0:
            store.let_go()
        chosen = [entries[order[place]] for place in places]
        there = seen([Picture(path=each.path, width=each.width, height=each.height) for each in chosen])
        if len(there) > 1:
            groups.append(group_of(there, how_far))
    return groups
