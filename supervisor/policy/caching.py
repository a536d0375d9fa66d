"""The cache before the work and after it.

Before: ordinary items that the journal read are looked up. A hit is settled as `cached` and no worker hears of it;
a miss waits for its lease. Identical images of a batch are worked on once: the first miss runs, the others follow
it, and are looked up again when it is over. After: what a worker made goes into the cache once its row is committed,
because only then is it the truth.

Items that must run alone are not looked up: they are suspects, and what they are suspected of may be in the cache.
"""

from protocol.paths import from_token
from supervisor.policy.cache.asked import LookedUp, LookUpItems, Made, Stored, StoreItems, Wanted
from supervisor.policy.cache.keys import CacheStep
from supervisor.policy.commands import Command, SettleItems
from supervisor.policy.items import Item, Settlement
from supervisor.policy.queue import Batch
from supervisor.policy.state import PoolState


def steps_of(state: PoolState, batch: Batch) -> tuple[CacheStep, ...]:
    """Returns what the batch's recipe is called in the cache; empty where its results are not kept: there is no
    cache, an operation's results depend on more than the image, or the recipe is not what it was."""
    recipe = batch.record.recipe
    if state.settings.recipes.get(recipe.name) != recipe:
        return ()
    return state.settings.cache_steps.get(recipe.name, ())


def look_up(state: PoolState, batch: Batch, items: list[Item], now: float) -> list[Command]:
    """Asks the cache for items; until it answers they wait in `looking`."""
    if not items:
        return []
    if batch.began_at is None:
        batch.began_at = now
    for item in items:
        batch.looking[item.id] = item
    record = batch.record
    return [
        LookUpItems(
            batch=batch.name,
            out=record.out,
            steps=steps_of(state, batch),
            overwrite=record.overwrite,
            strict=record.strict,
            items=[Wanted(item.id, from_token(batch.path(item)), item.stem, item.owned) for item in items],
        )
    ]


def on_looked_up(state: PoolState, event: LookedUp) -> list[Command]:
    """Settles the hits, puts the misses where their lease finds them. An item that is no longer looked for (its batch
    was cancelled or read again meanwhile) is passed over: what was delivered for it will be found in place."""
    batch = state.queue.batches.get(event.batch)
    if batch is None:
        return []
    settlements: list[Settlement] = []
    for hit in event.hits:
        item = batch.looking.pop(hit.id, None)
        if item is None:
            continue
        batch.settles(item.id, len(hit.detail))
        settlements.append(
            Settlement(id=item.id, batch=batch.name, state="cached", tries=0, detail=hit.detail, written=hit.written)
        )
    for miss in event.misses:
        item = batch.looking.pop(miss.id, None)
        if item is None:
            continue
        item.identity = miss.identity
        if not miss.identity or batch.coalescer.join(miss.identity, item.id):
            batch.ready.append(item)
        else:
            batch.following[item.id] = item
    return [SettleItems(settlements=settlements)] if settlements else []


def on_committed(state: PoolState, batch: Batch, settlements: list[Settlement], now: float) -> list[Command]:
    """Keeps what was made; lets those go that followed an item which left nothing to keep."""
    commands: list[Command] = []
    kept: list[Made] = []
    for settlement in settlements:
        if settlement.made is not None:
            kept.append(settlement.made)
            batch.storing[settlement.id] = settlement.identity
        elif settlement.identity:
            commands += _release(state, batch, settlement.identity, now)
    if kept:
        steps = steps_of(state, batch)
        more = not batch.following and batch.pending + batch.leased + batch.settling > 0
        out = batch.record.out
        commands.append(StoreItems(batch=batch.name, out=out, steps=steps, items=kept, more_to_come=more))
    return commands


def on_stored(state: PoolState, event: Stored, now: float) -> list[Command]:
    """What was made can be found now (or never): those that waited for it are looked up."""
    batch = state.queue.batches.get(event.batch)
    if batch is None:
        return []
    commands: list[Command] = []
    for number in (*event.kept, *event.dropped):
        identity = batch.storing.pop(number, b"")
        if identity:
            commands += _release(state, batch, identity, now)
    return commands


def _release(state: PoolState, batch: Batch, identity: bytes, now: float) -> list[Command]:
    followers = [batch.following.pop(number, None) for number in batch.coalescer.end(identity)]
    return look_up(state, batch, [item for item in followers if item is not None], now)
