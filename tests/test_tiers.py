"""What a risk tier demands."""

from __future__ import annotations

import math

import pytest

from hansa.tiers import TIERS, unmet


@pytest.mark.parametrize(
    ("tier", "quorum", "epsilon", "words"),
    [
        ("low", 1, math.inf, []),
        ("medium", 2, math.inf, []),
        ("medium", 1, math.inf, ["at least 2 updates"]),
        ("high", 3, 10.0, []),
        ("high", 3, 10.1, ["demands epsilon <= 10, the job has 10.1"]),
        ("high", 3, math.inf, ["demands differential privacy"]),
        ("high", 2, 99.0, ["at least 3 updates", "demands epsilon <= 10"]),
    ],
)
def test_demands(tier, quorum, epsilon, words):
    errors = unmet(tier, quorum, epsilon)
    assert len(errors) == len(words)
    for error, word in zip(errors, words, strict=True):
        assert word in error.because
        assert tier in error.part
        assert error.fix


def test_a_higher_tier_demands_no_less():
    low, medium, high = (TIERS[name] for name in ("low", "medium", "high"))
    assert low.quorum <= medium.quorum <= high.quorum
    assert low.epsilon >= medium.epsilon >= high.epsilon
