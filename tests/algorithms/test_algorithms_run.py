"""Whole runs of the algorithms on the four hospitals, and the identities between them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

import hansa
from hansa.algorithms import ALGORITHMS, fedavg, fedavgm, fedprox, fedsgd
from hansa.core.parts import Algorithm, Examples, Site
from hansa.core.vector import Vector
from hansa.examples.heart.job import heart_job
from hansa.examples.heart.task import HOSPITALS, Heart


def run(algorithm: Algorithm, rounds: int = 3) -> hansa.Result:
    return hansa.simulate(replace(heart_job(rounds=rounds), algorithm=algorithm))


def trained(algorithm: Algorithm, rounds: int = 3) -> Vector:
    params: Vector = run(algorithm, rounds).state.params
    return params


def test_fedsgd_is_gradient_descent_on_everybodys_data():
    task = Heart()
    splits = [task.data(Site(name, {})).train for name in HOSPITALS]
    pooled = Examples(
        np.concatenate([s.inputs for s in splits]), np.concatenate([s.targets for s in splits])
    )
    params = task.initial(0)
    for _ in range(3):
        params = params - np.float32(0.5) * task.gradient(params, pooled)[1]
    np.testing.assert_allclose(trained(fedsgd(server_lr=0.5)), params, atol=2e-6)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (fedavg(client_lr=0.5, local_epochs=1), fedsgd(server_lr=0.5)),
        (
            fedprox(client_lr=0.1, local_epochs=3, proximal=0.0),
            fedavg(client_lr=0.1, local_epochs=3),
        ),
        (fedavgm(client_lr=0.1, server_momentum=0.0), fedavg(client_lr=0.1)),
        (fedavg(client_lr=0.1, local_steps=1), fedavg(client_lr=0.1, local_epochs=1)),
    ],
    ids=("fedavg is fedsgd", "fedprox is fedavg", "fedavgm is fedavg", "a step is an epoch"),
)
def test_where_two_algorithms_are_one(one, other):
    np.testing.assert_allclose(trained(one), trained(other), atol=2e-6)


def test_where_they_are_not():
    base = trained(fedavg(client_lr=0.1, local_epochs=5))
    for other in (
        fedprox(client_lr=0.1, local_epochs=5, proximal=1.0),
        fedavgm(client_lr=0.1, local_epochs=5, server_momentum=0.5),
        fedavg(client_lr=0.1, local_epochs=5, server_lr=0.5),
        fedavg(client_lr=0.1, local_epochs=5, weight_decay=0.5),
        fedavg(client_lr=0.1, local_epochs=5, batch_size=16),
    ):
        assert np.abs(trained(other) - base).max() > 1e-3


@pytest.mark.parametrize("name", ALGORITHMS)
def test_every_algorithm_learns_with_its_defaults(name: str):
    records = run(ALGORITHMS[name](), rounds=15).records
    first, last = records[0].metrics["loss"], records[-1].metrics["loss"]
    assert first == pytest.approx(np.log(2), abs=1e-6)  # before training: one half for everybody
    assert last is not None
    assert last < 0.65
