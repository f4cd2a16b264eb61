"""How fast devices are: log-normal about a median, or as it was recorded."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from hansa.core.keys import ReplayKey


@dataclass(frozen=True, slots=True)
class Speed:
    """One device.

    Attributes:
      compute: training examples a second.
      download: bytes a second.
      upload: bytes a second.
    """

    compute: float
    download: float
    upload: float


class Speeds(Protocol):
    """How fast each device is."""

    def of(self, device: str, key: ReplayKey) -> Speed:
        """The device's speed, the same whenever it is asked for; `key` is the device's own."""


@dataclass(frozen=True, slots=True)
class LogNormal:
    """Speeds whose logarithms are normal: a few devices are many times slower than most.

    A spread of s means that about a sixth of the devices are more than exp(s) times slower than
    the median: 2.7 times for 1. Compute and network are drawn apart, down and up together.

    Attributes:
      compute: median training examples a second.
      download: median bytes a second.
      upload: median bytes a second.
      compute_spread: standard deviation of the logarithm of `compute`; 0 = all alike.
      network_spread: of the logarithm of both network speeds.
    """

    compute: float = 100.0
    download: float = 2_500_000.0
    upload: float = 600_000.0
    compute_spread: float = 1.0
    network_spread: float = 0.7

    def of(self, device: str, key: ReplayKey) -> Speed:  # noqa: ARG002  # the seam's signature
        """Two draws of the device's key."""
        first, second = key.generator("speed").standard_normal(2)
        network = float(np.exp(self.network_spread * second))
        return Speed(
            self.compute * float(np.exp(self.compute_spread * first)),
            self.download * network,
            self.upload * network,
        )


@dataclass(frozen=True, slots=True)
class RecordedSpeeds:
    """Speeds of devices that were measured.

    A client whose name was recorded has that speed; any other one that of a recorded device that
    is drawn for it.

    Attributes:
      speeds: by the device's name.
    """

    speeds: Mapping[str, Speed]
    _names: tuple[str, ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_names", tuple(sorted(self.speeds)))  # frozen for everybody else

    def of(self, device: str, key: ReplayKey) -> Speed:
        """Its own, or that of a device drawn for it."""
        if device not in self.speeds:
            device = self._names[int(key.generator("recorded").integers(len(self._names)))]
        return self.speeds[device]
