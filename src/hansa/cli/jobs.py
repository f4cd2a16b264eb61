"""`hansa submit`, `jobs`, `watch`, `cancel`: jobs at a coordinator."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import typer

from hansa.cli.invite import COORDINATOR
from hansa.cli.output import emit, note, say, table
from hansa.errors import HansaError

JSON = typer.Option(False, "--json", help="One JSON object on standard output.")
FINAL = frozenset({"done", "failed", "cancelled", "refused"})


def submit(
    job: str = typer.Argument(help="A job file, a folder with job.toml, or an example's name."),
    coordinator: Path = COORDINATOR,
    sign: Path | None = typer.Option(None, help="Key file to sign the task's code with."),
    json: bool = JSON,
) -> None:
    """Hand a job in to a coordinator."""
    from hansa.jobfile import load_job
    from hansa.remote import Remote
    from hansa.submission import submit as hand_in

    submitted = hand_in(load_job(job), Remote.load(coordinator), sign)
    if json:
        emit({"job": submitted.job, "plan_digest": submitted.plan.digest})
        return
    say(f"Job {submitted.job} is offered to the sites; plan {submitted.plan.digest[:16]}.")
    say(f"Next: hansa watch {submitted.job}")


def jobs(
    job: str = typer.Argument("", help="One job to show whole."),
    coordinator: Path = COORDINATOR,
    json: bool = JSON,
) -> None:
    """List the jobs of a coordinator, or show one."""
    from hansa.remote import Remote

    remote = Remote.load(coordinator)
    if job:
        _show(remote.job(job), json)
        return
    rows = remote.jobs()
    if json:
        emit({"jobs": rows})
        return
    table(
        ("Job", "Status", "Submitted (UTC)", "Plan", "Reason"),
        [
            (
                row["id"],
                row["status"],
                _moment(row["created"]),
                row["plan_digest"][:12],
                row["reason"],
            )
            for row in rows
        ],
    )


def watch(
    job: str = typer.Argument(help="The job to follow."),
    coordinator: Path = COORDINATOR,
    json: bool = typer.Option(False, "--json", help="One JSON object per event, on one line each."),
) -> None:
    """Follow a job until it ends."""
    import json as encoder

    from hansa.remote import Remote

    remote, after = Remote.load(coordinator), 0
    remote.job(job)
    while True:
        for event in remote.events(job, after):
            after = event["seq"]
            print(encoder.dumps(event) if json else line_of(event), flush=True)
            if event["body"].get("to") in FINAL:
                _end(event["body"])
                return
        note("nothing new for a while; still watching")


def cancel(
    job: str = typer.Argument(help="The job to end."),
    reason: str = typer.Option("cancelled by an operator", help="Why."),
    coordinator: Path = COORDINATOR,
    json: bool = JSON,
) -> None:
    """End a job; its model stays at the last round that counted."""
    from hansa.remote import Remote

    _show(Remote.load(coordinator).cancel(job, reason), json)


def line_of(event: Mapping[str, Any]) -> str:
    """One event as a line for people."""
    body = event["body"]
    told = "  ".join(
        f"{key} {_short(value)}" for key, value in body.items() if value not in ("", None)
    )
    return f"{_moment(event['time'])}  {event['kind']}  {told}"


def _show(whole: Mapping[str, Any], json: bool) -> None:
    if json:
        emit(whole)
        return
    say(f"{whole['id']}: {whole['status']}. {whole['reason']}")
    say(f"plan {whole['plan_digest']}")
    say(f"model {whole['model_sha256']}")
    if whole["verdicts"]:
        table(
            ("Site", "Verdict", "Reason"),
            [
                (v["site"], "accepted" if v["accepted"] else "refused", v["reason"])
                for v in whole["verdicts"]
            ],
        )
    if whole["rounds"]:
        table(
            ("Round", "For", "Members", "Left out", "Seconds", "Metrics"),
            [
                (
                    f"{r['round']}.{r['attempt']}",
                    r["purpose"] + (" (void)" if r["void"] else ""),
                    str(len(r["members"])),
                    ", ".join(d["client"] for d in r["dropouts"]),
                    f"{r['seconds']:.2f}",
                    "  ".join(f"{k} {_short(v)}" for k, v in r["metrics"].items() if v is not None),
                )
                for r in whole["rounds"]
            ],
        )


def _end(body: Mapping[str, Any]) -> None:
    """A job that did not end well ends the command in the same way."""
    if body["to"] != "done":
        raise HansaError(
            f"the job is {body['status']}: {body.get('reason', '')}", fix="see `hansa jobs JOB`"
        )


def _short(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, Mapping):
        return " ".join(f"{k}={_short(v)}" for k, v in value.items() if v is not None)
    if isinstance(value, (list, tuple)):
        return f"{len(value)}"
    text = str(value)
    return text[:16] if len(text) == 64 else text


def _moment(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S")
