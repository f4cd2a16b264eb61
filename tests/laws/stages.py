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
from hansa.errors import UpdateRejected
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
clients = st.lists(st.tuples(deltas, st.integers(0, 1000), metrics), min_size=1, max_size=4)


def raw(delta: list[float], examples: int, sums: list[float], layout: Layout = LAYOUT) -> Update:
    """What a client has before the first stage; without examples it has nothing."""
    return update(delta if examples else [0.0] * 5, examples, sums, layout)


class StageLaws:
    """Subclass it as `Test...` and say what is tested."""

    before: tuple[Stage, ...] = ()
    stage: Stage

    @property
    def chain(self) -> tuple[Stage, ...]:
        return (*self.before, self.stage)

    @property
    def facts(self) -> Facts:
        return facts_after(self.chain)

    def decoded(self, of: Update) -> np.ndarray:
        return self.stage.decode(of.vector.copy(), of.layout)

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
        together = self.stage.decode(total, LAYOUT).astype(np.float64)
        each = np.sum([self.decoded(one).astype(np.float64) for one in sent], axis=0)
        scale = np.sum([np.abs(self.decoded(one)) for one in sent], axis=0)
        assert (np.abs(together - each) <= 4 * ROUNDING * scale).all()

    @given(deltas, st.integers(0, 1000), metrics)
    @LAW
    def test_no_update_escapes_its_facts(self, delta, examples, sums):
        sent = encode(self.chain, raw(delta, examples, sums))
        real = self.decoded(sent).astype(np.float64)
        for name, spec in self.facts.items():
            values = LAYOUT.slice(real, name)
            assert spec.size == len(values)
            assert np.linalg.norm(values) <= spec.l2 * (1 + TOLERANCE), name
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
        real = self.stage.decode(sent.vector.copy(), layout)
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
            assert (once.reader, once.quorum) == (spec.reader, spec.quorum)

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
