"""What goes into the coordinator's store and comes out of it: plain facts, one record each.

Times are seconds since the epoch in UTC. SHA-256 values are 64 hexadecimal digits.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from hansa.core.canonical import Json
from hansa.core.round import Opening

# ------------------------------------------------------------------ who takes part


@dataclass(frozen=True, slots=True)
class Invite:
    """The right to enrol one site, once.

    Attributes:
      token_hash: SHA-256 of the secret token; the token itself is never stored.
      site: name of the site that may enrol.
      organisation: who runs it.
      role: what its certificate will allow.
      created: when the invite was made.
      expires: first moment at which it is no longer good.
      ca_fingerprint: SHA-256 of the authority's certificate that the site pins.
      used: when it was burnt; None while it is good.
    """

    token_hash: str = field(repr=False)
    site: str
    organisation: str
    role: str
    created: float
    expires: float
    ca_fingerprint: str
    used: float | None = None


@dataclass(frozen=True, slots=True)
class Certificate:
    """A certificate that was issued to a site.

    Attributes:
      serial: the certificate's serial number in hexadecimal.
      site: whose it is.
      not_before: first moment of validity.
      not_after: last moment of validity.
      public_key_sha256: SHA-256 of the public key.
    """

    serial: str
    site: str
    not_before: float
    not_after: float
    public_key_sha256: str


@dataclass(frozen=True, slots=True)
class Revocations:
    """What is refused, whatever its certificate says."""

    sites: frozenset[str]
    serials: frozenset[str]


@dataclass(frozen=True, slots=True)
class SiteRow:
    """One enrolled site.

    Attributes:
      name: its name in the federation.
      organisation: who runs it.
      enrolled: when it enrolled first.
      last_seen: when it was last heard of; None if never.
      revoked: when it was shut out; None if it is welcome.
    """

    name: str
    organisation: str
    enrolled: float
    last_seen: float | None
    revoked: float | None


@dataclass(frozen=True, slots=True)
class Operator:
    """A person or a program at the people's door."""

    name: str
    role: str


# ------------------------------------------------------------------ jobs


class Status(StrEnum):
    """Where a job is in its life."""

    SUBMITTED = "submitted"
    OFFERED = "offered"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"
    REFUSED = "refused"

    @property
    def final(self) -> bool:
        """Whether nothing follows."""
        return not TRANSITIONS[self]


_ENDS = frozenset({Status.FAILED, Status.CANCELLED, Status.REFUSED})

TRANSITIONS: Mapping[Status, frozenset[Status]] = {
    Status.SUBMITTED: frozenset({Status.OFFERED}) | _ENDS,
    Status.OFFERED: frozenset({Status.RUNNING}) | _ENDS,
    Status.RUNNING: frozenset({Status.RUNNING, Status.DONE}) | _ENDS,
    Status.DONE: frozenset(),
    Status.FAILED: frozenset(),
    Status.CANCELLED: frozenset(),
    Status.REFUSED: frozenset(),
}
"""What may follow what. A restarted coordinator may say RUNNING again."""


@dataclass(frozen=True, slots=True)
class JobRow:
    """A submitted job.

    Attributes:
      id: identifier of this run of the job.
      name: the job's own name.
      created: when it was submitted.
      status: where it is in its life.
      words_json: the job's words, canonical JSON.
      facts_json: what is known of its task, canonical JSON.
      plan_digest: digest of its plan.
      bundle_sha256: content address of the task bundle.
      initial_sha256: SHA-256 of the first parameters: the root of the job's lineage of models.
      reason: why it has this status, in words.
      bundle_signature: who signed the bundle, and how; empty if nobody did.
    """

    id: str
    name: str
    created: float
    status: Status
    words_json: str
    facts_json: str
    plan_digest: str
    bundle_sha256: str
    initial_sha256: str
    reason: str = ""
    bundle_signature: str = ""


@dataclass(frozen=True, slots=True)
class Decision:
    """What a site said to a job.

    Attributes:
      job: the job's identifier.
      site: who decided.
      accepted: whether the site will take part.
      reason: why, in the site's words.
      digest: digest of the plan that the site compiled.
      now: when.
    """

    job: str
    site: str
    accepted: bool
    reason: str
    digest: str
    now: float


# ------------------------------------------------------------------ rounds


@dataclass(frozen=True, slots=True)
class OpenRound:
    """The round of a job that has begun and has not ended, and when it began."""

    opening: Opening
    opened: float


@dataclass(frozen=True, slots=True)
class Slot:
    """A sum that is durable, and where it lies.

    Attributes:
      generation: how often the sum has been made durable in this round, from 1.
      slot: which of the accumulator's two files.
      checksum: CRC-32 of its bytes, 8 hexadecimal digits; empty if the sum lies nowhere, since it
        is in the state that its round ended with.
    """

    generation: int
    slot: int
    checksum: str


@dataclass(frozen=True, slots=True)
class Fold:
    """A durable sum and whose updates are in it.

    Attributes:
      generation: see `Slot`.
      slot: see `Slot`.
      checksum: see `Slot`.
      members: handed in: the clients that joined since the last commit; handed out: everybody in
        the sum, in the order in which they joined.
      receipts: one text for each member, such as the SHA-256 of its update, so that it can be
        answered when it sends again; or empty.
    """

    generation: int
    slot: int
    checksum: str
    members: tuple[str, ...]
    receipts: tuple[str, ...] = ()

    @property
    def place(self) -> Slot:
        """Where the sum lies."""
        return Slot(self.generation, self.slot, self.checksum)


@dataclass(frozen=True, slots=True)
class AcceptedRow:
    """The last accepted model of a job that judges its models, and what belongs to it.

    Attributes:
      round: the first round that started from it.
      model_sha256: the parameters.
      server_sha256s: the server optimizer's vectors.
      clip: norm bound of the round that started from it, where it adapts.
    """

    round: int
    model_sha256: str
    server_sha256s: tuple[str, ...]
    clip: float | None = None


@dataclass(frozen=True, slots=True)
class StateRow:
    """What the next round of a job starts from; vectors are named by their content.

    Attributes:
      round: the next round.
      attempt: how often it was void.
      model_sha256: the parameters, head of the job's lineage.
      server_sha256s: the server optimizer's vectors.
      best: best value of the watched metric.
      stale: measurements since then.
      clip: norm bound of the next round, where it adapts.
      accepted: what is gone back to if the model is rejected; None where models are not judged.
    """

    round: int
    attempt: int
    model_sha256: str
    server_sha256s: tuple[str, ...]
    best: float | None
    stale: int
    clip: float | None = None
    accepted: AcceptedRow | None = None


# ------------------------------------------------------------------ trails


@dataclass(frozen=True, slots=True)
class Head:
    """The end of a hash chain: whoever keeps it notices a rewritten or shortened chain."""

    seq: int
    hash: str


@dataclass(frozen=True, slots=True)
class EventRow:
    """One entry of the audit trail.

    Attributes:
      seq: its place, from 1.
      job: the job that it is about; None if it is about the federation.
      kind: what happened, such as `round.closed`.
      body: the particulars; nothing of a single client's data.
      time: when.
      hash: end of the chain up to here.
    """

    seq: int
    job: str | None
    kind: str
    body: dict[str, Json]
    time: float
    hash: str


@dataclass(frozen=True, slots=True)
class LedgerRow:
    """One entry of a job's privacy ledger: a charge reserved or committed."""

    seq: int
    kind: str
    purpose: str
    round: int
    attempt: int
    event: Json
    time: float
    hash: str


@dataclass(frozen=True, slots=True)
class BudgetRow:
    """One entry of the log of all privacy budgets.

    Attributes:
      seq: its place in the chain, from 1.
      entry: its canonical JSON, see `hansa.budget.entry.Entry`.
      hash: end of the chain up to here.
    """

    seq: int
    entry: str
    hash: str


@dataclass(frozen=True, slots=True)
class Cosignature:
    """A site's word that it has seen the budgets' chain end so.

    Attributes:
      site: who says it.
      seq: entries that the chain had.
      hash: its end then.
      signature: of the site's signing key, 128 hexadecimal digits.
      time: when it came.
    """

    site: str
    seq: int
    hash: str
    signature: str
    time: float


@dataclass(frozen=True, slots=True)
class Lease:
    """The right to be the one coordinator of a store.

    Attributes:
      owner: who holds it, in words.
      epoch: grows with each holder: writes of an earlier one are refused.
    """

    owner: str
    epoch: int
