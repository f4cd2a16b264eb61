"""What may follow what in a job's rounds: checks without a database, each raising StoreError."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace

from hansa.coordinator.round_text import number_text, record_text
from hansa.coordinator.rows import Fold, StateRow
from hansa.core.contribute import Purpose
from hansa.core.round import Opening, RoundRecord
from hansa.errors import StoreError

_RESUME = "read the job's state from the store again and go on from there"


def reopened(job: str, stored: Opening, status: str, wanted: Opening) -> Opening:
    """How an open round was begun; raises if it is over or began from another model."""
    name = f"round {stored.round}, attempt {stored.attempt} of job '{job}'"
    if status != "open":
        raise StoreError(f"{name} is over ({status}): it cannot be opened again", fix=_RESUME)
    if stored.model != wanted.model:
        raise StoreError(f"{name} began from another model than is now at hand", fix=_RESUME)
    return stored


def check_follows(job: str, initial: str, before: StateRow | None, opening: Opening) -> None:
    """Raises unless the round is the next one and its model the head of the lineage."""
    head = initial if before is None else before.model_sha256
    due = (0, 0) if before is None else (before.round, before.attempt)
    if (opening.round, opening.attempt) != due:
        raise StoreError(
            f"round {opening.round}, attempt {opening.attempt} of job '{job}' is not due: "
            f"round {due[0]}, attempt {due[1]} is",
            fix=_RESUME,
        )
    if opening.model != head:
        raise not_head(job, opening)
    if len(set(opening.cohort)) != len(opening.cohort):
        raise StoreError("a client is in the cohort twice", fix="draw each client once")


def not_head(job: str, opening: Opening) -> StoreError:
    """The model that a round started from is not the newest one of the job."""
    return StoreError(
        f"model {opening.model[:16]} is not the head of the lineage of job '{job}'", fix=_RESUME
    )


def never_opened(job: str, record: RoundRecord) -> StoreError:
    """A record names a round that the store has not begun."""
    return StoreError(
        f"round {record.round}, attempt {record.attempt} of job '{job}' was never opened",
        fix="open it first",
    )


def check_joins(opening: Opening, before: Fold | None, fold: Fold) -> None:
    """Raises unless a fold adds new members of the cohort to the fold before."""
    last = 0 if before is None else before.generation
    if fold.generation <= last:
        raise StoreError(
            f"generation {fold.generation} of the sum does not follow {last}",
            fix="read the last fold from the store and count up from there",
        )
    times = Counter(fold.members if before is None else before.members + fold.members)
    twice = {member for member, count in times.items() if count > 1}
    if twice:
        raise StoreError(
            f"{_some(twice)} would be counted twice",
            fix="answer an update that is durable already without adding it again",
        )
    strangers = frozenset(fold.members) - frozenset(opening.cohort)
    if strangers:
        raise StoreError(
            f"{_some(strangers)} was never asked in this round",
            fix="check each update's sender against the cohort",
        )
    if fold.receipts and len(fold.receipts) != len(fold.members):
        raise StoreError("receipts and members differ in number", fix="give one for each, or none")


def last_fold(opening: Opening, before: Fold | None, receipts: Mapping[str, str]) -> Fold | None:
    """What joins as a round is closed: a fold whose sum lies nowhere, since the state holds it.

    Args:
      opening: the round.
      before: the last durable sum.
      receipts: of everybody in the state, by client.

    Returns:
      None if everybody is durable already.

    Raises:
      StoreError: another update of a client is durable, or it was never asked.
    """
    known = {} if before is None else dict(zip(before.members, before.receipts, strict=False))
    changed = {
        client for client, receipt in receipts.items() if known.get(client, receipt) != receipt
    }
    if changed:
        raise StoreError(f"{_some(changed)} counts with another update already", fix=_RESUME)
    durable = frozenset(() if before is None else before.members)
    new = {client: receipt for client, receipt in receipts.items() if client not in durable}
    if not new:
        return None
    generation = 1 if before is None else before.generation + 1
    fold = Fold(generation, 0, "", tuple(new), tuple(new.values()))
    check_joins(opening, before, fold)
    return fold


def check_repeats(before: Fold, joined: frozenset[str], fold: Fold) -> None:
    """Raises unless a fold of the stored generation is the stored one."""
    if fold.place != before.place or frozenset(fold.members) != joined:
        raise StoreError(
            f"generation {fold.generation} of the sum was committed with other members or bytes",
            fix="read the last fold from the store and count up from there",
        )


def check_same(job: str, stored: RoundRecord, record: RoundRecord) -> None:
    """Raises unless both records say the same; how long it took may differ."""
    if _without_seconds(stored) != _without_seconds(record):
        raise StoreError(
            f"round {record.round}, attempt {record.attempt} of job '{job}' is closed with another "
            "result",
            fix=_RESUME,
        )


def check_record(
    job: str, opening: Opening, durable: Sequence[str] | None, record: RoundRecord
) -> None:
    """Raises unless a record is about the round that was opened and the members that are durable.

    Args:
      job: whose round it is.
      opening: how it was begun.
      durable: members of its last fold; None if its engine makes no durable sums.
      record: what is claimed about it.
    """
    name = f"the record of round {opening.round}, attempt {opening.attempt} of job '{job}'"
    members = frozenset(record.members)
    if record.cohort != opening.cohort:
        raise StoreError(f"{name} has another cohort than was drawn", fix=_RESUME)
    if len(members) != len(record.members) or not members <= frozenset(record.cohort):
        raise StoreError(
            f"{name} counts a client twice, or one that was not asked", fix="count each once"
        )
    if durable is not None and members != frozenset(durable):
        raise StoreError(
            f"{name} counts {len(members)} members where {len(durable)} are durable",
            fix="commit the last fold before the round is closed, and count everybody in it",
        )


def check_next(
    job: str, opening: Opening, before: StateRow | None, record: RoundRecord, after: StateRow
) -> None:
    """Raises unless the state after a round follows from what the round was."""
    trained = opening.purpose is Purpose.TRAIN and not record.void
    if record.void:
        due = (opening.round, opening.attempt + 1)
    else:
        due = (opening.round + 1 if trained else opening.round, 0)
    if (after.round, after.attempt) != due:
        raise StoreError(
            f"after this round of job '{job}' round {due[0]}, attempt {due[1]} is due, not round "
            f"{after.round}, attempt {after.attempt}",
            fix="count rounds that count, and attempts of rounds that are void",
        )
    if record.model != after.model_sha256:
        raise StoreError(
            f"the record and the state of job '{job}' name different models", fix=_RESUME
        )
    if record.rejected is not None:
        _check_back(job, before, record, after)
    elif not trained and record.model != opening.model:
        raise StoreError(
            f"a round of job '{job}' that trained nothing changed the model",
            fix="keep the model when a round is void or only measures",
        )
    _check_accepted(job, opening, before, after)
    if before is not None and record.void and _metrics(after) != _metrics(before):
        raise StoreError(
            f"a void round of job '{job}' changed what is known about the model",
            fix="keep the state when a round is void",
        )


def _check_back(job: str, before: StateRow | None, record: RoundRecord, after: StateRow) -> None:
    """Raises unless a round that rejects its model goes back to the accepted one, whole."""
    accepted = None if before is None else before.accepted
    if record.void or accepted is None:
        raise StoreError(
            f"a round of job '{job}' rejects a model, and has measured none or has none to go "
            "back to",
            fix="reject a model only by what was measured of it",
        )
    back = (after.model_sha256, after.server_sha256s, number_text(after.clip))
    if back != (accepted.model_sha256, accepted.server_sha256s, number_text(accepted.clip)):
        raise StoreError(
            f"job '{job}' goes back to another model than the last accepted one", fix=_RESUME
        )
    if after.accepted != accepted:
        raise StoreError(
            f"a round of job '{job}' that rejects a model accepts one, too",
            fix="keep the accepted model when another one is rejected",
        )


def _check_accepted(job: str, opening: Opening, before: StateRow | None, after: StateRow) -> None:
    """Raises unless the accepted model is the one before, or the one that the round started from.

    The first round has none before it: what it started from is the first accepted model.
    """
    accepted = after.accepted
    if before is not None and accepted == before.accepted:
        return
    judges = before is None or before.accepted is not None
    if not judges or (accepted is not None and accepted.model_sha256 != opening.model):
        raise StoreError(
            f"job '{job}' accepts a model that this round did not start from", fix=_RESUME
        )
    if before is not None and accepted is None:
        raise StoreError(f"job '{job}' has lost its accepted model", fix=_RESUME)


def _without_seconds(record: RoundRecord) -> str:
    return record_text(replace(record, seconds=0.0))


def _metrics(state: StateRow) -> tuple[object, ...]:
    clip, best = number_text(state.clip), number_text(state.best)
    return state.server_sha256s, best, state.stale, clip, state.accepted


def _some(names: frozenset[str] | set[str]) -> str:
    first, rest = min(names), len(names) - 1
    return f"client '{first}'" + (f" and {rest} more" if rest else "")
