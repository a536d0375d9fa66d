"""Finds the supervisor of a state directory, or reads its journal where none runs."""

import argparse
import os
from collections.abc import Iterable, Iterator
from types import TracebackType
from typing import Protocol, Self, TypeVar

from protocol.client import DEFAULT_TIMEOUT_SECONDS, Client
from protocol.errors import BadMessage, NoSupervisor
from protocol.messages import (
    Answer,
    AnyAnswer,
    AnyRequest,
    History,
    HistoryPage,
    ItemState,
    Problem,
    Results,
    ResultsPage,
)
from protocol.problems import error_of
from protocol.sockets import is_listening
from supervisor.cli.options import client_settings
from supervisor.config import FRONTEND, Reading

A = TypeVar("A", bound=Answer)


class Answerer(Protocol):
    """Answers requests: a supervisor, or the journal of one that does not run."""

    def request(self, message: AnyRequest) -> AnyAnswer:
        """Returns the answer. Raises the GalleryError of a Problem."""


def endpoint_of(reading: Reading) -> str | None:
    """Returns where the supervisor should listen: as --socket says, else as the state directory tells; None where
    it tells nothing."""
    named: str | None = reading.values["socket"]
    if named is None:
        from supervisor.mechanism.state import StateDirectory

        found = StateDirectory(reading.state_directory).read_endpoint()
        return None if found is None else found.frontend
    return f"ipc://{os.path.join(named, FRONTEND) if os.path.isdir(named) else named}"


def connect(arguments: argparse.Namespace, timeout_seconds: float = DEFAULT_TIMEOUT_SECONDS) -> Client:
    """Returns a client of the supervisor that runs. Raises NoSupervisor with the way out."""
    reading = client_settings(arguments)
    endpoint = endpoint_of(reading)
    if endpoint is None or not is_listening(endpoint):
        raise NoSupervisor(_nobody(reading, endpoint))
    return Client(endpoint, timeout_seconds)


def connect_or_read(arguments: argparse.Namespace) -> "Client | OfflineAnswerer":
    """Returns a client of the supervisor that runs, else the state directory's own answers. Raises NoSupervisor
    where there is neither."""
    reading = client_settings(arguments)
    endpoint = endpoint_of(reading)
    if endpoint is not None and is_listening(endpoint):
        return Client(endpoint)
    if reading.values["socket"] is not None and reading.sources["state"] == "default":
        raise NoSupervisor(_nobody(reading, endpoint))
    if not os.path.exists(os.path.join(reading.state_directory, "queue.db")):
        raise NoSupervisor(_nobody(reading, endpoint))
    return OfflineAnswerer(reading.state_directory)


class OfflineAnswerer:
    """Answers from the journal, as a context manager. Raises StateDirectoryUnusable where it cannot be read."""

    def __init__(self, directory: str) -> None:
        from supervisor.mechanism.journal import OfflineReader  # SQLite is loaded only where it is needed

        self._reader = OfflineReader(directory)
        self._directory = directory

    def request(self, message: AnyRequest) -> AnyAnswer:
        """Returns the answer. Raises the GalleryError of a Problem."""
        answer = self._history(message) if isinstance(message, History) else self._reader.answer(message)
        if isinstance(answer, Problem):
            raise error_of(answer)
        return answer

    def _history(self, request: History) -> HistoryPage:
        from supervisor.mechanism.history_file import page_offline
        from supervisor.mechanism.state import HISTORY_FILE

        return page_offline(os.path.join(self._directory, HISTORY_FILE), request)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._reader.close()


def ask(answerer: Answerer, message: AnyRequest, expected: type[A]) -> A:
    """Returns the answer of the type a request has. Raises BadMessage for any other."""
    answer = answerer.request(message)
    if not isinstance(answer, expected):
        raise BadMessage(f"{type(message).__name__} was answered with {type(answer).__name__}")
    return answer


def iter_results(answerer: Answerer, batch: str, states: Iterable[ItemState] = ()) -> Iterator[bytes]:
    """Yields the settled items of a batch as JSON objects, in the order they settled."""
    after, wanted = 0, list(states)
    while True:
        page = ask(answerer, Results(batch=batch, after=after, states=wanted), ResultsPage)
        for result in page.results:
            yield bytes(result)
        if page.next is None:
            return
        after = page.next


def _nobody(reading: Reading, endpoint: str | None) -> str:
    if reading.values["socket"] is not None:
        return f"no supervisor listens at {endpoint} (--socket); is it running?"
    return (
        f"no supervisor runs on the state directory {reading.state_directory}; "
        "'supervisor start' starts one, --state names another directory"
    )
