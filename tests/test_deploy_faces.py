"""What deploy/ runs beside the supervisor: containers, probes, scrapes and alerts that name what there is."""

import json
import re
import shlex
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from supervisor.values import parse_duration
from tests.test_deploy import STOP_SECONDS, check_command, instructions

yaml = pytest.importorskip("yaml")

ROOT = Path(__file__).parents[1]
DEPLOY = ROOT / "deploy"
DERIVED = "_(bucket|sum|count)$"
"""What a histogram makes of its name."""


def metrics() -> set[str]:
    """Returns the names that the gateway writes."""
    source = (ROOT / "supervisor/gateway/metrics.py").read_text("utf-8")
    return set(re.findall(r'"(gallery_[a-z_]+)"', source))


def named(text: str) -> set[str]:
    """Returns the metrics that a text names."""
    return {re.sub(DERIVED, "", name) for name in re.findall(r"\bgallery_[a-z_]+\b", text)}


def documents(name: str) -> list[Any]:
    """Returns the documents of a YAML file."""
    return [one for one in yaml.safe_load_all((DEPLOY / name).read_text("utf-8")) if one is not None]


def expressions() -> list[str]:
    """Returns every query of the alert rules and the dashboard."""
    (rules,) = documents("prometheus/alerts.yml")
    board = json.loads((DEPLOY / "grafana/dashboards/gallery-supervisor.json").read_text("utf-8"))
    found = [rule["expr"] for group in rules["groups"] for rule in group["rules"]]
    return found + [target["expr"] for panel in board["panels"] for target in panel["targets"]]


def test_every_query_asks_for_a_figure_that_there_is() -> None:
    asked = named(" ".join(expressions()))
    assert len(asked) > 12
    assert asked <= metrics()


def test_an_alert_says_what_to_do() -> None:
    (rules,) = documents("prometheus/alerts.yml")
    for rule in rules["groups"][0]["rules"]:
        assert set(rule["annotations"]) == {"summary", "description"}, rule["alert"]
        assert rule["labels"]["severity"] in ("page", "ticket"), rule["alert"]


def test_the_dashboard_has_no_panel_twice_and_none_over_another() -> None:
    board = json.loads((DEPLOY / "grafana/dashboards/gallery-supervisor.json").read_text("utf-8"))
    assert len({panel["id"] for panel in board["panels"]}) == len(board["panels"]) > 10
    taken: set[tuple[int, int]] = set()
    for panel in board["panels"]:
        at = panel["gridPos"]
        cells = {(at["x"] + i, at["y"] + j) for i in range(at["w"]) for j in range(at["h"])}
        assert not cells & taken and at["x"] + at["w"] <= 24, panel["title"]
        taken |= cells


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed")
@pytest.mark.parametrize(
    "words", ["check rules alerts.yml", "test rules alerts.test.yml", "check config --syntax-only prometheus.yml"]
)
def test_prometheus_accepts_its_files(words: str) -> None:
    command = ["promtool", *words.split()]
    ended = subprocess.run(command, cwd=DEPLOY / "prometheus", capture_output=True, text=True, timeout=60)
    assert ended.returncode == 0, ended.stdout + ended.stderr


def test_compose_runs_a_real_command_that_others_find() -> None:
    (compose,) = documents("compose.yml")
    ours = compose["services"]["supervisor"]
    check_command(ours["command"])
    drain = parse_duration(ours["command"][ours["command"].index("--drain") + 1])
    assert drain is not None and drain + STOP_SECONDS <= float(ours["stop_grace_period"].removesuffix("s"))
    port = ours["command"][ours["command"].index("--http") + 1].rpartition(":")[2]
    (scrape,) = documents("prometheus/prometheus.yml")[0]["scrape_configs"]
    assert scrape["static_configs"] == [{"targets": [f"supervisor:{port}"]}]
    assert ours["ports"] == [f"127.0.0.1:{port}:{port}"]
    assert dict(instructions())["EXPOSE"] == port
    for service in compose["services"].values():
        for volume in service.get("volumes", ()):
            source = volume.split(":")[0]
            assert not source.startswith("./") or (DEPLOY / source).exists(), f"{source} is mounted and not there"
            assert source[0] in "./$" or source in compose["volumes"], f"{source} is no volume"
        for secret in service.get("secrets", ()):
            assert secret in compose["secrets"]


def test_kubernetes_runs_a_real_command_and_probes_what_there_is() -> None:
    kinds = {document["kind"]: document for document in documents("kubernetes.yaml")}
    pod = kinds["StatefulSet"]["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    check_command(container["args"])
    drain = parse_duration(container["args"][container["args"].index("--drain") + 1])
    assert drain is not None and drain + STOP_SECONDS <= pod["terminationGracePeriodSeconds"]
    served = (ROOT / "supervisor/gateway").glob("*.py")
    routes = set(re.findall(r'Route\("(/[a-z]*)"', "".join(file.read_text("utf-8") for file in served)))
    for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
        assert container[probe]["httpGet"]["path"] in routes
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    assert str(ports["http"]) == container["args"][container["args"].index("--http") + 1].rpartition(":")[2]
    user = dict(instructions())["USER"].split(":")[0]
    assert pod["securityContext"]["runAsNonRoot"] is True and str(pod["securityContext"]["runAsUser"]) == user
    mounted = {mount["name"] for mount in container["volumeMounts"]}
    claimed = {volume["name"] for volume in pod["volumes"]}
    claimed |= {claim["metadata"]["name"] for claim in kinds["StatefulSet"]["spec"]["volumeClaimTemplates"]}
    assert mounted == claimed
    selector = kinds["Service"]["spec"]["selector"]
    assert selector.items() <= kinds["StatefulSet"]["spec"]["template"]["metadata"]["labels"].items()


def test_kubernetes_accepts_the_manifest() -> None:
    checker = pytest.importorskip("kubernetes_validate")
    for document in documents("kubernetes.yaml"):
        checker.validate(document, checker.latest_version(), strict=True)


def test_the_dyno_runs_a_real_command() -> None:
    kind, _, line = (DEPLOY / "Procfile").read_text("utf-8").strip().partition(": ")
    program, *words = shlex.split(re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", line).replace("$PORT", "8080"))
    assert (kind, program) == ("web", "supervisor")
    check_command(words)
