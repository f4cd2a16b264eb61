"""What follows from what robust rules see: scores of a round, a standing over rounds, quarantine.

Pure functions over frozen data. `docs/standing.md` says what it catches and what it cannot see.
"""

from hansa.defend.groups import GroupScore, GroupScores, group_scores
from hansa.defend.scores import MOST, REFUSED, Score, Sign, scores_of
from hansa.defend.standing import Standing, State, expelled, observe, released
from hansa.defend.standings import Standings, Transition

__all__ = [
    "MOST",
    "REFUSED",
    "GroupScore",
    "GroupScores",
    "Score",
    "Sign",
    "Standing",
    "Standings",
    "State",
    "Transition",
    "expelled",
    "group_scores",
    "observe",
    "released",
    "scores_of",
]
