"""What a client refuses, each by name: in its own log and in the coordinator's."""

from __future__ import annotations

from enum import Enum

from hansa.errors import HansaError


class Fault(Enum):
    """What the other side did wrong."""

    UNEXPECTED = "a message that is not due"
    REPEATED = "a second session for an attempt that was begun before"
    COHORT = "fewer clients than must be summed"
    ORGANISATIONS = "too few different organisations"
    SIZE = "a vector that is larger than allowed"
    MODULUS = "a modulus that is not allowed"
    ASSUMPTIONS = "weaker assumptions than allowed"
    THRESHOLD = "another threshold than follows from the cohort"
    DEGREE = "another degree than follows from the cohort"
    ADVERTS = "adverts that repeat, or in another order than agreed"
    OWN_ADVERT = "my advert was changed or left out"
    NEIGHBOURS = "other neighbours than follow from the adverts"
    SIGNATURE = "an advert that its site did not sign for this session"
    DUPLICATE = "a site or a key that occurs twice"
    SHARES = "shares of a client that is no neighbour"
    TOO_FEW_SHARES = "shares of fewer neighbours than the threshold"
    SEALED = "a sealed share that was changed, swapped or made for another session"
    VECTOR = "a vector of another size, type or range than agreed"
    OVERLAP = "a client both among the survivors and the dropped"
    NOT_SURVIVING = "I sent my update and am not among the survivors"
    UNKNOWN_CLIENT = "a survivor or dropped client that never shared its secrets"
    MISSING_CLIENT = "a client that shared its secrets and is in neither list"
    VOTES = "fewer votes than the threshold for the survivors that I saw"
    SPLIT_VIEW = "a vote for other survivors than I saw"


class Misuse(HansaError):
    """The secure aggregation was not led as agreed; whoever noticed takes no further part in it.

    Args:
      fault: what was noticed.
      detail: the figures, without a secret.
    """

    def __init__(self, fault: Fault, detail: str) -> None:
        super().__init__(
            f"secure aggregation refused ({fault.name.lower().replace('_', ' ')}): "
            f"{fault.value}: {detail}",
            fix="find out why the coordinator did this before taking part again",
        )
        self.fault = fault
