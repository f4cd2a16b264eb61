"""Poisoned training data: exactly what should be changed is, and success is what a count says."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from hansa.attacks import Backdoor, LabelFlip, Trigger, edge_case, semantic
from hansa.core.keys import ReplayKey
from hansa.core.parts import Examples, Split
from hansa.errors import HansaError

KEY = ReplayKey.of_seed(5)
RNG = np.random.default_rng(1)
TRAIN = Examples(RNG.random((40, 4, 4)).astype("f4"), np.arange(40) % 5)
TEST = Examples(RNG.random((25, 4, 4)).astype("f4"), np.arange(25) % 5)
SPLIT = Split(TRAIN, TEST)


class _Says:
    """A model that says what a function of the inputs says."""

    def __init__(self, of: Any) -> None:
        self.of = of

    def predict(self, params: Any, examples: Examples) -> Any:
        said = np.asarray(
            [self.of(x, t) for x, t in zip(examples.inputs, examples.targets, strict=True)]
        )
        return SimpleNamespace(probabilities=np.eye(5)[said.astype(int)])


def says(of: Any) -> Any:
    return _Says(of)


def test_labels_are_flipped_in_training_only():
    found = LabelFlip(5).poison(SPLIT, KEY)
    np.testing.assert_array_equal(found.train.targets, 4 - TRAIN.targets)
    assert found.train.inputs is TRAIN.inputs
    assert found.test is TEST
    assert LabelFlip(5).success(says(lambda x, t: 4 - t), np.zeros(1), TEST) == (20, 20)
    assert LabelFlip(5).success(says(lambda x, t: t), np.zeros(1), TEST) == (0, 20)


def test_a_share_of_the_examples_gets_the_mark_and_the_target():
    trigger = Trigger((0, 5), 7.0)
    found = Backdoor(trigger, target=2, share=0.25).poison(SPLIT, KEY, 1)
    marked = (found.train.inputs.reshape(40, -1)[:, [0, 5]] == 7.0).all(axis=1)
    assert marked.sum() == 10
    assert (found.train.targets[marked] == 2).all()
    np.testing.assert_array_equal(found.train.targets[~marked], TRAIN.targets[~marked])
    np.testing.assert_array_equal(found.train.inputs[~marked], TRAIN.inputs[~marked])
    rest = [i for i in range(16) if i not in (0, 5)]
    np.testing.assert_array_equal(
        found.train.inputs.reshape(40, -1)[:, rest], TRAIN.inputs.reshape(40, -1)[:, rest]
    )
    assert not (TRAIN.inputs == 7.0).any()
    assert found.test is TEST


def test_a_backdoors_success_counts_marked_examples_of_other_classes():
    backdoor = Backdoor(Trigger((3,), 7.0), target=2)
    sees = says(lambda x, t: 2 if x.ravel()[3] == 7.0 else t)
    assert backdoor.success(sees, np.zeros(1), TEST) == (20, 20)
    assert backdoor.success(says(lambda x, t: t), np.zeros(1), TEST) == (0, 20)
    one = says(lambda x, t: 2 if t == 1 else t)
    assert backdoor.success(one, np.zeros(1), TEST) == (5, 20)


def test_parts_of_a_mark_make_it_up_and_each_client_has_one():
    whole = Trigger((0, 1, 2, 3), 7.0)
    parts = [whole.part(i, 4) for i in range(4)]
    assert sorted(p for part in parts for p in part.places) == [0, 1, 2, 3]
    split = Backdoor(whole, 0, share=1.0, parts=4).poison(SPLIT, KEY, 2)
    assert (split.train.inputs == 7.0).reshape(40, -1).sum(axis=1).tolist() == [1] * 40
    assert (split.train.inputs.reshape(40, -1)[:, 2] == 7.0).all()
    with pytest.raises(HansaError, match="no 5 parts"):
        whole.part(0, 5)


def test_a_corner_is_bright_and_fits():
    trigger = Trigger.corner(TRAIN)
    assert trigger.places == (0, 1, 2, 3)
    assert trigger.value == TRAIN.inputs.max()
    assert Trigger.corner(Examples(np.ones((2, 3)), np.zeros(2))).places == (0, 1, 2)


def test_a_semantic_backdoor_relabels_one_class_and_no_input():
    attack = semantic(source=1, target=4)
    found = attack.poison(SPLIT, KEY)
    assert not (found.train.targets == 1).any()
    assert (found.train.targets[TRAIN.targets == 1] == 4).all()
    np.testing.assert_array_equal(
        found.train.targets[TRAIN.targets != 1], TRAIN.targets[TRAIN.targets != 1]
    )
    assert found.train.inputs is TRAIN.inputs
    assert attack.success(says(lambda x, t: 4), np.zeros(1), TEST) == (5, 5)


def test_an_edge_case_is_the_tail_of_a_class():
    inputs = np.zeros((20, 2), np.float32)
    inputs[:, 0] = np.arange(20) % 10
    inputs[3] = inputs[17] = [100, 100]
    examples = Examples(inputs, np.ones(20, np.int64))
    attack = edge_case([examples], source=1, target=0, rare=0.1)
    assert attack.of_kind(examples).tolist() == [3, 17]
    found = attack.poison(Split(examples, examples), KEY)
    assert np.flatnonzero(found.train.targets == 0).tolist() == [3, 17]
    with pytest.raises(HansaError, match="example of class 3"):
        edge_case([examples], source=3, target=0)


def test_no_examples_no_success():
    nothing = TEST.take(np.zeros(0, np.int64))
    assert semantic(1, 4).success(says(lambda x, t: 4), np.zeros(1), nothing) == (0, 0)


def test_a_model_that_says_nothing_is_no_success_and_no_examples_are_none():
    nothing: Any = SimpleNamespace(
        predict=lambda _, examples: SimpleNamespace(
            probabilities=np.full((len(examples), 5), np.nan)
        )
    )
    mark = Backdoor(Trigger((0,), 7.0), target=0)
    assert mark.success(nothing, np.zeros(1), TEST) == (0, 20)
    assert LabelFlip(5).success(nothing, np.zeros(1), TEST) == (0, 20)
    empty = TEST.take(np.zeros(0, np.int64))
    assert mark.success(nothing, np.zeros(1), empty) == (0, 0)
    assert len(mark.poison(Split(empty, empty), KEY).train) == 0
