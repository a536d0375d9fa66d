"""The whole Pool by seed: whatever happens, nothing is lost, nothing is done to the innocent, all comes to its end."""

import pytest

from tests.simulation.world import World


def test_whatever_happens_everything_is_settled_once(seed: int) -> None:
    world = World(seed)
    try:
        world.run()
    except Exception as fault:
        last = "\n".join(world.log)
        pytest.fail(f"seed {seed}: {type(fault).__name__}: {fault}\nthe last events:\n{last}", pytrace=False)
