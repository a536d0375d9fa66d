"""The pool: health, readiness, status, memory, metrics, decisions, quarantine, temp, cache, pictures."""

import time
from typing import TypeVar

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from protocol.errors import GalleryError, UsageError
from protocol.messages import (
    HISTORY_ROWS_AT_MOST,
    Answer,
    AnyRequest,
    AskCache,
    CacheReport,
    Decisions,
    Done,
    Events,
    Hello,
    History,
    HistoryPage,
    MemoryReport,
    MemoryRequest,
    QuarantineDrop,
    QuarantineEntries,
    QuarantineList,
    Status,
    StatusRequest,
    TempStats,
    TempUsage,
    Welcome,
)
from protocol.paths import from_token
from supervisor.gateway import metrics
from supervisor.gateway.outputs import send_picture
from supervisor.gateway.rows import row, token_of
from supervisor.gateway.state import Shared, answer, fields_of, number_of, shared
from supervisor.policy.readiness import not_ready

A = TypeVar("A", bound=Answer)


async def health(request: Request) -> Response:
    """Liveness: the supervisor's loop answers."""
    try:
        await shared(request).clients.ask(Hello(), Welcome)
    except GalleryError as error:
        return answer({"alive": False, "reason": str(error)}, 503)
    return answer({"alive": True})


async def ready(request: Request) -> Response:
    """Readiness: work given now would be done now. With the memory state for who may know it."""
    here = shared(request)
    try:
        status = await here.clients.ask(StatusRequest(), Status)
        memory = await here.clients.ask(MemoryRequest(), MemoryReport)
    except GalleryError as error:
        return answer({"ready": False, "reasons": [str(error)]}, 503)
    reasons = not_ready(status, memory)
    told: dict[str, object] = {"ready": not reasons, "reasons": reasons}
    if here.setup.access.knows(request.headers):
        told["memory"] = {
            "level": status.level,
            "pressure": status.pressure,
            "used_bytes": status.used_bytes,
            "budget_bytes": status.budget_bytes,
            "available_bytes": memory.available_bytes,
            "stall_share": memory.stall_share,
            "swap_in_bytes_per_second": memory.swap_in_bytes_per_second,
        }
    return answer(told, 503 if reasons else 200)


async def status(request: Request) -> Response:
    """The whole pool at this moment."""
    return answer(row(await shared(request).clients.ask(StatusRequest(), Status)))


async def memory(request: Request) -> Response:
    """Everything known about memory."""
    return answer(row(await shared(request).clients.ask(MemoryRequest(), MemoryReport)))


async def show_metrics(request: Request) -> Response:
    """Prometheus text."""
    here = shared(request)
    found = await _or_none(here, StatusRequest(), Status)
    temp = await _or_none(here, TempStats(), TempUsage) if found is not None else None
    cache = await _or_none(here, AskCache(), CacheReport) if found is not None else None
    return Response(metrics.write(found, temp, cache), 200, media_type=metrics.CONTENT_TYPE)


async def decisions(request: Request) -> Response:
    """The last decisions, oldest first."""
    limit = number_of(request, "limit", 100, 1_000)
    found = await shared(request).clients.ask(Events(limit=limit), Decisions)
    return answer([row(decision) for decision in found.decisions])


async def history(request: Request) -> Response:
    """How memory went in the last `seconds`, in columns, with marks."""
    seconds = number_of(request, "seconds", 3_600, 31_536_000)
    asked = History(since=time.time() - seconds, limit=number_of(request, "limit", 1_000, HISTORY_ROWS_AT_MOST))
    return answer(row(await shared(request).clients.ask(asked, HistoryPage)))


async def temp(request: Request) -> Response:
    """What the workers' temp files take."""
    return answer(row(await shared(request).clients.ask(TempStats(), TempUsage)))


async def cache(request: Request) -> Response:
    """How the cache stands."""
    return answer((await shared(request).clients.ask(AskCache(), CacheReport)).stats)


async def quarantine(request: Request) -> Response:
    """Images kept away from workers, with the evidence."""
    found = await shared(request).clients.ask(QuarantineList(), QuarantineEntries)
    return answer([row(entry) for entry in found.entries])


async def retry_quarantined(request: Request) -> Response:
    """Puts a quarantined image back to work."""
    return await _drop(request, retry=True)


async def drop_quarantined(request: Request) -> Response:
    """Forgets a quarantined image."""
    return await _drop(request, retry=False)


async def picture(request: Request) -> Response:
    """A small picture of an image below an allowed root."""
    token = token_of(dict(request.query_params))
    if token is None:
        raise UsageError("name the image: ?path=...")
    try:
        return await send_picture(shared(request).places, from_token(token))
    except ValueError as error:
        raise UsageError(str(error)) from error
    except OSError:
        return Response(None, 204)  # it is gone already, or cannot be read


async def _drop(request: Request, *, retry: bool) -> Response:
    token = token_of(await fields_of(request))
    if token is None:
        raise UsageError('name the image: {"path": ...}, as the quarantine lists it')
    found = await shared(request).clients.ask(QuarantineDrop(path=token, retry=retry), Done)
    return answer({"message": found.message})


async def _or_none(here: Shared, asked: AnyRequest, expected: type[A]) -> A | None:
    try:
        return await here.clients.ask(asked, expected)
    except GalleryError:
        return None  # no cache, or nobody there: what is not known is left out


ROUTES = [
    Route("/health", health),
    Route("/ready", ready),
    Route("/status", status),
    Route("/memory", memory),
    Route("/metrics", show_metrics),
    Route("/decisions", decisions),
    Route("/history", history),
    Route("/temp", temp),
    Route("/cache", cache),
    Route("/quarantine", quarantine),
    Route("/quarantine/retry", retry_quarantined, methods=["POST"]),
    Route("/quarantine/drop", drop_quarantined, methods=["POST"]),
    Route("/picture", picture),
]
