"""The worker processes at hand: started, looked at, signalled, and found dead.

The policy speaks of (slot, incarnation); here each stands for a process with its descriptors: the pidfd to poll, the
kept-open memory file, its page of the flight recorder. Starts happen in the chores thread and come back by the
mailbox, so that every descriptor is registered by the loop's own thread.
"""

import contextlib
import os
import time
from collections.abc import Callable, Container, Sequence
from functools import partial
from typing import Literal

import msgspec

from protocol.launch import WorkerStart
from protocol.recorder import RecorderReader
from supervisor.mechanism.chores import Chores
from supervisor.mechanism.memory import Budget, BudgetFinder, PressureStall, ProcessMemory, open_process
from supervisor.mechanism.memory.worker_groups import WorkerGroups
from supervisor.mechanism.processes import Processes, StartError, WorkerProcess
from supervisor.policy.events import (
    AnyEvent,
    PartSample,
    Sampled,
    StartFailed,
    WorkerExited,
    WorkerSample,
    WorkerStarted,
)

STATUS_WAIT_SECONDS = 0.05
"""DESIGN 3: the template is waited for at most so long before the cause of a death is called unknown."""
THOROUGH_EVERY_SECONDS = 60.0
"""How often the shared part of a worker is measured anew: it changes slowly, and the look stalls the worker."""
SIGKILL_STATUS = -9


class Hand(msgspec.Struct):
    """One worker process as the loop holds it."""

    process: WorkerProcess
    memory: ProcessMemory | None
    descriptor: int
    killed: bool = False
    died_at: float | None = None
    looked_at: float = 0.0


class Crew:
    """All worker processes of this supervisor. One thread, the loop's, except what `Chores` runs."""

    def __init__(
        self,
        *,
        processes: Processes,
        chores: Chores,
        post: Callable[["Arrived | StartFailed"], None],
        describe: Callable[[int, int], WorkerStart],
        recorder_path: str,
        slots: int,
        finder: BudgetFinder,
        groups: WorkerGroups | None = None,
    ) -> None:
        self._processes = processes
        self._chores = chores
        self._post = post
        self._describe = describe
        self._recorder = RecorderReader(recorder_path, slots)
        self._finder = finder
        self._groups = groups
        self._hands: dict[int, Hand] = {}
        self._polled: set[int] | None = None
        self._swapped_in: tuple[float, int] | None = None
        self._doomed: dict[tuple[int, int], Literal["terminate", "kill"]] = {}
        """Told to end before they were at hand: a start that was given up, or a worker whose Ready was faster than the
        letter that brings it. Each gets what it was told, no more: one that was asked to leave may leave by itself."""
        self._oom_seen = finder.oom_kills()
        self._oom_unclaimed = 0
        self._own = open_process(os.getpid())
        self._stall = PressureStall(group=finder.group)
        self.stall_trigger = self._stall.trigger
        self._template: tuple[int, ProcessMemory] | None = None

    # ---- starting --------------------------------------------------------------------------------

    def start(
        self, slot: int, incarnation: int, roots_read: Sequence[str] = (), roots_write: Sequence[str] = ()
    ) -> None:
        """Has a worker forked by the chores thread; Arrived or StartFailed follows. The roots are its sandbox's."""

        def chore() -> None:
            try:
                start = self._describe(slot, incarnation)
                start = msgspec.structs.replace(start, roots_read=list(roots_read), roots_write=list(roots_write))
                process = self._processes.start(start)
                if self._groups is not None:
                    with contextlib.suppress(OSError):  # it is a back-stop: without it the watch is what there is
                        self._groups.enter(slot, incarnation, process.pid)
            except (StartError, OSError) as error:
                self._doomed.pop((slot, incarnation), None)
                self._post(StartFailed(slot=slot, incarnation=incarnation, reason=str(error)))
                return
            self._post(Arrived(process))

        self._chores.submit(chore)

    def arrived(self, process: WorkerProcess) -> WorkerStarted:
        """Takes a new process in."""
        hand = Hand(process=process, memory=open_process(process.pid), descriptor=process.fileno())
        self._hands[process.slot] = hand
        self._polled = None
        match self._doomed.pop((process.slot, process.incarnation), None):
            case "terminate":
                process.terminate()
            case "kill":
                hand.killed = True
                process.kill()
        return WorkerStarted(slot=process.slot, incarnation=process.incarnation, pid=process.pid)

    # ---- signals ---------------------------------------------------------------------------------

    def terminate(self, slot: int, incarnation: int) -> None:
        """Sends TERM."""
        hand = self._find(slot, incarnation)
        if hand is not None:
            hand.process.terminate()
        else:
            self._doomed.setdefault((slot, incarnation), "terminate")

    def kill(self, slot: int, incarnation: int) -> None:
        """Sends KILL and asks the kernel to free the memory at once."""
        hand = self._find(slot, incarnation)
        if hand is None:
            self._doomed[slot, incarnation] = "kill"
            return
        hand.killed = True
        hand.process.kill()
        hand.process.release()

    def limit(self, slot: int, incarnation: int, limit_bytes: int) -> None:
        """Has the kernel take a worker that holds so much."""
        groups = self._groups
        if groups is None:
            return
        if groups.want(slot, incarnation, limit_bytes):
            groups.apply(slot, incarnation)
        else:
            self._chores.submit(lambda: groups.apply(slot, incarnation))

    def _find(self, slot: int, incarnation: int) -> Hand | None:
        hand = self._hands.get(slot)
        return hand if hand is not None and hand.process.incarnation == incarnation else None

    # ---- deaths ----------------------------------------------------------------------------------

    def descriptors(self) -> set[int]:
        """Returns what to poll: readable means dead. The template's is among them."""
        if self._polled is None:
            self._polled = {hand.descriptor for hand in self._hands.values() if hand.died_at is None}
            if self._processes.template_pidfd is not None and self._template is not None:
                self._polled.add(self._processes.template_pidfd)
        return self._polled

    def dying(self) -> bool:
        """Tells whether somebody is dead whose status has not been told yet."""
        return any(hand.died_at is not None for hand in self._hands.values())

    def exits(self, ready: Container[object], now: float) -> list[AnyEvent]:
        """Returns who is gone, each once; one whose status is not told yet is waited for a little longer. `ready`
        holds the descriptors that the poll found readable."""
        events: list[AnyEvent] = []
        self._polled = None
        for slot, hand in list(self._hands.items()):
            if hand.died_at is None:
                if hand.descriptor not in ready:
                    continue
                hand.died_at = now
                hand.process.kill_group()
            code = hand.process.exit_code(0.0)
            if code is None and now - hand.died_at < STATUS_WAIT_SECONDS:
                continue
            del self._hands[slot]
            events.append(self._exited(hand, code))
        return events

    def _exited(self, hand: Hand, code: int | None) -> WorkerExited:
        process = hand.process
        record = self._recorder.read(process.slot)
        known = record.incarnation == process.incarnation
        ooms = 0
        if not hand.killed and code in (SIGKILL_STATUS, None):
            ooms = self._claim_oom() or self._group_ooms(process)
        if self._groups is not None:
            self._chores.submit(partial(self._groups.leave, process.slot, process.incarnation))
        process.close()
        if hand.memory is not None:
            hand.memory.close()
        event = WorkerExited(
            slot=process.slot,
            incarnation=process.incarnation,
            exit_code=code,
            item=record.item if known else 0,
            step=record.step if known else -1,
            path=record.path if known else "",
            partial=record.partial if known else b"",
            size_bytes=record.size_bytes if known else 0,
            mtime_ns=record.mtime_ns if known else 0,
            version=record.version if known else "",
            oom_kills=ooms,
        )
        if known:
            self._recorder.clear(process.slot)
        return event

    def _group_ooms(self, process: WorkerProcess) -> int:
        """Version 1 counts an OOM kill in the group of the dead alone."""
        return 0 if self._groups is None else self._groups.oom_kills(process.slot, process.incarnation)

    def _claim_oom(self) -> int:
        """Returns 1 if the kernel counted an OOM kill that no death has been explained by yet."""
        count = self._finder.oom_kills()
        self._oom_unclaimed += max(0, count - self._oom_seen)
        self._oom_seen = count
        if not self._oom_unclaimed:
            return 0
        self._oom_unclaimed -= 1
        return 1

    # ---- looking ---------------------------------------------------------------------------------

    def sample(self, now: float, parts: Callable[[bool], Sequence[PartSample]]) -> Sampled:
        """Looks at all workers and at the whole, to which the parts belong (told whether the machine swaps)."""
        look = self._finder.machine.look()
        swapping = look.swap_used_bytes > 0
        looks = [*self._parts(swapping), *parts(swapping)]
        self._presume(looks)
        samples = [self._sample_one(slot, hand, swapping, now) for slot, hand in self._hands.items()]
        own = _own_bytes(looks)
        total = own + sum(max(0, (sample.rss_bytes or 0) - sample.shared_bytes) for sample in samples)
        budget = self._finder.find(total, look)
        return Sampled(
            workers=samples,
            own_bytes=own,
            cgroup_used_bytes=budget.cgroup_used_bytes,
            budget_bytes=budget.bytes,
            available_bytes=budget.available_bytes,
            swap_in_bytes_per_second=self._swap_in(now) if swapping else 0.0,
            stall_share=self._stall.share(now),
            parts=looks,
            second_of_day=_second_of_day(),
            budget_source=budget.source if budget.limit_path is None else f"{budget.source}: {budget.limit_path}",
        )

    def _swap_in(self, now: float) -> float:
        """Returns the machine's swap-in rate since the last look, in bytes per second."""
        count = self._finder.machine.swapped_in_bytes()
        if count is None:
            return 0.0
        before, self._swapped_in = self._swapped_in, (now, count)
        if before is None or now <= before[0]:
            return 0.0
        return max(0, count - before[1]) / (now - before[0])

    def override_budget(self, override_bytes: int | None) -> None:
        """Changes what `--memory` says."""
        self._finder.override(override_bytes)

    def budget(self) -> Budget:
        """Returns the budget as it is now."""
        return self._finder.find(_own_bytes(self._parts(False)))

    def _sample_one(self, slot: int, hand: Hand, swapping: bool, now: float) -> WorkerSample:
        memory = hand.memory
        seen = memory.sample(swapping) if memory is not None else None
        incarnation, item, started, _, done = self._recorder.progress(slot)
        known = incarnation == hand.process.incarnation
        if memory is not None and known and now - hand.looked_at > THOROUGH_EVERY_SECONDS:
            hand.looked_at = now
            self._chores.submit(memory.details)
        return WorkerSample(
            slot=slot,
            incarnation=hand.process.incarnation,
            rss_bytes=seen.rss_bytes if seen is not None else None,
            shared_bytes=seen.shared_bytes if seen is not None else 0,
            item=item if known else 0,
            item_started=started if known else 0.0,
            items_done=done if known else 0,
            swap_bytes=seen.swap_bytes if seen is not None else 0,
        )

    def _presume(self, looks: Sequence[PartSample]) -> None:
        """A worker that no thorough look has seen shares what its siblings do; the first ones, what the template has to
        share: it was forked from it a moment ago."""
        memories = [hand.memory for hand in self._hands.values() if hand.memory is not None]
        fresh = [memory for memory in memories if memory.measured_shared_bytes is None]
        if not fresh:
            return
        known = [memory.measured_shared_bytes for memory in memories if memory.measured_shared_bytes is not None]
        presumed = min(known or (part.rss_bytes for part in looks if part.role == "template"), default=0)
        for memory in fresh:
            memory.presume_shared(presumed)

    def _parts(self, swapping: bool) -> list[PartSample]:
        """Looks at the supervisor and its template."""
        parts = []
        if self._own is not None:
            parts += _part("supervisor", self._own, swapping)
        pid = self._processes.template_pid
        if pid is None:
            return parts
        if self._template is None or self._template[0] != pid:
            memory = open_process(pid)
            if memory is None:
                return parts
            self._template = (pid, memory)
            self._polled = None
        return parts + _part("template", self._template[1], swapping)

    def template_gone(self) -> bool:
        """Tells, once for each template, that it died."""
        if self._template is None or self._processes.template_pid != self._template[0]:
            return False
        if self._processes.template_alive():
            return False
        self._template[1].close()
        self._template = None
        self._polled = None
        return True

    def renew_template(self) -> None:
        """Ends the template; that it died is told as always."""
        self._processes.renew()

    def close(self) -> None:
        """Kills whoever is left and lets the descriptors go."""
        for hand in self._hands.values():
            hand.process.kill()
            hand.process.close()
        self._hands.clear()
        self._recorder.close()
        self._stall.close()


def _part(role: str, memory: ProcessMemory, swapping: bool) -> list[PartSample]:
    seen = memory.sample(swapping)
    if seen is None:
        return []
    return [
        PartSample(
            role=role,
            pid=memory.pid,
            rss_bytes=seen.rss_bytes,
            shared_bytes=seen.shared_bytes,
            swap_bytes=seen.swap_bytes,
        )
    ]


def _second_of_day() -> float:
    local = time.localtime()
    return local.tm_hour * 3600.0 + local.tm_min * 60 + local.tm_sec


def _own_bytes(parts: Sequence[PartSample]) -> int:
    """Returns the template's whole memory and the private part of the others': file pages count once."""
    return sum(part.rss_bytes - (0 if part.role == "template" else part.shared_bytes) for part in parts)


class Arrived:
    """A process that the chores thread made, on its way to the loop."""

    def __init__(self, process: WorkerProcess) -> None:
        self.process = process
