"""Flower and pfl-research on the rounds of `simulation.py`, each in its own environment."""

from __future__ import annotations

import time

from bench.peer_environments import INSTALLS, python_of

SCRIPTS: dict[str, tuple[str, str, tuple[str, ...]]] = {
    "flower": ("flower", "peer_simulation_flower.py", ()),
    "pfl_1": ("pfl", "peer_simulation_pfl.py", ("1",)),
    "pfl_2": ("pfl", "peer_simulation_pfl.py", ("2",)),
}
"""Each peer's environment, its script in this folder, and what that is told at the end."""


def peer_command(peer: str, folder: str, kind: str, rounds: int, clients: int) -> list[str]:
    """What measures one run of a peer; its environment is made first if it is not there.

    Args:
      peer: one of `SCRIPTS`.
      folder: of the benchmarks.
      kind: of the model.
      rounds: how many.
      clients: in each.
    """
    environment, script, more = SCRIPTS[peer]
    python = python_of(environment)
    words = [kind, str(rounds), str(clients), str(time.time()), *more]
    return [python, f"{folder}/{script}", *words]


def versions() -> dict[str, list[str]]:
    """What is installed for each."""
    return {peer: list(INSTALLS[environment]) for peer, (environment, *_) in SCRIPTS.items()}
