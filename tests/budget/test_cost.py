"""What events cost, by formulas from papers; and the order that fits most."""

from __future__ import annotations

import math

import pytest

from hansa.budget.block import capacity
from hansa.budget.cost import Need, fits, micro_rdp, need, propose_order
from hansa.core.events import (
    Composed,
    DiscreteGaussianSum,
    Gaussian,
    NonPrivate,
    NoOp,
    PoissonSampled,
    SampledWithoutReplacement,
    SelfComposed,
    repeat,
)
from hansa.core.parts import Relation
from hansa.errors import HansaError, Refused
from tests.support.budgets import plan

ADD = Relation.ADD_OR_REMOVE_ONE


def sampled_gaussian(rate: float, sigma: float, order: int) -> float:
    """Mironov, Talwar and Zhang (2019, arXiv 1908.10530), section 3.3, for whole orders."""
    terms = [
        math.comb(order, k)
        * (1 - rate) ** (order - k)
        * rate**k
        * math.exp(k * (k - 1) / (2 * sigma**2))
        for k in range(order + 1)
    ]
    return math.log(math.fsum(terms)) / (order - 1)


@pytest.mark.parametrize("order", [2, 3, 8, 32, 256])
@pytest.mark.parametrize("sigma", [0.7, 1.0, 4.0])
def test_a_gaussian_costs_half_its_order_over_its_variance(order, sigma):
    exact = 1e6 * order / (2 * sigma**2)
    assert exact - 1e-3 <= micro_rdp(Gaussian(sigma), order, ADD) <= exact + 1


@pytest.mark.parametrize("order", [2, 4, 16])
@pytest.mark.parametrize(("rate", "sigma"), [(0.01, 1.0), (0.1, 2.0), (0.5, 4.0)])
def test_a_sampled_gaussian_costs_what_the_paper_says(order, rate, sigma):
    exact = 1e6 * sampled_gaussian(rate, sigma, order)
    found = micro_rdp(PoissonSampled(rate, Gaussian(sigma)), order, ADD)
    assert exact * (1 - 1e-9) <= found <= exact * (1 + 1e-9) + 1


def test_a_single_share_of_discrete_noise_costs_what_a_gaussian_does():
    found = micro_rdp(DiscreteGaussianSum(10.0, 1, 5.0, 100), 8, ADD)
    assert found == micro_rdp(Gaussian(2.0), 8, ADD) == 1_000_000


def test_costs_are_rounded_up_so_that_parts_never_cost_less_than_the_whole():
    one = PoissonSampled(0.01, Gaussian(3.0))
    whole = micro_rdp(SelfComposed(one, 1000), 7, ADD)
    assert 1000 * micro_rdp(one, 7, ADD) >= whole
    assert micro_rdp(PoissonSampled(1e-6, Gaussian(50.0)), 2, ADD) == 1  # never nothing
    assert micro_rdp(NoOp(), 7, ADD) == 0


def test_replacing_is_dearer_than_leaving_out():
    sampled = SampledWithoutReplacement(100, 10, Gaussian(2.0))
    assert micro_rdp(sampled, 4, Relation.REPLACE_ONE) > micro_rdp(
        PoissonSampled(0.1, Gaussian(2.0)), 4, ADD
    )


@pytest.mark.parametrize("event", [NonPrivate(), Composed((Gaussian(1.0), NonPrivate()))])
def test_what_has_no_guarantee_is_refused(event):
    with pytest.raises(Refused, match="no finite Renyi divergence"):
        micro_rdp(event, 8, ADD)


def test_what_nobody_can_count_is_refused():
    odd = SampledWithoutReplacement(100, 10, Gaussian(2.0))
    with pytest.raises(HansaError, match="does not know"):
        micro_rdp(odd, 8, ADD)  # no bound is known for this relation


@pytest.mark.parametrize("order", [0, 1, 257, 8.5])
def test_orders_are_whole_numbers(order):
    with pytest.raises(HansaError, match="no Renyi order"):
        micro_rdp(Gaussian(1.0), order, ADD)


def test_a_plan_needs_the_sum_of_its_charges():
    made = plan(rounds=5)
    found, each = need(made, 4), micro_rdp(made.round_event, 4, made.relation)
    assert found == Need(5 * each, each, 5)
    assert found.urdp >= micro_rdp(made.event, 4, made.relation)


def test_what_fits_is_counted_in_whole_jobs_and_releases():
    assert fits(100, Need(30, 4, 8)) == {"jobs": 3, "releases": 25}
    assert fits(29, Need(30, 4, 8)) == {"jobs": 0, "releases": 7}
    assert fits(5, Need(0, 0, 0)) == {"jobs": 0, "releases": 0}


@pytest.mark.parametrize(
    "event",
    [
        repeat(Gaussian(8.0), 50),
        repeat(PoissonSampled(0.01, Gaussian(1.0)), 1000),
    ],
    ids=["everyone", "sampled"],
)
def test_the_order_proposed_fits_most_of_the_workload(event):
    best = propose_order([event], 8.0, 1e-5, ADD)
    times = {
        order: capacity(order, 8.0, 1e-5) / micro_rdp(event, order, ADD) for order in range(2, 65)
    }
    assert times[best] == pytest.approx(max(times.values()), rel=1e-6)


def test_without_a_workload_the_order_fits_most_gaussians():
    best = propose_order([], 8.0, 1e-5, ADD)
    # By hand: R(a) / a at a = 3, 4, 5 is 1.067, 1.228, 1.150.
    assert best == 4
    with pytest.raises(Refused, match="no room at any Renyi order"):
        propose_order([], 1e-6, 1e-9, ADD)
