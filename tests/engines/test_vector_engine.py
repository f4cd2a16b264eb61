"""The vector engine: what inline gives to about 1e-4, and a reason where stacks cannot."""

from __future__ import annotations

from dataclasses import replace
from types import MappingProxyType
from typing import Any

import numpy as np
import pytest
import torch

from hansa.algorithms import fedadagrad, fedadam, fedavg, fedavgm, fedprox, fedsgd, fedyogi
from hansa.core.contribute import Purpose
from hansa.core.job import Aggregation, Quantization, Rounds, SecureAggregation
from hansa.core.parts import Examples, Site, Split
from hansa.engines.inline import InlineEngine
from hansa.engines.stacking import pieces_of, sizes_for
from hansa.engines.vector import VectorEngine
from hansa.simulation import simulate
from hansa.work.sgd import LocalSGD
from hansa.work.stacked_gradient import Batch, StackedGradient
from tests.support.stackjob.task import Net
from tests.support.stacks import CLIENTS, gathered, job, task_of
from tests.support.toy import TOY
from tests.support.toy import job as toy_job

ALGORITHMS = {
    "fedavg": fedavg(client_lr=0.1, local_epochs=2, batch_size=4),
    "whole data": fedavg(client_lr=0.1, local_epochs=3),
    "steps": fedavg(client_lr=0.1, local_steps=5, batch_size=3),
    "momentum and decay": fedavg(
        client_lr=0.05, local_epochs=2, batch_size=4, momentum=0.9, weight_decay=0.01
    ),
    "fedprox": fedprox(client_lr=0.1, local_epochs=2, batch_size=4, proximal=0.5),
    "fedavgm": fedavgm(client_lr=0.1, local_epochs=1, batch_size=4),
    "fedadam": fedadam(client_lr=0.1, local_epochs=1, batch_size=4),
    "fedyogi": fedyogi(client_lr=0.1, local_epochs=1, batch_size=4),
    "fedadagrad": fedadagrad(client_lr=0.1, local_epochs=1, batch_size=4),
}


HIDDEN: dict[str, Any] = {
    "quantization": Quantization(step=1e-4),
    "secure_aggregation": SecureAggregation(enabled=True),
    "aggregation": Aggregation(weighting="uniform", clip=1.0, max_weight=2),
}


@pytest.fixture
def untimed(monkeypatch):
    """Stacks wherever they are possible: which way is sooner is not asked."""
    monkeypatch.setattr("hansa.work.stacked_probe.seconds_alone", lambda *_: 1e9)


def apart(ours: np.ndarray, theirs: np.ndarray) -> float:
    return float(np.linalg.norm(ours - theirs) / np.linalg.norm(theirs))


@pytest.mark.parametrize("name", ALGORITHMS)
@pytest.mark.usefixtures("untimed")
def test_twenty_rounds_equal_those_of_inline(name):
    of = job(ALGORITHMS[name])
    vector = simulate(of, engine="vector", task=Net())
    inline = simulate(of, engine="inline", task=Net())
    assert vector.engine_because.startswith(("up to", "each client is trained in a traced"))
    assert apart(vector.state.params, inline.state.params) < 1e-4
    for ours, theirs in zip(vector.records, inline.records, strict=True):
        for metric, value in theirs.metrics.items():
            if value is None:  # nobody trains on the final model
                assert ours.metrics[metric] is None
            else:
                assert ours.metrics[metric] == pytest.approx(value, rel=1e-3, abs=1e-5)
        assert ours.members == theirs.members
    moved = apart(inline.state.params, Net().initial(of.seed))
    assert moved > 0.05


@pytest.mark.usefixtures("untimed")
@pytest.mark.parametrize(
    "words",
    [
        {
            "quantization": Quantization(step=1e-4),
            "aggregation": Aggregation(weighting="uniform", clip=1.0, max_weight=50),
        },
        {"aggregation": Aggregation(rule="median"), "rounds": Rounds(count=3, quorum=5)},
        HIDDEN,
    ],
    ids=["quantized", "median", "hidden"],
)
def test_what_follows_training_is_that_of_inline(words):
    of = job(ALGORITHMS["fedavg"], **{"rounds": Rounds(count=4), **words})
    vector = simulate(of, engine="vector", task=Net(), masked=False)
    inline = simulate(of, engine="inline", task=Net(), masked=False)
    assert vector.engine == "vector"
    assert apart(vector.state.params, inline.state.params) < 1e-3  # of a grid's step


@pytest.mark.usefixtures("untimed")
def test_a_pass_that_was_traced_is_the_pass():
    gradient = StackedGradient(Net())
    rng = np.random.default_rng(1)
    params = [
        torch.from_numpy(rng.standard_normal((3, *t.shape), np.float32))
        for t in Net().schema.tensors
    ]
    inputs = torch.from_numpy(rng.standard_normal((3, 4, 6), np.float32))
    targets = torch.from_numpy(rng.integers(0, 3, (3, 4)))
    weights = torch.tensor([[0.25] * 4, [0.5, 0.5, 0, 0], [1.0, 0, 0, 0]])
    gradient.trace(params, Batch(inputs, targets, weights))
    other = torch.from_numpy(rng.standard_normal((3, 4, 6), np.float32))
    plain = StackedGradient(Net())
    for some in (inputs, other):
        losses, slopes = plain(params, Batch(some, targets, weights))
        again, traced = gradient(params, Batch(some, targets, weights))
        torch.testing.assert_close(again, losses)
        torch.testing.assert_close(traced, slopes)
        assert all(slope.is_contiguous() for slope in traced)


# ------------------------------------------------------------------ where stacks are not possible

FALLBACKS = {
    "Dropout": "draws random numbers",
    "Branching": "cannot run Branching",
    "Mixing": "its module mixes them",
    "Weighted": "is no mean of theirs",
    "Summed": "is no mean of theirs",
    "Normed": "mixes the examples",
    "Own": "computes gradients in its own way",
}


@pytest.mark.parametrize("kind", FALLBACKS)
@pytest.mark.usefixtures("untimed")
def test_a_model_that_cannot_be_stacked_is_trained_in_the_loop_bit_by_bit(kind):
    of = job(ALGORITHMS["fedavg"], rounds=Rounds(count=2))
    vector = simulate(of, engine="vector", task=task_of(kind))
    inline = simulate(of, engine="inline", task=task_of(kind))
    assert "one after the other, because" in vector.engine_because
    assert FALLBACKS[kind] in vector.engine_because
    assert vector.model_sha256 == inline.model_sha256


def test_other_work_and_other_tasks_are_trained_in_the_loop():
    of = job(fedsgd(), rounds=Rounds(count=1))
    assert "their work is FullGradient" in simulate(of, engine="vector", task=Net()).engine_because
    said = simulate(toy_job(), engine="vector", task=TOY).engine_because
    assert "Toy is no TorchTask" in said


@pytest.mark.parametrize(
    ("parameters", "most", "sizes"),
    [
        (7_850, 50, (1, 5, 25, 50)),
        (7_850, 49, (1, 5, 25)),
        (7_850, 0, (1,)),
        (1_663_370, 50, (1, 5)),
        (20_000_000, 50, (1,)),
    ],
)
def test_stacks_that_are_tried_have_room(parameters, most, sizes):
    assert sizes_for(parameters, most) == sizes


@pytest.mark.parametrize(
    ("clients", "stack", "processes", "size"),
    [(100, 32, 1, 25), (100, 32, 2, 25), (100, 5, 2, 5), (3, 25, 2, 2), (0, 5, 2, 1), (7, 0, 1, 1)],
)
def test_pieces_are_equal_and_no_larger_than_a_stack(clients, stack, processes, size):
    assert pieces_of(clients, stack, processes) == size


# ------------------------------------------------------------------ clients that fail


class Odd:
    """A source in which some clients fail, each in its own way."""

    def __init__(
        self, *, reading: str = "", label: str = "", huge: str = "", wide: str = ""
    ) -> None:
        self.reading, self.label, self.huge, self.wide = reading, label, huge, wide

    def __call__(self, client: str) -> Split:
        if client == self.reading:
            raise FileNotFoundError("/data/patients-4711.csv")
        split = Net().data(Site(client, MappingProxyType({})))
        train = split.train
        if client == self.label:
            train.targets[0] = 77  # there are three classes
        if client == self.huge:
            train.inputs[:] = np.inf
        if client == self.wide:
            train = Examples(np.ones((5, 9), np.float32), np.zeros(5, np.int64))
        return replace(split, train=train)


@pytest.mark.parametrize("how", ["reading", "label", "huge", "wide"])
def test_a_client_that_fails_is_left_out_as_inline_does_and_no_other(how):
    source = Odd(**{how: CLIENTS[2]})
    engine = VectorEngine(Net(), source, timed=False)
    ours, out = gathered(engine)
    theirs, expected = gathered(InlineEngine(Net(), source))
    assert engine.how.startswith("up to")
    assert out == expected
    assert [d.client for d in out] == [CLIENTS[2]]
    assert ours[0].members == theirs[0].members
    assert np.abs(ours[0].value - theirs[0].value).max() <= 1e-4 * np.abs(theirs[0].value).max()


def test_a_client_of_another_kind_is_trained_in_a_stack_of_its_own():
    """Inputs in float64 beside those in float32."""

    def source(client: str) -> Split:
        split = Net().data(Site(client, MappingProxyType({})))
        if client != CLIENTS[1]:
            return split
        wide = split.train.inputs.astype(np.float64)
        return replace(split, train=replace(split.train, inputs=wide))

    ours, out = gathered(VectorEngine(Net(), source, timed=False))
    theirs, _ = gathered(InlineEngine(Net(), source))
    assert out == []
    assert np.abs(ours[0].value - theirs[0].value).max() <= 1e-4 * np.abs(theirs[0].value).max()


def test_others_stay_in_their_stack(monkeypatch):
    """Once it is known that stacks work, no client but the one of another kind meets the loop."""
    engine = VectorEngine(Net(), Odd(wide=CLIENTS[2]), timed=False)
    gathered(engine)
    monkeypatch.setattr(LocalSGD, "step", None)
    ours, out = gathered(engine)
    assert [d.client for d in out] == [CLIENTS[2]]
    assert len(ours[0].members) == len(CLIENTS) - 1


def test_a_loss_that_leaves_examples_out_is_that_of_the_loop():
    """Cross-entropy does not count targets of -100; alone in a batch such an example gives NaN."""

    def source(client: str) -> Split:
        split = Odd()(client)
        if client == CLIENTS[1]:
            split.train.targets[0] = -100
        return split

    ours, out = gathered(VectorEngine(Net(), source, timed=False))
    theirs, expected = gathered(InlineEngine(Net(), source))
    assert out == expected == []
    assert np.abs(ours[0].value - theirs[0].value).max() <= 1e-4 * np.abs(theirs[0].value).max()


def test_an_example_that_does_not_count_leaves_others_in_their_stack(monkeypatch):
    """Alone in a batch it gives NaN, so only its client is trained again, which fails here."""

    def source(client: str) -> Split:
        split = Odd()(client)
        if client == CLIENTS[1]:
            split.train.targets[:] = -100
        return split

    engine = VectorEngine(Net(), source, timed=False)
    gathered(engine)
    monkeypatch.setattr(LocalSGD, "step", None)
    ours, out = gathered(engine)
    assert [d.client for d in out] == [CLIENTS[1]]
    assert len(ours[0].members) == len(CLIENTS) - 1


def test_the_final_measurement_trains_nobody():
    engine = VectorEngine(Net(), Odd(), timed=False)
    ours, _ = gathered(engine, Purpose.EVALUATE)
    theirs, _ = gathered(InlineEngine(Net(), Odd()), Purpose.EVALUATE)
    assert engine.how == ""
    np.testing.assert_array_equal(ours[0].value, theirs[0].value)


# ------------------------------------------------------------------ in processes


def test_workers_train_stacks(monkeypatch):
    monkeypatch.setattr("hansa.simulation.cores", lambda: 2)
    of = job(ALGORITHMS["fedavg"], rounds=Rounds(count=3))
    vector = simulate(of, engine="vector")
    inline = simulate(of, engine="inline")
    assert vector.engine == "vector"
    assert "trained in" in vector.engine_because
    assert apart(vector.state.params, inline.state.params) < 1e-4


def test_debug_and_masks_are_led_inline():
    of = job(ALGORITHMS["fedavg"], rounds=Rounds(count=1))
    assert simulate(of, engine="vector", task=Net(), debug=True).engine == "inline"
    hidden = replace(of, **HIDDEN)
    said = simulate(hidden, engine="vector", task=Net())
    assert (said.engine, "masks" in said.engine_because) == ("inline", True)
