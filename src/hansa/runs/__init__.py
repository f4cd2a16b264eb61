"""Experiments: a folder for each run, going on after a kill, sweeps, comparisons, tracking.

simulate(job, keeper=Recorder(...)) ──► a run's folder ──► compare, chart, tracking server
                 ▲                            │
                 └──── Recorder.resume ◄──────┘

sweep: one folder of such folders, each prepared and checked before the first one runs
"""

from __future__ import annotations

from hansa.runs.journal import Pace
from hansa.runs.recorder import Recorder
from hansa.runs.source import Source

__all__ = ["Pace", "Recorder", "Source"]
