"""The dashboard's page, its assets, the way in, and the events it lives on."""

from importlib.resources import files
from urllib.parse import parse_qs

from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response, StreamingResponse
from starlette.routing import Route

from supervisor.gateway.access import COOKIE
from supervisor.gateway.openapi import document
from supervisor.gateway.state import answer, shared

ASSETS = {
    "dashboard.css": "text/css", "dashboard.js": "text/javascript", "charts.js": "text/javascript",
    "icon.svg": "image/svg+xml", "uplot/uPlot.iife.min.js": "text/javascript", "uplot/uPlot.min.css": "text/css",
    "uplot/LICENSE": "text/plain",
}  # fmt: skip
"""Every file that is served, by name: nothing else below `static` can be had."""
SESSION_SECONDS = 30 * 24 * 3600
LOGIN_BYTES = 4096


def asset(name: str) -> bytes:
    """Returns a file of the dashboard."""
    return files("supervisor.gateway").joinpath("static", *name.split("/")).read_bytes()


async def dashboard(request: Request) -> Response:
    """The page, or the way in for who has no session."""
    if not shared(request).setup.access.knows(request.headers):
        return RedirectResponse("/login", 303)
    return HTMLResponse(asset("dashboard.html"))


async def static(request: Request) -> Response:
    """An asset."""
    name = request.path_params["name"]
    kind = ASSETS.get(name)
    return Response(asset(name), 200, media_type=kind) if kind is not None else Response(None, 404)


async def login_page(request: Request) -> Response:
    """Asks for the token."""
    if shared(request).setup.access.knows(request.headers):
        return RedirectResponse("/", 303)
    return HTMLResponse(asset("login.html"))


async def login(request: Request) -> Response:
    """Gives a session for the token."""
    body = b""
    async for piece in request.stream():
        body += piece
        if len(body) > LOGIN_BYTES:
            return HTMLResponse(asset("login.html"), 413)
    access = shared(request).setup.access
    if not access.is_token(parse_qs(body.decode("utf-8", "replace")).get("token", [""])[0].strip()):
        return HTMLResponse(asset("login.html").replace(b' hidden id="wrong"', b' id="wrong"'), 401)
    gone = RedirectResponse("/", 303)
    secure = request.url.scheme == "https"
    gone.set_cookie(COOKIE, access.session(), SESSION_SECONDS, httponly=True, samesite="strict", secure=secure)
    return gone


async def events(request: Request) -> Response:
    """Server-sent events: status, batches, recent, quarantine, memory, temp, cache, decisions, gone."""
    told = await shared(request).feed.listen()
    return StreamingResponse(told, 200, {"x-accel-buffering": "no"}, "text/event-stream")


async def openapi(request: Request) -> Response:
    """The description of this interface."""
    return answer(document())


ROUTES = [
    Route("/", dashboard),
    Route("/static/{name:path}", static),
    Route("/login", login_page),
    Route("/login", login, methods=["POST"]),
    Route("/events", events),
    Route("/openapi.json", openapi),
]
