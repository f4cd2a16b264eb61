"""`hansa budget`: privacy budgets that outlive jobs."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn

import typer

from hansa.cli.arguments import JSON
from hansa.cli.group import OPTIONS
from hansa.cli.invite import COORDINATOR
from hansa.cli.output import emit, heading, note, say, table

app = typer.Typer(help="Privacy budgets across jobs: create, look, check.", **OPTIONS)

NAME = typer.Argument("", metavar="NAME", help="One budget; all if it is left out.")


@app.command()
def create(
    name: str = typer.Argument(metavar="NAME", help="Name of the budget."),
    epsilon: float = typer.Option(..., help="What all jobs together may not exceed."),
    delta: float = typer.Option(..., help="Probability with which epsilon may not hold."),
    unit: str = typer.Option("client", help="Whose presence is hidden: client."),
    relation: str = typer.Option(
        "add_or_remove_one", help="What is compared: add_or_remove_one, replace_one or zero_out."
    ),
    order: int = typer.Option(
        0, help="Renyi order that everything is counted at, 2 to 256; found for you if 0."
    ),
    workload: list[str] = typer.Option(
        [], metavar="JOB", help="A job that is planned; the order that fits most of them is found."
    ),
    population: str = typer.Option("", help="Only jobs of the federation of this name."),
    owner: str = typer.Option("", help="Only jobs in which this site takes part."),
    purpose: str = typer.Option("", help="Only jobs whose [privacy] purpose is this text."),
    coordinator: Path = COORDINATOR,
    json: bool = JSON,
) -> None:
    """Create a budget; nothing of it can ever be changed.

    It covers jobs that start from now on. Whoever does it needs the administrator's token.
    """
    from hansa.budget.block import block_of
    from hansa.remote import Remote

    words: dict[str, Any] = {
        "name": name,
        "unit": unit,
        "relation": relation,
        "epsilon": epsilon,
        "delta": delta,
        "order": order or _proposed(workload, epsilon, delta, relation),
        "population": population,
        "owner": owner,
        "purpose": purpose,
    }
    block_of(words)  # what is impossible is refused here, before anybody is asked
    made = Remote.load(coordinator).create_block(words)
    if json:
        emit(made)
        return
    say(
        f"Privacy budget '{name}': epsilon {epsilon:g} at delta {delta:g}, by {unit}, "
        f"{made['capacity']:,} micro-RDP at order {made['order']}."
    )
    say(f"Next: hansa budget show {name}")


@app.command()
def show(
    name: str = NAME,
    job: str = typer.Option(
        "", metavar="JOB", help="Say how many jobs like this one fit, not like the last one."
    ),
    coordinator: Path = COORDINATOR,
    json: bool = JSON,
) -> None:
    """Show what is spent and left, and how many more jobs fit."""
    from hansa.remote import Remote

    blocks = [b for b in Remote.load(coordinator).blocks() if name in ("", b["name"])]
    if name and not blocks:
        _unknown(name)
    if job:
        _forecast(blocks, job)
    if json:
        emit({"blocks": blocks})
        return
    if not blocks:
        say("No privacy budget covers jobs of this federation: hansa budget create --help")
        return
    table(
        ("Budget", "Covers", "Epsilon", "Spent", "Left", "Held", "Free", "More"),
        [
            (
                b["name"],
                _covers(b),
                f"{b['epsilon']:g} at {b['delta']:g}",
                f"{b['epsilon_spent']:.4g}",
                f"{b['epsilon_left']:.4g}",
                _share(b["held"], b),
                _share(b["free"], b),
                _more(b),
            )
            for b in blocks
        ],
    )
    heading("How to read it")
    say(
        "Spent and left are epsilon at the budget's delta, where what open jobs hold is not left "
        "either. Held and free are shares of its Renyi divergence, which add up; epsilons do not."
    )


@app.command()
def history(
    name: str = NAME,
    job: str = typer.Option("", metavar="JOB", help="Only what this job did."),
    coordinator: Path = COORDINATOR,
    json: bool = JSON,
) -> None:
    """List every hold, charge, refund and settlement, oldest first."""
    from hansa.news import moment
    from hansa.remote import Remote

    remote = Remote.load(coordinator)
    if name and name not in {block["name"] for block in remote.blocks()}:
        _unknown(name)
    entries: list[dict[str, Any]] = []
    more = True
    while more:
        found, more = remote.budget_entries(name, job, entries[-1]["seq"] if entries else 0)
        entries += found
    if json:
        emit({"entries": entries})
        return
    if not entries:
        say("Nothing was charged yet.")
        return
    table(
        ("No.", "Time (UTC)", "Budget", "What", "Micro-RDP", "Job", "Round"),
        [
            (
                str(e["seq"]),
                moment(e["time"]),
                e["block"],
                e["kind"],
                f"{e['urdp']:,}",
                e["job"],
                _round(e),
            )
            for e in entries
        ],
    )


@app.command()
def export(
    file: Path = typer.Argument(metavar="FILE", help="Where the log is written, as JSON lines."),
    coordinator: Path = COORDINATOR,
    json: bool = JSON,
) -> None:
    """Write the whole log of all budgets to a file that can be checked anywhere."""
    from hansa.remote import Remote

    count = 0
    with file.open("wb") as stream:
        for line in Remote.load(coordinator).export_budget():
            stream.write(line)
            count += 1
    if json:
        emit({"file": str(file), "lines": count})
        return
    say(f"{count:,} lines are in {file}.")
    say(f"Next: hansa budget verify --file {file}")


@app.command()
def verify(
    file: Path | None = typer.Option(
        None, metavar="FILE", help="An exported log, checked without any coordinator."
    ),
    root: Path | None = typer.Option(
        None, metavar="FILE", help="The federation's root certificate, PEM, to check FILE against."
    ),
    coordinator: Path = COORDINATOR,
    json: bool = JSON,
) -> None:
    """Recompute the chain of all entries, every rule and all sums.

    Without --file the coordinator does it over its store. With --file it is done here.
    """
    if file is not None:
        _verify_file(file, root, json)
        return
    from hansa.remote import Remote

    told = Remote.load(coordinator).verify_budget()
    if json:
        emit(told)
        return
    say(f"The chain is whole: {told['entries']:,} entries, all rules kept, all sums right.")
    say(told["hash"], "end  ")


def _verify_file(file: Path, root: Path | None, json: bool) -> None:
    from hansa.budget.audit import verify_export
    from hansa.errors import HansaError

    try:
        pinned = root.read_text("ascii") if root is not None else ""
        with file.open("rb") as lines:
            found = verify_export(lines, pinned)
    except (OSError, UnicodeDecodeError) as error:
        raise HansaError(
            f"{error} cannot be read", fix="name an export and a root certificate that exist"
        ) from error
    if json:
        accounts = [
            {**b.words, "capacity": a.capacity, "spent": a.spent, "held": a.held, "free": a.free}
            for b, a in found.accounts
        ]
        emit(
            {
                "federation": found.federation,
                "root_sha256": found.root,
                "root_checked": found.pinned,
                "entries": found.end.seq,
                "hash": found.end.hash,
                "time": found.end.time,
                "blocks": accounts,
                "cosigned": sorted({one.site for one in found.cosigned}),
            }
        )
        return
    say(
        f"The export is whole: {found.end.seq:,} entries of federation '{found.federation}', all "
        "rules kept, signed by its coordinator."
    )
    if not found.pinned:
        note(
            "The signature was followed to the root in the file itself: give --root to compare it "
            f"with yours (SHA-256 {found.root})."
        )
    table(
        ("Budget", "Epsilon", "Spent", "Micro-RDP spent", "Held", "Free"),
        [
            (
                b.name,
                f"{b.epsilon:g} at {b.delta:g}",
                f"{b.epsilon_of(a.spent) if a.spent else 0:.4g}",
                f"{a.spent:,}",
                f"{a.held:,}",
                f"{a.free:,}",
            )
            for b, a in found.accounts
        ],
    )


def _proposed(workload: list[str], epsilon: float, delta: float, relation: str) -> int:
    from hansa.budget.block import relation_of
    from hansa.budget.cost import propose_order
    from hansa.jobfile import load_job
    from hansa.recipes import compile_plan

    events = [compile_plan(load_job(job)).event for job in workload]
    return propose_order(events, epsilon, delta, relation_of(relation))


def _forecast(blocks: list[dict[str, Any]], job: str) -> None:
    """Puts a job that is planned where the last one was."""
    from hansa.budget.cost import fits, need
    from hansa.jobfile import load_job
    from hansa.recipes import compile_plan

    plan = compile_plan(load_job(job))
    for block in blocks:
        if plan.private and plan.relation.name.lower() == block["relation"]:
            cost = need(plan, block["order"])
            block["last"] = {
                "job": plan.job.name,
                "urdp": cost.urdp,
                "releases": cost.releases,
                "fits": dict(fits(block["free"], cost)),
            }
        else:
            block["last"] = None


def _covers(block: Mapping[str, Any]) -> str:
    words = [f"{n} {block[n]}" for n in ("population", "owner", "purpose") if block[n]]
    return ", ".join(words) or "all jobs"


def _share(urdp: int, block: Mapping[str, Any]) -> str:
    return f"{100 * urdp / block['capacity']:.3g} %"


def _more(block: Mapping[str, Any]) -> str:
    last = block["last"]
    if last is None:
        return "no job to compare with"
    fits = last["fits"]
    return f"{fits['jobs']:,} jobs or {fits['releases']:,} rounds like {last['job']}"


def _round(entry: Mapping[str, Any]) -> str:
    if not entry["purpose"]:
        return ""
    name = str(entry["round"]) if entry["purpose"] == "train" else str(entry["purpose"])
    return f"{name}.{entry['attempt']}" if entry["attempt"] else name


def _unknown(name: str) -> NoReturn:
    from hansa.errors import HansaError

    raise HansaError(f"there is no privacy budget '{name}'", fix="see: hansa budget show")
