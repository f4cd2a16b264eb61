"""The contracts of what an algorithm consists of: client work and a server optimizer."""

from __future__ import annotations

from typing import Any

import numpy as np

from hansa.core.parts import ClientWork, Context, ServerOptimizer
from hansa.core.vector import Vector
from tests.support.toy import TOY, context, data


class ClientWorkLaws:
    """Subclass it as `Test...` with some work."""

    work: ClientWork[Any]

    def train(self, shared: Vector, client: str, ctx: Context) -> tuple[Vector, float]:
        examples = data(client).train
        state = self.work.init(shared, ctx)
        for index in self.work.batches(len(examples), ctx):
            state = self.work.step(state, examples.take(index), ctx)
        return self.work.finish(shared, state)

    def test_it_gives_a_delta_and_a_loss(self):
        shared = TOY.initial(0)
        delta, loss = self.train(shared, "kiel", context())
        assert delta.shape == shared.shape
        assert delta.dtype == np.float32
        assert np.abs(delta).max() > 0
        assert loss > 0

    def test_it_is_pure(self):
        shared = TOY.initial(0)
        shared.flags.writeable = False
        kept = shared.copy()
        first, second = (self.train(shared, "kiel", context()) for _ in range(2))
        assert (first[0] == second[0]).all()
        assert first[1] == second[1]
        assert (shared == kept).all()

    def test_two_clients_do_not_disturb_each_other(self):
        """Interleaved steps give what the clients would give alone."""
        shared = TOY.initial(0)
        alone = {name: self.train(shared, name, context(name))[0] for name in ("kiel", "riga")}
        states, batches = {}, {}
        for name in alone:
            ctx = context(name)
            states[name] = self.work.init(shared, ctx)
            batches[name] = list(self.work.batches(len(data(name).train), ctx))
        for i in range(max(len(b) for b in batches.values())):
            for name, indices in batches.items():
                if i < len(indices):
                    batch = data(name).train.take(indices[i])
                    states[name] = self.work.step(states[name], batch, context(name))
        for name, delta in alone.items():
            assert (self.work.finish(shared, states[name])[0] == delta).all()

    def test_batches_are_places_of_examples(self):
        for examples in (1, 7, 40):
            seen = np.concatenate(list(self.work.batches(examples, context())))
            assert set(seen.tolist()) <= set(range(examples))


class ServerOptimizerLaws:
    """Subclass it as `Test...` with a server optimizer."""

    server: ServerOptimizer[Any]

    def run(self, steps: int) -> list[Vector]:
        rng = np.random.default_rng(1)
        params = rng.standard_normal(30).astype(np.float32)
        state, seen = self.server.init(params), []
        for _ in range(steps):
            params.flags.writeable = False
            kept = params.copy()
            state, after = self.server.apply(state, params, rng.standard_normal(30))
            assert (params == kept).all()
            params = after
            seen.append(params)
        return seen

    def test_it_gives_new_finite_parameters(self):
        for params in self.run(5):
            assert params.shape == (30,)
            assert params.dtype == np.float32
            assert np.isfinite(params).all()

    def test_it_is_pure(self):
        for first, second in zip(self.run(5), self.run(5), strict=True):
            assert (first == second).all()

    def test_its_state_is_a_tuple_of_vectors(self):
        params = np.ones(30, np.float32)
        state = self.server.init(params)
        for _ in range(2):
            assert isinstance(state, tuple)
            assert all(isinstance(part, np.ndarray) for part in state)
            state, params = self.server.apply(state, params, np.ones(30))

    def test_it_goes_where_the_step_points(self):
        params = np.zeros(30, np.float32)
        _, after = self.server.apply(self.server.init(params), params, np.ones(30))
        assert (after > 0).all()
