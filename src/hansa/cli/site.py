"""`hansa site`: join a federation, run the agent, see the policy and what left the building."""

from __future__ import annotations

import asyncio
import json as encoder
import logging
import os
import resource
import signal
import sys
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from hansa.cli.arguments import JSON
from hansa.cli.coordinator import log_to_stderr
from hansa.cli.group import OPTIONS
from hansa.cli.output import emit, heading, say, table

if TYPE_CHECKING:
    from hansa.budget.block import Block

app = typer.Typer(help="Join a federation and run a site.", **OPTIONS)

FOLDER = typer.Argument(Path("site"), metavar="FOLDER", help="The site's folder.")


@app.command()
def join(
    invite: str = typer.Argument(
        metavar="INVITE", help="The invite's line, a file that holds it, or - for stdin."
    ),
    folder: Path = typer.Option(Path("site"), help="Folder to make for the site."),
) -> None:
    """Join a federation with an invite."""
    from hansa.site.join import join as enrol

    credentials = asyncio.run(enrol(_text(invite), folder, datetime.now(UTC)))
    say(f"Site '{credentials.name}' has joined federation '{credentials.federation}'.")
    say(f"Next: describe your data and policy in {folder / 'site.toml'}, then")
    say(f"hansa site run {folder}", indent="  ")


@app.command()
def run(folder: Path = FOLDER) -> None:
    """Run the site's agent until it is told to stop."""
    from hansa.memory import keep_memory
    from hansa.site import config

    limits = config.load(folder).limits
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ[name] = str(max(limits.threads, 1))  # read when the libraries are loaded
    if limits.memory_mb:
        size = limits.memory_mb << 20
        resource.setrlimit(resource.RLIMIT_DATA, (size, size))
    keep_memory()
    log_to_stderr()
    asyncio.run(_run(folder))


async def _run(folder: Path) -> None:
    from hansa.site.agent import Agent

    say_now = logging.getLogger("hansa.site").info
    running = asyncio.ensure_future(Agent(folder, say_now).run())
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, running.cancel)
    try:
        await running
    except asyncio.CancelledError:
        say_now("stopped")


@app.command()
def policy(folder: Path = FOLDER, json: bool = JSON) -> None:
    """Show what the site allows."""
    from hansa.site import config

    found = config.load(folder)
    words = {
        "policy": asdict(found.policy),
        "budget": asdict(found.budget),
        "limits": asdict(found.limits),
    }
    if json:
        emit(words)
        return
    for section, settings in words.items():
        for key, value in settings.items():
            print(f"{f'{section}.{key}':<22}{encoder.dumps(value)}")
    if not found.policy.tasks and not found.policy.signers:
        say("No task may run yet: name its digest in policy.tasks, or who signs in policy.signers.")


@app.command()
def budget(folder: Path = FOLDER, json: bool = JSON) -> None:
    """Show what all jobs together have cost one example of this site, and what is left."""
    from hansa.site import config
    from hansa.site.spending import standings

    declared, found = config.load(folder).budget, standings(folder)
    if json:
        emit({"budgets": [standing.words for standing in found]})
        return
    if not found:
        say(
            f"Nothing was charged yet of epsilon {declared.epsilon:g} at delta {declared.delta:g}, "
            "unit: one training example."
            if declared.epsilon
            else "This site has no [budget] in site.toml: each job is held to its own plan alone."
        )
        return
    table(
        ("Budget", "Limit", "Spent", "Free", "Updates", "Jobs"),
        [
            (
                s.block.name,
                *_limits(s.block, s.epsilon),
                f"{s.account.free / s.account.capacity:.1%}",
                f"{sum(s.jobs.values()):,}",
                f"{len(s.jobs):,}",
            )
            for s in found
        ],
    )
    heading("How to read it")
    say(
        "Limit and spent are epsilon at the budget's delta, for one training example of this site "
        "and all updates that left. Free is a share of its Renyi divergence, which adds up; "
        "epsilons do not. An update is charged when it leaves, and no charge comes back."
    )


def _limits(block: Block, spent: float) -> tuple[str, str]:
    """Two cells of the table; delta stands in the first one."""
    return f"{block.epsilon:g} at {block.delta:g}", f"{spent:.4g}"


@app.command()
def log(folder: Path = FOLDER, json: bool = JSON) -> None:
    """Show what left the building."""
    from hansa.news import entry_words, moment
    from hansa.site import config
    from hansa.site.agent import LOG
    from hansa.site.logbook import read

    config.load(folder)  # a folder without a site has no log that could be empty
    entries = list(read(folder / LOG))
    if json:
        emit({"entries": entries})
        return
    for entry in entries:
        word, rest = entry_words(entry)
        say(f"{moment(entry['time'])}  {word:<8}  {rest}", later=" " * 26)
    left = [entry["bytes"] for entry in entries if entry["kind"] == "left"]
    say(f"{len(left)} updates left this site, {sum(left):,} bytes in all.")


def _text(invite: str) -> str:
    if invite == "-":
        return sys.stdin.read()
    path = Path(invite)
    return path.read_text("utf-8") if len(invite) < 1000 and path.is_file() else invite
