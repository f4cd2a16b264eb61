r"""Federated averaging with client-level privacy by pfl-research, on the data of `privacy.py`.

    python3 -m venv pfl && pfl/bin/pip install pfl==0.6.0 torch==2.13.0
    pfl/bin/python bench/peer_pfl.py SETTING.npz SEED EPSILON

It needs an environment of its own, and nothing of Hansa. SETTING.npz is written by
`privacy.py --export`: all clients' images one after the other, where each client's end, the test
images, and the numbers of the job. EPSILON is a number or `inf`: the same clip without noise. The
noise is found by pfl's own PLD accountant. Prints one JSON object.

Cohorts have a fixed size here, `rate * population`, drawn without replacement, where Hansa's are
Poisson samples of that mean. The accountant is given `rate` as the probability of taking part, so
that both find the same noise.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pfl.aggregate.simulate import SimulatedBackend  # type: ignore[import-not-found]
from pfl.algorithm.base import NNAlgorithmParams  # type: ignore[import-not-found]
from pfl.algorithm.federated_averaging import FederatedAveraging  # type: ignore[import-not-found]
from pfl.data.dataset import Dataset  # type: ignore[import-not-found]
from pfl.data.federated_dataset import FederatedDataset  # type: ignore[import-not-found]
from pfl.hyperparam import NNTrainHyperParams  # type: ignore[import-not-found]
from pfl.model.pytorch import PyTorchModel  # type: ignore[import-not-found]
from pfl.privacy.gaussian_mechanism import GaussianMechanism  # type: ignore[import-not-found]
from pfl.privacy.privacy_accountant import PLDPrivacyAccountant  # type: ignore[import-not-found]
from pfl.privacy.privacy_mechanism import (  # type: ignore[import-not-found]
    CentrallyAppliedPrivacyMechanism,
    NormClippingOnly,
)


class Softmax(torch.nn.Module):
    """Softmax regression that starts at zero."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(784, 10)
        torch.nn.init.zeros_(self.layer.weight)
        torch.nn.init.zeros_(self.layer.bias)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """(n, 10) scores."""
        scores: torch.Tensor = self.layer(inputs)
        return scores

    def loss(self, inputs: Any, targets: Any, **_: Any) -> torch.Tensor:
        """Mean cross-entropy."""
        scores = self(torch.as_tensor(inputs))
        return torch.nn.functional.cross_entropy(scores, torch.as_tensor(targets).long())

    def metrics(self, *_: Any, **__: Any) -> dict[str, Any]:
        """None are measured in the rounds."""
        return {}


def cohorts(clients: int, size: int, seed: int) -> Callable[[], int]:
    """The next client of a cohort: `size` different ones, then a new cohort."""
    rng, waiting = np.random.default_rng(seed), list[int]()

    def draw() -> int:
        if not waiting:
            waiting.extend(rng.choice(clients, size, replace=False).tolist())
        return waiting.pop()

    return draw


def main(path: str, seed: int, epsilon: float) -> None:
    """Trains once."""
    torch.set_num_threads(1)
    torch.manual_seed(seed)
    np.random.seed(seed)  # noqa: NPY002  what pfl draws from
    with np.load(Path(path), allow_pickle=False) as arrays:
        data = dict(arrays)
    rounds, population = int(data["rounds"]), len(data["ends"])
    rate, clip = float(data["rate"]), float(data["clip"])
    parts = np.split(np.arange(len(data["targets"])), data["ends"][:-1])
    images = data["inputs"].reshape(-1, 784).astype(np.float32) / 255

    shuffle = np.random.default_rng(seed)

    def dataset(client: int) -> Any:
        mine = shuffle.permutation(parts[client])  # pfl takes batches in the order of the data
        return Dataset(raw_data=[torch.tensor(images[mine]), torch.tensor(data["targets"][mine])])

    noise = 0.0
    if np.isfinite(epsilon):
        accountant = PLDPrivacyAccountant(
            num_compositions=rounds,
            sampling_probability=rate,
            mechanism="gaussian",
            epsilon=epsilon,
            delta=float(data["delta"]),
        )
        noise = accountant.cohort_noise_parameter
        mechanism = GaussianMechanism.from_privacy_accountant(
            accountant=accountant, clipping_bound=clip
        )
        private = CentrallyAppliedPrivacyMechanism(mechanism)
    else:
        private = NormClippingOnly(2, clip)
    cohort = round(rate * population)
    backend = SimulatedBackend(
        training_data=FederatedDataset(dataset, cohorts(population, cohort, seed)),
        val_data=None,
        postprocessors=[private],
    )
    module = Softmax()
    model = PyTorchModel(
        module,
        local_optimizer_create=torch.optim.SGD,
        central_optimizer=torch.optim.SGD(module.parameters(), lr=1.0),
    )
    started = time.perf_counter()
    FederatedAveraging().run(
        NNAlgorithmParams(
            central_num_iterations=rounds,
            evaluation_frequency=rounds + 1,
            train_cohort_size=cohort,
            val_cohort_size=0,
        ),
        backend,
        model,
        NNTrainHyperParams(
            local_learning_rate=float(data["client_lr"]),
            local_num_epochs=1,
            local_batch_size=int(data["batch_size"]),
        ),
        None,
        [],
    )
    test = torch.tensor(data["test_inputs"].reshape(-1, 784).astype(np.float32) / 255)
    with torch.no_grad():
        said = module(test).argmax(1).numpy()
    found = {
        "accuracy": float((said == data["test_targets"]).mean()),
        "epsilon": epsilon if np.isfinite(epsilon) else None,
        "noise_multiplier": float(noise),
        "seconds": round(time.perf_counter() - started, 2),
    }
    sys.stdout.write(json.dumps(found) + "\n")


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), float(sys.argv[3]))
