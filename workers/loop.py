"""A worker's life after its start: lease in, items, reports out.

One thread does one item at a time. Between items, never inside one, the worker looks at its socket: it
hands back what a Shrink takes from it, trims when told so, leaves when told so. Looking, reporting and
beating are each paced by the clock, not by the item, so that an item that takes microseconds pays for
none of them and one that takes seconds has all three after it.

Finished items are reported when the last report is `report_seconds` old, so at most that much work is
done twice when the worker dies. What was not started when a lease ends early goes back by its ids: every
item of a lease is reported once or handed back once.
"""

import os
import sys
import time
from collections import deque
from typing import cast

import msgspec

from protocol import codec, sockets
from protocol.errors import BadMessage, GalleryError
from protocol.launch import MAX_LEARNED_RECIPES, WorkerStart
from protocol.messages import (
    MAX_FRAME_BYTES,
    AnyFromWorker,
    AnyToWorker,
    Grant,
    Granted,
    Heartbeat,
    ItemError,
    ItemReport,
    MemoryGranted,
    MemoryRefused,
    Profile,
    Profiled,
    Quit,
    Ready,
    Recipe,
    Report,
    Shrink,
    Trim,
    Trimmed,
)
from protocol.paths import from_token, item_path
from protocol.recorder import Recorder
from workers import pressure, sandbox
from workers.cleanup import CleanupRegistry, Moment
from workers.lender import SupervisorLender
from workers.memory import OwnMemory
from workers.perform import Context, Job, perform
from workers.profile import Profiler
from workers.recipe import CompiledRecipe, compile_recipe
from workers.source import Factors

BROKEN_PROTOCOL = 70
"""Exit status of a worker that was told something that is no message (sysexits EX_SOFTWARE)."""

IDLE_HEARTBEAT_SECONDS = 15.0
"""It tells the memory that an idle worker holds, which does not change by itself; that it lives, its pidfd tells."""
IDLE_SLICE_SECONDS = 1.0
"""An idle worker wakes so often: it bounds the one race of SIGTERM, which may arrive just before the wait."""

LOOK_SECONDS = 0.001
"""Pause between two looks at the socket (3 µs each): a Shrink waits no longer, beyond the item in progress."""

MAX_COMPILED_RECIPES = 16
MAX_WAITING_GRANTS = 4
"""Leases that may arrive while one is at work; the supervisor sends one ahead at most."""

_monotonic = time.monotonic


class StopNow(Exception):
    """SIGTERM while the worker waits for work."""


class Stop:
    """Whether the worker was asked to finish; asked by a signal handler."""

    def __init__(self) -> None:
        self.asked = False
        self.waiting = False

    def ask(self) -> None:
        """Notes it, and interrupts a wait for work, never an item."""
        self.asked = True
        if self.waiting:
            self.waiting = False
            raise StopNow


class WorkerLoop:
    """Serves one worker's socket until it is told to leave."""

    def __init__(
        self,
        start: WorkerStart,
        socket: sockets.Socket,
        stop: Stop,
        memory: OwnMemory,
        context: Context,
        recorder: Recorder,
        cleanup: CleanupRegistry,
        sandbox_level: str = "off",
    ) -> None:
        self._start = start
        self._sandbox_level = sandbox_level
        self._sealed = False
        self._socket = socket
        self._stop = stop
        self._memory = memory
        self._context = context
        self._recorder = recorder
        self._cleanup = cleanup
        self._grants: deque[Grant] = deque()
        self._lender = SupervisorLender(start, self._send, self._from_socket, self._until_readable)
        context.leases.lender = self._lender
        self._recipes: dict[bytes, CompiledRecipe] = {}
        self._factors: dict[bytes, Factors] = {}
        self._items_done = 0
        self._untrimmed = False
        """Whether it worked since the C library gave back what it had free: 10 MB, for which an idle one has no use."""
        self._profiler = Profiler()
        self._spoken_at = 0.0

    def run(self) -> int:
        """Works until Quit, SIGTERM or nonsense; returns the exit status."""
        start = self._start
        try:
            self._send(
                Ready(
                    slot=start.slot,
                    incarnation=start.incarnation,
                    pid=os.getpid(),
                    memory=self._memory.read(),
                    sandbox=self._sandbox_level,
                )
            )
            while not self._stop.asked:
                if self._grants:
                    self._work(self._grants.popleft())
                else:
                    self._take(self._wait())
            self._hand_back_waiting()
        except BadMessage as error:
            print(f"worker {start.slot}.{start.incarnation}: told nonsense, leaving: {error}", file=sys.stderr)
            return BROKEN_PROTOCOL
        return 0

    # ---- messages

    def _wait(self) -> AnyToWorker | None:
        """Waits for the next message; None when there is none (SIGTERM, or it is time for a heartbeat)."""
        stop = self._stop
        try:
            stop.waiting = True
            if not stop.asked:
                sockets.wait_readable(self._socket, IDLE_SLICE_SECONDS)
            stop.waiting = False
        except StopNow:
            return None
        message = self._receive()
        self._look_after_models()
        if message is None and self._untrimmed:
            self._memory.trim_malloc()
            self._untrimmed = False
        if message is None and _monotonic() - self._spoken_at >= IDLE_HEARTBEAT_SECONDS:
            self._beat(None)
        return message

    def _receive(self) -> AnyToWorker | None:
        kept = self._lender.kept
        return kept.popleft() if kept else self._from_socket()

    def _from_socket(self) -> AnyToWorker | None:
        frames = sockets.receive(self._socket)
        if frames is None:
            return None
        if len(frames) != 1:
            raise BadMessage(f"a message has one frame, this one {len(frames)}")
        return codec.decode_to_worker(frames[0])

    def _until_readable(self, seconds: float) -> None:
        sockets.wait_readable(self._socket, min(seconds, IDLE_SLICE_SECONDS))

    def _take(self, message: AnyToWorker | None) -> None:
        """Acts on a message between leases."""
        match message:
            case Grant():
                if len(self._grants) >= MAX_WAITING_GRANTS:
                    raise BadMessage(f"lease {message.lease} granted while {MAX_WAITING_GRANTS} others wait")
                self._grants.append(message)
            case Trim():
                self._trim(message)
            case Profile():
                self._profile(message)
            case Quit():
                self._stop.asked = True
            case Shrink() | MemoryGranted() | MemoryRefused() | None:
                # A Shrink that crossed the lease's last report: nothing is left to hand back. An answer that came
                # after it was given up: the memory was released at once.
                pass

    def _look(self, lease: int, remaining: int) -> int:
        """Acts on what arrived during a lease; returns how many of the remaining items are still to be done."""
        while (message := self._receive()) is not None:
            if isinstance(message, Shrink):
                if message.lease == lease:
                    remaining = min(remaining, message.keep)
            else:
                self._take(message)
        return 0 if self._stop.asked else remaining

    def _send(self, message: AnyFromWorker) -> None:
        """Sends, however long the supervisor takes; should it be gone, the death pipe ends the wait."""
        frame = codec.encode(message)
        while sockets.send(self._socket, (frame,)) is not sockets.Sent.SENT:
            sockets.wait_writable(self._socket, IDLE_SLICE_SECONDS)
        self._spoken_at = _monotonic()

    # ---- models and memory leases

    def _look_after_models(self) -> None:
        now = _monotonic()
        self._context.leases.renew_due(now)
        self._context.models.upkeep(now)
        self._profiler.expire(now)

    # ---- a lease

    def _work(self, grant: Grant) -> None:
        items, total = grant.items, len(grant.items)
        self._untrimmed = True
        if not self._sealed:  # the supervisor has been heard: the one connection there ever needs to be is there
            sandbox.seal(self._sandbox_level)
            self._sealed = True
        try:
            recipe = self._compiled(grant.recipe)
        except GalleryError as error:
            self._report(grant.lease, [_waiting(_not_ours(granted, error)) for granted in items], [], finished=True)
            return
        factors = self._learned(grant)
        self._context.leases.granted()
        self._recorder.recipe(recipe.version)
        self._context.hash_content = grant.cache
        out = None if grant.out is None else from_token(grant.out)
        perform_one, start, held = self._perform, self._start, self._context.held
        done: list[msgspec.Raw] = []
        now = flushed = _monotonic()
        looked = 0.0
        at = 0
        while at < total:
            if now - looked >= LOOK_SECONDS:
                total = at + self._look(grant.lease, total - at)
                looked = now
            if self._stop.asked or at >= total:
                break
            if now - self._spoken_at >= start.heartbeat_seconds:
                self._beat(items[at].id)
            done.append(_waiting(perform_one(grant, recipe, factors, out, items[at], now)))
            held.waits()
            at += 1
            now = _monotonic()
            if now - flushed >= start.report_seconds and at < total:
                self._report(grant.lease, done, [], finished=False)
                held.reported(done.clear)
                flushed = now
        self._look_after_models()
        for warning in self._cleanup.run(Moment.LEASE):
            print(f"worker {start.slot}.{start.incarnation}: {warning}", file=sys.stderr)
        self._report(grant.lease, done, [granted.id for granted in items[at:]], finished=True)
        held.reported(done.clear)

    def _perform(
        self, grant: Grant, recipe: CompiledRecipe, factors: Factors, out: bytes | None, item: Granted, now: float
    ) -> ItemReport:
        if not 0 <= item.root < len(grant.roots):
            raise BadMessage(f"item {item.id} of lease {grant.lease} names root {item.root} of {len(grant.roots)}")
        root = grant.roots[item.root]
        try:
            token = item_path(root.root, root.prefix, item.stem)
            path = from_token(token)
        except ValueError as error:
            raise BadMessage(f"item {item.id} of lease {grant.lease}: {error}") from error
        recorder = self._recorder
        recorder.begin(item.id, token, now)
        report = perform(
            recipe,
            Job(
                item=item.id,
                path=path,
                path_token=token,
                stem=item.stem,
                out=out,
                overwrite=grant.overwrite,
                owned=item.owned,
                strict=grant.strict,
                submitted_at=grant.submitted_at,
                memory_bytes=grant.memory_bytes,
                shunned=item.shunned,
                factors=factors,
            ),
            self._context,
        )
        if self._sandbox_level != "off" and report.error is not None and report.error.kind == "io":
            report = _beyond(report, path)
        if self._cleanup.has(Moment.ITEM):
            report = _with_warnings(report, self._cleanup.run(Moment.ITEM))
        recorder.end()
        self._items_done += 1
        return report

    def _compiled(self, recipe: Recipe) -> CompiledRecipe:
        key = msgspec.json.encode(recipe)
        found = self._recipes.get(key)
        if found is None:
            found = compile_recipe(recipe)
            if len(self._recipes) >= MAX_COMPILED_RECIPES:
                del self._recipes[next(iter(self._recipes))]
            self._recipes[key] = found
        return found

    def _learned(self, grant: Grant) -> Factors:
        """The factors of the grant's recipe: those it brings, else those that came last."""
        key = msgspec.json.encode(grant.recipe)
        if grant.factors is not None:
            if key not in self._factors and len(self._factors) >= MAX_LEARNED_RECIPES:
                del self._factors[next(iter(self._factors))]
            self._factors[key] = {(each.format, each.kind, each.decoder): each.factor for each in grant.factors}
        return self._factors.get(key, {})

    def _hand_back_waiting(self) -> None:
        for grant in self._grants:
            self._report(grant.lease, [], [granted.id for granted in grant.items], finished=True)

    # ---- what is said

    def _report(self, lease: int, done: list[msgspec.Raw], handed_back: list[int], *, finished: bool) -> None:
        """Reports; in halves when the values of so many items do not fit into one message."""
        message = Report(
            slot=self._start.slot,
            incarnation=self._start.incarnation,
            lease=lease,
            items=cast(list[ItemReport], done),
            handed_back=handed_back,
            finished=finished,
            memory=self._memory.read(),
        )
        if len(done) > 1 and sum(len(bytes(item)) for item in done) > MAX_FRAME_BYTES // 2:
            half = len(done) // 2
            self._report(lease, done[:half], [], finished=False)
            self._report(lease, done[half:], handed_back, finished=finished)
        else:
            self._send(message)

    def _beat(self, current: int | None) -> None:
        self._send(
            Heartbeat(
                slot=self._start.slot,
                incarnation=self._start.incarnation,
                memory=self._memory.read(),
                items_done=self._items_done,
                current=current,
            )
        )

    def _profile(self, asked: Profile) -> None:
        if asked.action == "begin":
            self._profiler.begin(asked.number, self._items_done)
            return
        seconds, items, grown_bytes, grown_blocks, tracer, lines = self._profiler.end(asked.top, self._items_done)
        self._send(
            Profiled(
                slot=self._start.slot,
                incarnation=self._start.incarnation,
                number=asked.number,
                items=items,
                seconds=seconds,
                grown_bytes=grown_bytes,
                grown_blocks=grown_blocks,
                tracer_bytes=tracer,
                lines=lines,
            )
        )

    def _trim(self, asked: Trim) -> None:
        began, before = _monotonic(), self._memory.rss_bytes()
        if asked.collect_cycles:
            freed = pressure.collect(asked.collect_cycles, self._memory)
        else:
            freed = pressure.relieve(asked.tier, self._memory)
        for action in freed:
            if action.error is not None:
                who = f"worker {self._start.slot}.{self._start.incarnation}"
                print(f"{who}: clean-up {action.name!r} of {action.owner}: {action.error}", file=sys.stderr)
        self._send(
            Trimmed(
                slot=self._start.slot,
                incarnation=self._start.incarnation,
                before_bytes=before,
                after_bytes=self._memory.rss_bytes(),
                seconds=_monotonic() - began,
                tier=asked.tier,
                freed=freed,
                cleanup=asked.cleanup,
            )
        )


def _waiting(item: ItemReport) -> msgspec.Raw:
    """Returns an item's report as it waits to be sent: encoded, so that each takes as many of Python's blocks as the
    next one, whatever is in it. Else what waits would be mistaken for what was left behind."""
    return msgspec.Raw(codec.encode_part(item))


def _with_warnings(report: ItemReport, warnings: list[str]) -> ItemReport:
    if not warnings:
        return report
    known: list[object] = msgspec.json.decode(bytes(report.warnings), type=list[object])
    return msgspec.structs.replace(report, warnings=msgspec.Raw(msgspec.json.encode(known + warnings)))


def _beyond(report: ItemReport, path: bytes) -> ItemReport:
    """What the sandbox keeps from us is no fault of the file's: a link that leads elsewhere, a file put in the place of
    the one that the rules were made for. A worker made for just this item can read it."""
    if report.outcome != "failed" or not sandbox.denies(path):
        return report
    return ItemReport(id=report.id, outcome="outside", seconds=report.seconds, error=report.error)


def _not_ours(granted: Granted, error: GalleryError) -> ItemReport:
    """The image is not to blame for a recipe that this worker cannot compile: it is retried when that is mended."""
    fault = ItemError(kind="unsupported", message=f"the recipe cannot be run here: {error}")
    return ItemReport(id=granted.id, outcome="machine", seconds=0.0, error=fault)
