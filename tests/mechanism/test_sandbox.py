"""The sandbox, from inside a real worker: what a worker that was taken over tries, and what it still may do.

Which layers this kernel has is asked of the kernel; a test of a layer that is not there is skipped by the layer's
name. Layers of older kernels are tried on this one by telling `confine` that it has no more.
"""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from protocol import kernel
from protocol.kernel import Offer, SandboxMissing
from protocol.messages import Ready, Recipe, Report, Root, Step
from tests.mechanism.real_pool import RealPool, ended, real_pool, recipe
from workers import sandbox

OFFER = kernel.offer()
NEEDS_LANDLOCK = pytest.mark.skipif(OFFER.landlock_abi < 3, reason=f"Landlock 3 is lacking: {OFFER.level}")
NEEDS_SCOPES = pytest.mark.skipif(OFFER.landlock_abi < 6, reason=f"Landlock 6 is lacking: {OFFER.level}")
NEEDS_SECCOMP = pytest.mark.skipif(not OFFER.seccomp, reason=f"a seccomp filter is lacking: {OFFER.level}")
NOOP = recipe("noop")
ROOT = str(Path(__file__).parents[2])


@pytest.fixture(scope="module")
def pool() -> Iterator[RealPool]:
    with real_pool([NOOP]) as pool:
        yield pool


@pytest.fixture
def victim() -> Iterator[int]:
    """A process of ours that a worker has no business with."""
    process = subprocess.Popen([sys.executable, "-c", "import signal; signal.pause()"])
    yield process.pid
    process.kill()
    process.wait()


class Inside:
    """One confined worker and the roots it has."""

    def __init__(self, pool: RealPool, directory: Path, mode: kernel.SandboxMode = "best-effort") -> None:
        self.photos, self.out, self.elsewhere = directory / "in", directory / "out", directory / "elsewhere"
        for made in (self.photos, self.elsewhere):
            made.mkdir()
        (self.photos / "a.jpg").write_bytes(b"photo")
        (self.elsewhere / "key").write_bytes(b"secret")
        self.pool = pool
        self.worker = pool.start(sandbox=mode, roots_read=[str(self.photos)], roots_write=[str(self.out)])
        self.level = pool.receive(Ready).sandbox

    def report(self, work: Recipe, stem: str = "a.jpg") -> Report:
        """Performs a recipe on one file; returns the report."""
        lease = self.pool.grant(
            self.worker, work, [], roots=[Root(str(self.photos), "")], out=str(self.out),
            items=[msgspec.convert([1, 0, stem, False, None], type=_granted())],
        )  # fmt: skip
        return self.pool.reports(lease)[-1]

    def attempts(self, *attempts: tuple[str, object]) -> list[str]:
        """Has a hostile operation try; returns how each attempt ended."""
        work = Recipe(name="hostile", steps=[_trespass([[what, str(on)] for what, on in attempts])])
        item = self.report(work).items[0]
        assert item.error is None, item.error
        values = msgspec.json.decode(bytes(item.values), type=dict[str, dict[str, str]])["misbehave.trespass"]
        return [values[f"{what} {on}"] for what, on in attempts]


def _granted() -> Any:
    from protocol.messages import Granted

    return Granted


def _trespass(attempts: list[list[str]]) -> Step:
    return Step(operation="misbehave.trespass", parameters={"attempts": attempts})


@NEEDS_LANDLOCK
def test_files_beyond_its_roots_are_out_of_reach(pool: RealPool, tmp_path: Path) -> None:
    inside = Inside(pool, tmp_path)
    key = inside.elsewhere / "key"
    denied = inside.attempts(
        ("read", key), ("list", inside.elsewhere), ("write", inside.elsewhere / "new"), ("write", key), ("remove", key),
        ("truncate", key), ("read", "/etc/passwd"), ("list", os.path.expanduser("~")), ("list", "/"),
        ("write", inside.photos / "a.jpg"), ("remove", inside.photos / "a.jpg"), ("link", inside.out / "way-out"),
        ("read", f"/proc/{os.getpid()}/environ"), ("read", pool.recorder_path), ("write", pool.recorder_path),
    )  # fmt: skip
    assert set(denied) == {"Permission denied"}, denied
    assert key.read_bytes() == b"secret" and (inside.photos / "a.jpg").read_bytes() == b"photo"
    assert not (inside.elsewhere / "new").exists()


def test_its_own_work_goes_on(pool: RealPool, tmp_path: Path) -> None:
    inside = Inside(pool, tmp_path)
    temp = os.path.join(pool.temp_of(inside.worker), "spill")
    made = inside.attempts(
        ("read", inside.photos / "a.jpg"), ("list", inside.photos), ("write", inside.out / "x"),
        ("truncate", inside.out / "x"), ("remove", inside.out / "x"), ("write", temp), ("read", os.devnull),
        ("read", "/dev/urandom"), ("execute", "/bin/true"), ("signal", inside.worker.pid),
    )  # fmt: skip
    assert set(made) == {"succeeded"}, made
    assert OFFER.level == inside.level
    inside.worker.terminate()
    assert ended(inside.worker) and inside.worker.exit_code(5.0) == 0


@NEEDS_SECCOMP
def test_no_network_and_no_other_socket(pool: RealPool, tmp_path: Path) -> None:
    inside = Inside(pool, tmp_path)
    with socket.socket() as tcp, socket.socket(socket.AF_UNIX) as agent:
        tcp.bind(("127.0.0.1", 0))
        tcp.listen()
        agent.bind(str(inside.photos / "agent"))
        agent.listen()
        port = tcp.getsockname()[1]
        denied = inside.attempts(("tcp", port), ("udp", port), ("unix", inside.photos / "agent"))
    assert set(denied) == {"Permission denied"}, denied


@NEEDS_SECCOMP
def test_no_other_process_and_no_way_round_the_filter(pool: RealPool, tmp_path: Path, victim: int) -> None:
    inside = Inside(pool, tmp_path)
    refused = inside.attempts(
        ("signal", victim), ("signal", os.getpid()), ("ptrace", victim), ("io_uring", ""),
        ("chmod", inside.elsewhere / "key"),
    )  # fmt: skip
    assert set(refused) == {"Operation not permitted"}, refused
    assert inside.attempts(("memory", victim))[0] in ("Permission denied", "Operation not permitted")


@NEEDS_LANDLOCK
def test_what_a_program_of_the_photos_may_do_is_nothing(pool: RealPool, tmp_path: Path) -> None:
    inside = Inside(pool, tmp_path)
    program = inside.photos / "program"
    program.write_bytes(b"#!/bin/sh\nexit 0\n")
    program.chmod(0o755)
    assert inside.attempts(("execute", program)) == ["Permission denied"]


@NEEDS_LANDLOCK
def test_a_link_that_leads_elsewhere_is_no_fault_of_the_image(pool: RealPool, tmp_path: Path) -> None:
    inside = Inside(pool, tmp_path)
    (inside.photos / "link.jpg").symlink_to(inside.elsewhere / "key")
    report = inside.report(recipe("probe"), "link.jpg")
    assert [item.outcome for item in report.items] == ["outside"]
    worker = pool.start(sandbox="best-effort", roots_read=[str(inside.photos / "link.jpg")])
    inside.worker = worker
    pool.receive(Ready)
    report = inside.report(recipe("probe"), "link.jpg")
    assert report.items[0].outcome == "failed" and report.items[0].error is not None
    assert report.items[0].error.kind in ("unsupported", "corrupt")  # it was read


def test_without_a_sandbox_nothing_is_denied(pool: RealPool, tmp_path: Path, victim: int) -> None:
    inside = Inside(pool, tmp_path, "off")
    assert inside.level == "off"
    key = inside.elsewhere / "key"
    tried = inside.attempts(("read", key), ("list", "/"), ("signal", victim))
    assert set(tried) == {"succeeded"}, tried


# ---- layers of other kernels -----------------------------------------------------------------------

_CHILD = """
import os, signal, socket, sys
from protocol.kernel import Offer
from workers import sandbox
top, abi, seccomp, victim = sys.argv[1], int(sys.argv[2]), sys.argv[3] == "yes", int(sys.argv[4])
level = sandbox.confine("best-effort", read=[top + "/in"], write=[top + "/out"], temp_directory=top + "/temp",
                        offered=Offer(landlock_abi=abi, seccomp=seccomp))
tries = {
    "read": lambda: open(top + "/key").read(),
    "own": lambda: open(top + "/in/a").read(),
    "truncate": lambda: os.truncate(top + "/key", 1),
    "tcp": lambda: socket.create_connection(("127.0.0.1", int(sys.argv[5])), 5).close(),
    "udp": lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM).close(),
    "signal": lambda: os.kill(victim, 0),
    "self": lambda: os.kill(os.getpid(), 0),
}
done = []
for name, attempt in tries.items():
    try:
        attempt()
        done.append(name)
    except PermissionError:
        pass
print(level, *done, sep=",")
"""


def _layers(top: Path, abi: int, seccomp: bool, victim: int) -> tuple[str, set[str]]:
    for name in ("in", "out", "temp"):
        (top / name).mkdir()
    (top / "in" / "a").write_text("a")
    (top / "key").write_text("secret")
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        words = [str(top), str(abi), "yes" if seccomp else "no", str(victim), str(listener.getsockname()[1])]
        environment = {**os.environ, "PYTHONPATH": ROOT}
        found = subprocess.run(
            [sys.executable, "-P", "-c", _CHILD, *words], env=environment, capture_output=True, text=True, timeout=30
        )
    assert found.returncode == 0, found.stderr
    level, *done = found.stdout.strip().split(",")
    return level, set(done)


@NEEDS_SCOPES
@pytest.mark.parametrize(
    ("abi", "possible"),
    [
        (1, {"own", "truncate", "tcp", "udp", "signal", "self"}),
        (2, {"own", "truncate", "tcp", "udp", "signal", "self"}),
        (3, {"own", "tcp", "udp", "signal", "self"}),
        (4, {"own", "udp", "signal", "self"}),
        (5, {"own", "udp", "signal", "self"}),
        (6, {"own", "udp", "self"}),
    ],
)
def test_each_edition_of_landlock_adds_its_part(tmp_path: Path, victim: int, abi: int, possible: set[str]) -> None:
    assert _layers(tmp_path, abi, False, victim) == (f"landlock {abi}", possible)


@NEEDS_SECCOMP
def test_seccomp_alone_shuts_network_and_processes_out(tmp_path: Path, victim: int) -> None:
    assert _layers(tmp_path, 0, True, victim) == ("seccomp", {"read", "own", "truncate", "self"})


@NEEDS_LANDLOCK
@NEEDS_SECCOMP
def test_old_landlock_and_seccomp_complete_each_other(tmp_path: Path, victim: int) -> None:
    assert _layers(tmp_path, 3, True, victim) == ("landlock 3 + seccomp", {"own", "self"})


def test_none_at_all_is_said(tmp_path: Path, victim: int) -> None:
    everything = {"read", "own", "truncate", "tcp", "udp", "signal", "self"}
    assert _layers(tmp_path, 0, False, victim) == ("none", everything)


def test_a_required_sandbox_that_is_not_there_names_what_lacks_and_the_way_out(tmp_path: Path) -> None:
    with pytest.raises(SandboxMissing) as refused:
        sandbox.confine(
            "require", read=[], write=[], temp_directory=str(tmp_path), offered=Offer(landlock_abi=0, seccomp=False)
        )
    told = str(refused.value)
    assert "Landlock" in told and "seccomp" in told and "--sandbox best-effort" in told


def test_the_installation_never_opens_a_home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "lib").mkdir()
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(sys, "path", [str(tmp_path), str(tmp_path.parent), "/", "", str(tmp_path / "lib")])
    found = kernel.installation()
    assert str(tmp_path / "lib") in found
    assert not {str(tmp_path), str(tmp_path.parent), "/", ""} & set(found)


def test_a_signal_to_itself_still_kills(pool: RealPool, tmp_path: Path) -> None:
    """An abort inside a decoder must look like what it is: the filter lets a process signal itself."""
    inside = Inside(pool, tmp_path)
    pool.grant(inside.worker, recipe("misbehave.crash", signal=int(signal.SIGABRT)), ["a.jpg"])
    assert ended(inside.worker) and inside.worker.exit_code(5.0) == -signal.SIGABRT
