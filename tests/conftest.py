"""Options of the test run: `--seeds N` simulates so many seeds, `--seed S` that one alone."""

import pytest

from supervisor.mechanism.vectors import compute_alone

compute_alone()  # before anything loads numpy: on a busy machine a second thread of its BLAS costs ten times the work

SEEDS = 1_000


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--seeds", type=int, default=SEEDS, help="how many seeds tests/simulation runs")
    parser.addoption("--seed", type=int, default=None, help="the one seed that tests/simulation runs")
