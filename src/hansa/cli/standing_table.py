"""Where clients stand, as tables: of a simulation and of a job at a coordinator."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hansa.cli.output import heading, say, table


def show_standing(said: Mapping[str, Any]) -> None:
    """Who is not trusted, and every transition that led there; rounds count from 0."""
    heading("Standing")
    clients, changes = said["clients"], said["changes"]
    apart = {c: found for c, found in clients.items() if found["state"] != "trusted"}
    say(_counted(clients))
    if apart:
        grouped = any("estimate" in found for found in clients.values())
        what = ("Adds", "Last estimates") if grouped else ("Mean score", "Last scores")
        table(
            ("Client", "State", "Counts", *what),
            [
                (
                    client,
                    found["state"],
                    f"{found['weight']:g}",
                    f"{found['mean']:.1f}",
                    " ".join(f"{score:.1f}" for score in found["recent"][-5:]),
                )
                for client, found in sorted(apart.items())
            ],
        )
    for change in changes:
        who = f" by {change['by']}" if change.get("by") else ""
        say(
            f"round {change['round']}: {change['client']} {change['before']} -> "
            f"{change['after']}{who}: {change['reason']}",
            later="  ",
        )


def _counted(clients: Mapping[str, Any]) -> str:
    states = [found["state"] for found in clients.values()]
    told = [f"{states.count(state)} {state}" for state in dict.fromkeys(sorted(states))]
    return f"{len(states)} clients were seen: {', '.join(told)}." if states else "Nobody was seen."
