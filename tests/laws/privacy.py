"""The contracts of accountants and ledgers."""

from __future__ import annotations

import math

import pytest
from scipy.optimize import brentq
from scipy.stats import norm

from hansa.core.contribute import Purpose
from hansa.core.events import Gaussian, Laplace, NonPrivate, NoOp, PoissonSampled, compose, repeat
from hansa.core.parts import Accountant, Relation
from hansa.core.round import Charge, Ledger
from hansa.errors import BudgetExceeded, HansaError

ADD = Relation.ADD_OR_REMOVE_ONE


def exact_epsilon(noise: float, delta: float) -> float:
    """Epsilon of the Gaussian mechanism (Balle and Wang, ICML 2018, theorem 8), by bisection."""

    def excess(eps: float) -> float:
        a, b = 0.5 / noise, eps * noise
        return float(norm.cdf(a - b) - math.exp(eps) * norm.cdf(-a - b)) - delta

    return float(brentq(excess, 1e-9, 200.0))


class AccountantLaws:
    """Subclass it as `Test...`; `slack` is how much looser than exact it may be."""

    accountant: Accountant
    slack: float

    @pytest.mark.parametrize(("noise", "delta"), [(1.0, 1e-5), (4.0, 1e-5), (8.0, 1e-6)])
    def test_a_gaussian_is_bounded_by_the_exact_value(self, noise, delta):
        found, exact = (
            self.accountant.epsilon(Gaussian(noise), delta, ADD),
            exact_epsilon(noise, delta),
        )
        assert exact <= found * (1 + 1e-6)
        assert found <= exact * (1 + self.slack)

    def test_nothing_costs_nothing_and_everything_costs_everything(self):
        assert self.accountant.epsilon(NoOp(), 1e-5, ADD) == pytest.approx(0, abs=1e-9)
        assert math.isinf(self.accountant.epsilon(NonPrivate(), 1e-5, ADD))
        both = compose(Gaussian(5.0), NonPrivate())
        assert math.isinf(self.accountant.epsilon(both, 1e-5, ADD))

    def test_more_rounds_cost_more_and_more_noise_costs_less(self):
        sampled = PoissonSampled(0.1, Gaussian(1.0))
        costs = [self.accountant.epsilon(repeat(sampled, n), 1e-5, ADD) for n in (1, 10, 100)]
        assert costs == sorted(costs)
        assert costs[0] < costs[1] < costs[2]
        less = self.accountant.epsilon(PoissonSampled(0.1, Gaussian(2.0)), 1e-5, ADD)
        assert less < costs[0]

    def test_a_smaller_delta_costs_more(self):
        costs = [self.accountant.epsilon(Gaussian(2.0), d, ADD) for d in (1e-3, 1e-6, 1e-9)]
        assert costs == sorted(costs)

    def test_sampling_at_rate_one_is_no_sampling(self):
        assert self.accountant.epsilon(
            PoissonSampled(1.0, Gaussian(2.0)), 1e-5, ADD
        ) == pytest.approx(self.accountant.epsilon(Gaussian(2.0), 1e-5, ADD), rel=1e-3)

    def test_it_refuses_what_it_does_not_understand(self):
        odd = PoissonSampled(0.1, PoissonSampled(0.1, Laplace(1.0)))
        reason = self.accountant.unsupported(odd, ADD)
        assert reason is not None
        with pytest.raises(HansaError, match="does not know"):
            self.accountant.epsilon(odd, 1e-5, ADD)

    @pytest.mark.parametrize("delta", [0.0, 1.0, -1e-5, math.nan])
    def test_delta_is_a_probability(self, delta):
        with pytest.raises(HansaError, match="no probability"):
            self.accountant.epsilon(Gaussian(1.0), delta, ADD)

    def test_its_name_says_method_and_version(self):
        assert any(letter.isdigit() for letter in self.accountant.name)


class LedgerLaws:
    """Subclass it as `Test...` and make ledgers that allow so many private charges."""

    job = "job"

    def ledger(self, allowance: int) -> Ledger:
        raise NotImplementedError

    def charge(self, number: int, attempt: int = 0, event=Gaussian(1.0)) -> Charge:  # noqa: B008  # a frozen value
        return Charge(self.job, number, attempt, Purpose.TRAIN, event)

    def allows(self, ledger: Ledger, charge: Charge) -> bool:
        try:
            ledger.reserve(charge)
        except BudgetExceeded:
            return False
        return True

    def test_it_allows_what_was_declared_and_no_more(self):
        ledger = self.ledger(3)
        assert [self.allows(ledger, self.charge(i)) for i in range(5)] == [True] * 3 + [False] * 2

    def test_equal_charges_are_one_charge(self):
        ledger = self.ledger(2)
        for _ in range(3):
            ledger.reserve(self.charge(0))
            ledger.commit(self.charge(0))
        assert self.allows(ledger, self.charge(1))
        assert not self.allows(ledger, self.charge(2))

    def test_another_try_is_another_charge(self):
        ledger = self.ledger(2)
        assert self.allows(ledger, self.charge(0, attempt=0))
        assert self.allows(ledger, self.charge(0, attempt=1))
        assert not self.allows(ledger, self.charge(0, attempt=2))

    def test_a_reservation_that_is_never_committed_stays_spent(self):
        ledger = self.ledger(1)
        ledger.reserve(self.charge(0))
        assert not self.allows(ledger, self.charge(1))

    def test_what_is_not_private_has_no_budget(self):
        ledger = self.ledger(0)
        for i in range(5):
            assert self.allows(ledger, self.charge(i, event=NonPrivate()))
            ledger.commit(self.charge(i, event=NonPrivate()))
        assert not self.allows(ledger, self.charge(5))

    def test_only_what_was_reserved_can_be_committed(self):
        with pytest.raises(HansaError):
            self.ledger(1).commit(self.charge(0))

    def test_a_refused_charge_is_refused_again(self):
        ledger = self.ledger(1)
        ledger.reserve(self.charge(0))
        assert not self.allows(ledger, self.charge(1))
        assert not self.allows(ledger, self.charge(1))
        assert self.allows(ledger, self.charge(0))
