"""The cache's figures where no supervisor runs: reads the index as it lies there, changes nothing."""

import os
import sqlite3
from random import Random

from protocol.errors import StateDirectoryUnusable
from supervisor.mechanism.cache import schema
from supervisor.mechanism.cache.index import Index
from supervisor.policy.cache.settings import DEFAULT_POLICY
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
