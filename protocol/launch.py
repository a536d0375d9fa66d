"""How a worker process begins: a plain function that names the module to run.

The supervisor never imports the workers' code (their decoders would come with it). It hands the template
process this function, which the child finds here, and the name of the module whose `main` it is to call.
"""

import importlib
from typing import Any

import msgspec

from protocol.kernel import SandboxMode
from protocol.messages import Recipe


class ImageLimits(msgspec.Struct, frozen=True, kw_only=True):
    """What an image may be, checked on its header before anything is decoded. Orientation for the defaults:
    imgproxy refuses above 50 MP and sharp above 268 MP unless told otherwise; galleries hold 280 MP panoramas."""

    pixels_streamed: int = 500_000_000
    """Largest image of a format that streams or shrinks while loading (sequential JPEG, plain PNG, TIFF)."""
    pixels_whole: int = 200_000_000
    """Largest image of a format that must be held whole."""
    file_bytes: int = 2 * 1024**3
    frames: int = 10_000
    side: int = 100_000


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
    """What the path of its own temp directory begins with; the worker adds its label (`protocol.temp_name`)."""
    state_token: str
    """Eight hexadecimal digits of the state directory; part of the name of unfinished outputs."""
    template_pid: int
    nice: int = 10
    idle_io: bool = True
    oom_score_adj: int = 500
    heartbeat_seconds: float = 1.0
    report_seconds: float = 0.1
    """Finished items are reported at the latest so long after they are done (at the next item boundary): so much of
    them is done again when the worker dies. A report costs the supervisor about 1 ms with its sync and its commit; one
    for each small image, as 0.02 has it, takes 6 % of what two workers do."""
    limits: ImageLimits = ImageLimits()
    sandbox: SandboxMode = "off"
    roots_read: list[str] = []
    """Path tokens of directories and files that it may read beside the installation; a sandbox is never widened."""
    roots_write: list[str] = []
    """Path tokens of the directories that outputs go to."""
    library: list[str] = []
    """Further directories that operations may read (models, fonts)."""
    lease_from_bytes: int = 64 * 1024**2
    """A decode predicted to take so much holds a memory lease."""
    lease_answer_seconds: float = 5.0
    """How long an operation waits for the answer to a request for memory."""
    lease_patience_seconds: float = 10.0
    """How much longer it waits where others are about to give back what it would like beyond the least it needs."""
    lease_renew_seconds: float = 150.0
    """A memory lease is renewed so often."""
    model_idle_seconds: float = 300.0
    """A model not used for so long is unloaded."""


class CatalogueStep(msgspec.Struct, frozen=True, kw_only=True):
    """A step as its operation understood it, defaults filled in: what the cache knows it by. `edition` is what in
    its parameters makes it another operation (the hash of a model)."""

    operation: str
    version: int
    parameters: dict[str, Any]
    edition: str = ""


class TemplatePlan(msgspec.Struct, frozen=True, kw_only=True):
    """What the template process imports before it is forked from; handed over in PLAN_VARIABLE."""

    supervisor_pid: int
    recipes: list[Recipe]
    """Compiled once in the template: validates their parameters and imports what they need."""
    report_path: str
    """Where the template writes why it could not be prepared (plain text), before it exits with an error."""
    catalogue_path: str = ""
    """Where it writes what the recipes are to the cache (JSON, `list[CatalogueRecipe]`); empty: nowhere."""


class CatalogueRecipe(msgspec.Struct, frozen=True, kw_only=True):
    """A recipe and its steps; no steps where its results must not be kept."""

    recipe: str
    steps: list[CatalogueStep]


MAX_LEARNED_RECIPES = 64
"""Recipes whose learned factors a worker keeps, the longest known goes first; the supervisor counts along."""
PLAN_VARIABLE = "GALLERY_SUPERVISOR_TEMPLATE"


def enter(module: str, start: bytes) -> None:
    """Runs `module.main(WorkerStart)` in the new process; `start` is JSON."""
    importlib.import_module(module).main(msgspec.json.decode(start, type=WorkerStart))
