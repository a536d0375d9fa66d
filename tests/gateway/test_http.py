"""Batches over HTTP, as a program would run them: a real gateway of a real supervisor, real images."""

import contextlib
import http.client
import os
import signal
import sys

import pytest

from tests.end_to_end.bed import Bed, children_of, lives, wait_for
from tests.galleries import small_jpeg, write
from tests.gateway.web import Web, iter_events, multipart, start


def outputs_of(web: Web, batch: str) -> list[str]:
    """Returns the names of a batch's outputs below its output directory."""
    out = web.get(f"/batches/{batch}").json["out"]
    rows = web.get(f"/batches/{batch}/results").lines
    return sorted(os.path.relpath(output["path"], out) for row in rows for output in row["outputs"])


def test_a_directory_becomes_a_batch_whose_outputs_can_be_fetched(web: Web) -> None:
    names = web.bed.fill(4, directory=web.bed.photo("album"))
    write(web.bed.photos, "album/notes.txt", b"no image")
    out = os.path.join(web.bed.out, "album")
    answer = web.post("/batches", {"paths": [web.bed.photo("album")], "recipe": "thumbs", "out": out})
    assert (answer.status, answer.json["items"], answer.json["ignored"]) == (201, 4, 1)
    batch = answer.json["batch"]
    assert answer.headers["location"] == f"/batches/{batch}"
    assert web.finish(batch)["counts"]["done"] == 4
    assert [row["batch"] for row in web.get("/batches").json].count(batch) == 1
    assert outputs_of(web, batch) == sorted(f"{name}.{side}.webp" for name in names for side in (256, 1024))
    fetched = web.get(f"/batches/{batch}/outputs/{names[0]}.256.webp")
    with open(os.path.join(out, f"{names[0]}.256.webp"), "rb") as file:
        assert fetched.body == file.read()
    assert fetched.headers["content-type"] == "image/webp"
    assert "sandbox" in fetched.headers["content-security-policy"]
    assert web.get(f"/batches/{batch}/outputs/nothing.webp").status == 404


def test_uploaded_images_are_worked_on_and_nobody_else_names_them(web: Web) -> None:
    image = small_jpeg(7)
    body, headers = multipart([
        ("recipe", None, b"thumbs"), ("image", "../../etc/beach.jpg", image), ("image", "beach.jpg", image),
        ("image", "..", b"no image"),
    ])  # fmt: skip
    answer = web.ask("POST", "/batches", body, headers)
    assert (answer.status, answer.json["items"]) == (201, 3), answer.body
    batch = answer.json["batch"]
    assert web.finish(batch)["counts"] | {"failed": 1} == web.finish(batch)["counts"]
    rows = {os.path.basename(row["path"]): row for row in web.get(f"/batches/{batch}/results").lines}
    assert {name: row["state"] for name, row in rows.items()} == {
        "beach.jpg": "done", "beach-2.jpg": "done", "image": "failed",
    }  # fmt: skip
    assert all(row["path"].startswith(os.path.join(web.bed.state, "http", "uploads", batch)) for row in rows.values())
    picture = web.get(f"/batches/{batch}/outputs/beach.jpg.256.webp")
    assert picture.status == 200 and picture.body[:4] == b"RIFF"


def test_results_can_be_chosen_gone_on_with_and_asked_newest_first(web: Web) -> None:
    web.bed.fill(3, directory=web.bed.photo("mixed"))
    write(web.bed.photos, "mixed/bad.jpg", b"\xff\xd8\xff\xe0 no image at all")
    batch = web.post("/batches", {"paths": [web.bed.photo("mixed")], "recipe": "probe"}).json["batch"]
    web.finish(batch)
    answer = web.get(f"/batches/{batch}/results")
    assert answer.headers["content-type"] == "application/x-ndjson" and len(answer.lines) == 4
    (failed,) = web.get(f"/batches/{batch}/results?state=failed").lines
    assert failed["error"]["kind"] in ("corrupt", "unsupported") and failed["path"].endswith("bad.jpg")
    assert web.get(f"/batches/{batch}/results?newest=2").lines == answer.lines[:1:-1]
    assert web.get(f"/batches/{batch}/results?state=better").status == 400
    assert web.get("/batches/unknown/results").status == 404


def test_a_batch_is_paused_resumed_cancelled(web: Web) -> None:
    web.bed.fill(50, directory=web.bed.photo("many"))
    assert web.post("/pause", {"reason": "a test"}).status == 200
    ready = web.get("/ready")
    assert ready.status == 503 and ready.json["reasons"] == ["it is paused: a test"]
    assert ready.json["memory"]["budget_bytes"] > 0
    assert web.get("/health").json == {"alive": True}, "alive it is"
    batch = web.post("/batches", {"paths": [web.bed.photo("many")], "recipe": "stop"}).json["batch"]
    assert web.post(f"/batches/{batch}/pause", {"seconds": -1}).status == 400
    assert web.ask("POST", f"/batches/{batch}/pause").json["message"].startswith("paused")
    assert web.get(f"/batches/{batch}").json["state"] == "paused"
    assert web.ask("POST", f"/batches/{batch}/resume").status == 200
    assert web.ask("DELETE", f"/batches/{batch}").status == 200
    assert web.finish(batch)["counts"]["cancelled"] == 50
    assert web.ask("POST", "/resume").status == 200
    assert web.get("/ready").status == 200


def test_a_client_may_name_its_batch_so_that_asking_again_is_harmless(web: Web) -> None:
    web.bed.fill(2, directory=web.bed.photo("twice"))
    asked = {"paths": [web.bed.photo("twice")], "recipe": "stop", "batch": "mine-1"}
    first = web.post("/batches", asked)
    web.finish("mine-1")
    again = web.post("/batches", asked)
    assert [first.json, again.json] == [{"batch": "mine-1", "items": 2, "ignored": 0}] * 2
    assert (first.status, again.status) == (201, 201)


def test_the_same_outputs_for_two_inputs_are_refused_before_anything_runs(web: Web) -> None:
    write(web.bed.photos, "left/a.jpg", small_jpeg(1))
    write(web.bed.photos, "right/left/a.jpg", small_jpeg(2))
    paths = [web.bed.photo("left"), web.bed.photo("right/left")]
    answer = web.post("/batches", {"paths": paths, "recipe": "thumbs", "out": os.path.join(web.bed.out, "clash")})
    assert (answer.status, answer.code) == (409, "clash")


def test_the_whole_is_told(web: Web) -> None:
    status, memory = web.get("/status").json, web.get("/memory").json
    assert [worker["slot"] for worker in status["workers"]] == [0, 1] and "id" not in status
    assert memory["budget_bytes"] == status["budget_bytes"] and len(memory["processes"]) >= 3
    assert web.get("/temp").json["bytes"] >= 0
    history = web.get("/history?seconds=600").json
    assert len(history["at"]) == len(history["used_bytes"]) and [w["slot"] for w in history["workers"]] == [0, 1]
    assert web.get("/decisions?limit=1").status == 200
    assert web.get("/cache").status == 400, "this supervisor has none, and says so"
    assert web.get("/quarantine").json == []


def test_a_small_picture_is_had_without_decoding(web: Web) -> None:
    path = web.bed.photo("p.jpg")
    write(web.bed.photos, "p.jpg", small_jpeg(3))
    write(web.bed.photos, "p.txt", b"no image")
    answer = web.get(f"/picture?path={path}")
    assert (answer.status, answer.headers["content-type"]) == (200, "image/jpeg")
    assert web.get(f"/picture?path={web.bed.photo('p.txt')}").status == 204
    assert web.get("/picture?path=/etc/passwd").status == 403


def test_events_tell_of_a_worker_that_is_killed(web: Web) -> None:
    connection = http.client.HTTPConnection(web.host, web.port, timeout=60)
    connection.request("GET", "/events")
    answer = connection.getresponse()
    assert answer.getheader("content-type") == "text/event-stream; charset=utf-8"
    killed: set[int] = set()
    for kind, data in iter_events(answer):
        # A worker that was just about to be replaced is not missed: then its successor is killed.
        if kind == "status" and data["workers"][0]["state"] == "IDLE" and data["workers"][0]["pid"] not in killed:
            killed.add(data["workers"][0]["pid"])
            with contextlib.suppress(ProcessLookupError):
                os.kill(data["workers"][0]["pid"], signal.SIGKILL)
        if kind == "decisions" and any(f"(pid {pid}) ended" in each["message"] for each in data for pid in killed):
            break
    else:
        raise AssertionError("the events ended")
    connection.close()


def test_quarantine_is_listed_retried_dropped(bed: Bed) -> None:
    bed.write_config(crash=[{"operation": "misbehave.crash", "only": "bad*"}])
    web = start(bed)
    write(bed.photos, "bad.jpg", small_jpeg(1))
    batch = web.post("/batches", {"paths": [bed.photos], "recipe": "crash", "out": bed.out}).json["batch"]
    assert web.finish(batch)["counts"]["quarantined"] == 1
    (entry,) = web.get("/quarantine").json
    assert (entry["path"], entry["kind"]) == (bed.photo("bad.jpg"), "crash") and entry["evidence"]
    assert web.post("/quarantine/retry", {"path": bed.photo("other.jpg")}).status == 404
    assert web.post("/quarantine/retry", {"path": entry["path"]}).status == 200
    wait_for(lambda: web.get("/quarantine").json, "it is in quarantine again")
    assert web.post("/quarantine/drop", {"path": entry["path"]}).status == 200
    assert web.get("/quarantine").json == []


def test_who_is_not_on_loopback_needs_the_token(bed: Bed) -> None:
    web = start(bed, host="0.0.0.0")
    with open(os.path.join(bed.state, "http", "token"), encoding="ascii") as file:
        token = file.read().strip()
    assert [web.get(path).status for path in ("/health", "/status", "/metrics", "/batches", "/events")] == [200] + [
        401
    ] * 4
    assert "memory" not in web.get("/ready").json, "probes are told yes or no"
    assert web.get("/status", Authorization=f"Bearer {token}").status == 200
    assert web.get("/status", Authorization=f"Bearer {token[:-1]}").status == 401
    assert web.get("/").headers["location"] == "/login"
    form = {"Content-Type": "application/x-www-form-urlencoded"}
    wrong = web.ask("POST", "/login", b"token=wrong", form)
    assert wrong.status == 401 and "set-cookie" not in wrong.headers
    entered = web.ask("POST", "/login", f"token={token}".encode(), form)
    cookie = entered.headers["set-cookie"]
    assert entered.status == 303 and token not in cookie
    assert "HttpOnly" in cookie and "SameSite=strict" in cookie
    session = cookie.partition(";")[0]
    assert web.get("/", Cookie=session).status == 200
    assert web.ask("POST", "/pause", headers={"Cookie": session, "Origin": "http://evil.example"}).status == 403


def test_a_gateway_lives_and_dies_with_its_supervisor(bed: Bed) -> None:
    web = start(bed)
    gateway = wait_for(lambda: gateway_of(web), "its process")
    os.kill(gateway, signal.SIGKILL)
    wait_for(lambda: _answers(web), "another one listens")
    web.command.signal(signal.SIGTERM)
    assert web.command.wait().code == 0
    assert not lives(gateway)


def gateway_of(web: Web) -> int:
    """Returns the pid of the gateway's process; 0 while there is none."""
    for pid in children_of(web.command.pid):
        with contextlib.suppress(OSError), open(f"/proc/{pid}/cmdline", "rb") as file:
            if b"supervisor.gateway" in file.read():
                return pid
    return 0


def _answers(web: Web) -> bool:
    try:
        again = Web(web.bed, web.command)
        return again.get("/health").status == 200
    except (OSError, AssertionError):
        return False


@pytest.mark.parametrize("words", [("--http-roots", "/nowhere/at/all"), ("--http-token", "short"), ("--http", "8080")])
def test_what_cannot_be_is_said_at_the_start(bed: Bed, words: tuple[str, ...]) -> None:
    ended = bed.run("start", "--http", "127.0.0.1:0", *words)
    assert ended.code == 2 and words[1] in ended.err.replace("a secret", "short")


def test_without_the_extra_start_says_how_to_install_it(bed: Bed) -> None:
    # Where the environment has the extra, a path without its packages stands for one that has not.
    bed.prefix = [sys.executable, "-c", WITHOUT_UVICORN]
    ended = bed.run("start", "--http", "127.0.0.1:0")
    assert ended.code == 2
    assert "--http needs uvicorn" in ended.err and "pip install 'gallery-supervisor[web]'" in ended.err


WITHOUT_UVICORN = """
import sys, importlib.util
found = importlib.util.find_spec
importlib.util.find_spec = lambda name, *more: None if name == "uvicorn" else found(name, *more)
from supervisor.cli import main
sys.exit(main(sys.argv[sys.argv.index("supervisor") + 1:]))
"""
