"""The supervisor's client for asynchronous code: a few threads, each with a client of its own.

A client is synchronous and belongs to one thread; requests take about a millisecond. CLIENTS of them bound what one
gateway asks of the supervisor at a time; who comes later waits for a thread.
"""

import asyncio
import contextlib
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from protocol.client import Client
from protocol.errors import BadMessage, NoSupervisor
from protocol.messages import Answer, AnyRequest

T = TypeVar("T")
A = TypeVar("A", bound=Answer)

CLIENTS = 4
SUBMITTERS = 2
"""Submissions walk directories, which takes as long as it takes: they must not keep `/health` waiting."""
ANSWER_SECONDS = 10.0
"""The supervisor answers within milliseconds; one that does not is reported as not answering."""
SUBMISSION_SECONDS = 60.0

Find = Callable[[], str | None]


class Clients:
    """Runs functions of a client in threads. `find` returns the supervisor's endpoint, None where there is none."""

    def __init__(self, find: Find) -> None:
        self._find = find
        self._local = threading.local()
        self._answering = ThreadPoolExecutor(CLIENTS, "client")
        self._submitting = ThreadPoolExecutor(SUBMITTERS, "submission")
        self._stopping = threading.Event()

    @property
    def stopping(self) -> bool:
        """Whether the gateway ends: long functions should return."""
        return self._stopping.is_set()

    def connect(self, timeout_seconds: float = ANSWER_SECONDS) -> Client:
        """Returns a new client. Raises NoSupervisor."""
        endpoint = self._find()
        if endpoint is None:
            raise NoSupervisor("no supervisor runs on the state directory of this gateway")
        return Client(endpoint, timeout_seconds)

    async def call(self, function: Callable[[Client], T]) -> T:
        """Returns what a function of the client returns, raises what it raises."""
        return await asyncio.get_running_loop().run_in_executor(self._answering, self._call, function)

    async def ask(self, request: AnyRequest, expected: type[A]) -> A:
        """Returns the supervisor's answer. Raises the GalleryError of a Problem."""

        def asked(client: Client) -> A:
            answer = client.request(request)
            if not isinstance(answer, expected):
                raise BadMessage(f"{type(request).__name__} was answered with {type(answer).__name__}")
            return answer

        return await self.call(asked)

    def submit(self, function: Callable[[Client], T]) -> "asyncio.Future[T]":
        """Begins a long function of a client of its own, and returns its future."""

        def submitting() -> T:
            with self.connect(SUBMISSION_SECONDS) as client:
                return function(client)

        return asyncio.get_running_loop().run_in_executor(self._submitting, submitting)

    def close(self) -> None:
        """Lets the threads end; what is under way is not waited for beyond its answer."""
        self._stopping.set()
        for executor in (self._answering, self._submitting):
            executor.shutdown(wait=False, cancel_futures=True)

    def _call(self, function: Callable[[Client], T]) -> T:
        client: Client | None = getattr(self._local, "client", None)
        if client is None or client.endpoint != self._find():
            self._forget(client)
            client = self._local.client = self.connect()
        try:
            return function(client)
        except NoSupervisor:
            self._forget(client)  # a late answer must not meet the next question
            raise

    def _forget(self, client: Client | None) -> None:
        self._local.client = None
        if client is not None:
            with contextlib.suppress(OSError):
                client.close()
