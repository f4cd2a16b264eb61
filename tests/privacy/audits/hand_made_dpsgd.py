"""DP-SGD in twenty lines of NumPy, softmax regression on canaries alone; each step can be seen.

Nothing of it is Hansa's: it is what the attack by canary examples is tried on.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass

import numpy as np

from hansa.core.parts import Examples
from hansa.privacy.audits.examples import pulls
from hansa.privacy.audits.one_run import Coins, Floats

CLASSES = 8


@dataclass(frozen=True)
class HandMade:
    """Poisson sampling at `rate`, gradients cut to norm 1, noise of `noise` such norms a step.

    A canary that is out contributes nothing. What is drawn follows from the canaries, so that every
    run of a test is the same. `broken` changes one thing that the claim rests on.
    """

    rate: float
    noise: float
    steps: int
    learning_rate: float = 0.1
    broken: str = ""

    def __call__(self, canaries: Examples, inside: Coins) -> Floats:
        rng = np.random.default_rng(zlib.crc32(canaries.inputs.tobytes()))
        x, wanted = canaries.inputs.astype(float), np.eye(CLASSES)[canaries.targets]
        count, w = len(x), np.zeros((x.shape[1], CLASSES))
        total = np.zeros(count)
        for _ in range(self.steps):
            scores = x @ w
            odds = np.exp(scores - scores.max(axis=1, keepdims=True))
            error = odds / odds.sum(axis=1, keepdims=True) - wanted
            gradients = (x[:, :, None] * error[:, None, :]).reshape(count, -1)
            norms = np.linalg.norm(gradients, axis=1, keepdims=True)
            cut = gradients if self.broken == "clip" else gradients / np.maximum(1.0, norms)
            drawn = rng.random(count) < (1.0 if self.broken == "sampling" else self.rate)
            noise = self.noise * (0.25 if self.broken == "noise" else 1.0)
            seen = cut[drawn & inside].sum(axis=0) + noise * rng.standard_normal(w.size)
            total += pulls(gradients / norms, -seen)
            w -= self.learning_rate * seen.reshape(w.shape) / max(self.rate * count, 1.0)
        middle: Floats = total - self.steps * self.rate / 2
        return middle
