"""Memory leases, as a story: who gets how much of the pool, who is refused and why, and what ends a lease."""

from typing import Any

import pytest

from protocol import messages as m
from supervisor.policy import commands as c
from supervisor.policy import events as e
from supervisor.policy.lease_book import CLIENT, LeaseSettings
from supervisor.policy.memory_leases import free_bytes, memory_leases, models
from supervisor.policy.sizes import MB
from tests.policy.story import BASELINE_BYTES, Story, names

POOL = 100 * MB


def story(**leases: Any) -> Story:
    """Two workers of 60 MB, 180 MB of room; a pool of 100 MB for memory leases."""
    return Story(leases=LeaseSettings(**({"pool_bytes": POOL} | leases))).start()


def ask(told: Story, slot: int, number: int, size: int, **fields: Any) -> m.MemoryGranted | m.MemoryRefused | None:
    """What a worker is answered that asks for so many MB."""
    fields = {"at_least": size, "within_bytes": 0} | fields
    fields = {name: value if name in ("item", "patience_seconds") else value * MB for name, value in fields.items()}
    worker = told.worker(slot)
    told.say(
        slot,
        m.RequestMemory(
            slot=slot, incarnation=worker.incarnation, number=number, purpose="model x", bytes=size * MB, **fields
        ),
    )
    for command in told.of(c.TellWorker):
        if isinstance(command.message, m.MemoryGranted | m.MemoryRefused):
            assert (command.slot, command.message.number) == (slot, number)
            return command.message
    return None


def release(told: Story, slot: int, number: int) -> None:
    told.say(slot, m.ReleaseMemory(slot=slot, incarnation=told.worker(slot).incarnation, number=number))


def loaded(told: Story, slot: int, number: int, size: int, **fields: Any) -> None:
    incarnation = told.worker(slot).incarnation
    told.say(
        slot, m.ModelLoaded(slot=slot, incarnation=incarnation, number=number, name="x", bytes=size * MB, **fields)
    )


def refusal(answer: m.MemoryGranted | m.MemoryRefused | None) -> m.MemoryRefused:
    assert isinstance(answer, m.MemoryRefused), answer
    return answer


def out(told: Story) -> int:
    return memory_leases(told.pool.state).granted_bytes // MB


def test_the_pool_is_granted_down_to_its_end_and_filled_again() -> None:
    told = story()
    assert ask(told, 0, 1, 60) == m.MemoryGranted(number=1, bytes=60 * MB)
    assert ask(told, 1, 1, 60, at_least=20) == m.MemoryGranted(number=1, bytes=40 * MB), "at least 20, there are 40"
    no = refusal(ask(told, 1, 2, 10, at_least=5))
    assert no.for_ever is False
    assert "5.0 MB are asked for, 0 bytes are free: 100 MB of the leases' 100 MB" in no.reason, no.reason
    release(told, 0, 1)
    assert out(told) == 40
    assert ask(told, 1, 3, 60) == m.MemoryGranted(number=3, bytes=60 * MB)
    found = memory_leases(told.pool.state)
    assert (found.limit_bytes, found.granted_bytes, found.granted_total, found.refused_total) == (POOL, POOL, 3, 1)
    assert [(lease.slot, lease.bytes // MB, lease.purpose) for lease in found.leases] == [
        (1, 40, "model x"),
        (1, 60, "model x"),
    ]
    assert found.last_refusal == no.reason


def test_what_can_never_be_granted_is_said_so() -> None:
    no = refusal(ask(story(), 0, 1, 101))
    assert no.for_ever and "all memory leases together may take 100 MB" in no.reason


def test_by_default_the_pool_is_a_share_of_the_budget_and_50_mb_at_least() -> None:
    told = story(pool_bytes=None)
    assert memory_leases(told.pool.state).limit_bytes == int(0.6 * told.budget_bytes) == 234 * MB
    told.budget_bytes = 80 * MB
    told.look()
    assert memory_leases(told.pool.state).limit_bytes == 50 * MB


def test_leases_and_items_share_the_room() -> None:
    told = story(pool_bytes=1000 * MB)
    told.submit("b1", names(40))
    state = told.pool.state
    assert told.grants() and len(state.leases) == 2
    reserved = sum(lease.reserved_bytes for lease in state.leases.values())
    assert reserved == 2 * 70 * MB or reserved > 0
    free = state.room_bytes() - reserved
    assert free_bytes(state) == free > 0
    granted = ask(told, 0, 1, 500, at_least=1)
    assert granted == m.MemoryGranted(number=1, bytes=free)
    assert reserved + state.memory_leases.reserved_bytes() <= told.budget_bytes - 60 * MB - 2 * BASELINE_BYTES
    refusal(ask(told, 1, 1, 1))


def test_a_lease_raises_its_holders_limits_and_lowers_the_shares() -> None:
    told = story()
    slots = told.pool.state.slots
    before = [told.pool.state.limits(slot).hard_bytes for slot in slots]
    ask(told, 0, 1, 50)
    after = [told.pool.state.limits(slot).hard_bytes for slot in slots]
    assert after[0] > before[0] and after[1] < before[1]
    assert sum(after) <= sum(before), "all at their hard limits still fit"
    told.look(at={0: 60 + 50 + 20})
    assert not told.of(c.KillWorker) and not told.notes("soft_limit"), "what it was lent is not held against it"
    release(told, 0, 1)
    assert [told.pool.state.limits(slot).hard_bytes for slot in slots] == before


def test_nothing_is_granted_when_memory_is_critical_or_not_known() -> None:
    told = story()
    told.look(at={0: 60, 1: 240})
    no = refusal(ask(told, 0, 1, 1))
    assert "the memory level is critical" in no.reason or "the memory level is e" in no.reason, no.reason
    told = story()
    told.clock.step(10.0)
    assert "not known" in refusal(ask(told, 0, 1, 1)).reason


def test_a_lease_ends_with_its_holder() -> None:
    told = story()
    ask(told, 0, 1, 30)
    loaded(told, 0, 1, 35)
    assert out(told) == 35 and [model.bytes for model in models(told.pool.state)] == [35 * MB]
    told.exit(0, -11)
    assert out(told) == 0 and models(told.pool.state) == []


def test_a_lease_that_is_not_renewed_becomes_stale() -> None:
    told = story(stale_seconds=60.0)
    ask(told, 0, 1, 30)
    ask(told, 0, 2, 20)
    told.pass_time(59, every=10.0)
    told.say(0, m.RenewMemory(slot=0, incarnation=told.worker(0).incarnation, numbers=[2, 77]))
    assert out(told) == 50
    assert (told.pool.next_deadline() or 0) <= told.clock.now + 1.0
    told.clock.step(1.0)
    told.feed(e.Tick())
    [note] = told.notes("lease_stale")
    assert "model x, 30 MB) of worker 0 is taken back: not renewed for 60 s" in note.message
    found = memory_leases(told.pool.state)
    assert (out(told), found.expired_total) == (20, 1)
    release(told, 0, 1)
    assert out(told) == 20, "a lease that is gone is no fault"


def test_what_lies_within_an_item_is_seen_and_takes_nothing_from_the_pool() -> None:
    told = story()
    told.submit("b1", names(4))
    item = told.lease(0)[0]
    assert ask(told, 0, 1, 0, within_bytes=500, item=item) is None
    [lease] = memory_leases(told.pool.state).leases
    assert (lease.bytes, lease.reserved_bytes, lease.path) == (500 * MB, 0, f"/in/{item}.jpg")
    assert out(told) == 0


def test_a_model_in_the_measured_baseline_needs_no_reservation() -> None:
    told = story()
    told.submit("b1", names(40))
    ask(told, 0, 1, 30)
    loaded(told, 0, 1, 40, uses=1)
    assert out(told) == 40
    for number in told.lease(0)[:1]:
        told.report(0, done=[number], rss=100)
    while len(told.worker(0).boundary_bytes) < 5:
        told.report(0, rss=100)
        told.look(at={0: 100})
    assert told.worker(0).baseline_bytes == 100 * MB
    [lease] = [lease for lease in memory_leases(told.pool.state).leases if lease.slot == 0]
    assert (lease.bytes, lease.reserved_bytes, out(told)) == (40 * MB, 0, 0)
    loaded(told, 0, 1, 40, uses=9)
    assert [(model.uses, model.bytes) for model in models(told.pool.state)] == [(9, 40 * MB)]
    incarnation = told.worker(0).incarnation
    told.say(0, m.ModelUnloaded(slot=0, incarnation=incarnation, number=1, name="x", bytes=25 * MB, reason="idle"))
    assert told.worker(0).baseline_bytes == 75 * MB and models(told.pool.state) == []
    assert told.notes("model_unloaded")[0].message == "worker 0 unloaded the model x: 25 MB came back of 40 MB (idle)"


def test_who_would_like_more_waits_for_what_an_inference_gives_back() -> None:
    told = story()
    assert ask(told, 0, 1, 70) == m.MemoryGranted(number=1, bytes=70 * MB)
    assert ask(told, 1, 1, 60, at_least=10, patience_seconds=1) is None, "30 MB are free, 70 are about to come back"
    told.clock.step(0.5)
    release(told, 0, 1)
    [granted] = [command.message for command in told.of(c.TellWorker)]
    assert granted == m.MemoryGranted(number=1, bytes=60 * MB)


def test_nobody_waits_longer_than_his_patience_nor_for_what_does_not_come_back() -> None:
    told = story(patience_seconds=2.0)
    ask(told, 0, 1, 70)
    assert ask(told, 1, 1, 60, at_least=10, patience_seconds=1) is None
    waiting = told.pool.state.memory_leases.waiting[0]
    told.pass_time(waiting.until - told.clock.now)
    assert told.pool.state.memory_leases.waiting == []
    assert out(told) == 100, "granted the 30 that there were"
    release(told, 1, 1)
    loaded(told, 0, 1, 70)
    assert ask(told, 1, 2, 60, at_least=10, patience_seconds=1) == m.MemoryGranted(number=2, bytes=30 * MB)


def test_a_client_leases_renews_tracks_and_gives_back() -> None:
    told = story()
    told.ask(m.LeaseMemory(id=1, purpose="notebook", bytes=80 * MB, at_least=10 * MB))
    leased = told.answer()
    assert isinstance(leased, m.MemoryLeased) and (leased.bytes, leased.stale_after_seconds) == (80 * MB, 600.0)
    told.ask(m.LeaseMemory(id=2, purpose="notebook", bytes=80 * MB))
    problem = told.answer()
    assert isinstance(problem, m.Problem) and problem.code == "busy" and "20 MB are free" in problem.message
    told.ask(m.LeaseMemory(id=3, purpose="frame", bytes=80 * MB, track=True))
    tracked = told.answer()
    assert isinstance(tracked, m.MemoryLeased), "what is in use already is not refused"
    refusal(ask(told, 0, 1, 1))
    assert [lease.slot for lease in memory_leases(told.pool.state).leases] == [CLIENT, CLIENT]
    for number in (leased.lease, tracked.lease):
        told.ask(m.RenewMemoryLease(id=4, lease=number))
        assert isinstance(told.answer(), m.Done)
        told.ask(m.EndMemoryLease(id=4, lease=number))
        assert isinstance(told.answer(), m.Done)
    told.ask(m.EndMemoryLease(id=5, lease=leased.lease))
    gone = told.answer()
    assert isinstance(gone, m.Problem) and "no memory lease" in gone.message
    assert out(told) == 0


def test_a_worker_may_not_end_a_clients_lease_nor_another_workers() -> None:
    told = story()
    told.ask(m.LeaseMemory(id=1, bytes=10 * MB))
    ask(told, 0, 1, 10)
    release(told, 1, 1)
    release(told, 1, 0)
    assert out(told) == 20


@pytest.mark.parametrize("size", [1 << 48, 1 << 52])
def test_a_size_that_cannot_be_ends_the_worker(size: int) -> None:
    told = story()
    worker = told.worker(0)
    told.say(0, m.RequestMemory(slot=0, incarnation=worker.incarnation, number=1, purpose="x", bytes=size))
    assert told.notes("protocol") and told.states()[0] == "KILLING"


def test_settings_are_checked() -> None:
    assert LeaseSettings().check() == []
    faults = LeaseSettings(pool_bytes=-1, pool_share=0, from_bytes=0, stale_seconds=10, answer_seconds=5).check()
    assert [fault.split(" is ")[0] for fault in faults] == ["pool_bytes", "pool_share", "from_bytes", "stale_seconds"]


def machine_refuses(told: Story, slot: int) -> None:
    """A worker could not load the model for the first item of its lease."""
    error = m.ItemError(kind="memory", message="the model x cannot be loaded now")
    told.report(slot, items=[m.ItemReport(id=told.lease(slot)[0], outcome="machine", seconds=0.0, error=error)])


def test_a_worker_that_is_refused_the_model_leaves_the_work_to_one_that_has_it() -> None:
    told = story(pool_bytes=60 * MB)
    told.submit("b", names(6))
    ask(told, 0, 1, 50)
    loaded(told, 0, 1, 50)
    machine_refuses(told, 1)
    assert told.pool.state.queue.batches["b"].paused is None, "the other one works on"
    assert told.notes("model_waits")[0].slot == 1
    done: set[int] = set()
    for _ in range(6):
        assert told.worker(1).state == "IDLE"
        if told.worker(0).state != "BUSY":
            break
        done |= set(told.lease(0))
        told.report(0)
    assert done == {1, 2, 3, 4, 5, 6}
    told.submit("other", names(4))
    assert told.worker(1).state == "IDLE", "the same recipe"


def test_where_nobody_has_the_model_any_more_a_refused_worker_is_asked_again() -> None:
    told = story(pool_bytes=60 * MB)
    told.submit("b", names(6))
    ask(told, 0, 1, 50)
    loaded(told, 0, 1, 50)
    machine_refuses(told, 1)
    assert told.worker(1).state == "IDLE"
    told.say(
        0, m.ModelUnloaded(slot=0, incarnation=told.worker(0).incarnation, number=1, name="x", bytes=50 * MB, reason="")
    )
    assert told.worker(1).state == "BUSY"
    machine_refuses(told, 1)
    assert told.pool.state.queue.batches["b"].paused is not None, "nobody has it: the batch waits, and tries again"


def test_what_no_waiting_helps_is_refused_for_ever_with_both_figures() -> None:
    told = story(pool_bytes=10_000 * MB)
    room = told.pool.state.most_room_bytes() // MB
    assert refusal(ask(told, 0, 1, room + 10)).for_ever is True
    no = refusal(ask(told, 0, 2, room - 20, within_bytes=40))
    assert no.for_ever is True and "are all there can be under" in no.reason, "what is the item's own counts"
    assert isinstance(ask(told, 1, 1, room - 40), m.MemoryGranted)
    assert refusal(ask(told, 0, 3, room - 20)).for_ever is False, "what others hold may come back"


def test_a_model_that_goes_with_its_worker_is_told() -> None:
    told = story(pool_bytes=60 * MB)
    ask(told, 0, 1, 50)
    loaded(told, 0, 1, 50)
    told.exit(0, -9)
    (note,) = told.notes("model_unloaded")
    assert "ended, and the model x with it: 50 MB" in note.message
    assert models(told.pool.state) == []
