"""Requests meant to do harm: paths that lead out, wrong names, bodies without end, clients that dawdle."""

import contextlib
import json
import os
import socket

import pytest

from tests.end_to_end.bed import Bed, wait_for
from tests.galleries import small_jpeg, write
from tests.gateway.web import Web, multipart, start

POST = b"POST /batches HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"


def send(web: Web, data: bytes) -> bytes:
    """Sends bytes as they are and returns all that comes back before the gateway closes."""
    with web.raw() as raw:
        with contextlib.suppress(ConnectionError):  # it may be refused before all is sent
            raw.sendall(data)
        return read_all(raw)


def read_all(raw: socket.socket) -> bytes:
    """Reads until the other end closes."""
    found = b""
    with contextlib.suppress(ConnectionResetError):
        while piece := raw.recv(65536):
            found += piece
    return found


@pytest.fixture(scope="module")
def batch(web: Web) -> str:
    """A finished batch with outputs, and beside OUT a file that nobody may have."""
    write(web.bed.photos, "in/a.jpg", small_jpeg(1))
    write(web.bed.directory, "secret.webp", b"secret")
    answer = web.post("/batches", {"paths": [web.bed.photo("in")], "recipe": "thumbs", "out": web.bed.out})
    name: str = answer.json["batch"]
    web.finish(name)
    os.symlink(os.path.join(web.bed.directory, "secret.webp"), os.path.join(web.bed.out, "link.webp"))
    write(web.bed.out, ".hidden.webp", b"hidden")
    write(web.bed.photos, "other.webp", b"another directory's")
    write(web.bed.out, "page.html", b"<script>alert(1)</script>")
    write(web.bed.out, b"n\xe4me.webp", b"not UTF-8")
    return name


@pytest.mark.parametrize(
    "name",
    ["../secret.webp", "%2e%2e/secret.webp", "..%2fsecret.webp", "x/../../secret.webp", "/secret.webp", "%2fetc/passwd",
     "link.webp", ".hidden.webp", "a.jpg.256.webp%00", "../photos/other.webp", "", ".", "%2e", "..%5csecret.webp"],
)  # fmt: skip
def test_no_name_of_an_output_leads_out(web: Web, batch: str, name: str) -> None:
    answer = web.get(f"/batches/{batch}/outputs/{name}")
    assert answer.status in (403, 404), answer
    assert b"secret" not in answer.body and b"hidden" not in answer.body and b"another" not in answer.body


def test_an_output_is_never_a_page_of_ours(web: Web, batch: str) -> None:
    answer = web.get(f"/batches/{batch}/outputs/page.html")
    assert answer.status == 200 and answer.headers["content-type"] == "application/octet-stream"
    assert answer.headers["content-disposition"] == "attachment"
    assert answer.headers["x-content-type-options"] == "nosniff"


def test_a_name_that_is_not_utf8_is_found(web: Web, batch: str) -> None:
    assert web.get(f"/batches/{batch}/outputs/n%E4me.webp").body == b"not UTF-8"


@pytest.mark.parametrize("field", ["paths", "out", "base"])
@pytest.mark.parametrize(
    "path", ["/etc", "/", "relative", "{photos}/../..", "{out}/link.webp", "//base64:!!!", "{state}"]
)
def test_no_path_of_a_submission_leads_out(web: Web, batch: str, field: str, path: str) -> None:
    bed = web.bed
    path = path.format(photos=bed.photos, out=bed.out, state=bed.state)
    fields = {"paths": [bed.photo("in")], "recipe": "thumbs", "out": bed.out}
    before = len(web.get("/batches").json)
    wrong = {field: [path] if field == "paths" else path}
    answer = web.post("/batches", {**fields, **wrong})
    assert answer.status in (400, 403), answer
    assert len(web.get("/batches").json) == before, "nothing was opened"


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"[]", b'{"paths": []}', b'{"paths": "x"}', b'{"paths": [1]}', b'{"paths": ["/"], "more": 1}',
     b"[" * 100_000, b"\xff\xfe", b'{"paths": ["/"], "priority": "high"}'],
)  # fmt: skip
def test_a_body_that_makes_no_sense_is_refused_with_a_sentence(web: Web, body: bytes) -> None:
    answer = web.ask("POST", "/batches", body, {"Content-Type": "application/json"})
    assert answer.status == 400 and answer.json["error"]["message"]


def test_another_type_of_body_is_not_read(web: Web) -> None:
    assert web.ask("POST", "/batches", b"paths=/", {"Content-Type": "text/plain"}).status == 415


def test_a_body_that_is_too_large_is_refused_before_it_is_read(web: Web) -> None:
    head = POST + b"Content-Length: 99999999\r\n\r\n"
    assert send(web, head).startswith(b"HTTP/1.1 413 ")


def test_a_body_without_a_length_is_counted(web: Web) -> None:
    head = POST + b"Transfer-Encoding: chunked\r\n\r\n"
    chunk = b"100000\r\n" + b" " * 0x100000 + b"\r\n"
    with web.raw() as raw:
        raw.sendall(head)
        with contextlib.suppress(ConnectionError):
            for _ in range(8):
                raw.sendall(chunk)
        assert raw.recv(65536).startswith(b"HTTP/1.1 413 ")


def test_a_head_that_is_too_large_is_refused(web: Web) -> None:
    for size in (20_000, 100_000, 1_000_000):
        head = b"GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nX: " + b"x" * size
        answer = send(web, head + b"\r\n\r\n")
        assert answer[9:12] in (b"400", b"431"), answer
    assert web.get("/health?" + "x" * 20_000).status == 431


def test_nonsense_for_http_is_refused(web: Web) -> None:
    assert b"400" in send(web, b"\x16\x03\x01\x02\x00\x01\x00 hello\r\n\r\n").split(b"\r\n")[0]
    assert web.get("/health").status == 200


def test_another_host_name_is_refused(web: Web) -> None:
    answer = web.get("/status", Host="rebound.evil.example")
    assert (answer.status, answer.code) == (421, "host")


def test_a_client_that_never_ends_its_head_is_let_go_and_holds_up_nobody(web: Web) -> None:
    with web.raw() as slow:
        slow.sendall(b"GET /health HTTP/1.1\r\nHost: loc")
        assert web.get("/health").status == 200
        assert read_all(slow) == b"", "closed without an answer"


def test_too_many_connections_are_told_so(web: Web) -> None:
    with contextlib.ExitStack() as stack:
        for _ in range(70):
            stack.enter_context(web.raw())
        answer = wait_for(lambda: _status_line(web), "an answer")
        assert b"503" in answer
    wait_for(lambda: b"200" in _status_line(web), "they are let in again")


def _status_line(web: Web) -> bytes:
    return send(web, b"GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").split(b"\r\n")[0]


def test_an_upload_that_breaks_off_or_makes_no_sense_leaves_nothing(web: Web) -> None:
    body, headers = multipart([("image", "a.jpg", small_jpeg(1))])
    uploads = os.path.join(web.bed.state, "http", "uploads")
    before = set(os.listdir(uploads))
    refused = [
        web.ask("POST", "/batches", body[:-20], headers),
        web.ask("POST", "/batches", b"nonsense", headers),
        web.ask("POST", "/batches", body, {"Content-Type": "multipart/form-data"}),
        web.ask("POST", "/batches", *multipart([("recipe", None, b"thumbs")])),
        web.ask("POST", "/batches", *multipart([("colour", None, b"red"), ("image", "a.jpg", b"x")])),
        web.ask("POST", "/batches", *multipart([("out", None, b"/etc"), ("image", "a.jpg", b"x")])),
        web.ask("POST", "/batches", *multipart([("paths", None, b"/etc"), ("image", "a.jpg", b"x")])),
        web.ask("POST", "/batches", *multipart([("recipe", None, b"no such"), ("image", "a.jpg", b"x")])),
    ]
    assert [answer.status for answer in refused] == [400, 400, 400, 400, 400, 403, 400, 400]
    with web.raw() as raw:
        head = f"POST /batches HTTP/1.1\r\nHost: localhost\r\nContent-Type: {headers['Content-Type']}\r\n"
        raw.sendall(f"{head}Content-Length: 1000000\r\n\r\n".encode() + body[:200])
        wait_for(lambda: set(os.listdir(uploads)) - before, "the upload began")
    wait_for(lambda: set(os.listdir(uploads)) == before, "what was broken off is gone")


def test_uploads_take_no_more_than_they_may(bed: Bed) -> None:
    web = start(bed, "--http-upload", "100KB")
    body, headers = multipart([("image", "a.jpg", b"x" * 90_000)])
    assert web.ask("POST", "/batches", body, headers).status == 201
    assert web.ask("POST", "/batches", body, headers).status == 413, "part is taken"
    body, headers = multipart([("image", "a.jpg", b"x" * 150_000)])
    assert web.ask("POST", "/batches", body, headers).status == 413


def test_every_answer_keeps_a_browser_on_its_guard(web: Web) -> None:
    for path in ("/", "/health", "/nothing", "/static/dashboard.js", "/picture?path=/etc/passwd"):
        headers = web.get(path).headers
        assert "script-src 'self'" in headers["content-security-policy"], path
        assert "unsafe-inline" not in headers["content-security-policy"]
        assert headers["x-content-type-options"] == "nosniff" and headers["x-frame-options"] == "DENY"
        assert "server" not in headers


@pytest.mark.parametrize("name", ["../setup.py", "%2e%2e/setup.py", "dashboard.html", "uplot", "uplot/VERSION", "x"])
def test_only_named_assets_are_served(web: Web, name: str) -> None:
    assert web.get(f"/static/{name}").status == 404


def test_errors_are_json_with_a_sentence(web: Web) -> None:
    for method, path, status in (("GET", "/nothing", 404), ("PUT", "/batches", 405), ("GET", "/batches/none", 404)):
        answer = web.ask(method, path)
        assert answer.status == status and json.loads(answer.body)["error"]["message"]
