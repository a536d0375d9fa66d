"""Places that a supervisor is put into, built below a directory, and what `doctor` says of them."""

from pathlib import Path

import pytest

from supervisor.cli.doctor_place import Seen, examine_place

DEPLOY = Path(__file__).parents[2] / "deploy"


def told(root: Path, limit_bytes: int | None = None, **environ: str) -> dict[str, Seen]:
    return {seen.subject: seen for seen in examine_place(limit_bytes, str(root), environ)}


def put(root: Path, name: str, text: str) -> None:
    (root / name).parent.mkdir(parents=True, exist_ok=True)
    (root / name).write_text(text, "utf-8")


def test_a_plain_machine_is_told_nothing_but_its_extras(tmp_path: Path) -> None:
    assert set(told(tmp_path)) <= {"extras", "descriptors"}
    assert "completion" in told(tmp_path)["extras"].text


def test_a_container_needs_a_limit_and_somebody_to_reap(tmp_path: Path) -> None:
    put(tmp_path, ".dockerenv", "")
    put(tmp_path, "proc/1/comm", "supervisor\n")
    found = told(tmp_path)
    assert found["container"].verdict == "warn" and "--memory" in found["container"].text
    assert found["PID 1"].verdict == "warn" and "tini" in found["PID 1"].text
    put(tmp_path, "proc/1/comm", "tini\n")
    found = told(tmp_path, 512 << 20)
    assert found["container"].verdict == "ok" and "PID 1" not in found
    assert told(tmp_path, KUBERNETES_SERVICE_HOST="10.0.0.1")["container"].text.startswith("Kubernetes")


def test_our_own_unit_has_no_fault(tmp_path: Path) -> None:
    put(tmp_path, "etc/systemd/system/gallery-supervisor.service", (DEPLOY / "gallery-supervisor.service").read_text())
    assert told(tmp_path)["systemd unit"].verdict == "ok"


@pytest.mark.parametrize(
    ("line", "changed", "says"),
    [
        ("TimeoutStopSec=60s", "TimeoutStopSec=20", "cuts the drain of 30 s short"),
        ("KillMode=mixed", "KillMode=control-group", "KillMode=mixed is missing"),
        ("WatchdogSec=30s", "", "WatchdogSec= is missing"),
        ("Type=notify", "Type=exec", "Type=notify is missing"),
        ("MemoryMax=2G", "", "MemoryMax= is missing"),
        ("Restart=on-failure", "Restart=no", "Restart=on-failure is missing"),
    ],
)
def test_a_changed_unit_is_told_what_it_lost(tmp_path: Path, line: str, changed: str, says: str) -> None:
    text = (DEPLOY / "gallery-supervisor.service").read_text()
    assert line in text
    put(tmp_path, "etc/systemd/system/gallery-supervisor.service", text.replace(line, changed))
    found = told(tmp_path)["systemd unit"]
    assert found.verdict == "warn" and says in found.text


def test_a_unit_that_is_none_is_named(tmp_path: Path) -> None:
    put(tmp_path, "etc/systemd/system/gallery-supervisor.service", "nonsense")
    assert "cannot be read" in told(tmp_path)["systemd unit"].text
