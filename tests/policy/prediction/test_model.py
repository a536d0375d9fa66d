"""Factors follow what is measured, up at once and down with evidence; classes and recipes are bounded."""

from random import Random

from protocol.messages import Factor, Recipe, Step, Weighed
from supervisor.policy.prediction.model import (
    CLASSES_MAX,
    ENOUGH,
    ENOUGH_FOR_RESERVATION,
    RECIPES_MAX,
    RESOLUTION_BYTES,
    ClassKey,
    Predictor,
    error_report,
    signature,
)
from supervisor.policy.sizes import MB

THUMBS = "thumbs#1"
JPEG = ClassKey(THUMBS, "jpeg", "", "vips")


def feed(predictor: Predictor, measured: int, prior: int = 40 * MB, count: int = 1, recipe: str = THUMBS) -> None:
    """So many items of `measured` bytes, predicted as a worker would that knows what was told."""
    for _ in range(count):
        known = predictor.classes.get(ClassKey(recipe, "jpeg", "", "vips"))
        predicted = int(prior * (known.told if known is not None else 1.0))
        weighed = Weighed("jpeg", "", "vips", prior, predicted, 60 * MB)
        predictor.observe(recipe, weighed, 60 * MB + measured, done=True)


def test_a_few_items_are_no_reason_to_predict_less() -> None:
    predictor = Predictor()
    feed(predictor, 10 * MB, count=ENOUGH - 2)
    assert predictor.classes[JPEG].factor() >= 1.0


def test_many_items_are_and_the_margin_shrinks() -> None:
    predictor = Predictor()
    feed(predictor, 10 * MB, count=30)
    early = predictor.classes[JPEG].factor()
    feed(predictor, 10 * MB, count=400)
    late = predictor.classes[JPEG].factor()
    assert 0.25 < late < early < 0.32, (early, late)
    assert predictor.under_predicted == 0


def test_one_item_far_above_its_prediction_raises_the_factor_at_once() -> None:
    predictor = Predictor()
    feed(predictor, 10 * MB, count=100)
    revision = predictor.revisions[THUMBS]
    feed(predictor, 80 * MB)
    assert predictor.classes[JPEG].told >= 2.0 and predictor.revisions[THUMBS] == revision + 1
    assert predictor.under_predicted == 1
    feed(predictor, 10 * MB, count=3000)
    assert predictor.classes[JPEG].told < 0.32, "and is forgotten"


def test_under_predictions_stay_below_a_hundredth_where_images_scatter() -> None:
    predictor, random = Predictor(), Random(7)
    for _ in range(200):
        feed(predictor, int(random.lognormvariate(16.0, 0.25)), prior=20 * MB)
    before = predictor.under_predicted
    for _ in range(3000):
        feed(predictor, int(random.lognormvariate(16.0, 0.25)), prior=20 * MB)
    assert predictor.under_predicted - before <= 30
    [whole, *_] = error_report(predictor)
    assert whole.operation == "all" and whole.items == 3200 and 1.0 < whole.ratio_median <= 2.3


def test_what_is_told_changes_only_by_steps_that_matter() -> None:
    predictor, random = Predictor(), Random(5)
    for _ in range(1000):
        feed(predictor, int(20 * MB * random.uniform(0.95, 1.05)))
    assert predictor.revisions[THUMBS] < 15
    assert predictor.factors(THUMBS) == [Factor("jpeg", "", "vips", round(predictor.classes[JPEG].told, 4))]
    assert predictor.factors("other#2") == []


def test_a_reservation_is_what_nearly_all_items_take() -> None:
    predictor = Predictor()
    feed(predictor, 10 * MB, prior=11 * MB, count=ENOUGH_FOR_RESERVATION - 5)
    assert predictor.reservation_bytes(THUMBS) is None
    feed(predictor, 10 * MB, prior=11 * MB, count=300)
    feed(predictor, 90 * MB, prior=91 * MB, count=2)
    reserved = predictor.reservation_bytes(THUMBS)
    assert reserved is not None and 10 * MB < reserved < 16 * MB
    feed(predictor, 90 * MB, prior=91 * MB, count=30)
    assert (predictor.reservation_bytes(THUMBS) or 0) > 90 * MB


def test_peaks_below_the_resolution_count_as_it() -> None:
    predictor = Predictor()
    feed(predictor, 0, prior=RESOLUTION_BYTES, count=50)
    [_, row] = error_report(predictor)
    assert row.ratio_median < 1.1 and row.under_predicted == 0 and row.factor >= 1.0


def test_what_failed_early_proves_nothing_unless_it_took_more() -> None:
    predictor = Predictor()
    weighed = Weighed("jpeg", "", "vips", 40 * MB, 40 * MB, 60 * MB)
    predictor.observe(THUMBS, weighed, 61 * MB, done=False)
    assert predictor.items == 0
    predictor.observe(THUMBS, weighed, 160 * MB, done=False)
    assert predictor.items == predictor.under_predicted == 1


def test_figures_that_cannot_be_are_not_learned_from() -> None:
    predictor = Predictor()
    for prior, predicted, held, peak in ((0, 1, 1, 2), (-5, 1, 1, 2), (9, 0, 1, 2), (9, 9, 0, 2), (9, 9, 8, 2)):
        predictor.observe(THUMBS, Weighed("jpeg", "", "vips", prior, predicted, held), peak, done=True)
    assert predictor == Predictor()


def test_classes_and_recipes_are_bounded_the_oldest_go() -> None:
    predictor = Predictor()
    for number in range(CLASSES_MAX + 10):
        weighed = Weighed(f"f{number}", "", "vips", 40 * MB, 40 * MB, 60 * MB)
        predictor.observe(THUMBS, weighed, 70 * MB, done=True)
    assert len(predictor.classes) == CLASSES_MAX and ClassKey(THUMBS, "f9", "", "vips") not in predictor.classes
    for number in range(RECIPES_MAX + 5):
        feed(predictor, MB, recipe=f"r{number}#0")
    assert len(predictor.needs) == RECIPES_MAX and len(predictor.classes) <= CLASSES_MAX
    assert len(predictor.revisions) <= RECIPES_MAX + 1


def test_a_recipe_whose_steps_changed_is_another() -> None:
    small, large = (Recipe(name="mine", steps=[Step("thumbnail", {"sizes": [side]})]) for side in (16, 2048))
    assert signature(small) != signature(large) and signature(small).startswith("mine#")
    assert signature(small) == signature(Recipe(name="mine", steps=[Step("thumbnail", {"sizes": [16]})]))
