"""The demo: four hospitals train together on this machine, each reading its own file only.

    coordinator (process) ◄── mTLS ── cleveland, hungarian, switzerland, va (a process each)
          ▲
          └── HTTPS ── this process: submits the job, watches it, compares the result

Only the comparison at the end reads all four files; in a real federation nobody could.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from hansa.core.job import Job, Quantization, SecureAggregation
from hansa.core.plan import Plan
from hansa.core.vector import Vector
from hansa.errors import HansaError
from hansa.examples.heart.job import heart_job, heart_sites
from hansa.examples.heart.report import Report, compare
from hansa.examples.heart.task import Heart
from hansa.local.federation import LocalFederation
from hansa.submission import submit
from hansa.work.bundle import pack

MARK = ".hansa-demo"
"""A file that says: this folder was made by the demo and may be made anew."""

SILENCE = 60.0
"""Seconds without news after which the demo is given up."""

ATTACKS: Mapping[str, str] = {"scale": "scaled", "nan": "nan"}
"""What a hostile hospital may do, and the name of the attack in `hansa.attacks`."""


@dataclass(frozen=True, slots=True)
class Demo:
    """A finished demo.

    Attributes:
      plan: what ran.
      job: the job's identifier at the coordinator.
      rounds: the records of all rounds, as the coordinator keeps them.
      model_sha256: of the final parameters.
      report: the federated model beside local ones and the pooled one.
      folder: where everything lies.
      seconds: from the submission to the last receipt.
      hostile: the hospital that attacked; empty if none did.
    """

    plan: Plan
    job: str
    rounds: tuple[Mapping[str, Any], ...]
    model_sha256: str
    report: Report
    folder: Path
    seconds: float
    hostile: str = ""

    @property
    def refused(self) -> list[Mapping[str, Any]]:
        """What was said of the hostile hospital's updates, one for each round that went without."""
        return [
            dropout
            for record in self.trained
            for dropout in record["dropouts"]
            if dropout["client"] == self.hostile and dropout["refused"]
        ]

    @property
    def trained(self) -> list[Mapping[str, Any]]:
        """The training rounds that counted."""
        return [r for r in self.rounds if r["purpose"] == "train" and not r["void"]]

    def to_json(self) -> dict[str, Any]:
        """What `hansa demo --json` prints."""
        trained = self.trained
        seconds = sum(r["seconds"] for r in trained)
        last = self.rounds[-1]["metrics"]
        return {
            "job": self.job,
            "plan_digest": self.plan.digest,
            "engine": "network",
            "rounds": len(trained),
            "seconds_per_round": seconds / len(trained),
            "clients_per_second": sum(len(r["members"]) for r in trained) / seconds,
            "metrics": [r["metrics"] for r in trained],
            "final": {name: value for name, value in last.items() if name != "train_loss"},
            "model_sha256": self.model_sha256,
            **self.report.to_json(),
            "folder": str(self.folder),
            **({"hostile": self.hostile, "refused": len(self.refused)} if self.hostile else {}),
        }


def run_demo(
    folder: Path,
    rounds: int,
    seed: int,
    *,
    attack: str = "",
    on_plan: Callable[[Plan], None],
    on_event: Callable[[Mapping[str, Any]], None],
) -> Demo:
    """Runs the whole demo; every process that it starts has ended when it returns.

    Args:
      folder: where everything is put; a folder of an earlier demo is made anew.
      rounds: training rounds.
      seed: of the job, and of each hospital's split into training and held-out patients.
      attack: what the last hospital does to the others, one of `ATTACKS`; empty for nothing. The
        job then has no masks, under which no update can be checked, and bears its absence.
      on_plan: told the plan before anything is trained.
      on_event: told what happens, as the coordinator writes it down.

    Raises:
      HansaError: the folder is in use for something else, or the federation failed.
    """
    _clear(folder)
    job = heart_job(rounds=rounds, seed=seed)
    hospitals = job.cohort.population
    quorum = hospitals - 1 if attack else hospitals
    job = replace(job, rounds=replace(job.rounds, deadline=SILENCE, quorum=quorum))
    if attack:
        job = replace(job, secure_aggregation=SecureAggregation(), quantization=Quantization())
    sites = heart_sites(split_seed=seed)
    hostile = tuple(sites)[-1] if attack else ""
    with LocalFederation(folder) as federation:
        federation.start_coordinator()
        digest = pack(job).digest
        for name, site in sites.items():
            federation.join(name, site.config, [digest])
            if name == hostile:
                federation.start_hostile_site(name, ATTACKS[attack])
            else:
                federation.start_site(name)
        started = time.monotonic()
        submitted = submit(job, federation.remote)
        on_plan(submitted.plan)
        for event in federation.remote.events(submitted.job, 0, seconds=SILENCE):
            on_event(event)
            if event["kind"] == "job.status" and event["body"]["to"] not in ("offered", "running"):
                break
        seconds = time.monotonic() - started
        whole = federation.remote.job(submitted.job)
        if whole["status"] != "done":
            raise HansaError(
                f"the demo's job is {whole['status']}: {whole['reason'] or 'no news for a minute'}",
                fix=f"see {federation.log('coordinator')} and the logs beside it",
            )
        params = np.frombuffer(federation.remote.model(submitted.job), "<f4")
    report = _compared(job, params, seed)
    demo = Demo(
        submitted.plan,
        submitted.job,
        tuple(whole["rounds"]),
        whole["model_sha256"],
        report,
        folder,
        seconds,
        hostile,
    )
    (folder / "report.json").write_text(json.dumps(demo.to_json(), indent=2) + "\n", "utf-8")
    arrays: dict[str, Any] = submitted.plan.task.schema.views(params)
    np.savez(folder / "model.npz", **arrays)
    return demo


def _compared(job: Job, params: Vector, seed: int) -> Report:
    task = Heart()
    splits = {name: task.data(site) for name, site in heart_sites(split_seed=seed).items()}
    return compare(job, task, splits, params)


def _clear(folder: Path) -> None:
    """An empty folder with our mark; nothing that is not ours is deleted."""
    if folder.is_dir() and any(folder.iterdir()) and not (folder / MARK).exists():
        raise HansaError(
            f"{folder} holds something that the demo did not make",
            fix="name another folder with --folder",
        )
    try:
        if folder.exists():
            shutil.rmtree(folder)
        folder.mkdir(parents=True)
        (folder / MARK).touch()
    except OSError as error:
        raise HansaError(
            f"{folder} cannot be made anew ({error.strerror})",
            fix="name another folder with --folder",
        ) from error
