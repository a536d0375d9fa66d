"""The temp root where no supervisor runs: the same figures and the same reaper, without a thread."""

import os

from protocol.messages import TempReport, TempUsage
from supervisor.mechanism.temp.keeper import usage_answer
from supervisor.mechanism.temp.reaper import Reaper
from supervisor.mechanism.temp.root import TempRoot
from supervisor.mechanism.temp.survey import measure
from supervisor.policy.temp import TempSettings


def stats_offline(path: str, token: str, *, private: bool) -> TempUsage:
    """Returns what a temp root holds. Raises TempRootUnusable."""
    root = TempRoot(path, token, private=private, make=False)
    try:
        job = measure(root)
        while True:
            try:
                next(job)
            except StopIteration as done:
                return usage_answer(root, done.value, 0)
    finally:
        root.close()


def reap_offline(path: str, token: str, settings: TempSettings, *, private: bool, dry_run: bool) -> TempReport:
    """Reaps what is stale, or tells what would be. Raises TempRootUnusable."""
    root = TempRoot(path, token, private=private, make=False)
    complaints: list[str] = []
    reports: list[TempReport] = []
    try:
        for _ in Reaper(root, settings, complaints.append).sweep(False, dry_run, reports.append):
            pass
    finally:
        root.close()
    return TempReport(
        dry_run=dry_run,
        reaped=reports[0].reaped,
        files=reports[0].files,
        bytes=reports[0].bytes,
        complaints=[os.fsdecode(os.fsencode(complaint)) for complaint in complaints],
    )
