"""Scores, standings and transitions as JSON, and back: what is kept, shown and counted again."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from hansa.core.canonical import Json
from hansa.defend.groups import Evidence, GroupScore, GroupScores
from hansa.defend.judge import Judged
from hansa.defend.scores import NOTHING, Score, Sign
from hansa.defend.standing import Standing, State
from hansa.defend.standings import Standings, Transition

SIGNS = ("norm", "cosine", "closest", "spectral")
"""Signs that every score has."""

SOMETIMES = ("trusted", "staleness")
"""Signs of some jobs only; a score that lacks one was recorded where it said nothing."""


def score_words(score: Score) -> dict[str, Json]:
    """A score: its total, and each sign's value and z."""
    if score.refused:
        return {"total": score.total, "refused": True}
    signs: dict[str, Json] = {
        name: [s.value, s.z] for name, s in score.signs.items() if name in SIGNS or s != NOTHING
    }
    return {"total": score.total, **signs}


def score_of(words: Mapping[str, Any]) -> Score:
    """The score that `score_words` told; its total is counted again from its signs."""
    if words.get("refused"):
        return Score(refused=True)
    told = (*SIGNS, *(name for name in SOMETIMES if name in words))
    signs = {name: Sign(float(words[name][0]), float(words[name][1])) for name in told}
    return Score(**signs, refused=False)


def scores_words(scores: Mapping[str, Score]) -> dict[str, Json]:
    """The scores of a round, by client, or by group where groups were scored."""
    if isinstance(scores, GroupScores):
        groups: list[Json] = [
            {"members": list(group.members), "score": score_words(group.score)}
            for group in scores.groups
        ]
        return {"groups": groups}
    return {client: score_words(score) for client, score in scores.items()}


def scores_of_words(words: Mapping[str, Any]) -> Mapping[str, Score]:
    """The scores that `scores_words` told."""
    groups = words.get("groups")
    if isinstance(groups, list):  # a client of this name has a score
        return GroupScores(
            tuple(GroupScore(tuple(g["members"]), score_of(g["score"])) for g in groups)
        )
    return MappingProxyType({client: score_of(said) for client, said in words.items()})


def standing_words(standing: Standing) -> dict[str, Json]:
    """A standing, with what it was counted from."""
    grouped: dict[str, Json] = {}
    if standing.estimate is not None:
        grouped = {"estimate": standing.estimate, "since": standing.since}
    return {
        "state": standing.state.value,
        "rounds": standing.rounds,
        "recent": list(standing.recent),
        "average": standing.average,
        "drift": standing.drift,
        **grouped,
    }


def standing_of(words: Mapping[str, Any]) -> Standing:
    """The standing that `standing_words` told."""
    return Standing(
        State(words["state"]),
        int(words["rounds"]),
        tuple(float(score) for score in words["recent"]),
        float(words["average"]),
        float(words["drift"]),
        float(words["estimate"]) if "estimate" in words else None,
        int(words.get("since", 0)),
    )


def transition_words(change: Transition) -> dict[str, Json]:
    """A transition, with its evidence."""
    return {
        "client": change.client,
        "round": change.round,
        "before": change.before.value,
        "after": change.after.value,
        "reason": change.reason,
        "recent": list(change.recent),
        "score": None if change.score is None else score_words(change.score),
    }


def transition_of(words: Mapping[str, Any]) -> Transition:
    """The transition that `transition_words` told."""
    score = words["score"]
    return Transition(
        words["client"],
        int(words["round"]),
        State(words["before"]),
        State(words["after"]),
        words["reason"],
        tuple(float(total) for total in words["recent"]),
        None if score is None else score_of(score),
    )


def evidence_words(evidence: Evidence) -> dict[str, Json]:
    """What is remembered of one round's groups."""
    groups: list[Json] = [[list(members), excess] for members, excess in evidence.groups]
    return {"round": evidence.round, "groups": groups}


def evidence_of(words: Mapping[str, Any]) -> Evidence:
    """The evidence that `evidence_words` told."""
    groups = ((tuple(members), float(excess)) for members, excess in words["groups"])
    return Evidence(int(words["round"]), tuple(groups))


def judged_words(judged: Judged) -> dict[str, Json]:
    """All that the next round needs to know."""
    evidence: list[Json] = [evidence_words(each) for each in judged.standings.evidence]
    return {
        "most": judged.standings.most,
        "clients": {c: standing_words(s) for c, s in judged.standings.clients.items()},
        "changes": [transition_words(change) for change in judged.changes],
        "round": judged.round,
        "attempt": judged.attempt,
        "scores": scores_words(judged.scores),
        **({"evidence": evidence} if evidence else {}),
    }


def judged_of(words: Mapping[str, Any]) -> Judged:
    """What `judged_words` told."""
    clients = {c: standing_of(s) for c, s in words["clients"].items()}
    return Judged(
        Standings(
            int(words["most"]),
            MappingProxyType(clients),
            tuple(evidence_of(each) for each in words.get("evidence", ())),
        ),
        tuple(transition_of(change) for change in words["changes"]),
        int(words["round"]),
        int(words["attempt"]),
        scores_of_words(words["scores"]),
    )
