"""The same examples among the same clients, divided otherwise."""

from __future__ import annotations

from collections import Counter
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from hansa.core.keys import ReplayKey
from hansa.core.parts import Examples, Split
from hansa.errors import Refused
from hansa.redteam.division import divided, read_own
from tests.support import toy

KEY = ReplayKey.of_seed(2)
CLIENTS = tuple(f"client-{i:04d}" for i in range(1, 21))


def held(division: Any, half: str) -> Counter[Any]:
    """All examples as a multiset."""
    return Counter(
        (tuple(x.ravel().tolist()), int(t))
        for client in division.clients
        for x, t in zip(
            getattr(division.data(client), half).inputs,
            getattr(division.data(client), half).targets,
            strict=True,
        )
    )


@pytest.mark.parametrize("skew", ["iid", "dirichlet_0.3", "dirichlet_50"])
def test_every_example_is_dealt_out_once_and_held_out_ones_stay_held_out(skew):
    own = read_own(toy.TOY, CLIENTS)
    found = divided(own, skew, KEY)
    assert found.clients == CLIENTS
    assert held(found, "train") == held(own, "train")
    assert held(found, "test") == held(own, "test")


def spread(division: Any) -> float:
    """Mean total variation between a client's mix of classes and that of all."""
    counts = np.array(
        [np.bincount(division.data(c).train.targets, minlength=2) for c in division.clients]
    )
    counts = counts[counts.sum(axis=1) > 0]
    whole = counts.sum(axis=0) / counts.sum()
    return float(np.abs(counts / counts.sum(axis=1, keepdims=True) - whole).sum(axis=1).mean() / 2)


def test_small_concentrations_make_clients_differ():
    own = read_own(toy.TOY, CLIENTS)
    even, skewed = divided(own, "iid", KEY), divided(own, "dirichlet_0.1", KEY)
    assert spread(skewed) > 2 * spread(even)
    assert divided(own, "own", KEY) is own
    again = divided(own, "dirichlet_0.1", KEY)
    assert all((again.data(c).train.targets == skewed.data(c).train.targets).all() for c in CLIENTS)
    other = divided(own, "dirichlet_0.1", ReplayKey.of_seed(3))
    assert any(len(other.data(c).train) != len(skewed.data(c).train) for c in CLIENTS)


class Told:
    """A task whose clients hold what a table says."""

    def __init__(self, table: Any) -> None:
        self.table = table

    def data(self, site: Any) -> Split:
        train, test = self.table[site.name]
        made = [Examples(np.zeros((len(t), 2), np.float32), np.array(t)) for t in (train, test)]
        return Split(*made)


def told(table: Any) -> Any:
    return Told(table)


def test_the_minority_are_those_whose_mixes_are_least_like_the_whole():
    table = {f"c{i}": ([0, 0, 1, 1], [0]) for i in range(7)}
    table["odd"] = ([2, 2, 2], [2])
    division = read_own(told(table), tuple(table))
    assert division.minority >= {"odd"}
    assert len(division.minority) == 2  # a quarter of eight
    assert division.classes == 3
    table["odd"] = ([2, 2, 2], [])  # nothing held out: nothing to lose
    assert "odd" not in read_own(told(table), tuple(table)).minority


@pytest.mark.parametrize("skew", ["even", "dirichlet_", "dirichlet_x", "dirichlet_0", "iid_3"])
def test_other_skews_are_refused(skew):
    with pytest.raises(Refused, match="no skew") as error:
        divided(read_own(toy.TOY, CLIENTS), skew, KEY)
    assert "dirichlet_0.3" in error.value.fix


def test_targets_must_be_classes_and_something_must_be_held_out():
    for targets in (np.zeros(3), np.zeros((3, 2), np.int64)):
        examples = Examples(np.zeros((3, 2)), targets)
        task: Any = SimpleNamespace(data=lambda _, e=examples: Split(e, e))
        with pytest.raises(Refused, match="no classes"):
            read_own(task, ("a",))
    with pytest.raises(Refused, match="holds any examples out"):
        read_own(told({"a": ([0, 1], [])}), ("a",))


def test_inputs_of_different_shapes_cannot_be_pooled():
    def data(site):
        width = 2 if site.name == "a" else 3
        examples = Examples(np.zeros((4, width)), np.array([0, 1, 0, 1]))
        return Split(examples, examples)

    task: Any = SimpleNamespace(data=data)
    own = read_own(task, ("a", "b"))
    with pytest.raises(Refused, match="differ in shape"):
        divided(own, "iid", KEY)
