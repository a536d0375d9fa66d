"""What a person may ask of the cache, as one verb each; done in pieces by whoever owns the store."""

from typing import assert_never

import msgspec

from protocol.messages import AskCache, CacheReport
from supervisor.mechanism.cache.store import Store
from supervisor.mechanism.cache.verify import Verb, clearing, trimming, verifying
from supervisor.policy.cache.settings import POLICY_NAMES, PolicyName
from supervisor.policy.cache.stats import CacheStats, StepTally


def report(store: Store, request: AskCache) -> Verb[CacheReport]:
    """Does what was asked and tells how the cache stands after it. Raises sqlite3.Error, OSError, and ValueError for
    a policy that there is not or that the settings have chosen already."""
    freed, verification, message = 0, None, ""
    match request.verb:
        case "stats":
            pass
        case "trim":
            freed = yield from trimming(store, request.size_bytes or 0)
        case "clear":
            freed = yield from clearing(store)
        case "verify":
            verification = msgspec.to_builtins((yield from verifying(store, repair=request.repair)))
        case "policy":
            message = _choose(store, request.policy)
        case _:
            assert_never(request.verb)
    return told(request, store.stats(), store.step_tallies(), freed, verification, message)


def told(
    request: AskCache,
    stats: CacheStats,
    steps: list[StepTally],
    freed_bytes: int = 0,
    verification: dict[str, object] | None = None,
    message: str = "",
) -> CacheReport:
    """Returns the answer in the form of the wire."""
    return CacheReport(
        id=request.id,
        stats=msgspec.to_builtins(stats),
        steps=msgspec.to_builtins(steps),
        freed_bytes=freed_bytes,
        verification=verification,
        message=message,
    )


def _choose(store: Store, wanted: str | None) -> str:
    if wanted is None:
        return f"the policy is {store.policy.name}; there are {', '.join(POLICY_NAMES)}"
    found: PolicyName | None = next((name for name in POLICY_NAMES if name == wanted), None)
    if found is None:
        raise ValueError(f"there is no policy {wanted!r}; there are {', '.join(POLICY_NAMES)}")
    if store.settings.policy is not None:
        raise ValueError(f"the policy is set to {store.settings.policy} by the setting cache-policy: change it there")
    store.choose(found)
    return f"the policy is {found} from now on"
