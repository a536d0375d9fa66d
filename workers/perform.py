"""One item from its name to its report. Never raises for a bad image, nor for a machine in trouble.

The order is the promise: is it still there, was it shunned, what is it, may it be decoded, does it fit,
decode once, every step, was it changed. Whatever happens becomes an outcome:

    done       every step ran; warnings say what was odd
    failed     the image is at fault (or an operation has a bug): a verdict with its kind
    shunned    still what was quarantined; not opened
    deferred   would need more memory than granted; nothing was written
    machine    the machine is at fault: the item is retried when that is mended
"""

import errno
import os
import stat
import time
from array import array
from collections.abc import Callable
from contextlib import AbstractContextManager
from itertools import pairwise
from typing import Any, Protocol

import msgspec

from protocol import paths
from protocol.launch import ImageLimits
from protocol.messages import ErrorKind, ItemError, ItemReport, Weighed
from workers.cleanup import CleanupRegistry
from workers.errors import Deferred, MachineTrouble, NoMemory, NoMemoryNow, Verdict
from workers.heard import Heard
from workers.held import HeldMeter
from workers.making import Making
from workers.memory_lease import Lease, Leases
from workers.models import Models
from workers.operations import Work
from workers.publish import Publisher
from workers.recipe import CompiledRecipe
from workers.scratch import DECODING, Scratch
from workers.source import Factors, Source, gone

CHANGED = "changed since it was submitted: what is there now was processed"
_encode = msgspec.json.Encoder().encode
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT)
_EMPTY_LIST, _EMPTY_OBJECT = msgspec.Raw(b"[]"), msgspec.Raw(b"{}")


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """One item of a lease, ready to be worked on.

    `path` the input's bytes, `path_token` its token; `stem` the token its outputs are named after below `out`;
    `submitted_at` seconds since the epoch; `memory_bytes` what the item may take above the baseline.
    """

    item: int
    path: bytes
    path_token: str
    stem: str
    out: bytes | None
    submitted_at: float
    memory_bytes: int
    overwrite: bool = False
    owned: bool = False
    strict: bool = False
    shunned: tuple[int, int, str] | None = None
    factors: Factors = {}


class Recording(Protocol):
    """The part of the flight recorder (`protocol.recorder.Recorder`) that is used while an item runs."""

    def stat(self, size_bytes: int, mtime_ns: int) -> None:
        """Keeps what the image looked like before it was opened."""

    def step(self, number: int) -> None:
        """Names the step of the recipe that begins."""

    def partial(self, path: bytes) -> None:
        """Names the unfinished output about to be created; empty when there is none."""


class Meter(Protocol):
    """Measures the peak of this process (`workers.limits.PeakMeter`)."""

    def reset(self) -> None:
        """Forgets the peak so far."""

    def read(self) -> int:
        """Returns the largest resident size since the reset, in bytes; 0 when it cannot be told."""


class Context:
    """What all items of a worker share."""

    def __init__(
        self,
        recorder: Recording,
        state_token: str,
        temp_directory: str,
        limits: ImageLimits,
        peak: Meter,
        cleanup: CleanupRegistry | None = None,
        scratch: Scratch | None = None,
        *,
        hash_content: bool = False,
        leases: Leases | None = None,
        models: Models | None = None,
    ) -> None:
        """`temp_directory` takes what the decoders spill to disk; `hash_content`: reports carry the input's SHA-256.
        Without `leases` every request for memory is granted."""
        self.recorder, self.state_token, self.limits, self.peak = recorder, state_token, limits, peak
        self.cleanup = cleanup
        self.hash_content = hash_content
        self.temp_directory = temp_directory
        self.heard = Heard()
        self.held = HeldMeter()
        self.scratch = scratch if scratch is not None else Scratch(temp_directory, cleanup)
        self.leases = leases if leases is not None else Leases()
        self.models = models if models is not None else Models(self.leases)

    @property
    def memory(self) -> Callable[..., AbstractContextManager[Lease]]:
        """`with context.memory(bytes, at_least=..., purpose=...) as lease`: see `workers.memory_lease`."""
        return self.leases.memory


class _Item:
    """The facts of an item as they become known, for its report."""

    def __init__(self) -> None:
        self.size_bytes = self.mtime_ns = self.needs_bytes = 0
        self.content_hash = ""
        self.held: array[int] | None = None
        """What was held at its joints; None: not measured. An array: noting a figure must not take a block."""
        self.blocks = array("q")
        self.held_blocks = 0
        self.models: dict[int, tuple[str, ...]] = {}
        """By the step that used them. No list: its first entry would be a block that the next step seems to leave."""
        self.source: Source | None = None
        self.making: Making | None = None
        self.values: dict[str, Any] = {}
        self.work: Work | None = None
        self.publisher: Publisher | None = None

    def joint(self, meter: HeldMeter) -> None:
        """Takes the figures where a part of the item ends, when this item is one that is measured."""
        if self.held is not None:
            self.held.append(meter.read())
            self.blocks.append(meter.last_blocks)


def perform(recipe: CompiledRecipe, job: Job, context: Context) -> ItemReport:
    """Runs the recipe on one item and returns its report. The caller begins and ends it in the recorder."""
    started = time.perf_counter()
    if recipe.reads == "nothing":
        return ItemReport(id=job.item, outcome="done", seconds=time.perf_counter() - started, version=recipe.version)
    context.peak.reset()
    held = context.peak.read()
    item = _Item()
    if context.held.begin(started):
        item.held = array("q")
        item.joint(context.held)
        item.held_blocks = context.held.blocks()
    error: ItemError | None = None
    needs = 0
    with context.heard as heard:
        outcome: Any = "done"
        try:
            if _run(recipe, job, context, item):
                outcome = "shunned"
        except Verdict as verdict:
            outcome, error = "failed", ItemError(kind=verdict.kind, message=str(verdict))
            if verdict.kind == "corrupt" and context.scratch.is_full():
                outcome, error = "machine", ItemError(kind="io", message=_no_room(context))
        except Deferred as deferred:
            outcome, needs = "deferred", deferred.needs_bytes
        except NoMemory as no:
            outcome, needs = "deferred", item.needs_bytes + no.needs_bytes
        except MemoryError:
            outcome, needs = "deferred", 2 * max(item.needs_bytes, job.memory_bytes)
        except MachineTrouble as trouble:
            kind: ErrorKind = "memory" if isinstance(trouble, NoMemoryNow) else "io"
            outcome, error = "machine", ItemError(kind=kind, message=str(trouble))
        except Exception as bug:
            outcome, error = "failed", ItemError(kind="crash", message=_bug(recipe, job, context, bug))
            if isinstance(bug, OSError) and bug.errno in _NO_ROOM:
                outcome, error = "machine", ItemError(kind="io", message=_no_room(context))
    if item.held is not None:
        context.held.end()
    return ItemReport(
        id=job.item,
        outcome=outcome,
        seconds=time.perf_counter() - started,
        peak_bytes=context.peak.read(),
        error=error,
        outputs=_outputs(item),
        values=msgspec.Raw(_encode(item.values)) if item.values else _EMPTY_OBJECT,
        warnings=msgspec.Raw(_encode(list(heard.said))) if heard.said else _EMPTY_LIST,
        written=item.publisher.written if item.publisher is not None else [],
        needs_bytes=needs,
        size_bytes=item.size_bytes,
        mtime_ns=item.mtime_ns,
        version=recipe.version,
        content_hash=item.content_hash,
        made=item.making.told([said for said in heard.said if said != CHANGED]) if item.making is not None else None,
        # What an item took under memory leases says nothing of its image.
        weighed=_weighed(item.source, held) if not context.leases.asked else None,
        held=item.held.tolist() if item.held is not None and outcome == "done" else [],
        held_blocks=item.held_blocks if outcome == "done" else 0,
        step_models=_models(recipe, item) if item.held is not None and outcome == "done" else [],
        step_blocks=[after - before for before, after in pairwise(item.blocks)] if outcome == "done" else [],
    )


def _models(recipe: CompiledRecipe, item: _Item) -> list[list[str]]:
    """The models that each step used; empty where none did."""
    return [list(item.models.get(number, ())) for number in range(len(recipe.steps))] if item.models else []


def _weighed(source: Source | None, held_bytes: int) -> Weighed | None:
    """What the supervisor learns from, where pixels were to be decoded and peaks can be measured."""
    if source is None or not source.decoder or not held_bytes:
        return None
    header = source.header
    return Weighed(header.format.name, header.kind, source.decoder, source.prior_bytes, source.needs_bytes, held_bytes)


def _run(recipe: CompiledRecipe, job: Job, context: Context, item: _Item) -> bool:
    """Runs every step; returns True when the image is still what was quarantined (and was not opened)."""
    shown = paths.from_token(job.path_token).decode("utf-8", "replace")
    found = _state(job.path, shown)
    item.size_bytes, item.mtime_ns = found.st_size, found.st_mtime_ns
    context.recorder.stat(found.st_size, found.st_mtime_ns)
    if job.shunned == (found.st_size, found.st_mtime_ns, recipe.version):
        return True
    if not stat.S_ISREG(found.st_mode):
        raise Verdict("unsupported", f"{shown} is {_kind(found.st_mode)}, not a regular file")
    if max(found.st_mtime, found.st_ctime) > job.submitted_at:
        context.heard.say(CHANGED)
    if job.out is not None:
        item.publisher = Publisher(
            job.out, job.stem, context.state_token, context.recorder, replace=job.overwrite or job.owned
        )
    source = None
    decoding = 0.0
    context.leases.begin(job.item, job.memory_bytes)
    context.models.used()  # of an item before that failed half-way
    try:
        if recipe.reads != "name":
            source = item.source = Source(job.path, shown, context.limits, context.heard.say, strict=job.strict)
            side, beside = recipe.side(source.header), recipe.beside(source.header)
            item.needs_bytes = source.admit(side, beside, job.memory_bytes, job.factors)
            context.leases.note(item.needs_bytes, "decode")
            decoding = time.perf_counter()
            if context.hash_content:
                item.making = Making(source.fileno())
                item.content_hash = source.content_hash()
            if side:
                context.scratch.enter(DECODING)
                source.allow_embedded(recipe.embedded)
                picture = source.decoded(side)
                context.leases.holds_picture(picture.width * picture.height * 4)
        item.work = Work(os.path.basename(job.path), source, item.publisher, context.heard.say, context.scratch)
        item.work.path = job.path
        item.work.leases, item.work.models = context.leases, context.models
        item.joint(context.held)
        _run_steps(recipe, context, item, item.work, decoding)
        if item.making is not None and source is not None:
            item.making.over(source.fileno())
    finally:
        if source is not None:
            source.close()
        context.leases.end()
        context.models.item_over()
    return False


def _run_steps(recipe: CompiledRecipe, context: Context, item: _Item, work: Work, began: float) -> None:
    """Runs the steps in their order. `began`: when the decoding that they share did, on the clock of perf_counter."""
    for number, step in enumerate(recipe.steps):
        context.recorder.step(number)
        work.begin(step.operation.name)
        before = len(work.outputs)
        try:
            values = step.operation.run(work, step.parameters)
        finally:
            work.end()
        if values:
            item.values.setdefault(step.operation.name, {}).update(values)
        if not work.keep:
            item.making = None
        if item.making is not None:
            # The first step is given the decoding that all share: without it, it would have had to be done.
            item.making.add(time.perf_counter() - began, work.outputs[before:], values)
            began = time.perf_counter()
        values = None  # let go here, or the next step would seem to give it back
        item.joint(context.held)
        if used := context.models.used():
            item.models[number] = used


def _state(path: bytes, shown: str) -> os.stat_result:
    try:
        return os.stat(path)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENOTDIR):
            raise gone(shown) from error
        if error.errno == errno.ENOMEM:
            raise MachineTrouble(f"{shown} cannot be looked at now: {error.strerror}") from error
        raise Verdict("io", f"{shown} cannot be read: {error.strerror}") from error


def _no_room(context: Context) -> str:
    return f"the disk of the temp directory {context.temp_directory} is full"


def _kind(mode: int) -> str:
    kinds = {stat.S_IFDIR: "a directory", stat.S_IFIFO: "a pipe", stat.S_IFSOCK: "a socket"}
    return kinds.get(stat.S_IFMT(mode), "a device")


def _bug(recipe: CompiledRecipe, job: Job, context: Context, bug: Exception) -> str:
    """An exception nobody expected: where it was raised is said, so that its author can be told."""
    trace = bug.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    where = f" ({os.path.basename(trace.tb_frame.f_code.co_filename)}:{trace.tb_lineno})" if trace else ""
    shown = paths.from_token(job.path_token).decode("utf-8", "replace")
    return f"{shown}: unexpected {type(bug).__name__} in recipe {recipe.name!r}{where}: {str(bug)[:300]}"


def _outputs(item: _Item) -> msgspec.Raw:
    if item.work is None or not item.work.outputs:
        return _EMPTY_LIST
    shown = [
        {"step": output.step, **paths.describe(paths.to_token(output.path)), "width": output.width,
         "height": output.height, "bytes": output.size_bytes}
        for output in item.work.outputs
    ]  # fmt: skip
    return msgspec.Raw(_encode(shown))
