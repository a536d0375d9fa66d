"""The cache where no supervisor runs: figures are read from the index as it lies there and change nothing; the other
verbs open the store for themselves, under the lock of the state directory."""

import os
import sqlite3
from collections.abc import Callable
from random import Random

from protocol.errors import StateDirectoryUnusable
from protocol.messages import AskCache, CacheReport
from supervisor.mechanism.cache import schema
from supervisor.mechanism.cache.index import Index
from supervisor.mechanism.cache.store import Store, default_limit
from supervisor.mechanism.cache.verbs import report, told
from supervisor.mechanism.cache.verify import run
from supervisor.policy.cache.settings import DEFAULT_POLICY, POLICY_NAMES, CacheSettings, PolicyName
from supervisor.policy.cache.stats import CacheStats, StepTally, step_tallies


def read_figures(directory: str, limit_bytes: int) -> tuple[CacheStats, list[StepTally]]:
    """Returns the stats and the counts by step and policy. Raises StateDirectoryUnusable: none here, or damaged."""
    path = os.path.join(directory, schema.INDEX_FILE)
    if not os.path.exists(path):
        raise StateDirectoryUnusable(
            f"no cache here: {directory} holds no {schema.INDEX_FILE}; name the right state directory with --state"
        )
    try:
        connection = schema.open_for_reading(path)
        try:
            index = Index(connection, Random())
            policy = str(index.fact("policy") or DEFAULT_POLICY)
        finally:
            connection.close()
    except (sqlite3.Error, schema.Damaged) as error:
        raise StateDirectoryUnusable(
            f"the cache's index {path} cannot be read ({error}); the next start sets it aside and makes it anew"
        ) from error
    tallies = index.tallies.values()
    hits, misses = sum(tally.hits for tally in tallies), sum(tally.misses for tally in tallies)
    stats = CacheStats(
        entries=index.entries,
        bytes=index.bytes,
        limit_bytes=limit_bytes,
        hits=hits,
        misses=misses,
        hit_rate=round(hits / max(1, hits + misses), 4),
        policy=policy,
        culled=sum(tally.culled for tally in tallies),
        memory_entries=0,
        memory_bytes=0,
    )
    return stats, step_tallies(index.steps, index.tallies)


def figures_offline(directory: str, limit_bytes: int | None, request: AskCache) -> CacheReport:
    """Answers what only reads; no limit is the default one. Raises StateDirectoryUnusable."""
    if limit_bytes is None:
        limit_bytes = default_limit(directory) if os.path.isdir(directory) else 0
    stats, steps = read_figures(directory, limit_bytes)
    return told(request, stats, steps, message=f"the policy is {stats.policy}; there are {', '.join(POLICY_NAMES)}")


def do_offline(
    directory: str,
    limit_bytes: int | None,
    policy: PolicyName | None,
    request: AskCache,
    complain: Callable[[str], None],
) -> CacheReport:
    """Does what was asked, on a store that nobody else uses: the caller holds the state directory. Raises
    StateDirectoryUnusable where the disk refuses, and ValueError as `verbs.report` does."""
    limit = default_limit(directory) if limit_bytes is None else limit_bytes
    try:
        store = Store(directory, CacheSettings(limit_bytes=limit, policy=policy), complain)
        try:
            return run(report(store, request))
        finally:
            store.close()
    except (sqlite3.Error, OSError, schema.Damaged) as error:
        raise StateDirectoryUnusable(f"the cache in {directory} could not do it: {error}") from error
