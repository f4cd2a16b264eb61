"""Dividing examples: every one once, and each rule's own promise."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hansa.core.keys import ReplayKey
from hansa.populations.partition import dirichlet, iid, shards

RULES = (iid, shards, dirichlet)
KEY = ReplayKey.of_seed(0)
TENS = np.repeat(np.arange(10), 400)


@settings(derandomize=True, deadline=None, max_examples=80)
@given(
    labels=st.lists(st.integers(0, 5), min_size=0, max_size=200),
    clients=st.integers(1, 30),
    seed=st.integers(0, 5),
)
@pytest.mark.parametrize("rule", RULES)
def test_every_example_goes_to_exactly_one_client(rule, labels, clients, seed):
    parts = rule(np.array(labels, np.int64), clients, ReplayKey.of_seed(seed))
    assert len(parts) == clients
    assert sorted(np.concatenate(parts).tolist()) == list(range(len(labels)))
    assert all(part.dtype.kind == "i" for part in parts)


@pytest.mark.parametrize("rule", RULES)
def test_a_division_follows_from_its_key(rule):
    one, again, other = (rule(TENS, 20, ReplayKey.of_seed(seed)) for seed in (1, 1, 2))
    assert [p.tolist() for p in one] == [p.tolist() for p in again]
    assert [p.tolist() for p in one] != [p.tolist() for p in other]


def test_iid_clients_are_alike():
    counts = np.array([np.bincount(TENS[part], minlength=10) for part in iid(TENS, 20, KEY)])
    assert set(counts.sum(axis=1)) == {200}
    # 200 of 4,000 without replacement, 400 of each class: mean 20, standard deviation 4.1.
    assert np.abs(counts - 20).max() < 5 * 4.1


@pytest.mark.parametrize("per_client", [1, 2, 5])
def test_shards_have_few_classes_and_equal_sizes(per_client):
    """100 clients and 10 classes of 400: each piece lies within one class."""
    parts = shards(TENS, 100, KEY, per_client)
    kinds = [len(np.unique(TENS[part])) for part in parts]
    assert max(kinds) <= per_client
    assert {len(part) for part in parts} == {40}
    if per_client > 1:
        assert np.mean(kinds) > 0.8 * per_client  # and they are mixed


def test_dirichlet_is_as_uneven_as_its_concentration():
    """A share of one class has variance (1/K)(1 - 1/K) / (K alpha + 1) (Dirichlet's own)."""
    clients = 40
    for alpha in (0.1, 1.0, 100.0):
        shares = []
        for seed in range(20):
            parts = dirichlet(TENS, clients, ReplayKey.of_seed(seed), alpha)
            shares += [np.bincount(TENS[part], minlength=10) / 400 for part in parts]
        variance = (1 / clients) * (1 - 1 / clients) / (clients * alpha + 1)
        assert np.var(shares) == pytest.approx(variance, rel=0.2, abs=3e-6)
        assert np.mean(shares) == pytest.approx(1 / clients)
