"""What one run of the protocol is about; hashed into every key, tag and signature of it.

Two parties that differ in a single word of it share no key: their masks do not cancel. That is why
the hash of the model is in it: masks cancel only between clients that trained on the same model,
so a coordinator that hands out different ones learns nothing (Pasquini et al., CCS 2022).
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field

from hansa.core import canonical
from hansa.secagg.parameters import Rule, Scheme


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """One attempt at one masked sum.

    Attributes:
      federation: the federation.
      job: the job's id.
      purpose: train or evaluate.
      round: number of the round, from 0.
      attempt: number of the try at this round, from 0; no attempt is begun twice.
      plan: digest of the plan.
      model: SHA-256 of the parameters that the clients trained on.
      size: ring elements of a vector.
      bits: modulus 2**bits.
      cohort: fewest clients whose sum may be revealed.
      rule: what is assumed about the cohort.
      nonce: 32 random bytes of the coordinator, in hexadecimal.
      digest: hash of all that; made here.
    """

    federation: str
    job: str
    purpose: str
    round: int
    attempt: int
    plan: str
    model: str
    size: int
    bits: int
    cohort: int
    rule: Rule
    nonce: str
    digest: bytes = field(init=False, repr=False, compare=False, metadata={"words": False})

    def __post_init__(self) -> None:
        text = "hansa/secagg/session/1\0" + canonical.dumps(self)
        object.__setattr__(self, "digest", hashlib.sha256(text.encode("ascii")).digest())

    def context(self, scheme: Scheme, root: bytes) -> bytes:
        """The hash (32 bytes) that everything after the adverts is bound to.

        Args:
          scheme: the graph's degree and the threshold.
          root: hash over all adverts of the cohort.
        """
        words = f"{scheme.clients}/{scheme.degree}/{scheme.threshold}".encode("ascii")
        return hashlib.sha256(b"hansa/secagg/context/1\0" + self.digest + root + words).digest()
