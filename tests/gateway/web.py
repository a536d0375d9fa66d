"""A gateway of a real supervisor, and a plain HTTP client: what a test of it needs."""

import http.client
import json
import os
import socket
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from tests.end_to_end.bed import Bed, Command, wait_for

TIMEOUT_SECONDS = 60.0


class Answer(NamedTuple):
    """What came back."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        """The body as JSON."""
        return json.loads(self.body)

    @property
    def code(self) -> str:
        """The code of an error."""
        return str(self.json["error"]["code"])

    @property
    def lines(self) -> list[Any]:
        """The body as JSON lines."""
        return [json.loads(line) for line in self.body.splitlines()]


class Web:
    """A gateway that listens, started with its supervisor."""

    def __init__(self, bed: Bed, command: Command) -> None:
        self.bed = bed
        self.command = command
        self.url = url_of(bed, command)
        found = urlsplit(self.url)
        assert found.hostname is not None and found.port is not None
        self.host, self.port = found.hostname, found.port

    def post(self, path: str, fields: Mapping[str, object], **headers: str) -> Answer:
        """Posts a JSON body."""
        return self.ask("POST", path, json.dumps(fields).encode(), {"Content-Type": "application/json", **headers})

    def submit(self, *paths: str, **options: object) -> str:
        """Submits paths and returns the batch."""
        answer = self.post("/batches", {"paths": paths, **options})
        assert answer.status == 201, answer
        return str(answer.json["batch"])

    def ask(self, method: str, path: str, body: bytes | None = None, headers: dict[str, str] | None = None) -> Answer:
        """Sends one request on a connection of its own."""
        connection = http.client.HTTPConnection(self.host, self.port, timeout=TIMEOUT_SECONDS)
        try:
            connection.request(method, path, body, headers or {})
            answer = connection.getresponse()
            return Answer(answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read())
        finally:
            connection.close()

    def get(self, path: str, **headers: str) -> Answer:
        """Gets something."""
        return self.ask("GET", path, headers=headers)

    def raw(self) -> socket.socket:
        """Returns a bare connection."""
        return socket.create_connection((self.host, self.port), timeout=TIMEOUT_SECONDS)

    def finish(self, batch: str) -> dict[str, Any]:
        """Waits until a batch is finished and returns how it stands."""

        def over() -> dict[str, Any]:
            found: dict[str, Any] = self.get(f"/batches/{batch}").json
            left = found["counts"]["pending"] + found["counts"]["leased"]
            return found if found["state"] in ("finished", "cancelled") and not left else {}

        return wait_for(over, f"batch {batch} is over")


def url_of(bed: Bed, command: Command) -> str:
    """Waits until the gateway listens."""

    def look() -> str:
        assert command.running, command.said()
        try:
            with open(os.path.join(bed.state, "http", "url"), encoding="ascii") as file:
                return file.read().strip()
        except FileNotFoundError:
            return ""

    return wait_for(look, "the gateway listens")


def start(bed: Bed, *words: str, host: str = "127.0.0.1") -> Web:
    """Starts a supervisor with a gateway that may read and write the bed's photos and outputs."""
    os.makedirs(bed.out, exist_ok=True)
    command = bed.start("--http", f"{host}:0", "--http-roots", f"{bed.photos}:{bed.out}", *words)
    return Web(bed, command)


def multipart(parts: list[tuple[str, str | None, bytes]], boundary: str = "border") -> tuple[bytes, dict[str, str]]:
    """Returns a multipart body of (field, file name, content), and its header."""
    body = b""
    for name, file_name, content in parts:
        named = f'; filename="{file_name}"' if file_name is not None else ""
        head = f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"{named}\r\n\r\n'
        body += head.encode() + content + b"\r\n"
    return body + f"--{boundary}--\r\n".encode(), {"Content-Type": f"multipart/form-data; boundary={boundary}"}


def iter_events(answer: http.client.HTTPResponse) -> Iterator[tuple[str, Any]]:
    """Yields server-sent events as (kind, data)."""
    kind = ""
    for line in iter(answer.readline, b""):
        text = line.decode().rstrip("\n")
        if text.startswith("event: "):
            kind = text.removeprefix("event: ")
        elif text.startswith("data: "):
            yield kind, json.loads(text.removeprefix("data: "))
