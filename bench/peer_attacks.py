"""The attacks of byzfl 0.0.11, in an environment of its own.

    python3 -m venv peers && peers/bin/pip install 'torch==2.13.0' scipy 'numpy<3'
    peers/bin/pip install --no-deps byzfl==0.0.11
    peers/bin/python bench/peer_attacks.py GIVEN.npz BAD FOUND.npz

GIVEN.npz holds honest updates, and images with their classes for a client that flips them, which
byzfl does in the client and not in the attack. It needs nothing of Hansa. As in `peer_robust.py`,
byzfl's own `__init__` is left out, which wants torchvision for its benchmark. `bench/attacks.py`
runs this and compares.
"""

from __future__ import annotations

import importlib.util
import sys
import types
from typing import Any

import numpy as np


def main(arguments: list[str]) -> int:
    """Writes what each attack sends."""
    found = importlib.util.find_spec("byzfl")
    package = types.ModuleType("byzfl")
    package.__path__ = list(found.submodule_search_locations or []) if found else []
    sys.modules["byzfl"] = package
    from byzfl.aggregators import aggregators  # type: ignore[import-not-found,unused-ignore]
    from byzfl.attacks import attacks  # type: ignore[import-not-found,unused-ignore]

    given, bad = np.load(arguments[0]), int(arguments[1])
    honest = given["honest"].astype(np.float64)
    rule = aggregators.TrMean(f=bad)
    optimal = {"pre_agg_list": [], "f": bad}
    np.savez(
        arguments[2],
        sign_flip=attacks.SignFlipping()(honest),
        ipm=attacks.InnerProductManipulation(tau=0.5)(honest),
        alie=attacks.ALittleIsEnough(tau=1.5)(honest),
        mimic=attacks.Mimic(3)(honest),
        gaussian=np.stack([attacks.Gaussian(0.0, 2.0)(honest) for _ in range(20)]),
        adaptive_alie=attacks.Optimal_ALittleIsEnough(rule, **optimal)(honest),
        adaptive_ipm=attacks.Optimal_InnerProductManipulation(rule, **optimal)(honest),
        trimmed_mean=rule(np.concatenate([honest, honest[:bad]])),
        **flipped(given["images"], given["classes"], bad),
    )
    return 0


def flipped(images: Any, classes: Any, bad: int) -> dict[str, Any]:
    """What a client with flipped labels trains on, its model, and what is sent for it."""
    import torch
    from byzfl.fed_framework import ByzantineClient, Client  # type: ignore[import-not-found,unused-ignore]

    labels = []

    class Told(Client):  # type: ignore[misc,unused-ignore]
        def _backward_pass(self, inputs: Any, targets: Any, train_acc: bool = False) -> Any:
            labels.append(targets.numpy().copy())
            return super()._backward_pass(inputs, targets, train_acc)

    torch.manual_seed(0)
    data = torch.utils.data.TensorDataset(torch.tensor(images), torch.tensor(classes))
    client = Told(
        {
            "model_name": "logreg_mnist",
            "device": "cpu",
            "loss_name": "CrossEntropyLoss",
            "LabelFlipping": True,
            "nb_labels": 10,
            "momentum": 0.0,
            "training_dataloader": torch.utils.data.DataLoader(data, batch_size=len(data)),
            "store_per_client_metrics": False,
        }
    )
    client.compute_gradients()
    attack = ByzantineClient({"name": "LabelFlipping", "f": bad, "parameters": {}})
    sent = attack.apply_attack([client.get_flat_flipped_gradients()])
    return {
        "flipped_labels": labels[0],  # the honest ones come after them
        "flipped_model": client.get_flat_parameters().numpy(),
        "flipped_gradient": np.stack([vector.numpy() for vector in sent]),
    }


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
