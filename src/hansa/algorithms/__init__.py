"""Federated optimisation, one algorithm per file, and how each is named in a job."""

from __future__ import annotations

from hansa.algorithms.fedadagrad import fedadagrad
from hansa.algorithms.fedadam import fedadam
from hansa.algorithms.fedavg import fedavg
from hansa.algorithms.fedavgm import fedavgm
from hansa.algorithms.fedprox import fedprox
from hansa.algorithms.fedsgd import fedsgd
from hansa.algorithms.fedyogi import fedyogi
from hansa.algorithms.words import ALGORITHMS, build_algorithm, words_of

__all__ = [
    "ALGORITHMS",
    "build_algorithm",
    "fedadagrad",
    "fedadam",
    "fedavg",
    "fedavgm",
    "fedprox",
    "fedsgd",
    "fedyogi",
    "words_of",
]
