"""Who may ask: tokens, sessions, host names, origins, each alone."""

import os
from pathlib import Path

import pytest
from starlette.datastructures import Headers

from protocol.errors import MachineError
from supervisor.gateway.access import COOKIE, Refusal, rules
from supervisor.gateway.address import is_loopback
from supervisor.gateway.setup import kept_token

TOKEN = "a-token-of-some-length"


def check(headers: dict[str, str], *, host: str = "10.0.0.1", method: str = "GET", path: str = "/status",
          token: str | None = TOKEN, names: tuple[str, ...] = ()) -> int:  # fmt: skip
    """Returns 200, or the status of the refusal."""
    try:
        rules(host, token, list(names)).check(method, path, Headers(headers))
    except Refusal as refusal:
        return refusal.status
    return 200


def test_a_token_in_the_header_or_a_session_lets_in() -> None:
    session = rules("10.0.0.1", TOKEN, []).session()
    assert check({"authorization": f"Bearer {TOKEN}"}) == 200
    assert check({"authorization": f"bearer {TOKEN}"}) == 200
    assert check({"cookie": f"other=1; {COOKIE}={session}"}) == 200
    assert TOKEN not in session


@pytest.mark.parametrize(
    "headers",
    [{}, {"authorization": "Bearer "}, {"authorization": f"Bearer {TOKEN}x"}, {"authorization": f"Bearer {TOKEN[:-1]}"},
     {"authorization": f"Basic {TOKEN}"}, {"authorization": "Bearer ünïcode"}, {"cookie": f"{COOKIE}="},
     {"cookie": f"{COOKIE}={TOKEN}"}, {"cookie": "\x00;=;"}],
)  # fmt: skip
def test_anything_else_does_not(headers: dict[str, str]) -> None:
    assert check(headers) == 401


def test_probes_and_the_way_in_are_open() -> None:
    assert [check({}, path=path) for path in ("/", "/health", "/ready", "/login", "/static/dashboard.css")] == [200] * 5
    assert [check({}, path=path) for path in ("/metrics", "/healthy", "/static", "//")] == [401] * 4


@pytest.mark.parametrize(
    ("said", "status"),
    [("127.0.0.1:8080", 200), ("localhost", 200), ("[::1]:1", 200), ("LOCALHOST.:80", 200), ("photos.lan", 200),
     ("evil.example", 421), ("127.0.0.1.evil.example", 421), ("", 421), ("[::1", 421), ("10.0.0.1", 421)],
)  # fmt: skip
def test_on_loopback_only_known_names_are_served(said: str, status: int) -> None:
    headers = {"host": said} if said else {}
    assert check(headers, host="127.0.0.1", token=None, names=("photos.lan",)) == status


def test_elsewhere_any_name_is_served_unless_names_are_set() -> None:
    headers = {"host": "anything.example", "authorization": f"Bearer {TOKEN}"}
    assert check(headers) == 200
    assert check(headers, names=("photos.lan",)) == 421
    assert check({**headers, "host": "photos.lan:8080"}, names=("photos.lan",)) == 200
    assert check({**headers, "host": "10.1.2.3:8080"}, names=("photos.lan",)) == 200, "a probe asks by the address"


@pytest.mark.parametrize(
    ("headers", "status"),
    [({}, 200), ({"origin": "http://localhost:8080"}, 200), ({"sec-fetch-site": "same-origin"}, 200),
     ({"sec-fetch-site": "none"}, 200), ({"origin": "http://evil.example"}, 403), ({"origin": "null"}, 403),
     ({"origin": "http://localhost:9"}, 403), ({"sec-fetch-site": "cross-site"}, 403),
     ({"sec-fetch-site": "same-site"}, 403), ({"origin": "http://[::1"}, 403)],
)  # fmt: skip
def test_a_page_of_another_site_changes_nothing(headers: dict[str, str], status: int) -> None:
    headers = {"host": "localhost:8080", **headers}
    assert check(headers, host="localhost", token=None, method="POST", path="/pause") == status
    assert check(headers, host="localhost", token=None, method="DELETE", path="/batches/b") == status
    assert check(headers, host="localhost", token=None) == 200, "looking is harmless: the browser shows it to nobody"


def test_loopback() -> None:
    assert [host for host in ("127.0.0.1", "127.8.0.1", "::1", "localhost", "0.0.0.0", "::", "host.lan")
            if is_loopback(host)] == ["127.0.0.1", "127.8.0.1", "::1", "localhost"]  # fmt: skip


def test_a_token_is_made_once_for_its_owner_alone(tmp_path: Path) -> None:
    token = kept_token(str(tmp_path))
    path = tmp_path / "token"
    assert len(token) >= 40 and path.stat().st_mode & 0o777 == 0o600
    assert kept_token(str(tmp_path)) == token
    path.chmod(0o644)
    with pytest.raises(MachineError, match="may be read by others"):
        kept_token(str(tmp_path))
    path.chmod(0o600)
    path.write_text("short")
    with pytest.raises(MachineError, match="too short"):
        kept_token(str(tmp_path))
    os.unlink(path)
    assert kept_token(str(tmp_path)) != token
