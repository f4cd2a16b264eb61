"""`hansa site`: join a federation, run the agent, see the policy and what left the building."""

from __future__ import annotations

import asyncio
import os
import resource
import signal
import sys
from datetime import UTC, datetime
from pathlib import Path

import typer

from hansa.cli.coordinator import log_to_stderr
from hansa.cli.group import OPTIONS
from hansa.cli.output import emit, note, say, table

app = typer.Typer(help="Join a federation and run a site.", no_args_is_help=True, **OPTIONS)

FOLDER = typer.Argument(Path("site"), help="The site's folder.")
JSON = typer.Option(False, "--json", help="One JSON object on standard output.")


@app.command()
def join(
    invite: str = typer.Argument(help="The invite's line, a file that holds it, or - for stdin."),
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
    from hansa.site import config

    limits = config.load(folder).limits
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ[name] = str(max(limits.threads, 1))  # read when the libraries are loaded
    if limits.memory_mb:
        size = limits.memory_mb << 20
        resource.setrlimit(resource.RLIMIT_DATA, (size, size))
    log_to_stderr()
    asyncio.run(_run(folder))


async def _run(folder: Path) -> None:
    from hansa.site.agent import Agent

    running = asyncio.ensure_future(Agent(folder, note).run())
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, running.cancel)
    try:
        await running
    except asyncio.CancelledError:
        note("stopped")


@app.command()
def policy(folder: Path = FOLDER, json: bool = JSON) -> None:
    """Show what the site allows."""
    from hansa.core import canonical
    from hansa.site import config

    found = config.load(folder)
    words = {"policy": canonical.plain(found.policy), "limits": canonical.plain(found.limits)}
    if json:
        emit(words)
        return
    rows = [
        (f"[{section}]", key, str(value))
        for section, table_ in words.items()
        if isinstance(table_, dict)
        for key, value in table_.items()
        if key != "is"
    ]
    table(("Section", "Setting", "Value"), rows)


@app.command()
def log(folder: Path = FOLDER, json: bool = JSON) -> None:
    """Show what left the building."""
    from hansa.site.agent import LOG
    from hansa.site.logbook import read

    entries = list(read(folder / LOG))
    if json:
        emit({"entries": entries})
        return
    rows = [
        (
            datetime.fromtimestamp(entry["time"], UTC).strftime("%m-%d %H:%M:%S"),
            entry["kind"],
            str(entry.get("job", "")),
            f"{entry['purpose']} {entry['round']}.{entry['attempt']}" if "round" in entry else "",
            f"{entry['bytes']:,}" if "bytes" in entry else "",
            entry.get("reason") or ", ".join(entry.get("segments", ())),
        )
        for entry in entries
    ]
    table(("Time (UTC)", "What", "Job", "Round", "Bytes", "Segments, or why not"), rows)


def _text(invite: str) -> str:
    if invite == "-":
        return sys.stdin.read()
    path = Path(invite)
    return path.read_text("utf-8") if len(invite) < 1000 and path.is_file() else invite
