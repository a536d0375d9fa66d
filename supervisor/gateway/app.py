"""The application: routes within the border, and what lives as long as it does."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

from starlette.routing import Router
from starlette.types import ASGIApp

from protocol.client import Client
from protocol.errors import GalleryError, UnknownBatch
from supervisor.gateway import batches, pages, pool
from supervisor.gateway.border import Border
from supervisor.gateway.clients import Clients
from supervisor.gateway.feed import Feed
from supervisor.gateway.setup import Setup
from supervisor.gateway.state import Shared
from supervisor.gateway.uploads import sweep

SWEEP_SECONDS = 3_600.0


def new_app(setup: Setup) -> tuple[ASGIApp, Feed]:
    """Returns the application, and its feed, which is to be ended before the server waits for its connections."""
    clients = Clients(setup.endpoint)
    here = Shared(setup=setup, clients=clients, places=setup.places(), feed=Feed(clients))

    @contextlib.asynccontextmanager
    async def lives(_: object) -> AsyncIterator[None]:
        sweeping = asyncio.get_running_loop().create_task(_sweep_now_and_then(here))
        try:
            yield
        finally:
            sweeping.cancel()
            here.feed.end()
            clients.close()

    # A bare router: Starlette's application would answer errors itself, with pages of its own.
    routes = [*pages.ROUTES, *pool.ROUTES, *batches.ROUTES]
    return Border(Router(routes, redirect_slashes=False, lifespan=lives), here), here.feed


async def _sweep_now_and_then(here: Shared) -> None:
    while True:
        with contextlib.suppress(GalleryError, OSError):
            await here.clients.call(lambda client: sweep(here.setup.uploads, lambda name: _knows(client, name)))
        await asyncio.sleep(SWEEP_SECONDS)


def _knows(client: Client, batch: str) -> bool:
    try:
        client.progress(batch)
    except UnknownBatch:
        return False
    return True
