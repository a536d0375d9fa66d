"""The supervisor's own part of a clean-up: every registered action is done, measured, and bounded."""

import queue
from pathlib import Path

from supervisor.mechanism.cleaning import Cleaner
from supervisor.mechanism.journal import Journal
from supervisor.policy.cleanup_actions import ACTIONS
from supervisor.policy.commands import CleanUp
from supervisor.policy.events import CleanedUp

OWN = [(action.name, 30.0) for action in ACTIONS if action.owner == "supervisor"]


def test_every_registered_action_is_done_by_somebody(tmp_path: Path) -> None:
    journal = Journal(str(tmp_path), lambda event: None)
    journal.open()
    journal.start()
    posted: queue.Queue[CleanedUp] = queue.Queue()
    cleaner = Cleaner(journal, None, posted.put)
    try:
        cleaner.start(CleanUp(number=7, tier="emergency", actions=OWN, collect_cycles=2))
        done = posted.get(timeout=30)
        assert done.number == 7
        assert [(action.name, action.owner, action.error) for action in done.actions] == [
            (name, "supervisor", None) for name, _ in OWN
        ]
    finally:
        cleaner.close(30)
        journal.close()


def test_a_journal_that_does_not_get_to_it_is_named_and_the_others_have_their_turn(tmp_path: Path) -> None:
    journal = Journal(str(tmp_path), lambda event: None)  # its thread was never started: nobody answers
    posted: queue.Queue[CleanedUp] = queue.Queue()
    cleaner = Cleaner(journal, None, posted.put)
    actions = [("journal memory", 0.05), ("gc", 1.0), ("nonsense", 1.0)]
    cleaner.start(CleanUp(number=1, tier="gentle", actions=actions))
    errors = [action.error for action in posted.get(timeout=30).actions]
    assert errors == [
        "TimeoutError: the journal is at work and did not get to it within 0.05 s",
        None,
        "AssertionError: nobody does 'nonsense'",
    ]
    cleaner.close(30)
