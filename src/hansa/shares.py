"""The numbers of noise that clients add themselves: found from what a job promises."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from hansa.core.events import Event
from hansa.core.job import Job
from hansa.core.parts import ClientSampler
from hansa.core.plan import quorum_of, releases
from hansa.privacy.accountants import DpAccounting
from hansa.privacy.distributed import Setting, smallest_sigma
from hansa.stages.discrete_noise import DiscreteGaussian, smallest_noisy_step
from hansa.stages.fair_weight import FairWeight
from hansa.stages.loss_weight import LossWeight
from hansa.stages.rotate import Rotate, reach
from hansa.stages.weight import Weight

ACCOUNTANT = DpAccounting("rdp")
"""What counts sums with discrete noise."""


@dataclass(frozen=True, slots=True)
class Shares:
    """A job whose clients each add a share of the noise.

    Attributes:
      job: the job.
      sampler: its sampler.
      weight: its weight stage.
      size: coordinates of its delta.
    """

    job: Job
    sampler: ClientSampler
    weight: Weight | FairWeight | LossWeight
    size: int

    @property
    def norm(self) -> float:
        """L2 bound of one client's weighted delta, in model units."""
        return self.job.privacy.clip * self.weight.bound

    @property
    def sigma(self) -> float:
        """Noise of one client, in model units."""
        return self.job.privacy.noise_multiplier * self.norm

    @property
    def step(self) -> float:
        """Width of one integer step, in model units."""
        return self._step(self.sigma)

    @property
    def rotation(self) -> Rotate:
        """Spreads the delta, so that small integers hold it."""
        return Rotate(self.job.seed, reach(self.norm, self.size, self._cohort))

    @property
    def stage(self) -> DiscreteGaussian:
        """Rounds and adds noise."""
        bits = self.job.quantization.bits
        return DiscreteGaussian(norm=self.norm, step=self.step, sigma=self.sigma, bits=bits)

    @property
    def event(self) -> Event:
        """What the whole job reveals; the plan proves that it does."""
        return self._setting.event(self.sigma, self.step)

    def resolved(self) -> Job:
        """The job with the noise that meets its epsilon, and the finest step that the ring holds.

        Raises:
          HansaError: no noise is enough.
        """
        privacy, job = self.job.privacy, self.job
        if not privacy.noise_multiplier:
            sigma = smallest_sigma(
                self._setting,
                privacy.epsilon,
                privacy.delta,
                lambda event, delta: ACCOUNTANT.epsilon(event, delta, self.sampler.relation),
                self._step,
            )
            privacy = replace(privacy, noise_multiplier=sigma / self.norm)
        step = self._step(privacy.noise_multiplier * self.norm)
        quantization = replace(job.quantization, step=step)
        return replace(job, privacy=privacy, quantization=quantization)

    @property
    def _cohort(self) -> int:
        return max(self.sampler.cap, 1)

    @property
    def _setting(self) -> Setting:
        job = self.job
        return Setting(
            norm=self.norm,
            size=self.size,
            cohort=self._cohort,
            shares=max(quorum_of(job, self.sampler) - job.privacy.colluding, 1),
            bits=job.quantization.bits,
            rounds=releases(job),
        )

    def _step(self, sigma: float) -> float:
        """The job's own step, or the smallest one that the sum fits in."""
        quantization = self.job.quantization
        if not 0 < self.norm < math.inf:
            return quantization.step or 1.0  # the plan says what is missing
        peak = min(self.norm, self.rotation.reach)
        return quantization.step or smallest_noisy_step(
            self._cohort, peak, sigma, self.size, quantization.bits
        )
