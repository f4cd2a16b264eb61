"""The verbs of the command line: where each one is, and what it is for.

To add a verb, write a function whose parameters are its options and name it here. A function
becomes a command; a `typer.Typer` becomes a group of commands. Nothing is imported before it runs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Verb:
    """One word after `hansa`.

    Attributes:
      where: `module:name` of a function or a `typer.Typer`.
      help: one sentence; the first line of the function's docstring says the same.
      chapter: the heading that it stands under.
    """

    where: str
    help: str
    chapter: str


JOBS = "Jobs"
FEDERATION = "Federation"
MACHINE = "This machine"

VERBS: Mapping[str, Verb] = {
    "new": Verb("hansa.cli.new:new", "Make a job folder that runs as it is.", JOBS),
    "plan": Verb("hansa.cli.plan:plan", "Check a job: trail, claims, privacy, cost, digest.", JOBS),
    "simulate": Verb(
        "hansa.cli.simulate:simulate", "Run a job with all its clients on this machine.", JOBS
    ),
    "sweep": Verb(
        "hansa.cli.sweep:sweep", "Run a job with many values, and compare the runs.", JOBS
    ),
    "runs": Verb("hansa.cli.runs:runs", "List runs that were simulated, and compare them.", JOBS),
    "clients": Verb(
        "hansa.cli.clients:clients",
        "Show what a simulation's clients hold, and how much they differ.",
        JOBS,
    ),
    "audit": Verb("hansa.cli.audit:app", "Attack a job to test what it claims.", JOBS),
    "redteam": Verb(
        "hansa.cli.redteam:redteam",
        "Attack a job in simulation, and see what its rule is worth.",
        JOBS,
    ),
    "submit": Verb("hansa.cli.jobs:submit", "Hand a job in to a coordinator.", JOBS),
    "jobs": Verb("hansa.cli.jobs:jobs", "List the jobs of a coordinator, or show one.", JOBS),
    "watch": Verb("hansa.cli.jobs:watch", "Follow a job until it ends.", JOBS),
    "cancel": Verb(
        "hansa.cli.jobs:cancel",
        "End a job; its model stays at the last round that counted.",
        JOBS,
    ),
    "key": Verb("hansa.cli.key:key", "Make a key to sign task code with.", JOBS),
    "coordinator": Verb("hansa.cli.coordinator:app", "Make and run a coordinator.", FEDERATION),
    "invite": Verb("hansa.cli.invite:invite", "Make a one-time invite for a site.", FEDERATION),
    "revoke": Verb(
        "hansa.cli.invite:revoke", "Shut a site out of the federation at once.", FEDERATION
    ),
    "sites": Verb(
        "hansa.cli.invite:sites", "List the sites of a federation, and who attends.", FEDERATION
    ),
    "standing": Verb(
        "hansa.cli.standing:app",
        "Who stands out in a job: look, release, expel, count again.",
        FEDERATION,
    ),
    "budget": Verb(
        "hansa.cli.budget:app", "Privacy budgets across jobs: create, look, check.", FEDERATION
    ),
    "site": Verb("hansa.cli.site:app", "Join a federation and run a site.", FEDERATION),
    "demo": Verb(
        "hansa.cli.demo:demo", "Train across four real hospitals on this machine.", MACHINE
    ),
    "doctor": Verb("hansa.cli.doctor:doctor", "Check what Hansa needs of this machine.", MACHINE),
}
