"""What happens to jobs and at sites, in words: events of a coordinator, entries of a site's log.

Rounds have the numbers that records and messages have, from 0. Only names of sites, counts,
public metrics and reasons are told.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any


def event_words(event: Mapping[str, Any]) -> str:
    """One event of a coordinator's audit trail; empty for one that the next event says better."""
    body = event["body"]
    match event["kind"]:
        case "job.submitted":
            return f"{body['name']} is submitted, plan {body['plan_digest'][:16]}"
        case "job.status":
            return f"the job is {body['to']}" + _because(body["reason"])
        case "job.decided":
            verdict = "accepts" if body["accepted"] else "refuses"
            return f"{body['site']} {verdict}" + _because(body["reason"])
        case "job.budget":
            held = "  ".join(f"{name} {urdp:,}" for name, urdp in body["blocks"].items())
            return f"it holds micro-RDP of {held}" if held else body["note"]
        case "round.opened":
            return ""
        case "round.closed":
            return (
                f"{round_words(body)}: {body['counted']} of {body['asked']} in "
                f"{body['seconds']:.2f} s"
                + age_words(body)
                + "".join(f"  {m}" for m in metric_words(body))
            )
        case "round.void":
            return f"{round_words(body)} is void: {body['counted']} of {body['asked']} came"
        case "model.rejected":
            return f"{round_words(body)}: {rejected_words(body, first=0)}"
        case "standing.observed":
            return ""
        case "standing.changed":
            who = f" by {body['by']}" if body["by"] else ""
            return f"{body['client']} is {body['after']}{who}" + _because(body["reason"])
        case kind:
            return f"{kind}  " + "  ".join(f"{k} {v}" for k, v in body.items())


def entry_words(entry: Mapping[str, Any]) -> tuple[str, str]:
    """One entry of a site's log: a word for what it is, and the rest."""
    kind, job = str(entry["kind"]), str(entry.get("job", ""))
    if kind == "verdict":
        return ("accepted" if entry["accepted"] else "refused"), job + _because(entry["reason"])
    if kind == "standing":
        told = f"{job}: {entry['state']}, counts {entry['weight']:g}"
        return kind, told + _because(entry["reason"])
    where = f"{job} {round_words(entry)}"
    if kind == "left":
        parts = ", ".join(f"{name} {size:,}" for name, size in entry["segments"].items())
        hidden = " under a mask" if entry.get("masked") else ""
        return kind, f"{where}: {entry['bytes']:,} bytes{hidden}: {parts}"
    return kind, where + _because(str(entry.get("reason", "")))


def round_words(body: Mapping[str, Any]) -> str:
    """The name of a round; the last one measures the final model and trains nothing."""
    again = f", attempt {body['attempt']}" if body["attempt"] else ""
    return ("evaluate" if body["purpose"] == "evaluate" else f"round {body['round']}") + again


def metric_words(body: Mapping[str, Any]) -> Sequence[str]:
    """`loss 0.4679` and so on; what is not defined is left out."""
    return [f"{n} {v:.4g}" for n, v in body["metrics"].items() if isinstance(v, float)]


def rejected_words(body: Mapping[str, Any], first: int) -> str:
    """Why a model was rejected, and what is gone on from; rounds are numbered from `first`."""
    value, metric = body["value"], body["metric"]
    if isinstance(value, float) and math.isfinite(value):
        best, tolerance = body["best"], body["tolerance"]
        why = f"{metric} {value:.4g} is worse than {best:.4g} by more than {tolerance:g}"
    else:
        why = f"{metric} is no finite number"
    back = body["back"] + first
    return f"the model is rejected: {why}; on from the model that round {back} started from"


def age_words(body: Mapping[str, Any]) -> str:
    """How old the models were that updates came from; empty where rounds wait for all of them."""
    ages = body.get("ages", ())
    if not sum(ages):
        return ""
    mean = sum(age * count for age, count in enumerate(ages)) / sum(ages)
    return f", models {mean:.1f} rounds old"


def without_fix(reason: str) -> str:
    """What happened, without what to do about it."""
    return reason.partition(". Fix: ")[0]


def moment(seconds: float) -> str:
    """A time of this year, in UTC."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%m-%d %H:%M:%S")


def _because(reason: str) -> str:
    return f": {without_fix(reason)}" if reason else ""
