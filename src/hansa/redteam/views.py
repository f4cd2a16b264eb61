"""What different observers see of a client's first step, made by the parts that jobs run.

| view    | who sees it                                                                  |
|---------|------------------------------------------------------------------------------|
| raw     | a coordinator without secure aggregation                                     |
| clipped | the same, where the job has a norm bound                                     |
| summed  | a coordinator behind secure aggregation: masks cancel exactly, the sum stays |
| noised  | everybody who gets the model, where the job has Gaussian noise               |
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from hansa.core.keys import Noise
from hansa.core.spec import UpdateSpec
from hansa.core.vector import Vector
from hansa.mechanisms.gaussian import CentralGaussian
from hansa.stages.norm import l2_norm


def clipped(update: Vector, norm: float) -> Vector:
    """(d,) the update with a norm of at most `norm`."""
    found: Vector = update * np.float32(min(1.0, norm / max(l2_norm(update), 1e-30)))
    return found


def summed(updates: Sequence[Vector]) -> Vector:
    """(d,) float32 sum of (d,) updates."""
    total: Vector = np.sum([update.astype(np.float64) for update in updates], axis=0)
    return total.astype(np.float32)


def noised(updates: Sequence[Vector], norm: float, multiplier: float, noise: Noise) -> Vector:
    """(d,) float32 sum of clipped updates, released by the central Gaussian mechanism.

    Args:
      updates: (d,) each.
      norm: that each is clipped to.
      multiplier: standard deviation of the noise, relative to the norm.
      noise: where it comes from.
    """
    spec = UpdateSpec(size=len(updates[0]), cohort=len(updates), l2=norm, peak=norm, weight=1.0)
    total = summed([clipped(update, norm) for update in updates]).astype(np.float64)
    return CentralGaussian(multiplier).apply(total, spec, noise).astype(np.float32)


@dataclass(frozen=True, slots=True)
class Exposure:
    """How well an attack did on several clients.

    Attributes:
      psnr: mean over the clients, in dB.
      any_psnr: the same against whichever client of the sum it resembles most: a picture that an
        attacker cannot assign is a picture all the same.
      labels: share of clients whose label was recovered.
      prior: share that whoever knows all labels of each sum would get right by naming the most
        frequent one; 1 for a single client.
      clients: how many were attacked.
    """

    psnr: float
    any_psnr: float
    labels: float
    prior: float
    clients: int

    @property
    def hides(self) -> bool:
        """Whether the view keeps to the gate: labels within the prior and 2 sd, PSNR below 12."""
        spread = 2 * float(np.sqrt(self.prior * (1 - self.prior) / self.clients))
        return self.psnr < 12.0 and self.labels <= self.prior + spread


def label_prior(labels: Sequence[Vector]) -> float:
    """The mean share of the most frequent label in each sum's labels."""
    return float(np.mean([np.bincount(found).max() / len(found) for found in labels]))
