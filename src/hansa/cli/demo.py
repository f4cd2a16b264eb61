"""`hansa demo`: a whole federation on this machine."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from hansa.cli.arguments import JSON
from hansa.cli.output import Progress, emit, heading, note, say, table

if TYPE_CHECKING:
    from hansa.core.plan import Plan
    from hansa.examples.heart.report import Estimate, Score
    from hansa.local.demo import Demo

SCORES = (
    ("local_at_home", "local", "patients at home"),
    ("federated_at_home", "federated", "patients at home"),
    ("local_elsewhere", "local", "the others' patients"),
    ("local_only", "local", "all patients"),
    ("federated", "federated", "all patients"),
    ("pooled", "pooled", "all patients"),
)


def demo(
    rounds: int = typer.Option(40, min=1, help="Training rounds."),
    seed: int = typer.Option(0, min=0, help="Seed of the job and of the patients' split."),
    folder: Path = typer.Option(Path("hansa-demo"), help="Where models, reports and logs go."),
    attack: str = typer.Option(
        "",
        metavar="ATTACK",
        help="One hospital attacks the others: scale, updates a thousand times too long; nan, "
        "updates that are no numbers.",
    ),
    json: bool = JSON,
) -> None:
    """Train across four real hospitals on this machine.

    Starts a coordinator and four hospitals as processes of their own, which speak mTLS on
    loopback; each hospital reads its own file only. Stops all of them at the end.
    """
    from hansa.local.demo import ATTACKS, run_demo
    from hansa.nearest import suggest

    if attack and attack not in ATTACKS:
        raise typer.BadParameter(
            f"the demo has no attack '{attack}': {suggest(attack, ATTACKS, 'attacks')}",
            param_hint="--attack",
        )

    with Progress("round", rounds) as progress:

        def planned(plan: Plan) -> None:
            if not json:
                _show_plan(plan)

        def happened(event: Mapping[str, Any]) -> None:
            body = event["body"]
            if event["kind"] == "job.decided":
                verdict = "accepts" if body["accepted"] else f"refuses: {body['reason']}"
                progress.note(f"{body['site']} {verdict}")
            elif event["kind"] == "round.closed" and body["purpose"] == "train":
                progress.step(_line(body))

        note("Starting a coordinator and four hospitals ...")
        done = run_demo(folder, rounds, seed, attack=attack, on_plan=planned, on_event=happened)
    if json:
        emit(done.to_json())
    else:
        _show(done)


def _show_plan(plan: Plan) -> None:
    from hansa.report import trail_words

    heading("The plan, part by part")
    table(
        ("Part", "What is known after it"),
        [(part, "\n".join(lines)) for part, lines in trail_words(plan.trail)],
    )
    heading("What it claims")
    for claim in plan.claims:
        say(claim, "- ", "  ")
    heading("Rounds")


def _show(done: Demo) -> None:
    trained = done.trained
    if done.hostile:
        _show_attack(done)
    heading("Was it worth it?")
    say(
        f"{done.report.patients} held-out patients, in brackets 95 % bootstrap intervals. Local: "
        "each hospital's own model, the mean of the four; pooled: one model trained on everybody's "
        "data in one place. At home a local model is about as good; elsewhere it falls behind."
    )
    say()
    table(
        ("Model", "Judged on", "Accuracy", "AUROC"),
        [(model, judged, *_cells(getattr(done.report, name))) for name, model, judged in SCORES],
    )
    heading("Where things are")
    seconds = sum(r["seconds"] for r in trained) / len(trained)
    say(f"{len(trained)} rounds, {seconds:.3f} s a round; model {done.model_sha256[:16]}")
    for what, place in (
        ("model", "model.npz"),
        ("report", "report.json"),
        ("logs", "*.log"),
        ("what left each hospital", "HOSPITAL/left-the-building.jsonl"),
    ):
        say(f"{what:<24}{done.folder / place}")


def _show_attack(done: Demo) -> None:
    """What became of the hostile hospital's updates, and what would have caught less."""
    from hansa.news import without_fix

    heading("The attack")
    times, rounds = len(done.refused), len(done.trained)
    say(
        f"{done.hostile} attacked. Its update was refused in {times} of {rounds} rounds, and the "
        f"other {len(done.trained[-1]['members'])} hospitals trained on without it."
    )
    if done.refused:
        say(f"Why: {without_fix(done.refused[-1]['reason'])}.")
    say(
        "What caught it is the check of each update against the plan: that it is finite, and no "
        "longer than the norm bound. The coordinator can check only what it can read, so this job "
        "has no masks. Four are too few for a rule that finds out who is bad: among four, one liar "
        "and an honest hospital with other patients look the same, and a lie within the norm bound "
        "counts as any update does. From five on there are robust rules, and with "
        "them a standing for each site."
    )


def _line(body: Mapping[str, Any]) -> str:
    metrics = body["metrics"]
    told = [f"{body['counted']} hospitals"]
    told += [f"{n} {metrics[n]:.3f}" for n in ("loss", "auroc") if metrics.get(n) is not None]
    return "  ".join(told)


def _cells(score: Score) -> tuple[str, str]:
    return _cell(score.accuracy), _cell(score.auroc)


def _cell(estimate: Estimate) -> str:
    return f"{estimate.value:.3f} [{estimate.low:.3f}, {estimate.high:.3f}]"
