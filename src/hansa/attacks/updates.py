"""Attacks on a round's updates: what f bad clients send, as pure functions of what they know.

h is an (n - f, d) array of honest updates, mu their mean and s their standard deviation by
coordinate (over n - f, not n - f - 1). Each function gives (f, d) float32 updates, computed in
float64. They do not draw, except from the generator that they are given.

| attack              | sends                                   | source                         |
|---------------------|-----------------------------------------|--------------------------------|
| `sign_flip`         | -scale * mu                             | Li et al., AAAI 2019           |
| `gaussian`          | N(0, I) of length scale * norm(mu)      | Blanchard et al., NeurIPS 2017 |
| `scaling`           | -n / f * factor * mu                    | Bagdasaryan et al., 2020       |
| `model_replacement` | what makes the mean of all the target   | Bagdasaryan et al., 2020       |
| `alie`              | mu + z * s: a little is enough          | Baruch et al., NeurIPS 2019    |
| `ipm`               | -eps * mu: inner product manipulation   | Xie et al., UAI 2019           |
| `min_max`           | mu + gamma * u, as honest ones reach    | Shejwalkar et al., NDSS 2021   |
| `min_sum`           | the same by the sum of squared distances | Shejwalkar et al., NDSS 2021   |
| `mimic`             | one honest update, again and again      | Karimireddy et al., ICLR 2022  |
| `free_rider`        | the model's last step and some noise    | Lin et al., 2019               |
| `sybils`            | one bad update under many names         | Fung et al., RAID 2020         |
| `replay`            | updates of an earlier round             | staleness; no paper            |
"""

from __future__ import annotations

import math
from statistics import NormalDist
from typing import Any, Literal, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from hansa.errors import HansaError

Array: TypeAlias = NDArray[Any]
Rows: TypeAlias = NDArray[np.float32]
"""(f, d) updates of the bad clients."""

Direction = Literal["unit", "sign", "std"]
"""u of min-max and min-sum: -mu / norm(mu), -sign(mu), or -s."""


class Normal(Protocol):
    """A source of normal numbers, as NumPy's generators are."""

    def standard_normal(self, size: Any) -> Any:
        """Independent standard normal numbers."""


def sign_flip(h: Array, f: int, scale: float = 1.0) -> Rows:
    """-scale * mu (RSA: Li et al., AAAI 2019)."""
    return repeated(-scale * centre(h), f)


def gaussian(h: Array, f: int, rng: Normal, scale: float = 10.0) -> Rows:
    """Normal noise of an expected length of about `scale` times that of mu.

    Blanchard et al., NeurIPS 2017, section 5; the length there is a constant.
    """
    mu = centre(h)
    size = scale * float(np.linalg.norm(mu)) / math.sqrt(len(mu))
    return single(rng.standard_normal((f, len(mu))) * size)


def scaling(h: Array, f: int, factor: float = 3.0) -> Rows:
    """-(n / f) * factor * mu: a mean of all n is drawn to about -factor * mu."""
    return repeated(-(len(h) + f) / f * factor * centre(h), f)


def model_replacement(h: Array, f: int, target: Array) -> Rows:
    """(n * target - sum of h) / f: the mean of all n is the target.

    Bagdasaryan et al., AISTATS 2020, equation 3, with a server's learning rate of 1 and without
    the assumption that honest updates cancel.

    Args:
      h: (n - f, d) honest updates.
      f: number of bad clients.
      target: (d,) wanted mean.
    """
    wanted = (len(h) + f) * np.asarray(target, np.float64)
    return repeated((wanted - h.sum(axis=0, dtype=np.float64)) / f, f)


def alie(h: Array, f: int, z: float | None = 1.5) -> Rows:
    """A little is enough: mu + z * s (Baruch et al., NeurIPS 2019); z = None takes `alie_z`."""
    strength = alie_z(len(h) + f, f) if z is None else z
    return repeated(centre(h) + strength * spread(h), f)


def alie_z(n: int, f: int) -> float:
    """The paper's z_max = Phi^-1((n - f - s) / (n - f)), s = floor(n / 2 + 1) - f.

    s is how many honest clients must lie beyond the bad ones for those to be the majority's
    edge. Where the bad ones are a majority already, z is the largest that a Gaussian sample of
    n - f is likely to reach; never below 0.
    """
    supporters = max(n // 2 + 1 - f, 1)
    share = (n - f - supporters) / (n - f)
    if share <= 0.5:
        return 0.0
    return NormalDist().inv_cdf(min(share, 1 - 1 / (n - f + 1)))


def ipm(h: Array, f: int, eps: float = 0.5) -> Rows:
    """-eps * mu (Xie et al., UAI 2019): small ones pass for honest, large ones turn a mean."""
    return repeated(-eps * centre(h), f)


def min_max(h: Array, f: int, direction: Direction = "unit") -> Rows:
    """The largest mu + gamma * u that keeps within the honest updates' diameter.

    Shejwalkar and Houmansadr, NDSS 2021, equation 8: no honest update is further from the bad
    one than two honest ones are from each other. Distances along the line are quadratic in gamma,
    so that the limit, which the paper finds by bisection, is a root.
    """
    return _along(h, f, direction, _reach_max(h, away(h, direction)))


def min_sum(h: Array, f: int, direction: Direction = "unit") -> Rows:
    """The same where the sum of squared distances stays within the largest honest one (eq. 9)."""
    return _along(h, f, direction, _reach_sum(h, away(h, direction)))


def mimic(h: Array, f: int, target: int | None = 0) -> Rows:
    """One honest client's update, so that it counts f + 1 times.

    Karimireddy et al., ICLR 2022, section 3.2: harmful where honest clients differ. With
    target = None it is whoever lies furthest along the direction of most variance of the round,
    where the paper estimates that direction over the rounds.
    """
    if target is None:
        centred = np.asarray(h, np.float64) - centre(h)
        _, vectors = np.linalg.eigh(centred @ centred.T)
        target = int(np.argmax(np.abs(vectors[:, -1])))
    return repeated(np.asarray(h[target]), f)


def free_rider(previous: Array, f: int, rng: Normal, noise: float = 0.1) -> Rows:
    """The model's last step, and noise of a share of its length: work that was not done.

    Lin, Du and Liu, arXiv 1911.12560, section 3.2. In the first round the step is zero.

    Args:
      previous: (d,) what the model moved by in the round before.
      f: number of bad clients.
      rng: what noise is drawn from.
      noise: length of the noise, relative to the step.
    """
    size = noise * float(np.linalg.norm(previous)) / math.sqrt(len(previous))
    return single(np.asarray(previous, np.float64) + size * rng.standard_normal((f, len(previous))))


def sybils(bad: Array, f: int, rng: Normal, apart: float = 1e-3) -> Rows:
    """One bad (d,) update under f names, each a share `apart` of its length away; 0: identical.

    Fung, Yoon and Beschastnikh, RAID 2020, section 4: what FoolsGold looks for.
    """
    size = apart * float(np.linalg.norm(bad)) / math.sqrt(len(bad))
    return single(np.asarray(bad, np.float64) + size * rng.standard_normal((f, len(bad))))


def replay(old: Array, f: int) -> Rows:
    """The f updates of an earlier round, sent as they were."""
    if len(old) != f:
        raise HansaError(
            f"{len(old)} old updates are replayed by {f} clients", fix="give one for each"
        )
    return single(old)


# ------------------------------------------------------------------ what they share


def centre(h: Array) -> NDArray[np.float64]:
    """(d,) mean of the honest updates.

    Raises:
      HansaError: there are none: an attack that knows nothing cannot be computed.
    """
    if not len(h):
        raise HansaError(
            "an attack on updates was given no honest update to start from",
            fix="leave at least one client honest, or let the attack know its own",
        )
    return np.asarray(h.mean(axis=0, dtype=np.float64))


def spread(h: Array) -> NDArray[np.float64]:
    """(d,) standard deviations of the honest updates."""
    return np.asarray(h.std(axis=0, dtype=np.float64))


def away(h: Array, direction: Direction) -> NDArray[np.float64]:
    """(d,) direction of min-max and min-sum."""
    if direction == "std":
        return -spread(h)
    mu = centre(h)
    if direction == "sign":
        return -np.sign(mu)
    return np.asarray(-mu / max(float(np.linalg.norm(mu)), 1e-300))


def repeated(row: Array, f: int) -> Rows:
    """The same (d,) row f times."""
    return np.tile(single(row), (f, 1))


def single(rows: Array) -> Rows:
    """In float32; what is too large becomes the largest number: infinity is another attack."""
    most = float(np.finfo(np.float32).max)
    return np.clip(np.asarray(rows, np.float64), -most, most).astype(np.float32)


def _along(h: Array, f: int, direction: Direction, gamma: float) -> Rows:
    return repeated(centre(h) + gamma * away(h, direction), f)


def _squared(h: Array) -> NDArray[np.float64]:
    """(m, m) squared distances between honest updates."""
    real = np.asarray(h, np.float64) - centre(h)
    norms = np.einsum("ij,ij->i", real, real)
    return np.asarray(np.maximum(norms[:, None] + norms - 2 * real @ real.T, 0.0))


def _quadratic(h: Array, u: Array) -> tuple[float, Array, Array]:
    """a, b, c of norm(mu + gamma * u - h_i)^2 = a gamma^2 - 2 b_i gamma + c_i."""
    off = np.asarray(h, np.float64) - centre(h)
    return float(u @ u), off @ u, np.einsum("ij,ij->i", off, off)


def _root(a: float, b: float, c: float) -> float:
    """The larger gamma with a gamma^2 - 2 b gamma + c = 0, where c <= 0; 0 without a direction."""
    return (b + math.sqrt(max(b * b - a * min(c, 0.0), 0.0))) / a if a > 0 else 0.0


def _reach_max(h: Array, u: Array) -> float:
    a, b, c = _quadratic(h, u)
    most = float(_squared(h).max())
    return min(_root(a, float(bi), float(ci) - most) for bi, ci in zip(b, c, strict=True))


def _reach_sum(h: Array, u: Array) -> float:
    a, b, c = _quadratic(h, u)
    most = float(_squared(h).sum(axis=1).max())
    return _root(a * len(h), float(b.sum()), float(c.sum()) - most)
