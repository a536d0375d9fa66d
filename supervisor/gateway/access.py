"""Who may ask what: decided from the head of a request alone.

Four doors, each for a way in that was used elsewhere:

* a *token*, whenever the gateway does not listen on loopback alone (and on loopback where one was set). Clients send
  it as `Authorization: Bearer TOKEN`; a browser gets a cookie for it at `/login`, which scripts and other sites never
  see. Comparisons take the same time whatever is wrong.
* *host names*: a page of another site whose name suddenly resolves to 127.0.0.1 (DNS rebinding) is the same origin to
  a browser, but it still says its own name in `Host`. On loopback only the address, `localhost` and `http_hosts` are
  served.
* *origins*: a request that changes something must not come from a page of another site.
* `/health` and `/ready` are open: probes have no secrets, and nothing is told there but yes or no.
"""

import hmac
from http.cookies import CookieError, SimpleCookie
from urllib.parse import urlsplit

import msgspec
from starlette.datastructures import Headers

from supervisor.gateway.address import is_loopback, is_number

COOKIE = "gallery_session"
OPEN_PATHS = frozenset({"/", "/health", "/ready", "/login"})
"""`/` shows the dashboard or the way in."""
OPEN_PREFIX = "/static/"
"""The pictures and scripts of the pages are the same for everybody."""
SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
LOOPBACK_NAMES = frozenset({"localhost", "127.0.0.1", "::1"})


class Refusal(Exception):
    """A request is not let in, or not answered. `status` is HTTP's, `code` stable, the message for people."""

    def __init__(self, status: int, code: str, message: str, headers: dict[str, str] | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.headers = headers or {}


class Access(msgspec.Struct, frozen=True, kw_only=True):
    """The rules of one gateway. `hosts`: names that are served, None: any; `token`: None where none is needed."""

    token: str | None
    hosts: frozenset[str] | None
    by_number: bool = False
    """Whether any IP address is served as well: probes use them, and no name can be rebound to one."""

    def check(self, method: str, path: str, headers: Headers) -> None:
        """Raises Refusal 401, 403 or 421 where the request may not be answered."""
        self._check_host(headers)
        if method not in SAFE_METHODS:
            _check_origin(headers)
        if path in OPEN_PATHS or path.startswith(OPEN_PREFIX):
            return
        if not self.knows(headers):
            raise Refusal(
                401, "token", "a token is needed: send the header 'Authorization: Bearer TOKEN', or log in at /login",
                {"WWW-Authenticate": 'Bearer realm="gallery-supervisor"'},
            )  # fmt: skip

    def knows(self, headers: Headers) -> bool:
        """Tells whether the request carries what it needs: the token, or a session."""
        if self.token is None:
            return True
        scheme, _, said = headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer" and self.is_token(said.strip()):
            return True
        return hmac.compare_digest(_session_of(headers).encode(), self.session().encode())

    def is_token(self, said: str) -> bool:
        """Tells whether this is the token."""
        return self.token is not None and hmac.compare_digest(said.encode(), self.token.encode())

    def session(self) -> str:
        """Returns what the cookie of a session holds: it proves the token and does not tell it."""
        return hmac.new((self.token or "").encode(), b"gallery-supervisor session", "sha256").hexdigest()

    def _check_host(self, headers: Headers) -> None:
        if self.hosts is None:
            return
        name = host_name(headers.get("host", ""))
        if name not in self.hosts and not (self.by_number and is_number(name)):
            raise Refusal(
                421, "host", f"this gateway is not called {name!r}; name it in the setting http_hosts if it should be"
            )


def rules(host: str, token: str | None, names: list[str]) -> Access:
    """Returns the rules of a gateway that listens on `host`, with `names` under which it is reached besides."""
    if is_loopback(host):
        return Access(token=token, hosts=LOOPBACK_NAMES | {host.lower()} | {name.lower() for name in names})
    known = frozenset(name.lower() for name in names) | {host.lower()} if names else None
    return Access(token=token, hosts=known, by_number=True)


def host_name(value: str) -> str:
    """Returns the name in a `Host` header, without its port, in lower case; empty where it is none."""
    try:
        return (urlsplit(f"//{value}").hostname or "").rstrip(".")
    except ValueError:
        return ""


def _check_origin(headers: Headers) -> None:
    site = headers.get("sec-fetch-site")
    if site is not None and site not in ("same-origin", "none"):
        raise Refusal(403, "origin", "a page of another site may not change anything here")
    origin = headers.get("origin")
    if origin is None:
        return
    try:
        found = urlsplit(origin).netloc.lower()
    except ValueError:
        found = ""
    if not found or found != headers.get("host", "").lower():
        raise Refusal(403, "origin", f"a page of {origin} may not change anything here")


def _session_of(headers: Headers) -> str:
    try:
        cookie = SimpleCookie(headers.get("cookie", ""))
    except CookieError:
        return ""
    found = cookie.get(COOKIE)
    return found.value if found is not None else ""
