"""Rows of the matrix: outcomes over seeds, beside the same rule and the plain mean unattacked."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from hansa.redteam.cell import Cell, Outcome
from hansa.redteam.measures import LEAST, Counts, added, worst

NONE = "none"


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One attack, share, skew and rule. Numbers are shares from 0 to 1, means over the seeds.

    Attributes:
      attack: its name; none: nobody is bad.
      share: of the clients that are bad.
      skew: name of the division.
      rule: words of the rule.
      seeds: how many runs this is the mean of.
      accuracy: on all held-out examples of all clients.
      attack_success: of an attack that wants an answer (flipped labels, backdoors): held-out
        examples that get it, of those that could; of any other: what is lost of the accuracy that
        the same rule has with nobody bad. None with nobody bad.
      success_by_itself: of an attack that wants an answer, how often the model with nobody bad
        gives it; None for any other.
      detected: bad clients that were quarantined at the end; None where nothing looks at single
        updates.
      false_positives: honest clients that were quarantined at the end.
      minority_false_positives: the same among the honest clients of the minority.
      worst_site: accuracy of the honest client with the lowest one, among those with 5 held-out
        examples or more.
      worst_class: the same over classes.
      worst_cohort: the same over the task's cohorts; None if it names none.
      worst_group: the smallest of the three.
      site_spread: standard deviation of the accuracy over honest clients with 5 or more.
      minority: accuracy on the held-out examples of honest clients whose mixes of classes are
        least like the others'.
      minority_cost: how much lower that is than with the plain mean and nobody bad; it may be
        negative.
      ended: why training ended early in one of the runs; empty if none did.
      sites: accuracy by honest client.
      classes: accuracy by class.
      cohorts: accuracy by cohort.
    """

    attack: str
    share: float
    skew: str
    rule: str
    seeds: int
    accuracy: float | None
    attack_success: float | None
    success_by_itself: float | None
    detected: float | None
    false_positives: float | None
    minority_false_positives: float | None
    worst_site: float | None
    worst_class: float | None
    worst_cohort: float | None
    worst_group: float | None
    site_spread: float | None
    minority: float | None
    minority_cost: float | None
    ended: str
    sites: Mapping[str, float] = field(repr=False)
    classes: Mapping[str, float] = field(repr=False)
    cohorts: Mapping[str, float] = field(repr=False)

    def to_json(self) -> dict[str, Any]:
        """As it is printed."""
        return asdict(self)


def rows_of(outcomes: Mapping[Cell, Outcome]) -> list[Row]:
    """One row for each attack, share, skew and rule, in the order of the outcomes."""
    groups: dict[tuple[str, float, str, str], list[Cell]] = {}
    for cell in outcomes:
        groups.setdefault((cell.attack, cell.share, cell.skew, cell.rule), []).append(cell)
    return [_row(cells, outcomes) for cells in groups.values() if cells[0].rule != ""]


def _row(cells: Sequence[Cell], outcomes: Mapping[Cell, Outcome]) -> Row:
    first = cells[0]
    found = [outcomes[cell] for cell in cells]
    clean = [outcomes[_clean(cell, cell.rule)] for cell in cells]
    plain = [outcomes[_clean(cell, "")] for cell in cells]

    def over(measured: Callable[[Outcome], float | None]) -> float | None:
        return mean(measured(outcome) for outcome in found)

    success = [_success(first, *pair) for pair in zip(found, clean, strict=True)]
    minority = [o.worth.over(_few(o)) for o in found]
    before = [p.worth.over(_few(o)) for o, p in zip(found, plain, strict=True)]
    worst_site = over(lambda o: worst(_honest(o).values()))
    worst_class = over(lambda o: worst(o.worth.classes.values()))
    worst_cohort = over(lambda o: worst(o.worth.cohorts.values()))
    groups = (worst_site, worst_class, worst_cohort)
    return Row(
        attack=first.attack,
        share=first.share,
        skew=first.skew,
        rule=first.rule,
        seeds=len(cells),
        accuracy=over(lambda o: o.worth.accuracy),
        attack_success=mean(success),
        success_by_itself=over(lambda o: None if o.by_itself is None else o.by_itself.share),
        detected=over(lambda o: _share_in(o.bad, o)),
        false_positives=over(lambda o: _share_in(_honest(o), o)),
        minority_false_positives=over(lambda o: _share_in(_few(o), o)),
        worst_site=worst_site,
        worst_class=worst_class,
        worst_cohort=worst_cohort,
        worst_group=min((v for v in groups if v is not None), default=None),
        site_spread=over(lambda o: _spread(_honest(o).values())),
        minority=mean(minority),
        minority_cost=mean(_less(a, b) for a, b in zip(before, minority, strict=True)),
        ended=next((o.ended for o in found if o.ended), ""),
        sites=_by_name(_honest(o) for o in found),
        classes=_by_name(o.worth.classes for o in found),
        cohorts=_by_name(o.worth.cohorts for o in found),
    )


def _clean(cell: Cell, rule: str) -> Cell:
    """The same run with nobody bad; of the plain mean for the rule that has no name."""
    return Cell(NONE, 0.0, cell.skew, rule, cell.seed)


def _success(cell: Cell, found: Outcome, clean: Outcome) -> float | None:
    if not cell.share:
        return None
    if found.worth.hits is not None:
        return found.worth.hits.share
    before, after = clean.worth.accuracy, found.worth.accuracy
    if not before or after is None:
        return None
    return max(0.0, (before - after) / before)


def _share_in(clients: Collection[str], outcome: Outcome) -> float | None:
    """Share of some clients that were quarantined."""
    if outcome.quarantined is None or not clients:
        return None
    return sum(client in outcome.quarantined for client in clients) / len(clients)


def _few(outcome: Outcome) -> list[str]:
    """The honest clients of the minority."""
    return sorted(outcome.minority - outcome.bad)


def _honest(outcome: Outcome) -> dict[str, Counts]:
    return {site: c for site, c in outcome.worth.sites.items() if site not in outcome.bad}


def _spread(groups: Iterable[Counts]) -> float | None:
    """Standard deviation of the accuracies of groups that have enough examples."""
    known = [c.right / c.of for c in groups if c.of >= LEAST]
    if not known:
        return None
    middle = sum(known) / len(known)
    return float((sum((value - middle) ** 2 for value in known) / len(known)) ** 0.5)


def _by_name(groups: Iterable[Mapping[str, Counts]]) -> dict[str, float]:
    """Accuracy by name, over the runs in which the name occurs."""
    gathered: dict[str, list[Counts]] = {}
    for counts in groups:
        for name, c in counts.items():
            gathered.setdefault(name, []).append(c)
    shares = {name: added(listed).share for name, listed in gathered.items()}
    return {name: share for name, share in shares.items() if share is not None}


def _less(before: float | None, after: float | None) -> float | None:
    return None if before is None or after is None else before - after


def mean(values: Iterable[float | None]) -> float | None:
    """Of the values that are known; None if there are none."""
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None
