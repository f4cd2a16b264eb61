"""A backdoor by model replacement, end to end: it takes the mean, and not the default rule."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

import hansa
from hansa.algorithms import fedavg
from hansa.core.job import Aggregation, Cohort, Rounds, TaskFacts
from hansa.redteam import matrix
from hansa.redteam.matrix import Wanted, prepare
from hansa.redteam.record import Record
from hansa.work.numpy_task import NumpyTask, Parameters
from tests.support import toy

CLASSES, FEATURES, SILENT = 5, 24, 4
CENTRES = np.random.default_rng(0).standard_normal((CLASSES, FEATURES)) * 1.2
CENTRES[:, :SILENT] = 0.0  # where the mark will be: it says nothing of the class


class Kinds(NumpyTask):
    """Five kinds of points; their first four coordinates are faint noise."""

    metrics = (hansa.Loss(), hansa.Accuracy())

    def parameters(self, rng: np.random.Generator) -> Parameters:
        return {"w": 0.01 * rng.standard_normal((FEATURES, CLASSES)), "b": np.zeros(CLASSES)}

    def probabilities(self, parameters: Parameters, inputs: NDArray[Any]) -> NDArray[Any]:
        scores = inputs @ parameters["w"] + parameters["b"]
        powers = np.exp(scores - scores.max(axis=1, keepdims=True))
        found: NDArray[Any] = powers / powers.sum(axis=1, keepdims=True)
        return found

    def loss_and_gradients(
        self, parameters: Parameters, inputs: NDArray[Any], targets: NDArray[Any]
    ) -> tuple[float, Parameters]:
        shares = self.probabilities(parameters, inputs)
        error = (shares - np.eye(CLASSES)[targets]) / len(targets)
        loss = float(self.losses(shares, targets).mean())
        return loss, {"w": inputs.T @ error, "b": error.sum(axis=0)}

    def data(self, site: hansa.Site) -> hansa.Split:
        rng = np.random.default_rng([3, *site.name.encode()])
        targets = rng.integers(CLASSES, size=120)
        inputs = CENTRES[targets] + rng.standard_normal((120, FEATURES))
        inputs[:, :SILENT] *= 0.1
        whole = hansa.Examples(inputs.astype(np.float32), targets)
        return hansa.Split(whole.take(np.arange(80)), whole.take(np.arange(80, 120)))


def test_it_succeeds_on_the_mean_and_fails_on_the_default_rule(monkeypatch):
    monkeypatch.setattr(matrix, "load_task", lambda _: Kinds())
    monkeypatch.setattr(matrix, "facts_of", lambda _, task: facts(task))
    job = toy.job(
        rounds=Rounds(count=12),
        cohort=Cohort(population=20),
        algorithm=fedavg(client_lr=0.3, local_epochs=2, batch_size=16),
        aggregation=Aggregation(rule="dnc", weighting="uniform"),
        evaluate_every=0,
    )
    wanted = Wanted(
        attacks=("backdoor_boosted",),
        shares=(0.2,),
        skews=("own", "dirichlet_0.3"),
        rules=("mean", "own"),
        seeds=(0, 1),
    )
    rows = prepare(job, wanted).run(Record(), lambda *_: None)
    by = {(r.skew, r.rule, r.attack): r for r in rows}
    for skew in wanted.skews:
        clean = by[skew, "mean", "none"].accuracy
        taken, held = (by[skew, rule, "backdoor_boosted"] for rule in ("mean", "dnc"))
        assert clean is not None
        assert taken.attack_success is not None
        assert held.attack_success is not None
        assert held.accuracy is not None
        assert taken.success_by_itself is not None
        assert taken.success_by_itself < 0.1  # it is the attack that does it
        assert taken.attack_success > 0.9
        assert held.attack_success < 0.1
        assert held.accuracy > clean - 0.02


def facts(task: Kinds) -> Any:
    return TaskFacts(schema=task.schema, metrics=tuple(task.metrics), digest="0" * 64)
