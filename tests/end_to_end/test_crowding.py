"""A budget that does not hold all workers: said before and at the start, and fewer serve."""

import pytest

from tests.end_to_end.bed import Bed, make_bed, wait_for

FLAGS = ("--memory", "120M", "--workers", "4")


def test_no_more_workers_serve_than_the_budget_holds_and_the_work_is_done() -> None:
    with make_bed() as bed:
        names = bed.fill(40)
        started = bed.start(*FLAGS, "--json")
        client = bed.client()
        told = wait_for(
            lambda: [row.note for row in client.status().workers if row.note and "does not serve" in row.note],
            "some workers do not serve",
        )
        assert 1 <= len(told) <= 3
        assert "the budget of 120 MB holds no more than" in told[0] and "raise --memory to" in told[0]
        assert "note     the budget of 120 MB holds no more than" in started.said()
        batch = bed.submit(client, names)
        assert client.wait(batch).counts.done == 40
        serving = [row for row in client.status().workers if row.pid is not None]
        assert 1 <= len(serving) <= 4 - len(told)


@pytest.mark.parametrize(("budget", "warned"), [("120M", True), ("2G", False)])
def test_config_check_and_doctor_warn_before_a_start(budget: str, warned: bool) -> None:
    with make_bed() as bed:
        checked = bed.run("config", "check", "--memory", budget, "--workers", "4", "--json")
        found = _findings(bed, "--memory", budget, "--workers", "4")
    assert checked.code == 0 and bool(checked.last["warnings"]) == warned
    assert ("workers" in found) == warned
    if warned:
        assert "lower --workers to" in checked.last["warnings"][0] and found["workers"]["verdict"] == "warn"


def _findings(bed: Bed, *flags: str) -> dict[str, dict[str, str]]:
    (findings,) = bed.run("doctor", "--json", *flags).rows
    return {row["subject"]: row for row in findings}
