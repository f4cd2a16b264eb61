"""The privacy budget of one run, in memory: for simulation and tests."""

from __future__ import annotations

from hansa.core import events
from hansa.core.round import Charge
from hansa.errors import BudgetExceeded, HansaError


class MemoryLedger:
    """Counts charges against the number of releases that a plan declares.

    A plan's epsilon holds for its declared number of equal releases, fixed in advance. So what
    may be spent is that number of charges, and a void round that is tried again costs one more:
    epsilon never has to be computed while rounds run.

    | charge                                | effect                             |
    |---------------------------------------|------------------------------------|
    | a new private one, allowance left     | reserved                           |
    | a new private one, no allowance left  | BudgetExceeded                     |
    | the same one again                    | nothing                            |
    | not private, or revealing nothing     | recorded, never refused            |
    | committed without being reserved      | HansaError                         |

    Args:
      allowance: number of private charges that may be spent.
    """

    def __init__(self, allowance: int) -> None:
        self.allowance = allowance
        self._committed: dict[Charge, bool] = {}

    @property
    def spent(self) -> int:
        """Private charges so far, committed or set aside; never decreases."""
        return sum(1 for charge in self._committed if _costs(charge))

    @property
    def charges(self) -> tuple[Charge, ...]:
        """All charges that were reserved, in order."""
        return tuple(self._committed)

    def committed(self, charge: Charge) -> bool:
        """Whether the charge was committed."""
        return self._committed.get(charge, False)

    def reserve(self, charge: Charge) -> None:
        """Sets a charge aside before any client is contacted.

        Raises:
          BudgetExceeded: the allowance is used up.
        """
        if charge in self._committed:
            return
        if _costs(charge) and self.spent >= self.allowance:
            raise BudgetExceeded(
                f"all {self.allowance} private releases of job '{charge.job}' are spent, round "
                f"{charge.round} (try {charge.attempt + 1}) would be one more",
                fix="submit a job with more rounds, whose noise is found for all of them",
            )
        self._committed[charge] = False

    def commit(self, charge: Charge) -> None:
        """Spends a charge that was set aside.

        Raises:
          HansaError: it was not.
        """
        if charge not in self._committed:
            raise HansaError(
                f"round {charge.round} of job '{charge.job}' is spent without being reserved",
                fix="reserve each charge before clients are contacted",
            )
        self._committed[charge] = True


def _costs(charge: Charge) -> bool:
    return events.is_private(charge.event) and not isinstance(charge.event, events.NoOp)
