"""The contract of every sampler: it draws what it says, and claims no more than that."""

from __future__ import annotations

import math

import numpy as np
import pytest

from hansa.core import events
from hansa.core.events import Gaussian, NonPrivate, NoOp
from hansa.core.keys import ReplayKey
from hansa.core.parts import ClientSampler
from hansa.errors import HansaError
from hansa.privacy import epsilon
from hansa.privacy.accountants import Method

DRAWS = 400
KEY = ReplayKey.of_seed(5)


class SamplerLaws:
    """Subclass it as `Test...` with a sampler over at most a few dozen clients."""

    sampler: ClientSampler
    accountant: Method = "pld"

    @property
    def population(self) -> list[str]:
        return [f"c{i:03d}" for i in range(self.sampler.population)]

    def draws(self, population: list[str] | None = None) -> list[tuple[str, ...]]:
        them = self.population if population is None else population
        return [self.sampler.draw(them, KEY.derive("round", i), i) for i in range(DRAWS)]

    def test_it_can_do_what_it_promises(self):
        self.sampler.check()

    def test_a_draw_keeps_the_order_and_repeats_nobody(self):
        order = {name: i for i, name in enumerate(self.population)}
        for cohort in self.draws():
            places = [order[name] for name in cohort]
            assert places == sorted(set(places))

    def test_no_draw_exceeds_the_cap(self):
        assert max(len(cohort) for cohort in self.draws()) <= self.sampler.cap

    def test_the_same_key_draws_the_same_cohort(self):
        assert self.sampler.draw(self.population, KEY) == self.sampler.draw(self.population, KEY)

    def test_each_client_is_drawn_as_often_as_any_other(self):
        """Five standard errors of a binomial; a rate that is a tenth off is seen in the total."""
        rate = min(self.sampler.expected, self.sampler.cap) / self.sampler.population
        counts = np.zeros(self.sampler.population)
        order = {name: i for i, name in enumerate(self.population)}
        for cohort in self.draws():
            for name in cohort:
                counts[order[name]] += 1
        spread = 5 * math.sqrt(DRAWS * rate * (1 - rate)) + 1e-9
        assert np.abs(counts - DRAWS * rate).max() <= spread
        total = DRAWS * self.sampler.population
        tolerance = 5 * math.sqrt(rate * (1 - rate) / total) + 1e-9
        assert abs(counts.sum() / total - rate) <= tolerance
        if rate < 1:
            assert tolerance < 0.1 * rate, "the test has no power"

    def test_a_missing_client_changes_nobody_elses_chance(self):
        rate = min(self.sampler.expected, self.sampler.cap) / self.sampler.population
        drawn = sum("c000" in cohort for cohort in self.draws(self.population[:-2]))
        assert abs(drawn - DRAWS * rate) <= 5 * math.sqrt(DRAWS * rate * (1 - rate)) + 1e-9

    def test_nobody_takes_part_more_often_than_is_counted(self):
        """In any window of consecutive rounds."""
        drawn = self.draws()
        for window in (1, 2, 5, 9):
            most = self.sampler.participations(window)
            for start in range(40):
                together = [name for cohort in drawn[start : start + window] for name in cohort]
                assert max(map(together.count, together), default=0) <= most
        assert self.sampler.participations(0) == 0

    def test_more_clients_than_planned_are_refused(self):
        with pytest.raises(HansaError, match="made for at most"):
            self.sampler.draw([*self.population, "one more"], KEY)

    def test_nothing_and_everything_revealed_cannot_be_amplified(self):
        assert self.sampler.amplify(NoOp()) == NoOp()
        assert self.sampler.amplify(NonPrivate()) == NonPrivate()

    def test_amplification_costs_no_more_than_no_sampling(self):
        one = Gaussian(2.0)
        amplified = self.sampler.amplify(one)
        assert events.is_private(amplified)
        relation = self.sampler.relation
        plain = epsilon(one, 1e-5, self.accountant, relation)
        assert epsilon(amplified, 1e-5, self.accountant, relation) <= plain * (1 + 1e-6)

    def test_it_reads_well(self):
        assert str(self.sampler) != repr(self.sampler)
