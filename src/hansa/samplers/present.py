"""What every sampler checks: how many clients were planned for, and who of them is there."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from hansa.errors import HansaError, PlanError


def check_population(part: object, population: int) -> None:
    """Raises PlanError if a sampler has nobody to draw."""
    if population < 1:
        raise PlanError(part, "there is nobody to draw", "set cohort.population to at least 1")


def check_present(population: Sequence[str], planned: int) -> None:
    """Raises HansaError if more clients are there than the plan was made for."""
    if len(population) > planned:
        raise HansaError(
            f"{len(population):,} clients are there, the plan was made for at most {planned:,}",
            fix=f"set cohort.population = {len(population)} and compile the job again",
        )


def present(population: Sequence[str], drawn: NDArray[np.int64]) -> tuple[str, ...]:
    """Who is there among the places that were drawn, in the population's order."""
    return tuple(population[i] for i in np.sort(drawn).tolist() if i < len(population))
