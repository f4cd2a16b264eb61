"""Passes that are played from memory of their own: the bits of the graph that they came from."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn
from torch.fx import GraphModule
from torch.fx.experimental.proxy_tensor import make_fx

from hansa.core.parts import Examples, Site
from hansa.work import stacked_gradient, stacked_tape
from hansa.work.sgd import LocalSGD
from hansa.work.stacked import train_stack
from hansa.work.stacked_gradient import StackedGradient
from hansa.work.stacked_probe import _context
from hansa.work.stacked_room import Room
from hansa.work.stacked_tape import MOST_BYTES, record
from tests.support.stackjob.task import Net
from tests.support.stacks import CLIENTS, task_of
from tests.work.test_stacked_graph import Images, Inplace, Tied, pass_of


class Rectified(Net):
    def model(self) -> nn.Module:
        return nn.Sequential(
            nn.Linear(6, 20), nn.ReLU(), nn.Linear(20, 5), nn.ReLU(), nn.Linear(5, 3)
        )


class Normalised(Net):
    """An operation with several results, and one that is told nowhere where to write."""

    def model(self) -> nn.Module:
        return nn.Sequential(nn.Linear(6, 8), nn.LayerNorm(8), nn.GELU(), nn.Linear(8, 3))


PLAYED = {"Net": Net, "Rectified": Rectified, "Tied": Tied, "Normalised": Normalised}
WORKS = {
    "plain": LocalSGD(client_lr=0.3),
    "decay": LocalSGD(client_lr=0.3, weight_decay=0.1),
    "proximal": LocalSGD(client_lr=0.3, proximal=0.2),
    "momentum": LocalSGD(client_lr=0.3, momentum=0.5, weight_decay=0.1),
}


def steps(
    model: Net, work: LocalSGD, monkeypatch: pytest.MonkeyPatch, *, played: bool
) -> tuple[list[torch.Tensor], list[torch.Tensor], list[object]]:
    """Losses, parameters and tapes after four steps on inputs that change in the same memory."""
    gradient = StackedGradient(model, traced_at=1)
    if not played:
        monkeypatch.setattr(stacked_gradient, "record", lambda *_: None)
    params, batch = pass_of(model)
    received = [array[:1].clone() for array in params]
    velocity = [torch.zeros_like(array) for array in params] if work.momentum else None
    rng, losses = np.random.default_rng(5), []
    for number in range(4):
        batch.inputs.copy_(torch.from_numpy(rng.standard_normal(batch.inputs.shape, np.float32)))
        targets = (batch.targets + number) % 3
        weights = batch.weights.roll(number, 0)
        some = replace(batch, targets=targets, weights=weights)
        losses.append(gradient.descend(work, params, received, velocity, some).clone())
    monkeypatch.undo()
    return losses, params, list(gradient._tapes.values())


@pytest.mark.parametrize("work", WORKS.values(), ids=WORKS.keys())
@pytest.mark.parametrize("kind", PLAYED.values(), ids=PLAYED.keys())
def test_what_is_played_has_the_bits_of_the_graph(kind, work, monkeypatch):
    model = kind()
    model.initial(1)
    *played, tapes = steps(model, work, monkeypatch, played=True)
    *run, _ = steps(model, work, monkeypatch, played=False)
    assert [each is not None for each in tapes] == [True]
    torch.testing.assert_close(played, run, rtol=0, atol=0)
    assert len({float(loss[0]) for loss in played[0]}) == 4


@pytest.mark.parametrize("kind", [Inplace], ids=["Inplace"])
def test_what_writes_to_what_it_computed_is_run_as_it_is(kind, monkeypatch):
    model = kind()
    *played, tapes = steps(model, WORKS["plain"], monkeypatch, played=True)
    *run, _ = steps(model, WORKS["plain"], monkeypatch, played=False)
    assert tapes == [None]
    torch.testing.assert_close(played, run, rtol=0, atol=0)


def test_a_batch_is_only_read():
    model, work = Rectified(), WORKS["plain"]
    gradient = StackedGradient(model, traced_at=1)
    params, first = pass_of(model)
    second = replace(first, targets=(first.targets + 1) % 3, weights=first.weights.roll(1, 0))
    before = [tensor.clone() for tensor in (first.targets, first.weights, first.inputs)]
    for batch in (first, second):
        gradient.descend(work, params, params, None, batch)
    after = [first.targets, first.weights, first.inputs]
    torch.testing.assert_close(after, before, rtol=0, atol=0)


def test_other_memory_has_a_tape_of_its_own():
    model, work = Rectified(), WORKS["plain"]
    gradient = StackedGradient(model, traced_at=1)
    params, batch = pass_of(model)
    others = [array.clone() for array in params]
    for mine in (params, others):
        gradient.descend(work, mine, params, None, batch)
    torch.testing.assert_close(params, others, rtol=0, atol=0)
    assert len(gradient._tapes) == 2
    mixed = [params[0], *others[1:]]  # begins where a known one begins
    expected = [array.clone() for array in mixed]
    gradient.descend(work, mixed, params, None, batch)
    StackedGradient(model, traced_at=10**9).descend(work, expected, params, None, batch)
    torch.testing.assert_close(mixed, expected, rtol=1e-5, atol=1e-6)


def test_no_more_shapes_are_played_than_may_be(monkeypatch):
    monkeypatch.setattr(stacked_gradient, "MOST_TRACED", 2)
    gradient = StackedGradient(Net(), traced_at=1)
    params, batch = pass_of(Net())
    for rows in (3, 2, 1):
        some = replace(
            batch,
            inputs=batch.inputs[:rows],
            targets=batch.targets[:rows],
            weights=batch.weights[:rows],
        )
        gradient.descend(WORKS["plain"], [p[:rows] for p in params], params, None, some)
    assert len(gradient._tapes) == len(gradient._traced) == 2


def graph_of(function: Callable[..., object], *arguments: torch.Tensor) -> GraphModule:
    """Traced with tensors of their own: of one that comes twice only the first would be read."""
    return make_fx(function)(*(argument.clone() for argument in arguments))


def test_recording_writes_to_nothing():
    def moved(param, inputs, targets, weights):
        loss = (inputs * param).sum(1)
        param.add_(weights)
        return (loss,)

    params, inputs = [torch.ones(3)], torch.arange(6.0).reshape(2, 3)
    targets, weights = torch.zeros(2), torch.full((3,), 0.5)
    graph = graph_of(moved, params[0].clone(), inputs, targets, weights)
    tape = record(graph, params, inputs, targets, weights)
    assert tape is not None
    assert params[0].tolist() == [1.0] * 3
    assert tape.play(targets, weights)[0].tolist() == [3.0, 12.0]
    assert params[0].tolist() == [1.5] * 3
    inputs[0] = 2.0
    assert tape.play(targets, 3 * weights)[0].tolist() == [9.0, 18.0]
    assert params[0].tolist() == [3.0] * 3


@pytest.mark.parametrize(
    ("function", "size"),
    [
        (lambda p, x, t, w: (torch.bernoulli(x * p),), 4),
        (lambda p, x, t, w: (x * p + t + w,), MOST_BYTES // 8 + 1),  # two results of each
        (lambda p, x, t, w: (torch.erfinv(x * p * 0.1),), 2**15),  # large, and told nowhere
        (lambda p, x, t, w: ((x * p).relu_(),), 4),
        (lambda p, x, t, w: (torch.zeros_like(x).add_(x * p),), 4),  # zeros are made once
    ],
    ids=["draws", "large", "large and untold", "writes", "writes to zeros"],
)
def test_what_cannot_be_played(function, size):
    x = torch.full((size,), 0.5)
    graph = graph_of(function, x, x, x, x)
    assert record(graph, [x], x, x, x) is None


def test_an_operation_that_is_told_nowhere_is_played_if_it_is_small():
    x = torch.full((8,), 0.5)
    graph = graph_of(lambda p, x, t, w: (torch.erfinv(x * p),), x, x, x, x)
    inputs = x.clone()
    tape = record(graph, [x], inputs, x, x)
    assert tape is not None
    inputs.fill_(0.25)
    torch.testing.assert_close(tape.play(x, x)[0], torch.erfinv(torch.full((8,), 0.125)))


def test_images_of_many_bytes_are_run_and_small_ones_played():
    gradient = StackedGradient(Images(), traced_at=1)
    params, batch = pass_of(Images())
    gradient.descend(WORKS["plain"], params, params, None, batch)
    assert len(gradient._tapes) == 1


# ------------------------------------------------------------------ memory of stacks


def test_a_room_is_used_again_and_holds_what_came():
    model = Net()
    room, params = Room(model.schema), model.initial(1)
    models = room.models(3, params)
    models[0].fill_(9.0)
    again = room.models(2, params)
    assert [a.data_ptr() for a in again] == [a.data_ptr() for a in models]
    views = model.schema.views(params)
    for array, tensor in zip(again, model.schema.tensors, strict=True):
        assert array.shape == (2, *tensor.shape)
        assert np.array_equal(array.numpy(), np.stack([views[tensor.name]] * 2))
    other = params + 1
    assert room.received(params) is room.received(params)
    assert float(room.received(other)[0].sum()) != float(room.received(params)[0].sum())
    grown = room.models(5, other)
    assert len(grown[0]) == 5
    assert np.array_equal(grown[-1].numpy()[4], views[model.schema.tensors[-1].name] + 1)


def test_inputs_of_each_kind_have_memory():
    room = Room(Net().schema)
    floats = room.inputs((3, 4, 6), np.dtype(np.float32))
    bytes_ = room.inputs((3, 4, 6), np.dtype(np.uint8))
    assert (floats.dtype, bytes_.dtype) == (torch.float32, torch.uint8)
    assert room.inputs((2, 4, 6), np.dtype(np.float32)).data_ptr() == floats.data_ptr()
    assert len(room.inputs((9, 4, 6), np.dtype(np.float32))) == 9
    for size in range(40):
        room.inputs((1, size + 1, 6), np.dtype(np.float32))
    assert len(room._inputs) <= 8


def test_two_stacks_after_each_other_are_two_first_stacks(monkeypatch):
    """Nothing of a stack is left for the next one, which is smaller and of other examples."""
    model, work = Net(), LocalSGD(client_lr=0.3, local_epochs=2, batch_size=4)
    params = task_of("Net").initial(0)
    shared = StackedGradient(model, traced_at=1)
    played, whole = [], stacked_tape.Tape.play

    def play(self: stacked_tape.Tape, *batch: torch.Tensor) -> tuple[torch.Tensor, ...]:
        played.append(1)
        return whole(self, *batch)

    monkeypatch.setattr(stacked_tape.Tape, "play", play)
    for number in (8, 3, 5, 8):
        some = [model.data(Site(name, {})).train for name in CLIENTS[:number]]
        clients = [(_context(model, each), each) for each in some]
        found = np.empty((number, len(params)), np.float32)
        expected = np.empty_like(found)
        losses = train_stack(shared, work, params, clients, found)
        fresh = train_stack(StackedGradient(model, 10**9), work, params, clients, expected)
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose(losses, fresh, rtol=1e-5)
        params = params + 0.1
    assert len(played) > 20


def test_examples_of_any_kind_stay_what_they_were():
    """The memory for inputs is not the examples' own."""
    model = Net()
    inputs = np.random.default_rng(0).standard_normal((6, 6)).astype(np.float32)
    before = inputs.copy()
    examples = Examples(inputs, np.zeros(6, np.int64))
    found = np.empty((1, len(model.initial(0))), np.float32)
    gradient = StackedGradient(model, traced_at=1)
    train_stack(
        gradient, WORKS["plain"], model.initial(0), [(_context(model, examples), examples)], found
    )
    assert np.array_equal(inputs, before)
