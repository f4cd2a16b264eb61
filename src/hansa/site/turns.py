"""When updates of this site left, job by job: the only count that a coordinator cannot change.

Two promises of a plan are about how often one client takes part, and a coordinator that lies could
break both without being noticed by anybody else:

| plan                                 | what this site makes sure of                              |
|--------------------------------------|-----------------------------------------------------------|
| `cohort.separation` = b              | after an update for round r left, the next one leaves for |
|                                      | round r + b at the earliest, or for r itself, tried again |
| `privacy.mechanism` = local, dpsgd   | no more updates leave than the plan's epsilon is for      |
"""

from __future__ import annotations

import json
import threading
from pathlib import Path

from hansa.core.plan import Plan
from hansa.errors import HansaError, PolicyRefused
from hansa.site.memory import remember

NAME = "turns.json"

KEPT = 10_000
"""Jobs that are remembered; a job that old has ended."""

Turn = tuple[int, str, int]
"""Of one job: the last round for which an update left, its purpose, and how many left in all."""


class Turns:
    """The last turn of each job, in one small file that is replaced as one step.

    Args:
      folder: the site's folder.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / NAME
        self._lock = threading.Lock()
        self._last = _read(self._path)

    def check(self, plan: Plan, job: str, purpose: str, number: int) -> None:
        """Whether an update of a round may leave.

        Raises:
          PolicyRefused: it comes too soon after the last one, or too many left already.
        """
        last, before, count = self._last.get(job, (-1, "", 0))
        separation = plan.job.cohort.separation
        again = (number, purpose) == (last, before)
        if separation and count and not again and number < last + separation:
            raise PolicyRefused(
                f"the coordinator asks for round {number} of job {job}, and an update for round "
                f"{last} has left: the plan says at least {separation} rounds from one to the next",
                fix="find out why the coordinator does not keep to the plan that it agreed on",
            )
        if _counted(plan) and count >= plan.charges:
            raise PolicyRefused(
                f"{count} updates of job {job} have left, and the plan's epsilon is for "
                f"{plan.charges}",
                fix="submit the job with more rounds, which takes more noise",
            )

    def take(self, plan: Plan, job: str, purpose: str, number: int) -> None:
        """Remembers a turn before the update leaves. What left once stays counted.

        Raises:
          PolicyRefused: it may not leave.
          StoreError: it cannot be written down, so nothing may leave.
        """
        if not plan.job.cohort.separation and not _counted(plan):
            return
        with self._lock:  # two jobs may be packed at the same time
            self.check(plan, job, purpose, number)
            _, _, count = self._last.pop(job, (-1, "", 0))
            self._last[job] = (number, purpose, count + 1)
            while len(self._last) > KEPT:
                del self._last[next(iter(self._last))]
            remember(self._path, self._last, "the turn")


def _counted(plan: Plan) -> bool:
    """Whether each update is released by itself, so that the plan's epsilon is for so many."""
    return plan.job.privacy.mechanism in ("local", "dpsgd")


def _read(path: Path) -> dict[str, Turn]:
    try:
        content = json.loads(path.read_text("utf-8"))
        return {str(k): (int(v[0]), str(v[1]), int(v[2])) for k, v in content.items()}
    except FileNotFoundError:
        return {}
    except (ValueError, TypeError, IndexError, AttributeError, KeyError) as error:
        raise HansaError(
            f"{path} cannot be read ({type(error).__name__})",
            fix="restore it; without it, a coordinator could ask this site too often",
        ) from error
