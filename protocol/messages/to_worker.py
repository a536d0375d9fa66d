"""Supervisor -> worker."""

from protocol.messages.base import CleanupTier, Message, Part
from protocol.messages.recipes import Recipe


class ToWorker(Message, frozen=True, kw_only=True):
    """Base of what a worker is told."""


class Root(Part, frozen=True, array_like=True):
    """A submitted directory and the prefix of the stems below it."""

    root: str
    prefix: str


class Granted(Part, frozen=True, array_like=True):
    """One item of a lease.

    `owned`: an output of that name is known to be ours and may be replaced. `shunned`: the image was
    quarantined when it had this size, mtime and recipe version; unchanged, it is not opened again.
    """

    id: int
    root: int
    stem: str
    owned: bool = False
    shunned: tuple[int, int, str] | None = None


class Factor(Part, frozen=True, array_like=True):
    """What the prediction from the header is to be multiplied with for one class of images of a recipe (`Weighed`)."""

    format: str
    kind: str
    decoder: str
    factor: float


class Grant(ToWorker, frozen=True, kw_only=True):
    """A lease: these items, in this order, under one recipe.

    `memory_bytes` is what one item may take above the worker's baseline: an item that is predicted to
    need more is not decoded but reported `deferred` with its figure.
    """

    lease: int
    batch: str
    recipe: Recipe
    out: str | None
    overwrite: bool
    strict: bool
    submitted_at: float
    memory_bytes: int
    cache: bool = False
    """Whether the results are to be kept: the worker then hashes the image and says what each step made."""
    factors: list[Factor] | None = None
    """All that was learned of this recipe; None: what was told last still holds."""
    roots: list[Root]
    items: list[Granted]


class Shrink(ToWorker, frozen=True, kw_only=True):
    """Keep at most `keep` items after the one in progress and hand the rest of the lease back."""

    lease: int
    keep: int


class Trim(ToWorker, frozen=True, kw_only=True):
    """Give memory back between items: gc, malloc_trim, native caches. Answer: `Trimmed`."""

    tier: CleanupTier = "moderate"
    """Which actions are due: those of this tier and of the ones below it."""
    cleanup: int = 0
    """The number of the clean-up it belongs to; 0: none, the worker alone is to shrink."""
    collect_cycles: int = 0
    """Instead of the tier's actions: collect garbage so many times, then malloc_trim."""


class Quit(ToWorker, frozen=True, kw_only=True):
    """Finish the item in progress, hand the rest back, exit with 0."""
