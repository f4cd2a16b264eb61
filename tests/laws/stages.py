"""The contract of every stage, checked at the end of a chain that makes it legal."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hansa.core.parts import Facts, Role, Stage, Update
from hansa.core.spec import Reader, UpdateSpec
from hansa.core.vector import Layout
from hansa.errors import HansaError, UpdateRejected
from hansa.stages.norm import TOLERANCE
from tests.laws.settings import LAW
from tests.support.toy import (
    LAYOUT,
    admit,
    context,
    copy,
    encode,
    facts_after,
    update,
)

ROUNDING = 2.0**-23
"""Relative rounding of a product of float32 numbers."""

numbers = st.floats(-1e6, 1e6, width=32)
deltas = st.lists(numbers, min_size=5, max_size=5)
metrics = st.lists(st.floats(0, 1e6, width=32), min_size=4, max_size=4)
TINY, LEAST, LARGEST = 2.0**-149, 2.0**-126, (2 - 2.0**-23) * 2.0**127
"""float32: the smallest denormal number, the smallest normal one, the largest."""

hard = st.one_of(
    st.floats(width=32, allow_nan=False, allow_infinity=False),
    st.sampled_from([0.0, -0.0, TINY, -TINY, LEAST, 3 * TINY, LARGEST, -LARGEST, LARGEST / 2]),
    st.sampled_from([x * (1 + sign * 2.0**-23) for x in (0.7, 1.0, 2.0) for sign in (-1, 0, 1)]),
)
"""Numbers at the edges of float32, and those just below and just above the bounds of the tests."""

hard_deltas = st.one_of(
    st.lists(hard, min_size=5, max_size=5),
    hard.map(lambda x: [x] * 5),
    hard.map(lambda x: [x, 0, 0, 0, 0]),
)
hard_metrics = st.lists(hard.map(abs), min_size=4, max_size=4)
clients = st.lists(st.tuples(deltas, st.integers(0, 1000), metrics), min_size=1, max_size=4)


def raw(delta: list[float], examples: int, sums: list[float], layout: Layout = LAYOUT) -> Update:
    """What a client has before the first stage; without examples it has nothing."""
    return update(delta if examples else [0.0] * 5, examples, sums, layout)


class StageLaws:
    """Subclass it as `Test...` and say what is tested; `hides`: no single update is seen after."""

    before: tuple[Stage, ...] = ()
    stage: Stage
    hides = False

    @property
    def chain(self) -> tuple[Stage, ...]:
        return (*self.before, self.stage)

    @property
    def facts(self) -> Facts:
        return facts_after(self.chain)

    def decode(self, total: np.ndarray, layout: Layout = LAYOUT) -> np.ndarray:
        """Model units again; a stage over integers undoes those before it that made them."""
        return self.stage.decode(total, layout)

    def decoded(self, of: Update) -> np.ndarray:
        return self.decode(of.vector.copy(), of.layout)

    def test_its_role_is_in_order(self):
        roles = [stage.role for stage in self.chain]
        assert roles == sorted(roles)
        assert all(isinstance(role, Role) for role in roles)

    @given(clients)
    @LAW
    def test_decoding_the_sum_is_the_sum_of_decoding(self, them):
        sent = [encode(self.chain, raw(*it), context(str(i))) for i, it in enumerate(them)]
        total = sent[0].vector.copy()
        for other in sent[1:]:
            total += other.vector
        together = self.decode(total).astype(np.float64)
        each = np.sum([self.decoded(one).astype(np.float64) for one in sent], axis=0)
        scale = np.sum([np.abs(self.decoded(one)) for one in sent], axis=0)
        assert (np.abs(together - each) <= 4 * ROUNDING * scale).all()

    @given(deltas, st.integers(0, 1000), metrics)
    @LAW
    def test_no_update_escapes_its_facts(self, delta, examples, sums):
        self.stays_within(raw(delta, examples, sums))

    @given(hard_deltas, st.sampled_from([0, 1, 2, 3, 1000, 2**24]), hard_metrics)
    @LAW
    def test_no_hard_update_escapes_its_facts_unless_it_is_refused(self, delta, examples, sums):
        """Denormal, huge, adversarially rounded; what cannot be encoded never leaves the client."""
        update = raw(delta, examples, sums)
        with np.errstate(over="ignore"):  # a weight may take a delta beyond float32
            try:
                encode(self.chain, update)
            except HansaError:
                return
            self.stays_within(update)

    @pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
    @pytest.mark.parametrize("segment", ["delta", "metrics"])
    def test_what_is_not_finite_does_not_pass_a_bound(self, segment, bad):
        if np.isinf(self.facts[segment].l2):
            return  # nothing is promised yet
        for place in range(LAYOUT.slice(np.zeros(LAYOUT.size), segment).size):
            update = raw([0.1] * 5, 3, [1.0] * 4)
            update.segment(segment)[place] = bad
            with pytest.raises((HansaError, UpdateRejected)):
                admit(self.chain, encode(self.chain, update), self.facts)

    def stays_within(self, update: Update) -> None:
        """What is sent of an update is within all that the facts say."""
        sent = encode(self.chain, update)
        real = self.decoded(sent).astype(np.float64)
        for name, spec in self.facts.items():
            values = LAYOUT.slice(real, name)
            assert spec.size == len(values)
            if np.isfinite(spec.l2):
                assert np.linalg.norm(values) <= spec.l2 * (1 + TOLERANCE), name
            if np.isfinite(spec.peak):
                assert np.abs(values).max(initial=0) <= spec.peak * (1 + TOLERANCE), name
        if not np.isinf(self.facts["delta"].weight):
            assert LAYOUT.slice(real, "weight")[0] <= self.facts["weight"].peak * (1 + TOLERANCE)

    @given(deltas, st.integers(0, 1000), metrics)
    @LAW
    def test_what_an_honest_client_sends_is_admitted(self, delta, examples, sums):
        sent = encode(self.chain, raw(delta, examples, sums))
        kept = sent.vector.copy()
        admit(self.chain, sent, self.facts)
        assert (sent.vector == kept).all()

    def test_what_no_honest_client_sends_is_rejected(self):
        for bad in self.forged():
            with pytest.raises(UpdateRejected) as caught:
                admit(self.chain, bad, self.facts)
            assert caught.value.fix

    def forged(self) -> list[Update]:
        """Updates that `admit` must reject, after all encoding."""
        raise NotImplementedError

    def test_it_looks_at_nothing_that_it_cannot_read(self):
        hidden = {name: replace(s, reader=Reader.SUM) for name, s in self.facts.items()}
        sent = encode(self.chain, raw([1.0] * 5, 3, [1.0] * 4))
        self.stage.admit(sent, hidden)

    def test_the_same_context_gives_the_same_bits(self):
        one = raw([0.3, -7.0, 1e-3, 0.0, 55.5], 7, [3.3, 7, 2.5, 6])
        first, second = encode(self.chain, one), encode(self.chain, one)
        assert (first.vector == second.vector).all()

    @pytest.mark.parametrize("name", ["delta", "metrics"])
    def test_it_works_without_a_segment(self, name):
        layout = LAYOUT.without(name)
        whole = raw([1.5, -2.0, 3.0, 0.0, 9.0], 6, [2.0, 6.0, 5.0, 6.0])
        part = raw([1.5, -2.0, 3.0, 0.0, 9.0], 6, [2.0, 6.0, 5.0, 6.0], layout)
        sent = encode(self.chain, part)
        assert sent.layout == layout
        assert sent.vector.shape == (layout.size,)
        self.stage.admit(sent, self.facts)
        real = self.decode(sent.vector.copy(), layout)
        decoded = self.decoded(encode(self.chain, whole))
        for segment in layout.segments:
            found = layout.slice(real, segment.name)
            expected = LAYOUT.slice(decoded, segment.name)
            step = self.facts[segment.name].quantum or 0.0
            assert np.abs(found - expected).max() <= step + 1e-6

    def test_inference_is_pure_and_touches_no_identity(self):
        before = facts_after(self.before)
        for name, spec in before.items():
            once, again = self.stage.infer(spec), self.stage.infer(spec)
            assert once == again
            assert isinstance(once, UpdateSpec)
            assert (once.segment, once.size, once.cohort) == (name, spec.size, spec.cohort)
            assert once.reader is (Reader.SUM if self.hides else spec.reader)
            assert once.quorum == spec.quorum

    def test_inference_of_an_empty_segment(self):
        for name, spec in facts_after(self.before).items():
            assert self.stage.infer(replace(spec, size=0)).size == 0, name

    def test_it_reads_well(self):
        assert str(self.stage) != repr(self.stage)
        assert repr(self.stage).startswith(type(self.stage).__name__ + "(")

    def test_encoding_leaves_no_update_behind(self):
        first = copy(raw([1.0] * 5, 3, [1.0] * 4))
        sent = encode(self.chain, first)
        again = encode(self.chain, raw([2.0] * 5, 3, [1.0] * 4))
        assert sent.vector is not again.vector
