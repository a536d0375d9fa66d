"""Opens everything that the loop turns with.

In the order in which it may fail for a reason a person can mend: the state directory (another supervisor?), the
journal (damaged, newer?), the sockets, the template (a recipe that cannot be loaded?). The stack that is handed in
closes it in the reverse order, also when something failed half-way.
"""

import contextlib
import os
import sys
import time
from collections.abc import Callable, Iterator
from random import SystemRandom

import msgspec

from protocol import kernel
from protocol.errors import StateDirectoryUnusable
from protocol.launch import CatalogueRecipe, TemplatePlan, WorkerStart
from protocol.recorder import RecorderReader, create
from supervisor import __version__
from supervisor.config import Config, StartSummary
from supervisor.mechanism.alerts import AlertTeller
from supervisor.mechanism.cache import CacheThread, default_limit
from supervisor.mechanism.cache.offline import read_figures
from supervisor.mechanism.chores import Chores
from supervisor.mechanism.cleaning import Cleaner
from supervisor.mechanism.crew import Crew
from supervisor.mechanism.hands import Hands, Letter
from supervisor.mechanism.history_file import HistoryFile
from supervisor.mechanism.journal import Answered, Journal
from supervisor.mechanism.log import Log
from supervisor.mechanism.mailbox import Mailbox
from supervisor.mechanism.memory import Budget, BudgetFinder
from supervisor.mechanism.memory.worker_groups import Offer, WorkerGroups, look_for
from supervisor.mechanism.parts import PartProcesses, Program
from supervisor.mechanism.processes import Processes, wait_for_orphans
from supervisor.mechanism.protection import NoteKeeper, Stops, note_of, stops_before
from supervisor.mechanism.reconfigure import Reconfigurer, live_of
from supervisor.mechanism.remains import remove_partial
from supervisor.mechanism.router import Router
from supervisor.mechanism.signals import Signals
from supervisor.mechanism.state import Endpoint, StateDirectory, make_private_directory
from supervisor.mechanism.temp import Keeper, TempRoot
from supervisor.mechanism.trace_file import TraceFile
from supervisor.mechanism.turns import TurnTimes
from supervisor.policy.cache.keys import CacheStep, step_of
from supervisor.policy.counted import counted
from supervisor.policy.crowding import outlook
from supervisor.policy.events import Recovered, Remembered
from supervisor.policy.part import PartPlan
from supervisor.policy.pool import Pool
from supervisor.policy.protection_note import fewer_workers
from supervisor.policy.sizes import MB, human
from supervisor.policy.state import PoolSettings
from supervisor.values import show_address

ORPHAN_WAIT_SECONDS = 30.0
"""Workers of a supervisor that was killed die within milliseconds, unless they hang in the kernel on a disk."""
CHORES_PATIENCE_SECONDS = 5.0
ALERT_PATIENCE_SECONDS = 2.0
TEMP_PATIENCE_SECONDS = 2.0
"""For what killed workers leave; what is not deleted by then is the next start's."""

GATEWAY_BYTES = 150 * MB
"""At rest the gateway holds some 40 MB; with uploads and many dashboards a few more."""

Catalogue = dict[str, tuple[CacheStep, ...]]


def open_all(current: Reconfigurer, closing: contextlib.ExitStack) -> tuple[Hands, Pool, StartSummary]:
    """Returns what the loop turns with, begun, and what the start screen says. Raises a GalleryError whose sentence
    says what stands in the way."""
    config = current.config
    _check_sandbox(config)
    state = StateDirectory(config.state_directory)
    state.acquire()
    closing.callback(state.release)
    stops = stops_before(state.path, config.workers, config.cleanup.stops_within_seconds)
    config = msgspec.structs.replace(config, workers=fewer_workers(config.workers, stops.at))
    log = Log(least=config.log_level, form=config.log_format)
    signals = Signals()
    closing.callback(signals.close)
    mailbox: Mailbox[Letter] = Mailbox()
    turns = TurnTimes()
    temp = _open_temp(config, state, mailbox, log, turns)
    closing.callback(temp.root.close)
    journal = Journal(state.path, mailbox.post)
    recovered = _recover(config, state, journal, log)
    journal.keep_decisions(config.decisions_kept)
    router = _open_router(config, closing)
    journal.start()
    closing.callback(journal.close)
    history = _open_history(state, log, closing)
    note = NoteKeeper(state.path, log.line)
    closing.callback(note.close)
    chores = _open_chores(log, closing)
    part_processes = _open_parts(config, chores, mailbox, log, closing)
    finder, groups = _open_finder(config, log, closing)
    temp.start()
    closing.callback(temp.close, TEMP_PATIENCE_SECONDS)
    processes = _open_processes(config, state, chores)
    closing.callback(processes.close)
    catalogue = _catalogue(state)
    cache = _open_cache(config, state, mailbox, log, catalogue)
    if cache is not None:
        closing.callback(cache.close)
    describe = _describer(current, state, processes, temp.root)
    crew = _open_crew(config, state, processes, chores, mailbox, finder, groups, describe, closing)
    now, budget = time.monotonic(), crew.budget()
    pool = Pool(_settings(config, budget, catalogue if cache is not None else {}, stops, groups), SystemRandom(), now)
    hands = Hands(
        router=router,
        journal=journal,
        crew=crew,
        chores=chores,
        mailbox=mailbox,
        signals=signals,
        log=log,
        temp=temp,
        cache=cache,
        parts=part_processes,
        history=history,
        cleaner=_open_cleaner(journal, cache, mailbox, closing),
        alerts=_open_alerts(config, log, closing),
        trace=TraceFile(config.trace, log.line),
        stops=note,
        state_token=state.token,
        keep_learned=state.keep_learned,
        turns=turns,
        reconfigurer=current,
    )
    _begin(hands, pool, state, msgspec.structs.replace(recovered, history=history.read()), now)
    state.write_endpoint(_endpoint(config))
    return hands, pool, _summary(config, budget, recovered, stops)


def _open_finder(config: Config, log: Log, closing: contextlib.ExitStack) -> tuple[BudgetFinder, WorkerGroups | None]:
    """Opens the sources of memory figures, and the workers' control groups where there are to be any: before the
    template, which is to live where the supervisor does."""
    finder = BudgetFinder(config.memory_bytes)
    closing.callback(finder.close)
    offer = look_for(config.kernel_limits)
    base, groups = offer.base, None
    if base is not None:
        try:
            groups = WorkerGroups(base)
        except OSError as error:
            offer = Offer(None, f"{base.path}: {error.strerror}")
        else:
            finder.look_at(base)
            closing.callback(groups.close)
    if offer.base is None and config.kernel_limits == "on":
        log.line(f"no kernel limits for workers: {offer.reason}; the watch alone keeps them within theirs")
    return finder, groups


def _open_crew(
    config: Config,
    state: StateDirectory,
    processes: Processes,
    chores: Chores,
    mailbox: Mailbox[Letter],
    finder: BudgetFinder,
    groups: WorkerGroups | None,
    describe: Callable[[int, int], WorkerStart],
    closing: contextlib.ExitStack,
) -> Crew:
    crew = Crew(
        processes=processes,
        chores=chores,
        post=mailbox.post,
        describe=describe,
        recorder_path=state.recorder_path,
        slots=config.workers,
        finder=finder,
        groups=groups,
    )
    closing.callback(crew.close)
    return crew


def _open_cleaner(
    journal: Journal, cache: CacheThread | None, mailbox: Mailbox[Letter], closing: contextlib.ExitStack
) -> Cleaner:
    cleaner = Cleaner(journal, cache, mailbox.post)
    closing.callback(cleaner.close)
    return cleaner


def _open_alerts(config: Config, log: Log, closing: contextlib.ExitStack) -> AlertTeller:
    seconds = config.alerts.timeout_seconds
    alerts = AlertTeller(config.alert_command, config.alert_webhook, seconds, log.line)
    closing.callback(alerts.close, min(seconds, ALERT_PATIENCE_SECONDS))
    return alerts


def _open_parts(
    config: Config, chores: Chores, mailbox: Mailbox[Letter], log: Log, closing: contextlib.ExitStack
) -> PartProcesses:
    programs = [program for _, program in _parts(config)]
    processes = PartProcesses(programs=programs, chores=chores, post=mailbox.post, say=log.line)
    closing.callback(processes.close)
    return processes


def _begin(hands: Hands, pool: Pool, state: StateDirectory, recovered: Recovered, now: float) -> None:
    for event in (Remembered(content=state.learned()), recovered):
        for command in pool.handle(event, now):
            hands.execute(command)


def _open_router(config: Config, closing: contextlib.ExitStack) -> Router:
    make_private_directory(config.socket_directory)
    router = Router(frontend=config.frontend_endpoint, backend=config.backend_endpoint, events=config.events_endpoint)
    closing.callback(router.close)
    return router


def _open_chores(log: Log, closing: contextlib.ExitStack) -> Chores:
    chores = Chores(log.line)
    chores.start()
    closing.callback(chores.close, CHORES_PATIENCE_SECONDS)
    return chores


def _endpoint(config: Config) -> Endpoint:
    return Endpoint(
        frontend=config.frontend_endpoint, events=config.events_endpoint, pid=os.getpid(), version=__version__
    )


def _check_sandbox(config: Config) -> None:
    """Raises SandboxMissing where a whole sandbox is required and the kernel cannot make one."""
    lacks = kernel.offer().lacking()
    if config.sandbox == "require" and lacks:
        raise kernel.SandboxMissing(lacks)


def _recover(config: Config, state: StateDirectory, journal: Journal, log: Log) -> Recovered:
    """Reads what the run before left: unfinished batches, images in progress, unfinished outputs."""
    if not wait_for_orphans(os.path.join(state.run_directory, "life-lock"), ORPHAN_WAIT_SECONDS):
        log.line(
            f"workers of an earlier supervisor still live after {ORPHAN_WAIT_SECONDS:.0f} s (they hang in the "
            "kernel, on a dead disk or network share?); going on without them"
        )
    recovered = journal.open()
    create(state.recorder_path, config.workers)
    recorder = RecorderReader(state.recorder_path, config.workers)
    try:
        records = [recorder.read(slot) for slot in range(recorder.slots)]
        for slot in range(recorder.slots):
            recorder.clear(slot)
    finally:
        recorder.close()
    for record in records:
        remove_partial(record.partial, state.token)
    if recovered.clean:
        return recovered
    in_progress = journal.recover_in_progress([record.item for record in records if record.item])
    return msgspec.structs.replace(recovered, in_progress=in_progress)


def _open_processes(config: Config, state: StateDirectory, chores: Chores) -> Processes:
    """Starts the template, in the chores thread: workers die with the thread that made their template."""
    processes = Processes(
        run_directory=state.run_directory,
        plan=TemplatePlan(
            supervisor_pid=os.getpid(),
            recipes=list(config.recipes.values()),
            report_path=os.path.join(state.run_directory, "template-report"),
            catalogue_path=_catalogue_path(state),
        ),
    )
    try:
        chores.call(processes.prepare)
    except BaseException:
        processes.close()
        raise
    return processes


def _catalogue_path(state: StateDirectory) -> str:
    return os.path.join(state.run_directory, "catalogue.json")


def _catalogue(state: StateDirectory) -> Catalogue:
    """Returns what the template found the recipes to be, for the cache."""
    with open(_catalogue_path(state), "rb") as file:
        recipes = msgspec.json.decode(file.read(), type=list[CatalogueRecipe])
    return {
        recipe.recipe: tuple(
            step_of(step.operation, step.version, step.parameters, [step.edition] if step.edition else ())
            for step in recipe.steps
        )
        for recipe in recipes
        if recipe.steps
    }


def _open_cache(
    config: Config, state: StateDirectory, mailbox: Mailbox[Letter], log: Log, catalogue: Catalogue
) -> CacheThread | None:
    if not config.cache:
        return None
    settings = config.cache_settings(default_limit(state.path, _held(state)))
    cache = CacheThread(state.path, settings, state.token, mailbox.post, log.line)
    cache.start()
    cache.retire({step.operation: step.version for steps in catalogue.values() for step in steps})
    return cache


def _open_history(state: StateDirectory, log: Log, closing: contextlib.ExitStack) -> HistoryFile:
    history = HistoryFile(state.history_path, log.line)
    closing.callback(history.close)
    return history


def _held(state: StateDirectory) -> int:
    """Returns what the cache holds already: it counts as free, or the limit would shrink as the cache fills."""
    try:
        return read_figures(state.path, 0)[0].bytes
    except StateDirectoryUnusable:
        return 0


def _open_temp(config: Config, state: StateDirectory, mailbox: Mailbox[Letter], log: Log, turns: TurnTimes) -> Keeper:
    """Opens the temp root, which is ours alone unless it was named. Raises TempRootUnusable."""
    named = config.temp_directory
    root = TempRoot(named or state.temp_directory, state.token, private=named is None)
    return Keeper(
        root,
        config.reaper,
        post=mailbox.post,
        answer=lambda peer, answer: mailbox.post(Answered(peer=peer, answer=answer)),
        complain=log.line,
        loop_busy=lambda: turns.on,
    )


def _describer(
    current: Reconfigurer, state: StateDirectory, processes: Processes, temp: TempRoot
) -> Callable[[int, int], WorkerStart]:
    def describe(slot: int, incarnation: int) -> WorkerStart:
        config = current.config
        return WorkerStart(
            slot=slot,
            incarnation=incarnation,
            backend_endpoint=config.backend_endpoint,
            recorder_path=state.recorder_path,
            death_pipe_path=processes.death_pipe_path,
            life_lock_path=processes.life_lock_path,
            temp_directory=temp.worker_stem(slot, incarnation),
            state_token=state.token,
            template_pid=0,
            nice=config.nice,
            idle_io=config.idle_io,
            limits=config.limits,
            sandbox=config.sandbox,
            library=config.library,
            lease_from_bytes=config.leases.from_bytes,
            lease_answer_seconds=config.leases.answer_seconds,
            lease_patience_seconds=config.leases.patience_seconds,
            lease_renew_seconds=config.leases.stale_seconds / 4,
            model_idle_seconds=config.leases.model_idle_seconds,
        )

    return describe


def _parts(config: Config) -> list[tuple[PartPlan, Program]]:
    """Returns the parts that run beside the pool, each with its command."""
    return [
        (
            PartPlan(name=name, essential=part.essential, limit_bytes=part.memory_bytes),
            Program(name=name, argv=part.argv, environment={"SUPERVISOR_STATE": config.state_directory}),
        )
        for name, part in config.parts.items()
    ] + ([_gateway(config, config.http)] if config.http is not None else [])


def _gateway(config: Config, address: tuple[str, int]) -> tuple[PartPlan, Program]:
    """Returns the HTTP gateway as a part: it reads the settings that are the same for all, and is told the others."""
    environment = {"SUPERVISOR_STATE": config.state_directory}
    if config.settings_file is not None:
        environment["SUPERVISOR_CONFIG"] = config.settings_file
    if config.http_token is not None:
        environment["SUPERVISOR_HTTP_TOKEN"] = config.http_token  # not an argument: those can be read by everybody
    upload = "none" if config.http_upload_bytes is None else str(config.http_upload_bytes)
    argv = [sys.executable, "-P", "-m", "supervisor.gateway", "--http", show_address(*address), "--http-upload", upload]
    for flag, value in (("--http-roots", config.http_roots), ("--http-hosts", config.http_hosts)):
        argv += [flag, value] if value is not None else []
    return (
        PartPlan(name="gateway", essential=False, limit_bytes=GATEWAY_BYTES),
        Program(name="gateway", argv=argv, environment=environment),
    )


def _settings(
    config: Config, budget: Budget, catalogue: Catalogue, stops: Stops, groups: WorkerGroups | None
) -> PoolSettings:
    return PoolSettings(
        kernel_limits=groups is not None,
        cache_steps=catalogue,
        workers=config.workers,
        recipes=config.recipes,
        **msgspec.structs.asdict(live_of(config)),
        budget_bytes=budget.bytes,
        parts=tuple(plan for plan, _ in _parts(config)),
        history_rows=config.history_rows,
        protection=config.protection,
        trace=config.trace is not None,
        protection_stops=tuple(stops.at),
        workers_configured=stops.workers_configured,
        confined=config.sandbox != "off" and kernel.offer().landlock_abi > 0,
        epoch_offset_seconds=time.time() - time.monotonic(),
        version=__version__,
        pid=os.getpid(),
        state_directory=config.state_directory,
        events_endpoint=config.events_endpoint,
    )


def _summary(config: Config, budget: Budget, recovered: Recovered, stops: Stops) -> StartSummary:
    return StartSummary(
        budget_bytes=budget.bytes,
        budget_source=budget.source if budget.limit_path is None else f"{budget.source}: {budget.limit_path}",
        pid=os.getpid(),
        notes=[*_notes(config, budget, recovered), *note_of(stops, config.workers)],
        sandbox="off" if config.sandbox == "off" else kernel.offer().level,
    )


def _notes(config: Config, budget: Budget, recovered: Recovered) -> Iterator[str]:
    if budget.note:
        yield budget.note
    crowded = outlook(budget.bytes, config.workers, config.watch)
    if crowded is not None:
        yield crowded
    if recovered.records:
        yield f"to be finished: {counted(len(recovered.records), 'batch')}"
    if recovered.in_progress:
        first = counted(len(recovered.in_progress), "image")
        yield f"in progress when the last supervisor was killed, so these go first: {first}"
    if budget.available_bytes < budget.bytes:
        yield f"only {human(budget.available_bytes)} are available on the machine now"
