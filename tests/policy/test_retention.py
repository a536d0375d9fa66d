"""Which batches are forgotten: by age, by count, least recently used first, results before records."""

from random import Random

import pytest

from supervisor.policy.retention import Finished, Retention, Rule, due, from_settings

NOW = 1_000_000.0
MINUTE = 60.0


def batch(number: int, minutes: float, kind: str = "default", thinned: bool = False) -> Finished:
    """A batch that was used so many minutes ago."""
    return Finished(number=number, kind=kind, used_at=NOW - minutes * MINUTE, thinned=thinned)


def dropped(batches: list[Finished], retention: Retention) -> list[int]:
    return [each.number for each in due(batches, retention, NOW).drop]


HOUR_OF_THREE = Retention(general=Rule(age_seconds=60 * MINUTE, count=3))


def test_what_was_not_used_for_too_long_goes_oldest_first() -> None:
    assert dropped([batch(1, 61), batch(2, 59), batch(3, 90), batch(4, 60)], HOUR_OF_THREE) == [3, 1]


def test_beyond_the_count_the_least_recently_used_goes() -> None:
    assert dropped([batch(1, 5), batch(2, 50), batch(3, 1), batch(4, 40), batch(5, 2)], HOUR_OF_THREE) == [2, 4]


def test_a_look_keeps_an_old_batch() -> None:
    old_but_looked_at, newer = batch(1, 1), [batch(number, 10 + number) for number in (2, 3, 4)]
    assert dropped([old_but_looked_at, *newer], HOUR_OF_THREE) == [4]


def test_kinds_have_their_own_limits_and_do_not_push_each_other_out() -> None:
    retention = Retention(
        general=Rule(age_seconds=600 * MINUTE, count=2),
        kinds={"preview": Rule(age_seconds=20 * MINUTE, count=1)},
    )
    previews = [batch(1, 5, "preview"), batch(2, 10, "preview"), batch(3, 25, "preview")]
    others = [batch(4, 100), batch(5, 200, "unheard-of")]
    assert dropped([*previews, *others], retention) == [3, 2]
    assert dropped([*others, batch(6, 300)], retention) == [6], "kinds without a rule share the general one"


def test_large_results_go_before_the_record_and_once() -> None:
    batches = [batch(1, 31), batch(2, 29), batch(3, 40, thinned=True)]
    verdict = due(batches, Retention(general=Rule(age_seconds=60 * MINUTE, count=9)), NOW)
    assert (verdict.drop, verdict.thin) == ([], [1])
    never = Retention(general=Rule(age_seconds=60 * MINUTE, count=9, results_age_seconds=60 * MINUTE))
    assert due(batches, never, NOW).thin == []


def test_the_reason_names_the_limit() -> None:
    first, second = due([batch(1, 61), batch(2, 4), batch(3, 3), batch(4, 2), batch(5, 1)], HOUR_OF_THREE, NOW).drop
    assert first.reason == "not used for 61 min, the limit is 60"
    assert second.reason == "least recently used of 5 of its kind, the limit is 3"


def test_any_mixture_leaves_the_most_recently_used_within_both_limits() -> None:
    for seed in range(300):
        random = Random(seed)
        kinds = ["default", "a", "b"]
        retention = Retention(
            general=Rule(age_seconds=random.uniform(1, 100) * MINUTE, count=random.randint(1, 9)),
            kinds={"a": Rule(age_seconds=random.uniform(1, 100) * MINUTE, count=random.randint(1, 9))},
        )
        batches = [batch(n, random.uniform(0, 120), random.choice(kinds)) for n in range(random.randint(0, 40))]
        gone = set(dropped(batches, retention))
        for own in (True, False):
            group = [each for each in batches if (each.kind == "a") is own]
            rule = retention.rule("a" if own else "default")
            kept = [each for each in group if each.number not in gone]
            young = sorted(NOW - each.used_at for each in group if NOW - each.used_at <= rule.age_seconds)
            assert sorted(NOW - each.used_at for each in kept) == young[: rule.count], f"seed {seed}"


def test_the_defaults_are_a_week_and_a_thousand() -> None:
    rule = Retention().rule("anything")
    assert (rule.age_seconds, rule.count, rule.thin_seconds) == (7 * 86_400, 1_000, 3.5 * 86_400)
    assert from_settings(10_080, 1_000, {}).general == Rule()


@pytest.mark.parametrize(
    "rule",
    [
        Rule(age_seconds=0),
        Rule(count=0),
        Rule(age_seconds=10, results_age_seconds=11),
        Rule(results_age_seconds=-1),
    ],
)
def test_impossible_rules_are_told(rule: Rule) -> None:
    assert Rule().check() == []
    assert len(rule.check()) == 1
