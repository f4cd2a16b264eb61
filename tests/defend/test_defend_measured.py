"""The short form of `bench/defend.py`: who is quarantined when, on seeds that chose nothing."""

from __future__ import annotations

import pytest

from bench import defend_groups
from bench.defend import NAMES, run
from bench.robust_matrix import F, N
from hansa.defend import State

SEEDS = (0, 1)
BAD = frozenset(NAMES[N - F :])


@pytest.mark.parametrize("attack", ["sign_flip", "gaussian", "scaling", "ipm_3", "nan"])
def test_open_attackers_are_quarantined_within_ten_rounds(attack: str) -> None:
    found = [run("dirichlet_0.3", "one batch", attack, seed).quarantined for seed in SEEDS]
    caught = sum(rounds.get(name, 99) <= 10 for rounds in found for name in BAD)
    assert caught >= 7  # of eight
    assert all(set(rounds) <= BAD for rounds in found)


def test_honest_clients_with_skewed_data_are_not_quarantined_in_a_hundred_rounds() -> None:
    for seed in SEEDS:
        assert run("dirichlet_0.3", "one batch", "none", seed).quarantined == {}


def test_alie_is_not_found() -> None:
    """As the page says: whoever hides among the honest is borne by the rule, or not at all."""
    assert run("dirichlet_0.3", "one batch", "alie", 0).quarantined == {}


TEN_GROUPS = defend_groups.SETTINGS[0]


def quarantined_in_groups(skew: str, attack: str) -> dict[str, int]:
    """The round in which each client was, where only sums of ten groups of two can be read."""
    changes = defend_groups.run(TEN_GROUPS, skew, "one batch", attack, 0)
    return {c.client: c.round for c in changes if c.after is State.QUARANTINED}


@pytest.mark.parametrize("attack", ["gaussian", "scaling", "ipm_3"])
def test_open_attackers_in_masked_groups_are_quarantined_within_forty_rounds(attack: str) -> None:
    found = quarantined_in_groups("iid", attack)
    assert set(found) == set(TEN_GROUPS.names[-TEN_GROUPS.bad :])
    assert max(found.values()) < 40


def test_honest_clients_in_masked_groups_are_not_quarantined_in_a_hundred_rounds() -> None:
    assert quarantined_in_groups("dirichlet_0.3", "none") == {}


def test_alie_in_masked_groups_is_not_found() -> None:
    assert quarantined_in_groups("dirichlet_0.3", "alie") == {}
