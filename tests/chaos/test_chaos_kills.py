"""Ten runs of a federation in which one process is killed with SIGKILL and started again.

The long form is `test_chaos_soak.py`. What must be true of every run is in `evidence.py`.
"""

from __future__ import annotations

from pathlib import Path

from tests.chaos.arena import COORDINATOR, arena, plain_job, private_job
from tests.chaos.cases import Case, at_random, run, undisturbed

ROUNDS = 3
LONGEST = 0.2

CASES = (
    Case(0, plain_job, ROUNDS, (COORDINATOR,), "opened", 2),
    Case(1, plain_job, ROUNDS, (COORDINATOR,), "folded", 6),
    Case(2, plain_job, ROUNDS, (COORDINATOR,), "synced", 4),
    Case(3, plain_job, ROUNDS, (COORDINATOR,), "committed", 3),
    Case(4, private_job, ROUNDS, (COORDINATOR,), "put", 2),
    Case(5, plain_job, ROUNDS, (COORDINATOR,), "closed", ROUNDS + 1),
    Case(6, plain_job, ROUNDS, ("va",), "left", 2),
    at_random(7, ROUNDS, LONGEST),
    at_random(14, ROUNDS, LONGEST),
    Case(9, plain_job, ROUNDS, (COORDINATOR, "cleveland"), count=3, delay=0.1),
)
"""After a round is opened; after a fold; on the disk and not in the store; in the store, with no
receipt yet; drawn and not closed; the last one closed, with nobody told; and sites."""


def test_ten_kills_change_nothing(tmp_path: Path) -> None:
    with arena(tmp_path, pace="slow") as here:
        undisturbed(here, plain_job, 0, ROUNDS)
        for case in CASES:
            print(case)  # shown if the run fails
            run(here, case)
