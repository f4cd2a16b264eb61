"""Metrics as sums: values against their definitions, and merging against measuring at once."""

from __future__ import annotations

import json

import numpy as np
import pytest

from hansa.core import canonical, metrics
from hansa.core.metrics import AUROC, Accuracy, Better, Calibration, Loss, Outputs, Ratio
from hansa.errors import HansaError


def outputs(n: int, classes: int = 2, seed: int = 0) -> Outputs:
    rng = np.random.default_rng(seed)
    p = rng.dirichlet(np.ones(classes), n)
    targets = (rng.random((n, 1)) > p.cumsum(axis=1)).sum(axis=1).clip(0, classes - 1)
    return Outputs(p, targets, -np.log(p[np.arange(n), targets] + 1e-9))


def part(of: Outputs, index: slice) -> Outputs:
    return Outputs(of.probabilities[index], of.targets[index], of.losses[index])


ALL = (
    Loss(),
    Accuracy(),
    AUROC(bins=64),
    Calibration(bins=10),
    Ratio("brier", "squared probability", Better.LOWER, lambda o: (1 - o.probabilities[:, 1]) ** 2),
)


@pytest.mark.parametrize("metric", ALL, ids=lambda m: m.name)
def test_sums_of_parts_add_up_to_the_sums_of_the_whole(metric):
    whole = outputs(101)
    merged = metric.measure(part(whole, slice(0, 40))) + metric.measure(part(whole, slice(40, 101)))
    assert metric.measure(whole).shape == (metric.size,)
    assert merged == pytest.approx(metric.measure(whole))
    assert isinstance(metric, metrics.Metric)
    assert metric.unit


@pytest.mark.parametrize("metric", ALL, ids=lambda m: m.name)
def test_no_examples_have_no_value(metric):
    nothing = metric.measure(part(outputs(3), slice(0, 0)))
    assert metric.value(nothing) is None


def test_loss_and_accuracy_are_means():
    found = outputs(57, classes=5)
    right = [p.argmax() == t for p, t in zip(found.probabilities, found.targets, strict=True)]
    assert Loss().value(Loss().measure(found)) == pytest.approx(float(np.mean(found.losses)))
    assert Accuracy().value(Accuracy().measure(found)) == pytest.approx(np.mean(right))


def test_a_ratio_is_the_mean_of_any_quantity():
    found, ratio = outputs(20), ALL[4]
    assert ratio.value(ratio.measure(found)) == pytest.approx(
        float(((1 - found.probabilities[:, 1]) ** 2).mean())
    )


def test_a_ratio_from_a_plan_has_no_code():
    with pytest.raises(HansaError, match="no function"):
        Ratio("brier", "", Better.LOWER).measure(outputs(3))


def test_auroc_counts_pairs_in_the_right_order():
    """Against the definition over all pairs, with scores on the bins' centres: no error at all."""
    rng = np.random.default_rng(1)
    scores = (rng.integers(0, 16, 80) + 0.5) / 16
    targets = rng.integers(0, 2, 80)
    found = Outputs(np.stack([1 - scores, scores], axis=1), targets, scores)
    positive, negative = scores[targets == 1], scores[targets == 0]
    pairs = (positive[:, None] > negative) + 0.5 * (positive[:, None] == negative)
    metric = AUROC(bins=16)
    assert metric.value(metric.measure(found)) == pytest.approx(pairs.mean())


def test_auroc_of_one_class_has_no_value():
    found = outputs(9)
    one = Outputs(found.probabilities, np.ones(9, np.int64), found.losses)
    assert AUROC().value(AUROC().measure(one)) is None


@pytest.mark.parametrize(("flip", "area"), [(False, 1.0), (True, 0.0)])
def test_auroc_of_a_perfect_and_of_a_reversed_ranking(flip, area):
    scores = np.linspace(0, 1, 50)
    targets = (scores > 0.5).astype(np.int64)
    scores = 1 - scores if flip else scores
    found = Outputs(np.stack([1 - scores, scores], axis=1), targets, scores)
    assert AUROC().value(AUROC().measure(found)) == pytest.approx(area, abs=1e-3)


def test_calibration_error_by_hand():
    """Two bins: 0.6 is right half of the time, 0.9 always: (2 * 0.1 + 2 * 0.1) / 4."""
    scores = np.array([0.6, 0.6, 0.9, 0.9])
    found = Outputs(np.stack([1 - scores, scores], axis=1), np.array([1, 0, 1, 1]), scores)
    assert Calibration(bins=10).value(Calibration(bins=10).measure(found)) == pytest.approx(0.1)


def test_several_metrics_lie_one_after_the_other():
    found = outputs(30)
    sums = metrics.measure(ALL, found)
    assert sums.size == sum(m.size for m in ALL)
    values = metrics.values(ALL, sums)
    assert list(values) == [m.name for m in ALL]
    assert values["accuracy"] == Accuracy().value(Accuracy().measure(found))
    assert metrics.measure((), found).size == 0


@pytest.mark.parametrize("metric", ALL, ids=lambda m: m.name)
def test_declarations_travel_as_json(metric):
    back = metrics.of_json(json.loads(canonical.dumps(metric)))
    assert back == metric
    assert back.better is metric.better


@pytest.mark.parametrize(
    "value",
    [
        None,
        [],
        {"is": "Nothing"},
        {"is": "Loss"},
        {"is": "Loss", "better": "sideways"},
        {"is": "AUROC", "better": "higher", "bin": 3},
    ],
)
def test_what_is_no_metric_is_refused(value):
    with pytest.raises(HansaError, match="is not a metric"):
        metrics.of_json(value)
