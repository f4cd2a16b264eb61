r"""DP-SGD by Opacus at one site, on the data of `privacy.py`.

    python bench/peer_opacus.py SETTING.npz SEED EPSILON

It needs Opacus, which the development environment has, and nothing of Hansa. SETTING.npz is written
by `privacy.py --export-site`: one site's images, the test images, and the numbers of the job.
EPSILON is a number or `inf`: the same norm bound without noise. The noise is found by Opacus' PRV
accountant; batches are its Poisson samples. Prints one JSON object.
"""

from __future__ import annotations

import json
import math
import sys
import time
import warnings
from pathlib import Path

import numpy as np
import torch
from opacus import PrivacyEngine
from opacus.accountants.utils import get_noise_multiplier
from torch.utils.data import DataLoader, TensorDataset


def model() -> torch.nn.Linear:
    """Softmax regression that starts at zero."""
    layer = torch.nn.Linear(784, 10)
    torch.nn.init.zeros_(layer.weight)
    torch.nn.init.zeros_(layer.bias)
    return layer


def pixels(images: np.ndarray) -> torch.Tensor:
    """Images as rows of 784 numbers from 0 to 1."""
    return torch.from_numpy(images.reshape(len(images), 784).astype(np.float32) / 255)


def main() -> None:
    """Trains and judges."""
    warnings.filterwarnings("ignore")
    torch.set_num_threads(1)
    setting, seed, epsilon = np.load(Path(sys.argv[1])), int(sys.argv[2]), float(sys.argv[3])
    steps, batch, clip = int(setting["steps"]), int(setting["batch_size"]), float(setting["clip"])
    inputs, targets = pixels(setting["inputs"]), torch.from_numpy(setting["targets"]).long()
    rate = batch / len(targets)
    noise = 0.0
    if math.isfinite(epsilon):
        noise = get_noise_multiplier(
            target_epsilon=epsilon,
            target_delta=float(setting["delta"]),
            sample_rate=rate,
            steps=steps,
            accountant="prv",
            epsilon_tolerance=0.001,
        )
    torch.manual_seed(seed)
    layer = model()
    optimizer = torch.optim.SGD(layer.parameters(), lr=float(setting["client_lr"]))
    layer, optimizer, loader = PrivacyEngine(accountant="prv").make_private(
        module=layer,
        optimizer=optimizer,
        data_loader=DataLoader(TensorDataset(inputs, targets), batch_size=batch),
        noise_multiplier=noise,
        max_grad_norm=clip,
    )
    started, done = time.perf_counter(), 0
    while done < steps:
        for drawn, wanted in loader:
            optimizer.zero_grad()
            loss = torch.nn.functional.cross_entropy(layer(drawn), wanted)
            torch.autograd.backward(loss)
            optimizer.step()
            done += 1
            if done == steps:
                break
    with torch.no_grad():
        said = layer(pixels(setting["test_inputs"])).argmax(dim=1).numpy()
    print(
        json.dumps(
            {
                "accuracy": float((said == setting["test_targets"]).mean()),
                "noise_multiplier": noise,
                "seconds": round(time.perf_counter() - started, 2),
            }
        )
    )


if __name__ == "__main__":
    main()
