"""Around every request: who may, how much, how long; errors as JSON; headers that keep a browser on its guard.

A gateway is asked by whoever reaches its port. Nobody gets more than a named part of it: a body has a size, its pieces
have to come in time, an answer has to be taken in time. What breaks a limit ends with a sentence, or without one where
the client would not read it.
"""

import asyncio
import sys

import msgspec
from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from protocol.errors import BadMessage, GalleryError, NoSupervisor, OutputClash, Refused, UnknownBatch, UsageError
from supervisor.gateway.access import Refusal
from supervisor.gateway.places import Outside
from supervisor.gateway.state import SHARED, Shared

HEAD_BYTES = 16 * 1024
"""Path, query and headers; browsers send about 1 KB. uvicorn bounds a head that comes in pieces, not a whole one."""
BODY_BYTES = 4_000_000
"""Of a request that is no upload: a list of 10,000 paths of 255 bytes, with room."""
BODY_SECONDS = 60.0
UPLOAD_SECONDS = 1_800.0
PIECE_SECONDS = 15.0
"""Between two pieces of a body: a phone in a tunnel comes back within it, who does not is let go."""
TAKE_SECONDS = 30.0
"""A client that takes nothing for so long is let go."""

SECURITY = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "same-origin",  # no-referrer would have browsers send `Origin: null` with the form at /login
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), microphone=(), geolocation=()",
}


class Border:
    """The outermost application; hands what the endpoints share to those of `app`."""

    def __init__(self, app: ASGIApp, here: Shared) -> None:
        self._app = app
        self._here = here

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers a request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        guarded = _Guarded(send, scope)
        scope[SHARED], scope["app"] = self._here, self._app
        headers = Headers(scope=scope)
        try:
            if _head_bytes(scope) > HEAD_BYTES:
                raise Refusal(431, "too_large", f"the request's head has more than {HEAD_BYTES:,} bytes")
            self._here.setup.access.check(scope["method"], scope["path"], headers)
            upload = headers.get("content-type", "").lower().startswith("multipart/form-data")
            most, seconds = (self._here.setup.upload_bytes, UPLOAD_SECONDS) if upload else (BODY_BYTES, BODY_SECONDS)
            body = _Body(receive, headers, most, seconds)
            await self._app(scope, body.receive, guarded.send)
        except ClientDisconnect:
            return
        except Exception as error:
            if guarded.began:
                raise  # the answer is under way: all that is left is to break it off
            await refusal_of(error)(scope, receive, guarded.send)


def _head_bytes(scope: Scope) -> int:
    headers = sum(len(name) + len(value) for name, value in scope["headers"])
    return headers + len(scope["raw_path"]) + len(scope["query_string"])


class _Guarded:
    """Sends with security headers, and not for ever."""

    def __init__(self, send: Send, scope: Scope) -> None:
        self._send = send
        self._static = scope["path"].startswith("/static/")
        self.began = False

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.began = True
            headers = MutableHeaders(scope=message)
            for name, value in SECURITY.items():
                headers.setdefault(name, value)
            headers.setdefault("cache-control", "no-cache" if self._static else "no-store")
        try:
            await asyncio.wait_for(self._send(message), TAKE_SECONDS)
        except TimeoutError:
            raise ConnectionAbortedError(f"a client took nothing for {TAKE_SECONDS:.0f} s") from None


class _Body:
    """The body of a request, counted and timed."""

    def __init__(self, receive: Receive, headers: Headers, limit_bytes: int | None, seconds: float) -> None:
        self._receive = receive
        self._limit_bytes = limit_bytes
        self._deadline = asyncio.get_running_loop().time() + seconds
        self._seen = 0
        self._complete = False
        said = headers.get("content-length", "")
        if said.isdigit():
            self._check(int(said))

    async def receive(self) -> Message:
        if self._complete:  # what comes after it is the end of the connection: that may be waited for
            return await self._receive()
        left = self._deadline - asyncio.get_running_loop().time()
        try:
            message = await asyncio.wait_for(self._receive(), max(0.0, min(PIECE_SECONDS, left)))
        except TimeoutError:
            raise Refusal(408, "slow", "the request's body did not come in time", {"Connection": "close"}) from None
        if message["type"] == "http.request":
            self._seen += len(message.get("body", b""))
            self._check(self._seen)
            self._complete = not message.get("more_body", False)
        return message

    def _check(self, size: int) -> None:
        if self._limit_bytes is not None and size > self._limit_bytes:
            raise Refusal(
                413, "too_large", f"the request's body has more than the {self._limit_bytes:,} bytes it may have",
                {"Connection": "close"},
            )  # fmt: skip


def refusal_of(error: Exception) -> Response:
    """Returns the answer that tells of an error; one that is our fault is told on standard error as well."""
    headers: dict[str, str] = {}
    match error:
        case Refusal():
            status, code, headers = error.status, error.code, error.headers
        case HTTPException():
            status, code, headers = error.status_code, "http", dict(error.headers or {})
            error = Exception(error.detail)
        case Outside():
            status, code = 403, "outside"
        case GalleryError():
            status, code = status_of(error), error.code
        case _:
            status, code = 500, "fault"
            sys.stderr.write(f"a fault of ours, {type(error).__name__}: {error}\n")
            error = Exception(f"a fault of ours: {type(error).__name__}")
    if status in (503, 507):
        headers = {"Retry-After": "2", **headers}
    body = msgspec.json.encode({"error": {"code": code, "message": str(error)}})
    return Response(body, status, headers, "application/json")


def status_of(error: GalleryError) -> int:
    """Returns the HTTP status of an error by whose fault it is."""
    if error.code == "unknown":
        return 404
    match error:
        case UnknownBatch():
            return 404
        case OutputClash():
            return 409
        case UsageError():
            return 400
        case NoSupervisor() | Refused():
            return 503
        case BadMessage():
            return 502
    return 507 if error.fault == "machine" else 500
