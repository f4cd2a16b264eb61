"""What a masked round is about: the same words on both sides, each from its own knowledge."""

from __future__ import annotations

from hansa.core.contribute import Purpose
from hansa.core.plan import Plan
from hansa.core.vector import Layout
from hansa.secagg.session import Session
from hansa.stages.mask import Mask


def session_of(
    plan: Plan,
    mask: Mask,
    purpose: Purpose,
    place: tuple[int, int],
    model: str,
    *,
    federation: str,
    job: str,
    nonce: bytes = bytes(32),
) -> Session:
    """The session of a round, as whoever asks knows the round.

    Args:
      plan: the plan that this party compiled.
      mask: the plan's own stage.
      purpose: of the round.
      place: number of the round and of the attempt.
      model: SHA-256 of the parameters that this party holds.
      federation: its name.
      job: the job's id.
      nonce: 32 bytes of the coordinator's.
    """
    return Session(
        federation=federation,
        job=job,
        purpose=purpose.value,
        round=place[0],
        attempt=place[1],
        plan=plan.digest,
        model=model,
        size=layout_of(plan, purpose).size,
        bits=plan.facts["weight"].bits,
        cohort=plan.quorum,
        rule=mask.rule,
        nonce=nonce.hex(),
    )


def layout_of(plan: Plan, purpose: Purpose) -> Layout:
    """Segments of a round's updates: a measurement has no delta."""
    return plan.layout if purpose is Purpose.TRAIN else plan.layout.without("delta")
