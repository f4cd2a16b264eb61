"""Hansa: federated learning that is checked before it runs.

    import hansa

    job = hansa.load_job("heart")          # words: from a file, or hansa.Job(...)
    plan = hansa.compile_plan(job)         # proved to fit, or every reason why not
    result = hansa.simulate(job)           # all clients on this machine

Names are loaded when they are first used, so that `import hansa` costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hansa.algorithms import (
        fedadagrad,
        fedadam,
        fedavg,
        fedavgm,
        fedprox,
        fedsgd,
        fedyogi,
    )
    from hansa.core.job import (
        Aggregation,
        Cohort,
        Defend,
        Job,
        Privacy,
        Quantization,
        Rounds,
        SecureAggregation,
    )
    from hansa.core.metrics import AUROC, Accuracy, Better, Calibration, Loss, Outputs, Ratio
    from hansa.core.parts import Examples, Site, Split
    from hansa.core.plan import Plan
    from hansa.errors import HansaError, JobError, JobRefused, PlanError, PlanRefused
    from hansa.jobfile import load_job
    from hansa.recipes import compile_plan
    from hansa.simulation import Result, simulate
    from hansa.work.numpy_task import NumpyTask
    from hansa.work.torch import TorchTask

__version__ = "0.1.0"

__all__ = [
    "AUROC",
    "Accuracy",
    "Aggregation",
    "Better",
    "Calibration",
    "Cohort",
    "Defend",
    "Examples",
    "HansaError",
    "Job",
    "JobError",
    "JobRefused",
    "Loss",
    "NumpyTask",
    "Outputs",
    "Plan",
    "PlanError",
    "PlanRefused",
    "Privacy",
    "Quantization",
    "Ratio",
    "Result",
    "Rounds",
    "SecureAggregation",
    "Site",
    "Split",
    "TorchTask",
    "__version__",
    "compile_plan",
    "fedadagrad",
    "fedadam",
    "fedavg",
    "fedavgm",
    "fedprox",
    "fedsgd",
    "fedyogi",
    "load_job",
    "simulate",
]

_HOMES = {
    "hansa.algorithms": (
        "fedadagrad",
        "fedadam",
        "fedavg",
        "fedavgm",
        "fedprox",
        "fedsgd",
        "fedyogi",
    ),
    "hansa.core.job": (
        "Aggregation",
        "Cohort",
        "Defend",
        "Job",
        "Privacy",
        "Quantization",
        "Rounds",
        "SecureAggregation",
    ),
    "hansa.core.metrics": (
        "AUROC",
        "Accuracy",
        "Better",
        "Calibration",
        "Loss",
        "Outputs",
        "Ratio",
    ),
    "hansa.core.parts": ("Examples", "Site", "Split"),
    "hansa.core.plan": ("Plan",),
    "hansa.errors": ("HansaError", "JobError", "JobRefused", "PlanError", "PlanRefused"),
    "hansa.jobfile": ("load_job",),
    "hansa.recipes": ("compile_plan",),
    "hansa.simulation": ("Result", "simulate"),
    "hansa.work.numpy_task": ("NumpyTask",),
    "hansa.work.torch": ("TorchTask",),
}
_HOME = {name: home for home, names in _HOMES.items() for name in names}


if not TYPE_CHECKING:  # a type checker would take any name for a public one

    def __getattr__(name: str) -> object:
        """A public name, loaded now and remembered (PEP 562)."""
        if name not in _HOME:
            raise AttributeError(f"module 'hansa' has no attribute {name!r}")
        value: object = getattr(import_module(_HOME[name]), name)
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    return sorted(__all__)
