"""What the pool knows: the settings, the slots, the leases, the memory figures. Data; the services beside
this file (`intake`, `lending`, `reports`, `deaths`, `care`, `stopping`) change it."""

from random import Random
from typing import NamedTuple

import msgspec

from protocol.messages import LastDeath, Recipe, Totals
from protocol.paths import item_path
from supervisor.policy.alert_book import Alerts
from supervisor.policy.batch_size import BatchSize
from supervisor.policy.cache.keys import CacheStep
from supervisor.policy.cleanup_settings import AlertSettings, CleanupSettings
from supervisor.policy.cleanup_state import Protection
from supervisor.policy.cleanup_state import make as make_cleanups
from supervisor.policy.collected import Collecting
from supervisor.policy.crowded import Crowding
from supervisor.policy.events import PartSample
from supervisor.policy.history import DEFAULT_ROWS, History
from supervisor.policy.hours import Hours
from supervisor.policy.interval import Growth
from supervisor.policy.items import Item
from supervisor.policy.lease_book import LeaseBook, LeaseSettings
from supervisor.policy.levels import Level, Levels
from supervisor.policy.limits import Baselines, Limits, Widenings, is_tight, room_bytes, worker_limits
from supervisor.policy.own_limits import OwnWatch
from supervisor.policy.part import Part, PartPlan, make
from supervisor.policy.prediction.model import Predictor
from supervisor.policy.queue import FETCH_ITEMS, VERDICTS_MAX, VERDICTS_MAX_BYTES, WINDOW_ITEMS, Batch, Queue
from supervisor.policy.restart import Restarts
from supervisor.policy.retention import Retention
from supervisor.policy.stall import Stall
from supervisor.policy.steadiness import LeakWatch, TrendWatch
from supervisor.policy.tallies import Tallies
from supervisor.policy.watch_settings import WatchSettings
from supervisor.policy.worker import Worker


class PoolSettings(msgspec.Struct, frozen=True, kw_only=True):
    """What the policy needs to know of the configuration; seconds and bytes."""

    workers: int
    recipes: dict[str, Recipe]
    cache_steps: dict[str, tuple[CacheStep, ...]] = {}
    """By recipe: what its steps are called in the cache; a recipe that is not named is not cached."""
    watch: WatchSettings
    leases: LeaseSettings = LeaseSettings()
    budget_bytes: int
    """As found at start; every sample carries the current one."""
    item_timeout_seconds: float = 60.0
    timeout_tries: int = 1
    """How often an item may reach its time limit before it is quarantined."""
    start_timeout_seconds: float = 30.0
    drain_seconds: float = 30.0
    terminate_seconds: float = 5.0
    """From TERM to KILL. A worker that heeds TERM needs milliseconds; the rest is for a loaded machine."""
    kill_seconds: float = 5.0
    """From KILL to saying that the process does not die (it hangs in the kernel)."""
    between: Hours | None = None
    """Times of the day between which work is begun; None: always."""
    batch_size_max: int = 512
    queue_max_items: int = 5_000_000
    window_items: int = WINDOW_ITEMS
    fetch_items: int = FETCH_ITEMS
    abandon_seconds: float = 600.0
    """After so long without a word of who fills it, a batch takes no more images."""
    batches_max: int = 10_000
    """Unfinished batches; further ones are refused as busy."""
    verdicts_max: int = VERDICTS_MAX
    verdicts_max_bytes: int = VERDICTS_MAX_BYTES
    """Nothing is begun while so many verdicts, or so much of them, are on their way to the disk."""
    inserts_max: int = 256
    """Chunks that may wait for the journal; further ones are refused as busy."""
    sample_stale_seconds: float = 2.5
    """Older samples are as good as none: nothing is admitted. Above the longest interval of 1 s."""
    exit_when_idle_seconds: float | None = None
    min_workers: int = 1
    """What an idle pool shrinks to."""
    idle_shrink_seconds: float = 0.0
    """How long the pool must have had nothing to do before it shrinks; 0: never."""
    confined: bool = False
    """Workers are kept to their roots (the kernel can, and the settings want it)."""
    kernel_limits: bool = False
    """Each worker lives in a control group of its own, whose limit follows its hard one."""
    history_rows: int = DEFAULT_ROWS
    """Rows of memory history in each of its tiers."""
    retention: Retention | None = None
    """None: every batch is kept for ever."""
    parts: tuple[PartPlan, ...] = ()
    cleanup: CleanupSettings = CleanupSettings()
    alerts: AlertSettings = AlertSettings()
    protection: bool = True
    trace: bool = False
    """Whether the looks of the memory watch are kept, to be replayed."""
    protection_stops: tuple[float, ...] = ()
    """When protection stopped earlier supervisors of this state directory, one after the other; since the epoch."""
    workers_configured: int = 0
    """What `workers` would be but for those; 0: the same."""
    epoch_offset_seconds: float = 0.0
    """Adding it to the loop's clock gives seconds since the epoch."""
    version: str = ""
    pid: int = 0
    state_directory: str = ""
    events_endpoint: str = ""


class Lease(msgspec.Struct, kw_only=True):
    """Items granted together to one worker; `items` are those not yet reported, in order."""

    number: int
    slot: int
    batch: str
    items: dict[int, Item]
    size: int
    granted_at: float
    reserved_bytes: int
    """What one of its items may take above the worker's baseline."""
    large: bool = False
    """It is for one image that needs more than a worker's part: the worker's limits are raised for it."""
    disturbed: bool = False
    """It met memory pressure: the batch size does not grow from it."""
    settled: int = 0


class Profiling(msgspec.Struct, kw_only=True):
    """A profile of a worker that is under way, and who waits for it."""

    number: int
    incarnation: int
    peer: bytes
    request_id: int | str
    top: int
    ends_at: float
    """When tracing ends; once it is `ending`, when it is given up."""
    ending: bool = False


class Slot(msgspec.Struct, kw_only=True):
    """A place in the pool: the worker in it and what the place has been through."""

    index: int
    batch_size: BatchSize
    restarting: Restarts
    worker: Worker | None = None
    incarnation: int = 0
    wanted: bool = True
    start_at: float | None = 0.0
    """When the next worker may be started; None: one is there or coming."""
    recycles: int = 0
    restarts: int = 0
    items_done: int = 0
    growth: Growth = msgspec.field(default_factory=Growth)
    last_death: LastDeath | None = None
    resting: bool = False
    """Not wanted because there is nothing to do; woken when there is."""
    crowded: bool = False
    """Not wanted because the budget does not hold so many workers (`crowding`)."""
    last_batch: str | None = None
    refused_recipe: str | None = None
    """The recipe whose model was refused to its worker last, which leaves it to others until `refused_until`."""
    refused_until: float = 0.0
    note: str | None = None
    """Why the slot does not serve, if it does not."""


def _slots(settings: PoolSettings) -> list[Slot]:
    """Returns the places of a new pool; under a tight budget all but one wait until it is known what a worker takes."""
    slots = [
        Slot(index=index, batch_size=BatchSize(max_size=settings.batch_size_max), restarting=Restarts())
        for index in range(settings.workers)
    ]
    for slot in slots[1:] if is_tight(settings.budget_bytes, settings.workers) else ():
        slot.crowded, slot.wanted, slot.note = True, False, "waits until it is known what a worker takes"
    return slots


class Warm(NamedTuple):
    """Private baselines of the workers that are warm, and how many workers there are to be."""

    baselines: list[int]
    places: int


class PoolState:
    """The whole state of the pool."""

    def __init__(self, settings: PoolSettings, random: Random, now: float) -> None:
        self.settings = settings
        self.random = random
        self.started_at = now
        self.queue = _queue(settings)
        self.slots = _slots(settings)
        self.crowding = Crowding()
        self.parts: dict[str, Part] = make(settings.parts)
        self.cleanups, self.alerts = make_cleanups(settings.cleanup.history_count), Alerts()
        self.protection = Protection(enabled=settings.protection, stops=list(settings.protection_stops))
        self.leases: dict[int, Lease] = {}
        self.lease_number = 0
        self.memory_leases = LeaseBook()
        self.totals = {
            "done": 0, "cached": 0, "failed": 0, "quarantined": 0,
            "recycles": 0, "restarts": 0, "batch_shrinks": 0, "kills": 0,
        }  # fmt: skip
        self.tallies = Tallies()
        self.trends = TrendWatch(settings.workers)
        self.leaks = LeakWatch()
        self.collecting: dict[int, Collecting] = {}
        """By slot, of the worker that is in it."""
        self.history = History(settings.workers, settings.history_rows)
        self.levels = Levels(settings.watch)
        self.widenings = Widenings(settings.watch)
        self.predictor = Predictor()
        self.baselines_known = Baselines()
        self.keep_at = now
        """When what was learned may be written down next."""
        self.kept_count = 0
        self.shrunk_at = now
        self.level = Level.NORMAL
        self.budget_bytes = settings.budget_bytes
        self.own_bytes = 0
        self.least_own_bytes: int | None = None
        """The least of it with all workers warm: what it is at rest, without what grew or came in later."""
        self.used_bytes = 0
        self.available_bytes = 0
        self.swap_in_bytes_per_second = 0.0
        self.stall = Stall()
        self.part_samples: list[PartSample] = []
        """The supervisor, its template and its other parts at the last look."""
        self.own_watch = OwnWatch()
        self.profiles: dict[int, Profiling] = {}
        """By slot."""
        self.profile_number = 0
        self.budget_source = self.used_source = ""
        self.sampled_at: float | None = None
        self.sample_at: float = now
        self.paused: str | None = None
        self.resume_at: float | None = None
        self.off_hours: str | None = None
        """Why the time of the day stops admission, if it does."""
        self.journal_stalled: str | None = None
        self.temp_full: str | None = None
        """Why the disk of the temp root stops admission, if it does."""
        self.sweep_at: float | None = now if settings.retention is not None else None
        """When retention is looked after next."""
        self.creating: set[tuple[bytes, int | str]] = set()  # whose batch is on its way to the journal
        self.inserts = self.changes = 0
        """Batch states on their way to the journal: the loop is not left before they arrived."""
        self.draining = False
        self.drain_deadline: float | None = None
        self.heard_at = now
        """When a client last spoke, or a batch was last unfinished."""
        self.idle_since: float | None = now
        """Since when nothing is leased and nothing waits; None while there is work."""
        self.exit_code: int | None = None
        self.stop_code = 0
        """What the exit code will be when all have left."""

    def epoch(self, now: float) -> float:
        """Returns a time of the loop's clock as seconds since the epoch."""
        return now + self.settings.epoch_offset_seconds

    # ---- memory ----------------------------------------------------------------------------------

    @property
    def places(self) -> int:
        """How many workers share the budget: all but those it does not hold."""
        return max(1, sum(not slot.crowded for slot in self.slots))

    def private_baseline(self, worker: Worker) -> int:
        """Returns what a worker costs at rest beyond what it shares."""
        return max(0, worker.baseline_bytes - worker.shared_bytes)

    def baselines(self) -> list[int]:
        """Returns the private baselines of the workers that are warm."""
        return [self.private_baseline(slot.worker) for slot in self.slots if slot.worker and slot.worker.baseline_bytes]

    def warm(self) -> Warm:
        """Returns what all limits have in common."""
        return Warm(self.baselines(), self.places)

    def limits(self, slot: Slot, warm: Warm | None = None) -> Limits:
        """Returns the limits of the worker in the slot, as RSS in bytes, with its lease's reservation. `warm`: the
        answer of `warm()`, of who asks for several slots at a time.

        What is out in memory leases is nobody's share; its holder may have it above its limits, which stand on top
        of it as they stand on the baseline.
        """
        worker = slot.worker
        assert worker is not None
        warm = self.warm() if warm is None else warm
        lease = self.leases.get(worker.lease) if worker.lease is not None else None
        leased = self.memory_leases.reserved_bytes()
        return worker_limits(
            baseline_bytes=worker.baseline_bytes + self.memory_leases.reserved_bytes(slot.index),
            budget_bytes=self.budget_bytes,
            own_bytes=self.own_bytes + leased,
            baselines_of_all=warm.baselines,
            workers=warm.places,
            settings=self.settings.watch,
            # A memory lease granted meanwhile makes everybody's share smaller, never what an item was promised.
            reserved_bytes=lease.reserved_bytes if lease is not None and (lease.large or leased) else 0,
            widening=self.widenings.of(slot.index, self.recipe_of(slot)),
        )

    def stalled(self) -> bool:
        """Tells whether tasks wait for memory so much that no more is to be begun than one item a worker."""
        return self.stall.brakes(self.settings.watch.stall_share_brake)

    def room_bytes(self) -> int:
        """Returns what all leases together may take above the baselines and beside the memory leases."""
        own_bytes = self.own_bytes + self.memory_leases.reserved_bytes()
        return room_bytes(self.budget_bytes, own_bytes, self.baselines(), self.places, self.settings.watch)

    def rest_bytes(self) -> int:
        """Returns what the whole holds when nothing is being done."""
        if self.least_own_bytes is None:
            return self.own_bytes + sum(self.baselines())
        return self.least_own_bytes + self.beside_bytes() + sum(self.baselines())

    def beside_bytes(self) -> int:
        """Returns what parts beside the supervisor and its template hold: they come and go, and rest at no size."""
        return sum(
            max(0, part.rss_bytes - part.shared_bytes)
            for part in self.part_samples
            if part.role not in ("supervisor", "template")
        )

    def slimmest_bytes(self) -> int:
        """Returns the least RSS that a warm worker began with: what a replacement would hold."""
        return min(
            (slot.worker.baseline_bytes for slot in self.slots if slot.worker and slot.worker.baseline_bytes), default=0
        )

    def fresh_room_bytes(self) -> int:
        """Returns the room there would be if every worker were a fresh one: what can ever be had. An image is too
        large only if it is larger than this."""
        slimmest = [self.baselines_known.least_bytes or 0] * self.places
        return room_bytes(self.budget_bytes, self.own_bytes, slimmest, self.places, self.settings.watch)

    def most_room_bytes(self) -> int:
        """Returns the room there would be if, beside that, all others took no more than they ever did at rest: what is
        not to be had there is no matter of waiting."""
        slimmest = [self.baselines_known.least_bytes or 0] * self.places
        own_bytes = min(self.own_bytes, self.least_own_bytes or self.own_bytes)
        return room_bytes(self.budget_bytes, own_bytes, slimmest, self.places, self.settings.watch)

    def share_bytes(self) -> int:
        """Returns one worker's equal part of the room."""
        return self.room_bytes() // self.places

    def free_bytes(self, me: Slot) -> int:
        """Returns the room that is left for a lease in this slot: the room less what the others have
        reserved or taken, whichever is more."""
        taken = sum(self._taken_bytes(slot) for slot in self.slots if slot is not me)
        return max(0, self.room_bytes() - taken)

    def unreserved_bytes(self) -> int:
        """Returns the room that nobody has reserved or taken: what there is for further memory leases."""
        return max(0, self.room_bytes() - sum(map(self._taken_bytes, self.slots)))

    def _taken_bytes(self, slot: Slot) -> int:
        """What a slot's worker has reserved for its item or taken above its baseline and its memory leases,
        whichever is more."""
        worker = slot.worker
        if worker is None:
            return 0
        lease = self.leases.get(worker.lease) if worker.lease is not None else None
        held = worker.baseline_bytes + self.memory_leases.reserved_bytes(slot.index)
        above = max(0, worker.rss_bytes - held) if worker.baseline_bytes else 0
        return max(above, lease.reserved_bytes if lease is not None else 0)

    def memory_known(self, now: float) -> bool:
        """Tells whether the last look is fresh enough to admit work on."""
        return self.sampled_at is not None and now - self.sampled_at <= self.settings.sample_stale_seconds

    def recipe_of(self, slot: Slot) -> str:
        """Returns the recipe the slot worked on last: the thrash guard learns per slot and recipe."""
        batch = self.queue.batches.get(slot.last_batch or "")
        return batch.record.recipe.name if batch is not None else ""

    @property
    def stands_still(self) -> bool:
        """Whether nothing is to be begun: because somebody paused the pool, or because of the time of the day."""
        return self.paused is not None or self.off_hours is not None

    # ---- lookups ---------------------------------------------------------------------------------

    def lease_of(self, worker: Worker) -> Lease | None:
        """Returns the worker's lease."""
        return self.leases.get(worker.lease) if worker.lease is not None else None

    def path_of(self, batch_name: str, item: Item) -> str | None:
        """Returns the token of an item's input, None where its batch is gone."""
        batch = self.queue.batches.get(batch_name)
        if batch is None:
            return None
        root, prefix = batch.roots[item.root]
        return item_path(root, prefix, item.stem)

    def busy_elsewhere(self, me: Slot) -> bool:
        """Tells whether any other worker holds a lease."""
        return any(lease.slot != me.index for lease in self.leases.values())

    def away_ids(self, batch: Batch) -> set[int]:
        """Returns the ids of a batch that are in the hands of workers."""
        return {item for lease in self.leases.values() if lease.batch == batch.name for item in lease.items}

    def snapshot_totals(self) -> Totals:
        """Returns the totals as clients see them."""
        return Totals(**self.totals)


def _queue(settings: PoolSettings) -> Queue:
    return Queue(settings.window_items, settings.fetch_items, settings.verdicts_max, settings.verdicts_max_bytes)
