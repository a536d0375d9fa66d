"""What the endpoints share: the setup, the supervisor's clients, the allowed places, the feed."""

from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from protocol.errors import UsageError
from supervisor.gateway.clients import Clients
from supervisor.gateway.feed import Feed
from supervisor.gateway.places import Places
from supervisor.gateway.setup import Setup

SHARED = "gallery.shared"
"""Where a request's scope has it."""


class Shared(msgspec.Struct, frozen=True, kw_only=True):
    """One gateway."""

    setup: Setup
    clients: Clients
    places: Places
    feed: Feed


def shared(request: Request) -> Shared:
    """Returns what the endpoints share."""
    found: Shared = request.scope[SHARED]
    return found


def answer(value: object, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """Returns JSON."""
    return Response(msgspec.json.encode(value), status, headers, "application/json")


async def fields_of(request: Request) -> dict[str, Any]:
    """Returns the JSON object of a request's body, empty where there is none. Raises UsageError."""
    body = await request.body()
    if not body:
        return {}
    try:
        found = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise UsageError(f"the request's body is no JSON: {error}") from error
    if not isinstance(found, dict):
        raise UsageError("the request's body is no JSON object")
    return found


def number_of(request: Request, name: str, default: int, most: int) -> int:
    """Returns a whole number of the query. Raises UsageError."""
    text = request.query_params.get(name, str(default))
    if not text.isascii() or not text.isdigit() or len(text) > 16 or int(text) > most:
        raise UsageError(f"{name} is a whole number from 0 to {most:,}, not {text[:50]!r}")
    return int(text)
