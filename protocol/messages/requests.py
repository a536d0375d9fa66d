"""Client -> supervisor: one request, one answer."""

from typing import Annotated, Literal

import msgspec

from protocol.messages.base import PROTOCOL_VERSION, ItemState, Message, Number


class Request(Message, frozen=True, kw_only=True):
    """Base of the requests."""

    v: int = PROTOCOL_VERSION
    id: int | str = 0


class Hello(Request, frozen=True, kw_only=True):
    """Asks who is there. Answer: `Welcome`."""


class OpenBatch(Request, frozen=True, kw_only=True):
    """Opens a batch. Answer: `BatchOpened`, after the commit.

    `batch` may be chosen by the client: opening it again is then harmless. `fingerprint` names the job
    (paths, out, recipe, parameters): with `resume`, an unfinished batch of the same fingerprint is
    continued. `hold` keeps items from running until the batch is closed (so that a clash of outputs is
    found before anything runs).
    """

    batch: str | None = None
    recipe: str = "thumbs"
    out: str | None = None
    overwrite: bool = False
    strict: bool = False
    priority: int = 0
    hold: bool = False
    fingerprint: str | None = None
    resume: bool = False
    kind: str = "default"


class AddItems(Request, frozen=True, kw_only=True):
    """Adds items to an open batch. Answer: `ItemsAdded`, after the commit.

    Item i is the file `root`/`names[i]`; its outputs are named after `prefix`/`names[i]`. `chunk` numbers
    the messages of one batch from 0: a repeated number is acknowledged again and adds nothing.
    """

    batch: str
    chunk: Number
    root: str
    prefix: str = ""
    names: list[str]


class CloseBatch(Request, frozen=True, kw_only=True):
    """Says that all items of the batch were added. Answer: `BatchClosed`, after the commit."""

    batch: str
    ignored: Number = 0


class Progress(Request, frozen=True, kw_only=True):
    """Asks how far a batch is. Answer: `BatchProgress`."""

    batch: str


class ListBatches(Request, frozen=True, kw_only=True):
    """Answer: `Batches`, newest first; with `sizes` about how many bytes of the journal each takes."""

    limit: Number = 100
    sizes: bool = False


class Results(Request, frozen=True, kw_only=True):
    """Asks for settled items in the order they settled, of all states or only those named.

    Answer: `ResultsPage`; go on with its `next`. With `newest` the last ones come first, one page of them.
    """

    batch: str
    after: Number = 0
    limit: Number = 1000
    states: list[ItemState] = []
    newest: bool = False


class ImageHashes(Request, frozen=True, kw_only=True):
    """Asks what images look like: their perceptual hashes or vectors, of one batch or of all, a page at a time.

    `since` leaves out what was settled under that number or a lower one. Answer: `ImageHashesPage`; go on with its
    `next` as `after_batch` and `after`.
    """

    by: Literal["phash", "dhash", "vector"] = "phash"
    batch: str | None = None
    since: Number = 0
    after_batch: Number = 0
    after: Number = 0


class CancelBatch(Request, frozen=True, kw_only=True):
    """Cancels what has not been started. Answer: `BatchProgress`."""

    batch: str


class RetryBatch(Request, frozen=True, kw_only=True):
    """Puts failed (and with `quarantined`, quarantined) items back. Answer: `BatchProgress`."""

    batch: str
    quarantined: bool = False


class PauseWork(Request, frozen=True, kw_only=True):
    """Pauses a batch, or with no batch the whole pool; leases run out. Answer: `Done`."""

    batch: str | None = None
    reason: str = "asked by the user"
    seconds: float | None = None


class ResumeWork(Request, frozen=True, kw_only=True):
    """Ends a pause. Answer: `Done`."""

    batch: str | None = None


class StatusRequest(Request, frozen=True, kw_only=True):
    """Answer: `Status`."""


class Why(Request, frozen=True, kw_only=True):
    """Asks for the decisions about one worker (a slot) or one image (path token). Answer: `Decisions`."""

    slot: Number | None = None
    path: str | None = None
    limit: Number = 200


class Events(Request, frozen=True, kw_only=True):
    """Asks for the decisions after a number, oldest first; `after` -1 gives the last ones. Answer: `Decisions`."""

    after: Annotated[int, msgspec.Meta(ge=-1, le=2**53 - 1)] = -1
    limit: Number = 200


class QuarantineList(Request, frozen=True, kw_only=True):
    """Answer: `QuarantineEntries`."""

    path: str | None = None


class QuarantineDrop(Request, frozen=True, kw_only=True):
    """Forgets a quarantined image, or with `retry` also puts its items back to work. Answer: `Done`."""

    path: str
    retry: bool = False


class TempStats(Request, frozen=True, kw_only=True):
    """Asks what the workers' temp directories hold. Answer: `TempUsage`."""


class TempReap(Request, frozen=True, kw_only=True):
    """Has stale temp directories deleted, or with `dry_run` only told. Answer: `TempReport`, when it is done."""

    dry_run: bool = False


class AskCache(Request, frozen=True, kw_only=True):
    """Asks how the cache stands, after doing something about it: `trim` to `size_bytes`, `clear`, `verify` (and with
    `repair` drop what is damaged), change the `policy`. Answer: `CacheReport`, when it is done."""

    verb: Literal["stats", "trim", "clear", "verify", "policy"] = "stats"
    size_bytes: int | None = None
    repair: bool = False
    policy: str | None = None


class RecycleWorker(Request, frozen=True, kw_only=True):
    """Replace the worker of a slot after the image it is at; the rest of its lease goes to others. Answer: `Done`."""

    slot: Number


class Stop(Request, frozen=True, kw_only=True):
    """Drains and stops the supervisor; `now` skips the drain. Answer: `Done` at once."""

    now: bool = False
