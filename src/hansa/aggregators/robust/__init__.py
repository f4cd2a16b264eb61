"""Robust centres: rules as pure functions of all updates, and the rules that jobs use as parts.

A rule takes n updates of d coordinates and gives one vector (or as many mixed ones) that a minority
of bad updates cannot move far. `docs/robust-rules.md` says which needs what and bears what.
"""

from hansa.aggregators.robust.by_coordinate import median, trimmed_mean
from hansa.aggregators.robust.by_distance import bulyan, krum, multi_krum
from hansa.aggregators.robust.centres import centered_clipping, geometric_median
from hansa.aggregators.robust.mixing import bucketing, nearest_neighbor_mixing
from hansa.aggregators.robust.parts import Median, TrimmedMean, dropped, fill
from hansa.aggregators.robust.rule import FLTrust, Robust
from hansa.aggregators.robust.similarity import flame, fltrust, foolsgold
from hansa.aggregators.robust.spectral import dnc

__all__ = [
    "FLTrust",
    "Median",
    "Robust",
    "TrimmedMean",
    "bucketing",
    "bulyan",
    "centered_clipping",
    "dnc",
    "dropped",
    "fill",
    "flame",
    "fltrust",
    "foolsgold",
    "geometric_median",
    "krum",
    "median",
    "multi_krum",
    "nearest_neighbor_mixing",
    "trimmed_mean",
]
