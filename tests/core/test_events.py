"""Privacy events as data."""

from __future__ import annotations

import json
import math

import pytest

from hansa.core import canonical, events
from hansa.core.events import (
    Composed,
    DiscreteGaussianSum,
    DiscreteLaplace,
    Gaussian,
    Laplace,
    MixtureOfGaussians,
    NonPrivate,
    NoOp,
    PoissonSampled,
    RandomizedResponse,
    RepeatAndSelect,
    SampledWithoutReplacement,
    SampledWithReplacement,
    SelfComposed,
    SingleEpochTreeAggregation,
    TruncatedSubsampledGaussian,
    ZCDp,
)
from hansa.errors import HansaError

ONE_OF_EACH = [
    NoOp(),
    NonPrivate(),
    Gaussian(1.5),
    Laplace(2.0),
    DiscreteLaplace(0.5, 1),
    DiscreteGaussianSum(8.0, 10, 3.5, 100),
    RandomizedResponse(0.5, 4),
    ZCDp(0.25),
    PoissonSampled(0.01, Gaussian(1.0)),
    SampledWithReplacement(100, 10, Gaussian(1.0)),
    SampledWithoutReplacement(100, 10, Gaussian(1.0)),
    TruncatedSubsampledGaussian(100, 0.1, 30, 1.0),
    MixtureOfGaussians(1.5, (0.0, 1.0, 2.0), (0.81, 0.18, 0.01)),
    RepeatAndSelect(PoissonSampled(0.1, Gaussian(4.0)), 10.0, 1.0),
    RepeatAndSelect(Gaussian(4.0), 10.0, math.inf),
    SingleEpochTreeAggregation(10.0, (4, 8)),
    SingleEpochTreeAggregation(10.0, 8),
    SelfComposed(PoissonSampled(0.1, Composed((Gaussian(1.0), Gaussian(2.0)))), 10),
    Composed((Gaussian(1.0), Laplace(2.0))),
]


def test_there_is_one_of_each():
    assert {type(e).__name__ for e in ONE_OF_EACH} == set(events.KINDS)


@pytest.mark.parametrize("event", ONE_OF_EACH, ids=lambda e: type(e).__name__)
def test_events_travel_as_json(event):
    assert events.of_json(json.loads(canonical.dumps(event))) == event


@pytest.mark.parametrize(
    "value",
    [
        None,
        "Gaussian",
        [],
        {},
        {"is": 3},
        {"is": "os.system"},
        {"is": "Gaussian"},
        {"is": "Gaussian", "noise_multiplier": 1.0, "more": 2},
        {"is": "Gaussian", "noise_multiplier": "1"},
        {"is": "Gaussian", "noise_multiplier": True},
        {"is": "Gaussian", "noise_multiplier": None},
        {"is": "Gaussian", "noise_multiplier": "-inf"},
        {
            "is": "MixtureOfGaussians",
            "standard_deviation": 1,
            "sensitivities": [1, "x"],
            "sampling_probs": [0.5, 0.5],
        },
        {"is": "SelfComposed", "count": 2, "event": {"is": "?"}},
        {"is": "Composed", "events": [{"is": "Gaussian"}]},
    ],
)
def test_what_is_no_event_is_refused(value):
    with pytest.raises(HansaError, match="is not a privacy event"):
        events.of_json(value)


def test_composing_leaves_out_what_reveals_nothing():
    assert events.compose() == NoOp()
    assert events.compose(NoOp(), NoOp()) == NoOp()
    assert events.compose(NoOp(), Gaussian(1.0)) == Gaussian(1.0)
    assert events.compose(Gaussian(1.0), Laplace(1.0)) == Composed((Gaussian(1.0), Laplace(1.0)))


@pytest.mark.parametrize(
    ("event", "count", "repeated"),
    [
        (Gaussian(1.0), 0, NoOp()),
        (Gaussian(1.0), -1, NoOp()),
        (Gaussian(1.0), 1, Gaussian(1.0)),
        (Gaussian(1.0), 5, SelfComposed(Gaussian(1.0), 5)),
        (NoOp(), 5, NoOp()),
    ],
)
def test_repeating(event, count, repeated):
    assert events.repeat(event, count) == repeated


@pytest.mark.parametrize(
    "wrap",
    [
        lambda e: e,
        lambda e: Composed((Gaussian(1.0), e)),
        lambda e: SelfComposed(e, 3),
        lambda e: PoissonSampled(0.1, e),
        lambda e: SampledWithReplacement(9, 3, e),
        lambda e: SampledWithoutReplacement(9, 3, Composed((e, NoOp()))),
        lambda e: RepeatAndSelect(e, 5.0, 1.0),
    ],
)
def test_one_part_without_a_guarantee_spoils_the_whole(wrap):
    assert events.is_private(wrap(Gaussian(1.0)))
    assert not events.is_private(wrap(NonPrivate()))
