"""The client against a real ROUTER: a small server in a thread answers as a test tells it to."""

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest

from protocol import sockets
from protocol.chunks import CHUNK_NAMES
from protocol.client import WINDOW, Client
from protocol.codec import decode_request, encode
from protocol.errors import BadMessage, NoSupervisor, OutputClash, Refused, UnknownBatch, UsageError, WaitedTooLong
from protocol.messages import (
    MAX_FRAME_BYTES,
    AddItems,
    Answer,
    AnyRequest,
    BatchClosed,
    BatchOpened,
    BatchProgress,
    BatchState,
    CloseBatch,
    Counts,
    Decision,
    Decisions,
    Done,
    Events,
    Hello,
    ItemsAdded,
    OpenBatch,
    PauseWork,
    Problem,
    Progress,
    Results,
    ResultsPage,
    Summary,
    Welcome,
)
from protocol.problems import error_of

Script = Callable[[AnyRequest], list[Answer]]


class Server(threading.Thread):
    """Answers each request with what the script returns for it; what it returns later goes out later."""

    def __init__(self, directory: Path, script: Script) -> None:
        super().__init__(daemon=True)
        self.endpoint = f"ipc://{directory}/frontend"
        self.events_endpoint = f"ipc://{directory}/events"
        self.requests: list[AnyRequest] = []
        self.publications: list[Decision] = []
        self._script = script
        self._context = sockets.new_context()
        self._router = sockets.router_socket(self._context, self.endpoint)
        self._events = sockets.publisher(self._context, self.events_endpoint)
        self._over = threading.Event()

    def run(self) -> None:
        poller = sockets.Poller()
        poller.register(self._router, sockets.POLLIN)
        poller.register(self._events, sockets.POLLIN)
        while not self._over.is_set():
            poller.poll(20)
            while (frames := sockets.receive(self._router)) is not None:
                self._serve(frames)
            while sockets.receive(self._events) is not None:
                for decision in self.publications:
                    sockets.send(self._events, [b"worker.1", msgspec.json.encode(decision)])
        self._router.close()
        self._events.close()
        self._context.term()

    def _serve(self, frames: list[bytes]) -> None:
        request = decode_request(frames[-1])
        self.requests.append(request)
        if isinstance(request, Hello):
            welcome = Welcome(
                id=request.id, version="t", pid=1, state_directory="/s", workers=1, recipes=[],
                events_endpoint=self.events_endpoint,
            )  # fmt: skip
            sockets.send(self._router, [frames[0], encode(welcome)])
            return
        for answer in self._script(request):
            sockets.send(self._router, [frames[0], encode(answer)])

    def finish(self) -> None:
        self._over.set()
        self.join(10)


Start = Callable[[Script], Server]


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Start]:
    servers: list[Server] = []

    def start(script: Script) -> Server:
        servers.append(Server(tmp_path, script))
        servers[-1].start()
        return servers[-1]

    yield start
    for server in servers:
        server.finish()


def progress(number: int | str, state: BatchState = "finished", done: int = 1) -> BatchProgress:
    return BatchProgress(
        id=number, batch="b1", state=state, open=False, recipe="thumbs", out="/o", items=2, ignored=0,
        counts=Counts(done=done, pending=2 - done), summary=Summary(),
    )  # fmt: skip


def accepting(request: AnyRequest) -> list[Answer]:
    match request:
        case OpenBatch():
            return [BatchOpened(id=request.id, batch="b1", resumed=False, next_chunk=0)]
        case AddItems():
            return [ItemsAdded(id=request.id, batch="b1", chunk=request.chunk, added=len(request.names), known=0)]
        case CloseBatch():
            return [BatchClosed(id=request.id, batch="b1", items=0, ignored=request.ignored)]
    return []


def test_nobody_listens(tmp_path: Path) -> None:
    began = time.monotonic()
    with Client(f"ipc://{tmp_path}/nobody") as client, pytest.raises(NoSupervisor, match="nobody"):
        client.hello()
    assert time.monotonic() - began < 20  # told at once, not after the time limit


def test_a_stale_socket_file_is_nobody(tmp_path: Path) -> None:
    context = sockets.new_context()
    sockets.router_socket(context, f"ipc://{tmp_path}/f").close()
    context.term()
    assert (tmp_path / "f").exists()
    with Client(f"ipc://{tmp_path}/f") as client, pytest.raises(NoSupervisor):
        client.hello()


def test_no_answer_in_time(serve: Start) -> None:
    server = serve(lambda request: [])
    with Client(server.endpoint, timeout_seconds=0.2) as client, pytest.raises(NoSupervisor, match=r"within 0\.2 s"):
        client.progress("b1")


def test_the_supervisor_goes_away_while_it_is_waited_for(serve: Start) -> None:
    server = serve(lambda request: [])
    began = time.monotonic()
    with Client(server.endpoint, timeout_seconds=60) as client:
        client.hello()
        server.finish()
        with pytest.raises(NoSupervisor):
            client.progress("b1")
    assert time.monotonic() - began < 20


def test_a_late_answer_is_not_taken_for_the_next_one(serve: Start) -> None:
    late: list[Answer] = []

    def script(request: AnyRequest) -> list[Answer]:
        if isinstance(request, Progress) and request.batch == "slow":
            late.append(progress(request.id, "running"))
            return []
        return [*late, progress(request.id)]

    server = serve(script)
    with Client(server.endpoint, timeout_seconds=0.2) as client:
        with pytest.raises(NoSupervisor):
            client.progress("slow")
        client.timeout_seconds = 10
        assert client.progress("b1").state == "finished"


@pytest.mark.parametrize(
    ("problem", "kind", "exit_code"),
    [
        (Problem(code="unknown_batch", fault="caller", message="no b9", exit_code=2), UnknownBatch, 2),
        (Problem(code="clash", fault="caller", message="a and b", exit_code=2), OutputClash, 2),
        (Problem(code="busy", fault="machine", message="full", exit_code=4), Refused, 4),
        (Problem(code="of_the_future", fault="caller", message="x", exit_code=2), UsageError, 2),
        (Problem(code="of_the_future", fault="machine", message="x", exit_code=4), Refused, 4),
    ],
)
def test_a_problem_becomes_its_exception(serve: Start, problem: Problem, kind: type[Exception], exit_code: int) -> None:
    server = serve(lambda request: [msgspec.structs.replace(problem, id=request.id)])
    with Client(server.endpoint) as client, pytest.raises(kind) as caught:
        client.progress("b9")
    assert str(caught.value) == problem.message
    assert (error_of(problem).code, error_of(problem).exit_code) == (problem.code, exit_code)


def test_names_are_sent_in_chunks_with_a_window(serve: Start) -> None:
    held: list[Answer] = []
    most = 0

    def script(request: AnyRequest) -> list[Answer]:
        nonlocal most
        if not isinstance(request, AddItems):
            return accepting(request)
        held.extend(accepting(request))
        most = max(most, len(held))
        if len(held) < WINDOW and request.chunk < 5:
            return []  # acknowledged late: the client must go on up to its window
        out, held[:] = held[:], []
        return out

    server = serve(script)
    names = [f"dir/{n}.jpg" for n in range(20_000)]
    with Client(server.endpoint) as client:
        batch = client.open_batch(out="/o")
        batch.add("/photos", iter(names), prefix="photos")
        closed = batch.close(ignored=3)
    adds = [r for r in server.requests if isinstance(r, AddItems)]
    assert [n for r in adds for n in r.names] == names
    assert [r.chunk for r in adds] == list(range(len(adds)))
    assert {(r.root, r.prefix) for r in adds} == {("/photos", "photos")}
    assert max(len(r.names) for r in adds) == CHUNK_NAMES
    assert most == WINDOW
    assert (batch.added, closed.ignored) == (20_000, 3)


def test_long_names_never_make_a_frame_too_large(serve: Start) -> None:
    server = serve(accepting)
    names = ["\x01" * 3_000 + str(n) for n in range(1_500)]  # control characters: 6 bytes each in JSON
    with Client(server.endpoint) as client, client.open_batch() as batch:
        batch.add("/", names)
    adds = [r for r in server.requests if isinstance(r, AddItems)]
    assert [n for r in adds for n in r.names] == names
    assert max(len(encode(r)) for r in adds) <= MAX_FRAME_BYTES


def test_a_refused_chunk_ends_the_submission(serve: Start) -> None:
    def script(request: AnyRequest) -> list[Answer]:
        if isinstance(request, AddItems) and request.chunk == 1:
            return [Problem(id=request.id, code="busy", fault="machine", message="the queue is full", exit_code=4)]
        return accepting(request)

    server = serve(script)
    with Client(server.endpoint) as client:
        batch = client.open_batch()
        with pytest.raises(Refused, match="queue is full"):
            batch.add("/", [f"{n}" for n in range(50_000)])
            batch.close()
    assert not any(isinstance(r, CloseBatch) for r in server.requests)


def test_a_repeated_submission_goes_on_with_the_next_chunk(serve: Start) -> None:
    def script(request: AnyRequest) -> list[Answer]:
        if isinstance(request, OpenBatch):
            return [BatchOpened(id=request.id, batch="b1", resumed=True, next_chunk=7)]
        return accepting(request)

    server = serve(script)
    with Client(server.endpoint) as client, client.open_batch(resume=True, fingerprint="f") as batch:
        batch.add("/", ["a"])
    assert [r.chunk for r in server.requests if isinstance(r, AddItems)] == [7]


def test_progress_is_followed_to_the_end(serve: Start) -> None:
    asked = 0

    def script(request: AnyRequest) -> list[Answer]:
        nonlocal asked
        asked += isinstance(request, Progress)
        return [progress(request.id, "finished" if asked == 3 else "running", asked - 1)]

    server = serve(script)
    with Client(server.endpoint) as client:
        seen = [p.counts.done for p in client.iter_progress("b1", every_seconds=0.01)]
    assert seen == [0, 1, 2]


def test_waiting_has_its_limit(serve: Start) -> None:
    server = serve(lambda request: [progress(request.id, "running")])
    with Client(server.endpoint) as client, pytest.raises(WaitedTooLong, match="1 of 2 items remain"):
        client.wait("b1", timeout_seconds=0.1)


def test_results_are_read_page_by_page(serve: Start) -> None:
    def script(request: AnyRequest) -> list[Answer]:
        if not isinstance(request, Results):
            return []
        rows = [msgspec.Raw(b'{"path":"%d","state":"done"}' % n) for n in range(request.after, request.after + 2)]
        following = request.after + 2 if request.after < 4 else None
        return [ResultsPage(id=request.id, batch="b1", results=rows, next=following)]

    server = serve(script)
    with Client(server.endpoint) as client:
        found = [r["path"] for r in client.iter_results("b1", states=["done"])]
    assert found == ["0", "1", "2", "3", "4", "5"]
    assert all(r.states == ["done"] for r in server.requests if isinstance(r, Results))


def test_events_are_followed_without_gap_or_repetition(serve: Start) -> None:
    decisions = [Decision(number=n, at=0.0, kind="k", message=str(n), slot=1) for n in range(1, 5)]

    def script(request: AnyRequest) -> list[Answer]:
        if isinstance(request, Events):
            return [Decisions(id=request.id, decisions=decisions[:2])]
        return []

    server = serve(script)
    server.publications = decisions
    with Client(server.endpoint) as client:
        seen = []
        for decision in client.follow(["worker.1"]):
            if decision is not None:
                seen.append(decision.number)
            if len(seen) == 4:
                break
    assert seen == [1, 2, 3, 4]


def test_closing_does_not_wait_for_an_iterator_that_is_still_held(serve: Start) -> None:
    server = serve(lambda request: [progress(request.id, "running")])
    client = Client(server.endpoint)
    held = client.iter_progress("b1")
    next(held)
    client.close()


def test_a_request_carries_its_arguments(serve: Start) -> None:
    server = serve(lambda request: [Done(id=request.id, message="paused")])
    with Client(server.endpoint) as client:
        assert client.pause("b1", reason="backup", seconds=5.0) == "paused"
    asked = server.requests[-1]
    assert isinstance(asked, PauseWork)
    assert (asked.batch, asked.reason, asked.seconds) == ("b1", "backup", 5.0)


def test_submitting_is_cheap(serve: Start) -> None:
    server = serve(accepting)
    names = [f"2024/trip/IMG_{n:06}.JPG" for n in range(100_000)]
    began = time.process_time()
    with Client(server.endpoint) as client, client.open_batch() as batch:
        batch.add("/photos", names)
    spent = time.process_time() - began  # both sides: encoding, sending, decoding, answering
    assert batch.added == 100_000
    assert spent < 1.5


@pytest.mark.parametrize(
    ("frame", "asked"),
    [
        (b'{"v":1,"type":"status"}', "there is no message of type 'status'; there are hello, open_batch, "),
        (b'{"v":1}', "the message names no type; there are hello, open_batch, "),
    ],
)
def test_who_names_no_known_type_is_told_which_there_are(frame: bytes, asked: str) -> None:
    with pytest.raises(BadMessage) as told:
        decode_request(frame)
    assert str(told.value).startswith(asked) and "status_request" in str(told.value)
