"""The contract of every aggregator: a commutative monoid, checked bit by bit."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hansa.core.parts import Aggregator, Facts, Partial, Stage, Update
from hansa.core.vector import Layout
from hansa.errors import UpdateRejected
from tests.laws.settings import LAW
from tests.support.toy import LAYOUT, context, copy, encode, facts_after, update

COHORT, QUORUM = 7, 5
MEASURING = LAYOUT.without("delta")


class AggregatorLaws:
    """Subclass it as `Test...` and say what is tested."""

    aggregator: Aggregator
    stages: tuple[Stage, ...] = ()

    @property
    def facts(self) -> Facts:
        return facts_after((*self.stages, self.aggregator), cohort=COHORT, quorum=QUORUM)

    def updates(self, layout: Layout = LAYOUT) -> list[Update]:
        """Different ones from all clients of a cohort, one of them without examples."""
        rng = np.random.default_rng(3)
        found = []
        for i in range(COHORT):
            examples = 0 if i == 2 else int(rng.integers(1, 50))
            scale = 10.0 ** rng.integers(-3, 3, 5)
            delta = rng.standard_normal(5) * scale if examples else np.zeros(5)
            raw = update(list(delta), examples, list(rng.random(4) * examples), layout)
            found.append(encode(self.stages, raw, context(str(i))))
        return found

    def fold(self, order, layout: Layout = LAYOUT) -> Partial:
        partial, updates = self.aggregator.zero(layout, self.facts), self.updates(layout)
        for i in order:
            partial = self.aggregator.add(partial, f"c{i}", copy(updates[i]), self.facts)
        return partial

    def finish(self, partial: Partial, layout: Layout = LAYOUT) -> bytes:
        return self.aggregator.finish(partial, layout, self.facts).tobytes()

    @given(st.permutations(range(COHORT)))
    @LAW
    def test_any_order_gives_the_same_bits(self, order):
        assert self.finish(self.fold(order)) == self.finish(self.fold(range(COHORT)))

    @given(st.permutations(range(COHORT)), st.lists(st.integers(0, 3), min_size=7, max_size=7))
    @LAW
    def test_any_grouping_gives_the_same_bits(self, order, groups):
        partials = [
            self.fold([i for i, group in zip(order, groups, strict=True) if group == g])
            for g in range(4)
        ]
        merged = partials[0]
        for other in partials[1:]:
            merged = self.aggregator.merge(merged, other)
        assert sorted(merged.members) == [f"c{i}" for i in range(COHORT)]
        assert self.finish(merged) == self.finish(self.fold(range(COHORT)))

    def test_a_measurement_has_no_delta(self):
        forwards = self.finish(self.fold(range(COHORT), MEASURING), MEASURING)
        backwards = self.finish(self.fold(range(COHORT)[::-1], MEASURING), MEASURING)
        assert forwards == backwards
        assert len(forwards) > 0

    def test_no_updates_are_zero(self):
        zero = self.aggregator.zero(LAYOUT, self.facts)
        assert zero.members == ()
        total = self.aggregator.finish(zero, LAYOUT, self.facts)
        assert total.shape == (LAYOUT.size,)
        assert not total.any()

    def test_nothing_added_changes_nothing(self):
        left = self.aggregator.merge(
            self.aggregator.zero(LAYOUT, self.facts), self.fold(range(COHORT))
        )
        right = self.aggregator.merge(
            self.fold(range(COHORT)), self.aggregator.zero(LAYOUT, self.facts)
        )
        assert self.finish(left) == self.finish(right) == self.finish(self.fold(range(COHORT)))

    def test_an_update_of_another_type_or_length_is_rejected(self):
        good = self.updates()[0]
        for vector in (good.vector.astype(np.float64), good.vector.astype(np.int16)):
            with pytest.raises(UpdateRejected):
                self.aggregator.add(self.fold([]), "bad", Update(vector, LAYOUT), self.facts)
        short = LAYOUT.without("metrics")
        with pytest.raises(UpdateRejected):
            self.aggregator.add(
                self.fold([]), "bad", Update(good.vector[: short.size].copy(), short), self.facts
            )

    def test_the_update_may_be_overwritten_afterwards(self):
        partial, updates = self.aggregator.zero(LAYOUT, self.facts), self.updates()
        for i, one in enumerate(updates):
            partial = self.aggregator.add(partial, f"c{i}", one, self.facts)
            one.vector[:] = 0  # as a buffer that is used again
        assert self.finish(partial) == self.finish(self.fold(range(COHORT)))

    def test_inference_is_pure(self):
        for spec in facts_after(self.stages, cohort=COHORT, quorum=QUORUM).values():
            assert self.aggregator.infer(spec) == self.aggregator.infer(spec)

    def test_the_sums_beside_the_delta_are_exact(self):
        total = self.aggregator.finish(self.fold(range(COHORT)), LAYOUT, self.facts)
        for stage in reversed(self.stages):
            total = stage.decode(total, LAYOUT)
        real = []
        for one in self.updates():
            vector = one.vector
            for stage in reversed(self.stages):
                vector = stage.decode(vector, LAYOUT)
            real.append(vector.astype(np.float64))
        for name in ("weight", "metrics"):
            expected = [
                math.fsum(column)
                for column in zip(*(LAYOUT.slice(v, name) for v in real), strict=True)
            ]
            assert LAYOUT.slice(total, name) == pytest.approx(expected, rel=1e-9, abs=1e-9)

    def test_it_reads_well(self):
        assert str(self.aggregator) != repr(self.aggregator)


class RealAggregatorLaws(AggregatorLaws):
    """The contract over real numbers; integers are finite, and their stage checks the bounds."""

    @pytest.mark.parametrize("where", range(LAYOUT.size))
    @pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, 3e38])
    def test_a_rejected_update_leaves_the_partial_as_it_was(self, where, value):
        bad = copy(self.updates()[0])
        bad.vector[where] = value
        partial = self.fold(range(COHORT))
        with pytest.raises(UpdateRejected) as caught:
            self.aggregator.add(partial, "bad", bad, self.facts)
        assert "3e+38" not in str(caught.value)
        assert "nan" not in str(caught.value)
        assert self.finish(partial) == self.finish(self.fold(range(COHORT)))
