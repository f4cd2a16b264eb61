"""Groups that take turns: who is when in which group, and what it is worth."""

from __future__ import annotations

import itertools

import pytest

from hansa.core.events import (
    Gaussian,
    Laplace,
    NonPrivate,
    NoOp,
    PoissonSampled,
    SelfComposed,
    repeat,
)
from hansa.core.keys import ReplayKey
from hansa.core.parts import Relation
from hansa.errors import PlanError
from hansa.privacy import epsilon
from hansa.samplers import Cyclic, Everyone, FixedSize, Known, Poisson

KEY = ReplayKey.of_seed(3)


def names(count: int) -> list[str]:
    return [f"c{i:03d}" for i in range(count)]


def rounds(sampler: Cyclic, count: int, there: list[str] | None = None) -> list[tuple[str, ...]]:
    them = there if there is not None else names(sampler.population)
    return [sampler.draw(them, KEY.derive(i), i) for i in range(count)]


@pytest.mark.parametrize(("population", "separation"), [(12, 4), (13, 4), (5, 5), (9, 1), (100, 7)])
def test_groups_share_out_the_population(population, separation):
    sampler = Cyclic(separation, population, seed=8)
    groups = rounds(sampler, separation)
    assert sorted(itertools.chain(*groups)) == names(population)
    assert {len(group) for group in groups} <= {sampler.fewest, sampler.cap}
    assert sampler.cap - sampler.fewest <= 1
    assert sum(map(len, groups)) / separation == pytest.approx(sampler.expected)


@pytest.mark.parametrize("rate", [1.0, 0.5])
@pytest.mark.parametrize("there", [20, 13])
def test_turns_of_one_client_are_separated_and_counted(rate, there):
    sampler = Cyclic(4, 20, rate)
    drawn = rounds(sampler, 43, names(20)[:there])
    for name in names(there):
        turns = [i for i, cohort in enumerate(drawn) if name in cohort]
        assert all(after - before >= 4 for before, after in itertools.pairwise(turns))
        assert len(turns) <= sampler.participations(43) == 11
        if rate == 1:
            assert all(after - before == 4 for before, after in itertools.pairwise(turns))


def test_a_retry_asks_the_same_group():
    whole, sampled = Cyclic(3, 30), Cyclic(3, 30, rate=0.5)
    first, second = (whole.draw(names(30), KEY.derive("attempt", i), 7) for i in range(2))
    assert first == second
    group = set(first)
    tries = [set(sampled.draw(names(30), KEY.derive("attempt", i), 7)) for i in range(20)]
    assert all(one <= group for one in tries)
    assert len(set(map(frozenset, tries))) > 1, "each try samples anew"


def test_the_seed_draws_the_groups_and_the_key_does_not():
    one, other = Cyclic(4, 40, seed=1), Cyclic(4, 40, seed=2)
    assert rounds(one, 4) == rounds(one, 4)
    assert rounds(one, 4) != rounds(other, 4)
    assert one.draw(names(40), KEY, 2) == one.draw(names(40), ReplayKey.of_seed(99), 2)
    assert rounds(one, 1)[0] != tuple(names(40)[::4]), "groups are shuffled"


@pytest.mark.parametrize(
    ("sampler", "event", "amplified"),
    [
        (Cyclic(4, 20), Gaussian(1.0), Gaussian(1.0)),
        (Cyclic(4, 20), Laplace(1.0), Laplace(1.0)),
        (Cyclic(4, 20, 0.5), Gaussian(1.0), PoissonSampled(0.5, Gaussian(1.0))),
        (Cyclic(4, 20, 0.5), NonPrivate(), NonPrivate()),
        (Cyclic(4, 20, 0.5), NoOp(), NoOp()),
        (Known(Cyclic(4, 20, 0.5)), Gaussian(1.0), Gaussian(1.0)),
        (Known(Poisson(0.1, 90)), Gaussian(1.0), Gaussian(1.0)),
        (Known(FixedSize(9, 90, 1.3)), Gaussian(1.0), Gaussian(1.0)),
        (Known(Everyone(9)), NoOp(), NoOp()),
    ],
)
def test_amplification_names_what_was_done(sampler, event, amplified):
    assert sampler.amplify(event) == amplified


def test_epsilon_is_that_of_sampling_from_one_group():
    """2306.08153: DP-SGD with q' = B / (N / b) for ceil(T / b) steps; here the case 2.8 no. 8."""
    sampler = Cyclic(7, 7_000, rate=0.01)
    event = repeat(sampler.amplify(Gaussian(1.0)), sampler.participations(7 * 1000))
    assert event == SelfComposed(PoissonSampled(0.01, Gaussian(1.0)), 1000)
    assert epsilon(event, 1e-5) == pytest.approx(1.8282, abs=1e-3)


@pytest.mark.parametrize(
    ("rounds_", "separation", "most"), [(0, 3, 0), (1, 3, 1), (3, 3, 1), (4, 3, 2), (7, 1, 7)]
)
def test_participations(rounds_, separation, most):
    assert Cyclic(separation, 10).participations(rounds_) == most
    assert Known(Cyclic(separation, 10)).participations(rounds_) == most


@pytest.mark.parametrize(
    ("sampler", "because", "fix"),
    [
        (Cyclic(0, 10), "cannot form 0 groups", "cohort.separation between 1 and 10"),
        (Cyclic(11, 10), "cannot form 11 groups", "cohort.separation between 1 and 10"),
        (Cyclic(2, 10, 0.0), "not the probability", "cohort.rate"),
        (Cyclic(2, 10, 1.5), "not the probability", "cohort.rate"),
        (Cyclic(1, 0), "nobody to draw", "cohort.population"),
        (Known(Cyclic(11, 10)), "cannot form 11 groups", "cohort.separation"),
    ],
)
def test_refusals(sampler, because, fix):
    with pytest.raises(PlanError, match=because) as caught:
        sampler.check()
    assert fix in caught.value.fix


def test_numbers_and_words():
    sampler = Cyclic(4, 22, rate=0.5)
    sampler.check()
    assert (sampler.expected, sampler.cap, sampler.fewest) == (2.75, 6, 5)
    assert sampler.relation is Relation.ADD_OR_REMOVE_ONE
    assert "22 clients in 4 groups that take turns" in str(sampler)
    assert "with probability 0.5" in str(sampler)
    assert "everybody in it" in str(Cyclic(4, 22))
    known = Known(sampler)
    assert (known.population, known.expected, known.cap) == (22, 2.75, 6)
    assert known.relation is Relation.REPLACE_ONE
    assert "not counted on" in str(known)
