"""Privacy as numbers: epsilon of an event, noise for an epsilon, the budget that is spent."""

from hansa.privacy.accountants import epsilon
from hansa.privacy.calibrate import calibrate, gaussian_noise

__all__ = ["calibrate", "epsilon", "gaussian_noise"]
