"""`hansa submit`, `jobs`, `watch`, `cancel`: jobs at a coordinator."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from hansa.cli.arguments import AUDIT, JOB, JSON
from hansa.cli.invite import COORDINATOR
from hansa.cli.output import emit, heading, note, say, table
from hansa.errors import HansaError, Refused

if TYPE_CHECKING:
    from hansa.remote import Remote

FINAL = frozenset({"done", "failed", "cancelled", "refused"})


def submit(
    job: str = JOB,
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
    job: str = typer.Argument("", metavar="JOB", help="One job to show whole."),
    coordinator: Path = COORDINATOR,
    statement: Path | None = typer.Option(
        None,
        metavar="FILE",
        help="Write JOB's privacy statement, with what it has released so far: .html, .md, .txt or "
        ".json, by the file's name.",
    ),
    audit: Path | None = AUDIT,
    json: bool = JSON,
) -> None:
    """List the jobs of a coordinator, or show one."""
    from hansa.news import moment, without_fix
    from hansa.remote import Remote

    if statement is not None and not job:
        raise typer.BadParameter("name the JOB that it is about", param_hint="--statement")
    if audit is not None and statement is None:
        raise typer.BadParameter("name the --statement that it goes into", param_hint="--audit")
    remote = Remote.load(coordinator)
    if job:
        if statement is not None:
            _save_statement(remote, job, statement, audit)
        _show(remote.job(job), json)
        return
    rows = remote.jobs()
    if json:
        emit({"jobs": rows})
        return
    if not rows:
        say("No job was submitted yet.")
        return
    table(
        ("Job", "Status", "Submitted (UTC)", "Why"),
        [
            (row["id"], row["status"], moment(row["created"]), without_fix(row["reason"]))
            for row in rows
        ],
    )


def watch(
    job: str = typer.Argument(metavar="JOB", help="The job to follow."),
    coordinator: Path = COORDINATOR,
    json: bool = typer.Option(False, "--json", help="One JSON object per event, on one line each."),
) -> None:
    """Follow a job until it ends."""
    import json as encoder

    from hansa.news import event_words, moment
    from hansa.remote import Remote

    remote, after = Remote.load(coordinator), 0
    remote.job(job)
    while True:
        for event in remote.events(job, after):
            after = event["seq"]
            words = event_words(event)
            if json:
                print(encoder.dumps(event), flush=True)
            elif words:
                say(f"{moment(event['time'])}  {words}", later=" " * 16)
            if event["body"].get("to") in FINAL:
                _end(event["body"])
                return
        note("Nothing new for a while; still watching.")


def cancel(
    job: str = typer.Argument(metavar="JOB", help="The job to end."),
    reason: str = typer.Option("cancelled by an operator", help="Why."),
    coordinator: Path = COORDINATOR,
    json: bool = JSON,
) -> None:
    """End a job; its model stays at the last round that counted."""
    from hansa.remote import Remote

    _show(Remote.load(coordinator).cancel(job, reason), json)


def _save_statement(remote: Remote, job: str, file: Path, audit: Path | None) -> None:
    from hansa.privacy import audit_file
    from hansa.privacy.statement import of_json, with_audit
    from hansa.privacy.statement_page import save

    statement = of_json(remote.statement(job))
    if audit is not None:
        statement = with_audit(statement, audit_file.load(audit))
    save(statement, file)
    note(f"The privacy statement is in {file}.")


def _show(whole: Mapping[str, Any], json: bool) -> None:
    from hansa.news import without_fix

    if json:
        emit(whole)
        return
    say(f"{whole['id']}: {whole['status']}. {whole['reason']}")
    say(f"plan   {whole['plan_digest']}")
    say(f"model  {whole['model_sha256']}")
    if whole["verdicts"]:
        heading("Sites")
        table(
            ("Site", "Verdict", "Why"),
            [
                (v["site"], "accepted" if v["accepted"] else "refused", without_fix(v["reason"]))
                for v in whole["verdicts"]
            ],
        )
    if whole["rounds"]:
        heading("Rounds")
        names = list(dict.fromkeys(name for r in whole["rounds"] for name in r["metrics"]))
        table(
            ("Round", "Counted", "Seconds", *names),
            [
                (
                    _round(r),
                    f"{len(r['members'])} of {len(r['cohort'])}",
                    f"{r['seconds']:.2f}",
                    *(_number(r["metrics"].get(name)) for name in names),
                )
                for r in whole["rounds"]
            ],
        )
    for r in whole["rounds"]:
        for dropout in r["dropouts"]:
            why = without_fix(dropout["reason"])
            say(f"round {_round(r)} went without {dropout['client']}: {why}", later="  ")


def _round(record: Mapping[str, Any]) -> str:
    name = str(record["round"] if record["purpose"] == "train" else record["purpose"])
    again = f".{record['attempt']}" if record["attempt"] else ""
    what = " void" * bool(record["void"]) + " rejected" * (record["rejected"] is not None)
    return f"{name}{again}{what}"


def _end(body: Mapping[str, Any]) -> None:
    """A job that did not end well ends the command in the same way."""
    if body["to"] == "done":
        return
    kind = Refused if body["to"] == "refused" else HansaError
    raise kind(f"the job is {body['to']}", fix="see why, and each site's reason: hansa jobs JOB")


def _number(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else "-"
