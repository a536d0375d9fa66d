"""Clients of every kind: gone, greedy, talking nonsense, or ten lines long. None disturbs another one."""

import json
import os
import signal
import string
import subprocess
import sys
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from protocol import sockets
from protocol.client import Client
from protocol.errors import Abandoned
from protocol.messages import MAX_FRAME_BYTES, MAX_NAMES_A_CHUNK, AddItems, AnyRequest
from tests.end_to_end.bed import ROOT, Bed, Command, make_bed, settled, wait_for

ANSWER_SECONDS = 30.0


class RawClient:
    """Sends frames of any bytes and reads answers as JSON."""

    def __init__(self, endpoint: str) -> None:
        self._context = sockets.new_context()
        self._socket = sockets.client_socket(self._context, endpoint)
        assert sockets.wait_writable(self._socket, ANSWER_SECONDS)

    def send(self, *frames: bytes) -> bool:
        """Sends one message; False where the queue is full."""
        return sockets.send(self._socket, frames) is sockets.Sent.SENT

    def receive(self, seconds: float = ANSWER_SECONDS) -> dict[str, Any]:
        """Returns the next answer."""
        assert sockets.wait_readable(self._socket, seconds), "no answer came"
        frames = sockets.receive(self._socket)
        assert frames is not None
        answer: dict[str, Any] = json.loads(frames[-1])
        return answer

    def ask(self, *frames: bytes) -> dict[str, Any]:
        """Sends one message and returns its answer."""
        assert self.send(*frames)
        return self.receive()

    def close(self) -> None:
        sockets.destroy_context(self._context)


class Served:
    """One supervisor for all the nonsense of this module, and a neighbour whose work must go on."""

    def __init__(self, bed: Bed, command: Command) -> None:
        self.bed = bed
        self.command = command
        self.rounds = 0
        self.raw = RawClient(bed.endpoint)

    def neighbour_is_served(self) -> None:
        """Another client's batch runs to its end."""
        self.rounds += 1
        client = self.bed.client()
        out = f"{self.bed.out}-{self.rounds}"
        progress = client.wait(self.bed.submit(client, [f"p{n:05d}.jpg" for n in range(5)], out=out), 20)
        assert progress.counts.done == 5
        assert len(list(client.iter_results(progress.batch))) == 5
        client.close()
        assert self.command.running


@pytest.fixture(scope="module")
def served() -> Iterator[Served]:
    with make_bed() as bed:
        bed.fill(5)
        command = bed.start()
        found = Served(bed, command)
        yield found
        found.raw.close()


# ---- nonsense ------------------------------------------------------------------------------------

WORDS = st.text(string.printable, max_size=20)
NAMES = st.one_of(
    WORDS,
    st.sampled_from(["..", "a/../../b", "/etc/passwd", "", ".", "a//b", "a\0b", "//base64:!!!", "//base64:Lw==", "x/"]),
    st.builds(lambda n: "n" * n, st.integers(200, 5_000)),
)
NUMBERS = st.one_of(st.integers(), st.sampled_from([-1, 0, 2**31, 2**63, 2**64, -(2**63) - 1]), st.floats())
JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), NUMBERS, WORDS),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(WORDS, inner, max_size=4)),
    max_leaves=12,
)
LATE_OR_LAST = ("Stop", "MemoryProfile")
"""A profile is answered when it is over, ten seconds later and more."""
TYPES = {kind.__struct_config__.tag: kind for kind in AnyRequest.__args__ if kind.__name__ not in LATE_OR_LAST}
FIELDS: dict[str, st.SearchStrategy[Any]] = {
    "batch": st.one_of(st.none(), NAMES, st.just("nonsense")),
    "names": st.lists(NAMES, max_size=4),
    "root": st.one_of(NAMES, st.just("/tmp")),
    "out": st.one_of(st.none(), NAMES),
    "path": NAMES,
    "recipe": st.one_of(WORDS, st.just("probe")),
    "states": st.lists(st.one_of(WORDS, st.sampled_from(["done", "leased", "pending"])), max_size=3),
    "reason": WORDS, "fingerprint": st.one_of(st.none(), WORDS), "kind": WORDS, "prefix": NAMES,
    "seconds": st.one_of(st.none(), st.floats(allow_nan=False, allow_infinity=False)),
}  # fmt: skip


@st.composite
def requests(draw: st.DrawFn) -> bytes:
    """A request of a real type whose fields are nearly right, or not at all; never one that pauses everybody."""
    name = draw(st.sampled_from(sorted(TYPES)))
    fields: dict[str, Any] = {"type": name, "v": 1, "id": draw(st.one_of(st.integers(0, 9), WORDS))}
    for field in TYPES[name].__struct_fields__:
        if field in ("v", "id") or not draw(st.integers(0, 9)):
            continue
        booleans = isinstance(getattr(TYPES[name], field, None), bool) or field in ("hold", "overwrite", "strict")
        fallback = st.booleans() if booleans or field in ("resume", "quarantined", "retry") else NUMBERS
        fields[field] = draw(st.one_of(FIELDS.get(field, fallback), JSON) if draw(st.booleans()) else
                             FIELDS.get(field, fallback))  # fmt: skip
    if name in ("pause_work", "resume_work") and not isinstance(fields.get("batch"), str):
        fields["batch"] = "nonsense"
    return json.dumps(fields).encode()


@settings(max_examples=500, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True, database=None)
@given(st.one_of(st.binary(max_size=200), JSON.map(lambda value: json.dumps(value).encode()), requests(), requests()))
def test_any_frame_gets_one_answer_and_stops_nobody(served: Served, frame: bytes) -> None:
    answer = served.raw.ask(frame)
    assert answer["type"] and answer["v"] == 1
    assert served.command.running
    if answer["type"] == "problem":
        assert answer["message"] and answer["code"] and answer["fault"] in ("caller", "peer", "machine")


def test_neighbour_is_served_after_all_that_nonsense(served: Served) -> None:
    for name in ("nonsense", "other"):
        served.raw.send(json.dumps({"v": 1, "type": "open_batch", "batch": name, "recipe": "probe"}).encode())
        served.raw.receive()
    served.neighbour_is_served()
    assert "Traceback" not in served.command.said(), served.command.said()


@pytest.mark.parametrize(
    ("frame", "code", "words"),
    [
        (b"\xff\xfe\x00", "bad_message", "not JSON"),
        (b"[1, 2]", "bad_message", "object"),
        (b'{"v": 1, "type": "fly"}', "bad_message", "fly"),
        (b'{"v": 1, "type": "progress"}', "bad_message", "batch"),
        (b'{"v": 1, "type": "progress", "batch": 7}', "bad_message", "batch"),
        (b'{"v": 1, "type": "hello", "colour": "red"}', "bad_message", "colour"),
        (b'{"v": 2, "type": "hello"}', "wrong_version", "version 1"),
        (b'{"v": "1", "type": "hello"}', "wrong_version", "version 1"),
        (b'{"v": 1, "type": "progress", "batch": "no-such"}', "unknown_batch", "no-such"),
        (b'{"v": 1, "type": "hello", "id": ' + b"[" * 100_000, "bad_message", "id"),
        (b'{"v": 1, "type": "why", "slot": 9223372036854775808}', "bad_message", "slot"),
        (b'{"v": 1, "type": "add_items", "batch": "x", "chunk": -1, "root": "/", "names": []}', "bad_message", "chunk"),
        (b'{"v": 1, "id": 5, "type": "hello", "x": "' + b"x" * MAX_FRAME_BYTES + b'"}', "too_large", "limit"),
    ],
)
def test_each_fault_is_named(served: Served, frame: bytes, code: str, words: str) -> None:
    answer = served.raw.ask(frame)
    assert (answer["type"], answer["code"]) == ("problem", code), answer
    assert words in answer["message"]


@pytest.mark.parametrize("bad", ["//base64:!!!", "//base64:AA==", "a\0b", ""])
def test_names_that_can_be_no_file_are_refused_at_the_door(served: Served, bad: str) -> None:
    with served.bed.client() as client:
        batch = client.open_batch(recipe="probe").name
        request = {"v": 1, "type": "add_items", "batch": batch, "chunk": 0, "root": "/tmp", "names": ["sound", bad]}
        answer = served.raw.ask(json.dumps(request).encode())
        assert (answer["type"], answer["fault"]) == ("problem", "caller"), answer
        assert client.progress(batch).items == 0
        client.cancel(batch)
    for kind in ("why", "quarantine_list", "quarantine_drop"):
        answer = served.raw.ask(json.dumps({"v": 1, "type": kind, "path": bad}).encode())
        assert answer.get("fault", "caller") == "caller", answer


def test_id_of_a_bad_request_comes_back(served: Served) -> None:
    assert served.raw.ask(b'{"v": 1, "id": "q7", "type": "fly"}')["id"] == "q7"


def test_message_of_several_frames_is_refused(served: Served) -> None:
    for frames in ((b"a", b"b"), (b"", b"{}", b"{}"), (b"", b"")):
        answer = served.raw.ask(*frames)
        assert answer["type"] == "problem" and answer["fault"] == "peer"
    served.neighbour_is_served()


def test_too_many_names_are_refused_whole(served: Served) -> None:
    with served.bed.client() as client:
        batch = client.open_batch(recipe="probe").name
        request = {"v": 1, "type": "add_items", "batch": batch, "chunk": 0, "root": "/tmp",
                   "names": [str(n) for n in range(MAX_NAMES_A_CHUNK + 1)]}  # fmt: skip
        answer = served.raw.ask(json.dumps(request).encode())
        assert answer["type"] == "problem" and f"{MAX_NAMES_A_CHUNK:,}" in answer["message"]
        assert client.progress(batch).items == 0
        client.cancel(batch)


def test_frame_beyond_the_wire_limit_cuts_its_sender_off_alone(served: Served) -> None:
    huge = RawClient(served.bed.endpoint)
    huge.send(b"x" * (sockets.MAX_WIRE_BYTES + 1))
    served.neighbour_is_served()
    huge.close()


def test_bytes_that_are_not_zeromq_at_all_are_survived(served: Served) -> None:
    import socket

    path = sockets.ipc_path(served.bed.endpoint)
    assert path is not None
    for content in (b"GET / HTTP/1.1\r\n\r\n", os.urandom(5_000), b"\xff" * 12, b""):
        with socket.socket(socket.AF_UNIX) as peer:
            peer.connect(path)
            peer.send(content)
    served.neighbour_is_served()


# ---- greedy and gone -----------------------------------------------------------------------------


def test_flood_of_requests_leaves_others_served(served: Served) -> None:
    stop = threading.Event()
    sent = [0, 0]

    def flood(which: int) -> None:
        greedy = RawClient(served.bed.endpoint)  # reads no answer at all
        frame = b'{"v": 1, "type": "status_request"}'
        while not stop.is_set():
            sent[which] += greedy.send(frame)
        greedy.close()

    floods = [threading.Thread(target=flood, args=(which,)) for which in range(len(sent))]
    for one in floods:
        one.start()
    try:
        wait_for(lambda: min(sent) > 3_000, "the flood is on")
        served.neighbour_is_served()
    finally:
        stop.set()
        for one in floods:
            one.join()
    served.neighbour_is_served()


def test_client_that_vanishes_after_submitting_leaves_its_batch_to_go_on(bed: Bed) -> None:
    bed.fill(60)
    bed.write_config(slow=[{"operation": "misbehave.hang", "seconds": 0.02}])
    bed.start()
    client = bed.client()
    words = ("submit", bed.photos, "--out", bed.out, "--recipe", "slow", "--json", "--wait")
    submitter = bed.command(*words)
    wait_for(lambda: len(submitter.printed().splitlines()) >= 2, "it is accepted")
    submitter.signal(signal.SIGKILL)
    submitter.process.wait()
    batch = json.loads(submitter.printed().splitlines()[0])["batch"]
    assert settled(client.progress(batch)) < 60
    assert client.wait(batch, 30).counts.done == 60


def test_client_that_dies_in_the_middle_of_its_submission_can_go_on_with_it(bed: Bed) -> None:
    names = bed.fill(50)
    bed.start()
    first = bed.client()
    half = first.open_batch(batch="mine", out=bed.out)
    half.add(bed.photos, names[:30])
    half.flush()
    first.close()
    client = bed.client()
    wait_for(lambda: settled(client.progress("mine")) == 30, "what was accepted is done")
    assert client.progress("mine").state == "running" and client.progress("mine").open
    with client.open_batch(batch="mine", out=bed.out) as again:
        again.add(bed.photos, names[30:])
    assert client.wait("mine", 30).counts.done == 50


_HALF = """
import sys
from protocol.client import Client
endpoint, photos, out, *names = sys.argv[1:]
batch = Client(endpoint).open_batch(batch="mine", out=out)
batch.add(photos, names)
batch.flush()
print("sent", flush=True)
sys.stdin.read()
batch.close()
"""


def test_batch_whose_client_was_killed_is_closed_as_it_is_and_the_same_submission_completes_it(bed: Bed) -> None:
    names = bed.fill(50)
    bed.start()
    words = [sys.executable, "-c", _HALF, bed.endpoint, bed.photos, bed.out, *names[:30]]
    with subprocess.Popen(words, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as filling:
        assert filling.stdout is not None and filling.stdout.readline() == b"sent\n"
        filling.kill()
    client = bed.client()
    assert client.progress("mine").open
    bed.run("config", "set", "abandon_after", "1s")
    over = client.wait("mine", 60)
    assert (over.state, over.counts.done, over.open) == ("finished", 30, False) and over.abandoned_at is not None
    assert "finished, abandoned" in bed.run("batches").out
    (told,) = [decision for decision in client.decisions() if decision.kind == "abandoned"]
    assert told.figures["items"] == 30 and told.figures["limit_seconds"] == 1.0
    with pytest.raises(Abandoned, match=r"30 images.*--batch mine"):
        client.request(AddItems(batch="mine", chunk=9, root=bed.photos, names=names[:1]))
    bed.run("config", "set", "abandon_after", "10m")
    assert bed.run("submit", bed.photos, "--out", bed.out, "--batch", "mine", "--wait").code == 0
    whole = client.progress("mine")
    assert (whole.counts.done, whole.abandoned_at) == (50, None)


def test_open_batch_of_a_killed_supervisor_is_closed_by_the_next_one(bed: Bed) -> None:
    names = bed.fill(5)
    first = bed.start()
    half = bed.client().open_batch(batch="mine", out=bed.out)
    half.add(bed.photos, names)
    half.flush()
    first.signal(signal.SIGKILL)
    first.process.wait()
    bed.start(abandon_after="1s")
    over = bed.client().wait("mine", 60)
    assert over.counts.done == 5 and over.abandoned_at is not None


def test_subscriber_that_does_not_read_costs_nobody_anything(bed: Bed) -> None:
    names = bed.fill(200)
    bed.start(batch_size_max="1")
    client = bed.client()
    lazy = client.follow(backlog=0)
    batch = bed.submit(client, names)
    assert client.wait(batch, 30).counts.done == 200
    del lazy


# ---- ten lines -----------------------------------------------------------------------------------


def test_ten_line_client_submits_two_files_and_follows_them_to_their_results(bed: Bed) -> None:
    names = bed.fill(2)
    bed.start()
    script = os.path.join(ROOT, "tests", "end_to_end", "ten_line_client.py")
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    words = [sys.executable, script, bed.state, bed.out, *(bed.photo(name) for name in names)]
    ended = subprocess.run(words, capture_output=True, text=True, timeout=30, env=environment)
    assert ended.returncode == 0, ended.stderr
    lines = ended.stdout.splitlines()
    assert len(lines) == 2
    for name in names:
        stem = f"{bed.out}{bed.photo(name)}"
        assert f"done {bed.photo(name)} ['{stem}.256.webp', '{stem}.1024.webp']" in lines
        assert os.path.getsize(f"{stem}.256.webp") > 50


def test_python_client_of_the_package_is_a_context_manager(bed: Bed) -> None:
    names = bed.fill(3)
    bed.start()
    with Client(bed.endpoint) as client:
        with client.open_batch(out=bed.out) as batch:
            batch.add(bed.photos, names)
        states = [progress.state for progress in client.iter_progress(batch.name)]
        assert states[-1] == "finished"
        assert {result["state"] for result in client.iter_results(batch.name)} == {"done"}
