"""The HTTP server: uvicorn, with the limits it lacks.

uvicorn bounds the size of a request's head and the connections at once, but a client that sends its head a byte a
minute may do so for ever: here it has HEAD_SECONDS, from connecting or from its first byte on a kept connection.
"""

import asyncio
import contextlib
import signal
from collections.abc import Callable, Generator
from typing import Any

import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol, RequestResponseCycle

HEAD_SECONDS = 5.0
HEAD_BYTES = 16 * 1024
"""Request line and headers: browsers send about 1 KB."""
CONNECTIONS = 64
"""At once; a further one is answered 503. A dashboard takes two."""
KEEP_SECONDS = 20
"""An idle connection is kept for so long."""
END_SECONDS = 2
"""Answers under way at the end; dashboards connect again by themselves."""


class Protocol(H11Protocol):
    """One connection."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._head_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begins to wait for the head of the first request."""
        super().connection_made(transport)
        self._watch()

    def data_received(self, data: bytes) -> None:
        """Takes in what came, and watches whether a head is still not complete."""
        super().data_received(data)
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        """It is over."""
        self._calm()
        super().connection_lost(exc)

    def _watch(self) -> None:
        if self._serving() or self.transport.is_closing():
            self._calm()
        elif self._head_timer is None:
            self._head_timer = self.loop.call_later(HEAD_SECONDS, self._give_up)

    def _calm(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _give_up(self) -> None:
        self._head_timer = None
        if not self._serving() and not self.transport.is_closing():
            self.transport.close()

    def _serving(self) -> bool:
        cycle: RequestResponseCycle | None = self.cycle  # None before the first request, whatever uvicorn's types say
        return cycle is not None and not cycle.response_complete


class Server(uvicorn.Server):
    """Ends at TERM or INT with code 0: that is how it is meant to end. `on_end` is called then, at once."""

    def __init__(self, config: uvicorn.Config, on_end: Callable[[], None]) -> None:
        super().__init__(config)
        self._on_end = on_end

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None]:
        """Lets signals end it."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._end)
        yield

    def _end(self) -> None:
        self.should_exit = True
        self._on_end()


def new_server(app: ASGIApp, on_end: Callable[[], None]) -> Server:
    """Returns a server of the application, not yet begun."""
    return Server(
        uvicorn.Config(
            app,
            http=Protocol,
            ws="none",
            loop="asyncio",
            lifespan="on",
            log_config=None,  # `border` tells what went wrong
            access_log=False,
            server_header=False,
            proxy_headers=False,
            limit_concurrency=CONNECTIONS,
            timeout_keep_alive=KEEP_SECONDS,
            timeout_graceful_shutdown=END_SECONDS,
            h11_max_incomplete_event_size=HEAD_BYTES,
            log_level="critical",
        ),
        on_end,
    )
