"""`--seeds N` runs so many seeds, `--seed S` that one."""

import pytest

SEEDS = 1_000


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--seeds", type=int, default=SEEDS, help="how many seeds to simulate")
    parser.addoption("--seed", type=int, default=None, help="simulate this seed alone")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "seed" in metafunc.fixturenames:
        one = metafunc.config.getoption("--seed", None)
        count = metafunc.config.getoption("--seeds", SEEDS)
        metafunc.parametrize("seed", [one] if one is not None else range(count))
