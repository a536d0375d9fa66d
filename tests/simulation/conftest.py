"""Each seed is a test of its own, so that a failure is named by its seed."""

import pytest


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "seed" in metafunc.fixturenames:
        one: int | None = metafunc.config.getoption("--seed")
        metafunc.parametrize("seed", [one] if one is not None else range(metafunc.config.getoption("--seeds")))
