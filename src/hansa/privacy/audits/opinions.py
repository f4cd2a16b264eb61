"""Second opinions on the scores of canaries. Each rests on more than the one-run bound does.

| function          | assumes                                                               |
|-------------------|-----------------------------------------------------------------------|
| `clopper_pearson` | that canaries do not disturb each other; a fixed threshold            |
| `gaussian_dp`     | the same, and that the mechanism claims to be mu-Gaussian DP           |
| `two_gaussians`   | that scores are normal; an estimate, not a bound                      |

In return they are much tighter where their assumptions hold.
"""

from __future__ import annotations

import math

import numpy as np

from hansa.privacy.audits.one_run import Coins, Floats


def rates(scores: Floats, coins: Coins, confidence: float) -> tuple[float, float]:
    """True-positive rate from below and false-positive rate from above, for scores above 0.

    Each is a one-sided bound at (1 + confidence) / 2, so that both hold together with the
    confidence (Clopper and Pearson, 1934).
    """
    from scipy.stats import beta

    tail = (1 - confidence) / 2
    inside, outside = int(coins.sum()), int((~coins).sum())
    hits, alarms = int((scores[coins] > 0).sum()), int((scores[~coins] > 0).sum())
    least = float(beta.ppf(tail, hits, inside - hits + 1)) if hits else 0.0
    most = float(beta.ppf(1 - tail, alarms + 1, outside - alarms)) if alarms < outside else 1.0
    return least, most


def clopper_pearson(scores: Floats, coins: Coins, delta: float, confidence: float = 0.95) -> float:
    """The epsilon below which the rates cannot be: TPR <= e^epsilon FPR + delta, and its mirror.

    Args:
      scores: (m,) above 0 where a canary seems to be in; the threshold was fixed beforehand.
      coins: (m,) true where a canary was in.
      delta: of the guarantee that is doubted.
      confidence: of the bound.
    """
    least, most = rates(scores, coins, confidence)
    found = [0.0]
    for odds, against in ((least, most), (1 - most, 1 - least)):
        if odds > delta and against > 0:
            found.append(math.log((odds - delta) / against))
    return max(found)


def gaussian_dp(scores: Floats, coins: Coins, delta: float, confidence: float = 0.99999) -> float:
    """The epsilon at `delta` of the least mu-Gaussian DP that the rates allow.

    mu >= Phi^-1(TPR) - Phi^-1(FPR) (Dong, Roth and Su, 2022; for audits: Nasr et al., USENIX
    Security 2023, arXiv 2302.07956). Its confidence is high because, where noise is exactly what
    is claimed, one in 1 / (1 - confidence) sound mechanisms is found wanting.
    """
    from scipy.stats import norm

    least, most = rates(scores, coins, confidence)
    if not least > 0 or not most < 1:
        return 0.0
    mu = float(norm.ppf(min(least, 1 - 1e-16)) - norm.ppf(most))
    return epsilon_of_mu(mu, delta)


def two_gaussians(scores: Floats, coins: Coins, delta: float) -> float:
    """Epsilon of two normal distributions of scores with a common variance: an estimate.

    mu = (mean in - mean out) / standard deviation, then as `epsilon_of_mu` (Andrew et al., ICLR
    2024, arXiv 2302.03098); inf where scores do not vary at all.
    """
    inside, outside = scores[coins], scores[~coins]
    if len(inside) < 2 or len(outside) < 2:
        return 0.0
    spread = math.sqrt((float(inside.var(ddof=1)) + float(outside.var(ddof=1))) / 2)
    apart = float(inside.mean() - outside.mean())
    if apart <= 0:
        return 0.0
    return epsilon_of_mu(apart / spread, delta) if spread > 0 else math.inf


def epsilon_of_mu(mu: float, delta: float) -> float:
    """Epsilon at `delta` of the Gaussian mechanism with noise of 1 / mu sensitivities.

    From delta(epsilon) = Phi(mu/2 - epsilon/mu) - e^epsilon Phi(-mu/2 - epsilon/mu) (Balle and
    Wang, ICML 2018); inf for mu above 100, where it means nothing.
    """
    from scipy.optimize import brentq
    from scipy.stats import norm

    if mu <= 0:
        return 0.0
    if mu > 100:
        return math.inf

    def rest(epsilon: float) -> float:
        second = np.exp(epsilon + norm.logcdf(-mu / 2 - epsilon / mu))
        return float(norm.cdf(mu / 2 - epsilon / mu) - second) - delta

    if rest(0.0) <= 0:
        return 0.0
    above = 1.0
    while rest(above) > 0:
        above *= 2
    return float(brentq(rest, 0.0, above, xtol=1e-9))
