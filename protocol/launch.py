"""How a worker process begins: a plain function that names the module to run.

The supervisor never imports the workers' code (their decoders would come with it). It hands the template
process this function, which the child finds here, and the name of the module whose `main` it is to call.
"""

import importlib

import msgspec


class WorkerStart(msgspec.Struct, frozen=True, kw_only=True):
    """What a new worker is told before any socket exists."""

    slot: int
    incarnation: int
    backend_endpoint: str
    recorder_path: str
    death_pipe_path: str
    """A FIFO whose write end the supervisor holds: its end-of-file means that the supervisor is gone."""
    life_lock_path: str
    """Held shared (flock) by every worker: the next supervisor waits until nobody holds it."""
    temp_directory: str
    state_token: str
    """Eight hexadecimal digits of the state directory; part of the name of unfinished outputs."""
    template_pid: int
    nice: int = 10
    idle_io: bool = True
    oom_score_adj: int = 500
    heartbeat_seconds: float = 1.0
    report_seconds: float = 0.02


class TemplatePlan(msgspec.Struct, frozen=True, kw_only=True):
    """What the template process imports before it is forked from; handed over in PLAN_VARIABLE."""

    modules: list[str]
    supervisor_pid: int


PLAN_VARIABLE = "GALLERY_SUPERVISOR_TEMPLATE"


def enter(module: str, start: bytes) -> None:
    """Runs `module.main(WorkerStart)` in the new process; `start` is JSON."""
    importlib.import_module(module).main(msgspec.json.decode(start, type=WorkerStart))
