"""Sums up the figures of many runs: python -m tests.chaos.figures FILE."""

from __future__ import annotations

import json
import statistics
import sys
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any


def summary(runs: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """One object for all runs."""
    kept = list(runs)
    resumes = [run["resume"] for run in kept if run["resume"] is not None]
    return {
        "runs": len(kept),
        "killed": dict(Counter(name for run in kept for name in run["victims"])),
        "killed_after_the_end": sum(run["late"] for run in kept),
        "identical_models": sum(run["identical"] is True for run in kept),
        "other_models": sum(run["identical"] is False for run in kept),
        "fresh_noise": sum(run["identical"] is None for run in kept),
        "receipts": sum(run["receipts"] for run in kept),
        "lost": sum(run["lost"] for run in kept),
        "twice": sum(run["twice"] for run in kept),
        "rounds": sum(run["rounds"] for run in kept),
        "charges": sum(run["charges"] for run in kept),
        "resume_median": round(statistics.median(resumes), 2) if resumes else None,
        "resume_max": round(max(resumes), 2) if resumes else None,
        "seconds": round(sum(run["seconds"] for run in kept), 1),
    }


if __name__ == "__main__":
    lines = Path(sys.argv[1]).read_text("utf-8").splitlines()
    print(json.dumps(summary(map(json.loads, lines)), indent=2))
