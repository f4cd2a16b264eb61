"""What a masked round is about: the same words on both sides, each from its own knowledge."""

from __future__ import annotations

from hansa.core.contribute import RoundTask
from hansa.secagg.session import Session
from hansa.stages.mask import Mask

NO_NONCE = "00" * 32


def session_of(
    task: RoundTask, mask: Mask, *, federation: str, job: str, nonce: str = NO_NONCE
) -> Session:
    """The session of a round, as whoever asks knows the round.

    Args:
      task: the round, with the plan that this party compiled and the model that it holds.
      mask: the plan's own stage.
      federation: its name.
      job: the job's id.
      nonce: 32 bytes of the coordinator's, in hexadecimal.
    """
    return Session(
        federation=federation,
        job=job,
        purpose=task.purpose.value,
        round=task.round,
        attempt=task.attempt,
        plan=task.plan.digest,
        model=task.model,
        size=task.layout.size,
        bits=task.plan.facts["weight"].bits,
        cohort=task.plan.quorum,
        rule=mask.rule,
        nonce=nonce,
    )
