"""The noise of adaptive clipping: one Gaussian, split between the deltas and the count.

Andrew, Thakkar, McMahan and Ramaswamy (NeurIPS 2021, arXiv 1905.03871), theorem 1.
"""

from __future__ import annotations

from hansa.errors import HansaError

CLIENTS_PER_NOISE = 20.0
"""The paper's default: the count's noise is a twentieth of the clients expected in a round."""


def default_count_noise(clients: float) -> float:
    """Standard deviation of the noise on the count, sigma_b, for so many expected clients."""
    return clients / CLIENTS_PER_NOISE


def delta_multiplier(noise_multiplier: float, count_noise: float) -> float:
    """z_delta, with which deltas and count together cost one Gaussian of `noise_multiplier`.

    One client moves the count, of bits minus 1/2, by at most 1/2, so sigma_b is a multiplier of
    2 sigma_b, and z_delta = (z**-2 - (2 sigma_b)**-2)**(-1/2).

    Args:
      noise_multiplier: z, of the whole round.
      count_noise: sigma_b, in clients.

    Raises:
      HansaError: the count alone reveals more than the whole round may.
    """
    if not 0 < noise_multiplier < 2 * count_noise:
        raise HansaError(
            f"a count with noise of {count_noise:g} clients reveals more than a round with a noise "
            f"multiplier of {noise_multiplier:g} may",
            fix=f"set privacy.clip_noise above {noise_multiplier / 2:g}, or ask more clients",
        )
    return float((noise_multiplier**-2 - (2 * count_noise) ** -2) ** -0.5)
