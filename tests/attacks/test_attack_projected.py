"""Neurotoxin: no step moves what honest clients moved most, whatever the training is made of."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from hansa.attacks.projected import Projected, heaviest
from hansa.work.dpsgd import DpSgd
from hansa.work.sgd import FullGradient, LocalSGD
from tests.support import toy

ALONE = np.array([1, 3])
REST = np.array([0, 2, 4])
CLIENT = toy.POPULATION[0]

WORKS: dict[str, Any] = {
    "plain": LocalSGD(client_lr=0.5, local_epochs=3, batch_size=4),
    "momentum": LocalSGD(client_lr=0.5, local_epochs=3, batch_size=4, momentum=0.9),
    "weight decay": LocalSGD(client_lr=0.5, local_epochs=3, batch_size=4, weight_decay=0.1),
    "proximal": LocalSGD(client_lr=0.5, local_epochs=3, batch_size=4, proximal=0.5),
    "all": LocalSGD(client_lr=0.5, local_steps=9, batch_size=4, momentum=0.9, weight_decay=0.1,
                    proximal=0.5),
}  # fmt: skip


def start() -> np.ndarray:
    shared = np.random.default_rng(3).standard_normal(5).astype(np.float32)
    shared.flags.writeable = False
    return shared


def steps(work: Any, shared: np.ndarray) -> list[np.ndarray]:
    """The parameters after each step."""
    train, ctx = toy.data(CLIENT).train, toy.context(CLIENT)
    state, seen = work.init(shared, ctx), []
    for index in work.batches(len(train), ctx):
        state = work.step(state, train.take(index), ctx)
        seen.append(state.params.copy())
    return seen


def reference(work: LocalSGD, shared: np.ndarray, alone: Any) -> np.ndarray:
    """Projected gradient descent in float64, written out; with momentum, of what is left of it."""
    train, ctx = toy.data(CLIENT).train, toy.context(CLIENT)
    free = np.ones(5)
    free[alone] = 0.0
    params, velocity = shared.astype(np.float64), np.zeros(5)
    for index in work.batches(len(train), ctx):
        _, gradient = toy.TOY.gradient(params.astype(np.float32), train.take(index))
        whole = gradient + work.weight_decay * params + work.proximal * (params - shared)
        velocity = work.momentum * velocity + free * whole  # the paper: the gradient is projected
        params = params - work.client_lr * velocity
    return np.asarray(params - shared)


@pytest.mark.parametrize("work", WORKS.values(), ids=WORKS)
def test_no_step_moves_what_is_left_alone_and_the_rest_is_projected_descent(work):
    shared = start()
    seen = steps(Projected(work, ALONE), shared)
    assert len(seen) > 5
    for params in seen:
        np.testing.assert_array_equal(params[ALONE], shared[ALONE])
        assert (params[REST] != shared[REST]).all()
    free = steps(work, shared)
    assert all((params[ALONE] != shared[ALONE]).all() for params in free)
    np.testing.assert_allclose(
        seen[-1] - shared, reference(work, shared, ALONE), rtol=1e-4, atol=1e-5
    )
    np.testing.assert_array_equal(steps(Projected(work, ALONE[:0]), shared), free)


def test_the_result_is_not_that_of_training_freely_and_projecting_once():
    shared = start()
    work = LocalSGD(client_lr=0.5, local_steps=300)
    projected = steps(Projected(work, ALONE), shared)[-1] - shared
    once = steps(work, shared)[-1] - shared
    once[ALONE] = 0.0
    assert np.abs(projected - once)[REST].max() > 0.01
    train = toy.data(CLIENT).train

    def loss(delta: np.ndarray) -> float:
        return float(toy.TOY.predict(shared + delta, train).losses.mean())

    assert loss(projected) < loss(once)  # the least loss where these do not move
    step = LocalSGD(client_lr=0.5)
    first = steps(Projected(step, ALONE), shared)[-1] - shared
    free = steps(step, shared)[-1] - shared
    free[ALONE] = 0.0
    np.testing.assert_array_equal(first, free)  # of one step both are the same


OTHERS: dict[str, Any] = {
    "one gradient": FullGradient(),
    "private": DpSgd(
        sgd=LocalSGD(client_lr=0.5, local_steps=5, batch_size=4, momentum=0.9),
        clip=1.0, noise_multiplier=1.0, examples=5, delta=1e-5,
    ),
}  # fmt: skip


@pytest.mark.parametrize("inner", OTHERS.values(), ids=OTHERS)
def test_other_work_leaves_them_alone_too(inner):
    shared, train = start(), toy.data(CLIENT).train
    ctx = replace(toy.context(CLIENT), examples=len(train))
    work = Projected(inner, ALONE)
    state = work.init(shared, ctx)
    for index in work.batches(len(train), ctx):
        state = work.step(state, train.take(index), ctx)
        if isinstance(inner, DpSgd):
            np.testing.assert_array_equal(state.descent.params[ALONE], shared[ALONE])
    delta, loss = work.finish(shared, state)
    assert (delta[ALONE] == 0).all()
    assert (delta[REST] != 0).all()
    assert loss > 0


def test_what_moved_most_is_found_by_size():
    last = np.zeros(100, np.float32)
    last[[7, 30, 31, 99, 2]] = [-9.0, 8.0, -7.0, 6.0, 5.0]
    assert set(heaviest(last, 0.04).tolist()) == {7, 30, 31, 99}
    assert len(heaviest(np.zeros(100, np.float32), 0.04)) == 0
    assert len(heaviest(last[:10])) == 0  # 5 % of ten is none
    assert heaviest(np.ones(4, np.float32), 0.5).tolist() == [0, 1]
