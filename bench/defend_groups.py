"""Standing where only sums of groups can be read: one run, for `bench/defend.py --groups`.

As there, but the updates of a round are cut into random groups, the rule is the median of each
coordinate over the groups' means, and these means are all that is scored. Masks need a norm bound:
honest clients cut their updates to the median length of the first round's, and so do clients with
flipped labels; the others send what they like, computed from what the honest ones send.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from bench.robust_matrix import HIDDEN, MOMENTUM, RATE, SKEWS, divided, gradient, shuffled
from hansa import attacks
from hansa.aggregators import robust
from hansa.aggregators.robust.distances import products
from hansa.core.standing import GroupLikeness
from hansa.defend import Standings, State, Transition, group_scores

Array = Any


@dataclass(frozen=True, slots=True)
class Setting:
    """How many clients there are, how many of them are bad, and how many groups they form."""

    clients: int
    bad: int
    groups: int

    @property
    def names(self) -> list[str]:
        """Of all clients; the bad ones are the last."""
        return [f"client-{i:02d}" for i in range(self.clients)]


SETTINGS = (Setting(20, 4, 10), Setting(50, 5, 12), Setting(100, 5, 20))
CALM, ATTACKED, BATCH = 100, 60, 16
STEPS = {"one batch": 1, "five steps": 5}


def run(setting: Setting, skew: str, work: str, attack: str, seed: int) -> list[Transition]:
    """All transitions of one run with standings in the loop."""
    n, names = setting.clients, setting.names
    rng, noise = np.random.RandomState(seed), np.random.default_rng(seed)
    draw = np.random.default_rng([seed, 1])
    w = np.concatenate(
        [
            rng.randn(64 * HIDDEN) / 8,
            np.zeros(HIDDEN),
            rng.randn(HIDDEN * 10) / np.sqrt(HIDDEN),
            np.zeros(10),
        ]
    )
    parts = divided(SKEWS[skew], rng, n)
    bad = set() if attack == "none" else set(range(n - setting.bad, n))
    momentum, previous, clip = np.zeros((n, len(w))), np.zeros(len(w)), 0.0
    standings, found = Standings.of(n, n // 2 + 1), list[Transition]()
    for number in range(CALM if attack == "none" else ATTACKED):
        for i in range(n):
            flips = attack == "label_flip" and i in bad
            momentum[i] = trained(w, parts[i], momentum[i], STEPS[work], rng, flips)
        lengths = np.linalg.norm(momentum, axis=1)
        clip = clip or float(np.median(lengths))
        updates = momentum * np.minimum(1.0, clip / np.maximum(lengths, 1e-12))[:, None]
        lie = sent(attack, updates[: n - len(bad)], len(bad), previous, noise)
        if lie is not None:
            updates[n - len(bad) :] = lie
        asked = np.array([i for i in range(n) if standings.weight(names[i]) > 0])
        groups = np.array_split(draw.permutation(asked), setting.groups)
        means = np.stack([updates[group].mean(axis=0) for group in groups]).astype(np.float32)
        members = tuple(tuple(names[i] for i in group) for group in groups)
        scores = group_scores(GroupLikeness(members, products(list(means), 1)))
        standings, changes = standings.observe(number, scores)
        found += changes
        previous = robust.median(means, threads=1).astype(np.float64) * (
            RATE if STEPS[work] == 1 else 1.0
        )
        w = w - previous
    return found


def sent(attack: str, h: Array, f: int, previous: Array, rng: Any) -> Array | None:
    """(f, d) what the bad clients send; None: what they trained."""
    made = {
        "sign_flip": lambda: attacks.sign_flip(h, f),
        "gaussian": lambda: attacks.gaussian(h, f, rng),
        "scaling": lambda: attacks.scaling(h, f),
        "ipm_3": lambda: attacks.ipm(h, f, 3.0),
        "ipm_0.5": lambda: attacks.ipm(h, f, 0.5),
        "alie": lambda: attacks.alie(h, f, 1.5),
        "min_max": lambda: attacks.min_max(h, f),
        "min_sum": lambda: attacks.min_sum(h, f),
        "mimic": lambda: attacks.mimic(h, f, None),
        "free_rider": lambda: attacks.free_rider(previous, f, rng),
    }
    return made[attack]() if attack in made else None


def trained(w: Array, mine: Array, before: Array, steps: int, rng: Any, flips: bool) -> Array:
    """What a client sends against: a gradient with momentum, or the way of some steps."""
    x, y, _, _ = shuffled()
    here = w
    for _ in range(steps):
        batch = rng.choice(mine, min(BATCH, len(mine)), False)
        slope = gradient(here, x[batch], 9 - y[batch] if flips else y[batch])
        if steps == 1:
            return MOMENTUM * before + (1 - MOMENTUM) * slope
        here = here - RATE * slope
    return w - here


def shares(setting: Setting, attack: str, runs: list[list[Transition]]) -> dict[str, Any]:
    """Percent of bad and of honest clients, and the round in which half of the bad were found."""
    bad = set() if attack == "none" else set(setting.names[-setting.bad :])
    honest = set(setting.names) - bad

    def percent(who: set[str], state: State, within: int) -> float:
        hits = [
            len({c.client for c in changes if c.after is state and c.round < within} & who)
            for changes in runs
        ]
        return round(100 * sum(hits) / (len(who) * len(runs)), 2)

    told: dict[str, Any] = {
        "honest_quarantined": percent(honest, State.QUARANTINED, CALM),
        "honest_watched": percent(honest, State.WATCH, CALM),
    }
    if bad:
        told |= {
            f"bad_quarantined_in_{within}": percent(bad, State.QUARANTINED, within)
            for within in (20, 40, ATTACKED)
        }
        told["bad_watched"] = percent(bad, State.WATCH, ATTACKED)
    return told
