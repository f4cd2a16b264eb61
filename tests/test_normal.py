"""The one form of a job."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import pytest

from hansa.core.job import Aggregation, Cohort, Rounds
from hansa.normal import normal, unknown_words
from tests.support.toy import job


@dataclass(frozen=True)
class Inner:
    rate: float = 0.5
    size: int = 3
    name: str = "x"
    flag: bool = True


@dataclass(frozen=True)
class Outer:
    inner: Inner = Inner()
    share: float = 1.0
    others: tuple[float, ...] = field(default=(1, 2))


def test_whole_numbers_become_floats_where_floats_are_meant():
    found = normal(Outer(Inner(rate=2, size=4), share=3))
    assert repr(found) == repr(Outer(Inner(rate=2.0, size=4), share=3.0))


def test_what_is_normal_is_returned_as_it_is():
    one = Outer()
    assert normal(one) is one
    assert normal(7) == 7


def test_a_job_has_one_form():
    ints = job(rounds=Rounds(count=3, deadline=60), aggregation=Aggregation(max_weight=9, trim=0))
    assert repr(normal(ints)) == repr(
        job(
            rounds=Rounds(count=3, deadline=60.0), aggregation=Aggregation(max_weight=9.0, trim=0.0)
        )
    )


@pytest.mark.parametrize(
    ("changed", "part", "near"),
    [
        ({"cohort": Cohort(population=6, sampler="poison")}, "cohort.sampler", "poisson"),  # type: ignore[arg-type]
        ({"aggregation": Aggregation(rule="medain")}, "aggregation.rule", "median"),  # type: ignore[arg-type]
        ({"risk_tier": "hihg"}, "risk_tier", "high"),
    ],
)
def test_unknown_words_are_named_with_their_nearest(changed, part, near):
    [error] = unknown_words(job(**changed))
    assert error.part == part
    assert f"write {near}" in error.fix


def test_known_words_are_fine():
    assert list(unknown_words(job())) == []
    assert list(unknown_words(replace(job(), risk_tier="high"))) == []
