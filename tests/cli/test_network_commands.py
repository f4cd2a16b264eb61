"""The verbs of a federation, against one that runs: a coordinator and two sites as processes."""

from __future__ import annotations

import json
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from hansa.jobfile import load_job
from hansa.local.federation import LocalFederation
from hansa.privacy import audit_file
from hansa.recipes import compile_plan
from tests.support.audit_results import result
from tests.support.cli import JOB, TASK, Run, command, environment, make_jobs, run_here

SITES = ("kiel", "luebeck")
SMALL = JOB.replace("population = 4", "population = 2")
WAITS = JOB.replace("population = 4", "population = 3")
"""A job for three sites: with two it waits for the third."""


@dataclass(frozen=True)
class World:
    """A running federation, the jobs that were submitted to it, and what the commands said."""

    folder: Path
    said: Mapping[str, Run]

    def hansa(self, *words: str) -> Run:
        return run_here(*words, cwd=self.folder)

    def json(self, *words: str) -> dict[str, Any]:
        done = self.hansa(*words, "--json")
        assert done.code == 0, done.err
        told: dict[str, Any] = json.loads(done.out)
        return told

    def job(self, name: str) -> str:
        return str(json.loads(self.said[name].out)["job"])


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """Two sites that joined by pasted invites and trust one signer; three jobs."""
    folder = tmp_path_factory.mktemp("federation")
    for name, text in (("small", SMALL), ("waits", WAITS)):
        (folder / name).mkdir()
        (folder / name / "task.py").write_bytes(TASK.read_bytes())
        (folder / name / "job.toml").write_text(text)
    said: dict[str, Run] = {}

    def hansa(*words: str) -> Run:
        return run_here(*words, cwd=folder)

    with LocalFederation(folder, name="hanse") as federation:
        federation.start_coordinator()
        said["nobody"] = hansa("sites")
        said["no jobs"] = hansa("jobs")
        said["key"] = hansa("key", "my.key", "--json")
        signer = json.loads(said["key"].out)["signer"]
        for site in SITES:
            line = hansa("invite", site, "--organisation", f"{site} hospital").out.strip()
            pasted = "\n ".join(line[i : i + 76] for i in range(0, len(line), 76))
            said[f"join {site}"] = hansa("site", "join", pasted, "--folder", site)
            said["used"] = hansa("site", "join", line, "--folder", "elsewhere")
            said[f"policy {site}"] = hansa("site", "policy", site)
            settings = folder / site / "site.toml"
            settings.write_text(
                settings.read_text("utf-8").replace("signers = []", f'signers = ["{signer}"]')
            )
        federation.start_site("kiel")  # alone: a job is refused as soon as its quorum is impossible
        federation.wait_for_sites(1)
        said["unsigned"] = hansa("submit", "small", "--json")
        said["watch unsigned"] = hansa("watch", json.loads(said["unsigned"].out)["job"])
        federation.start_site("luebeck")
        federation.wait_for_sites(len(SITES))
        said["signed"] = hansa("submit", "small", "--sign", "my.key", "--json")
        said["watch signed"] = hansa("watch", json.loads(said["signed"].out)["job"])
        said["waiting"] = hansa("submit", "waits", "--sign", "my.key", "--json")
        yield World(folder, said)


def narrow(done: Run) -> bool:
    """Whether all lines fit a terminal of 80 columns."""
    return all(len(line) <= 80 for line in (done.out + done.err).splitlines())


# ------------------------------------------------------------------ joining


def test_an_invite_that_was_pasted_in_pieces_is_one(world: World) -> None:
    for site in SITES:
        joined = world.said[f"join {site}"]
        assert joined.code == 0
        assert f"Site '{site}' has joined federation 'hanse'." in joined.out
        assert f"hansa site run {site}" in joined.out
    used = world.said["used"]
    assert used.code == 1
    assert "was used already" in used.err


def test_a_new_site_says_that_nothing_may_run_yet(world: World) -> None:
    fresh = world.said["policy kiel"].out
    assert 'policy.federations    ["hanse"]' in fresh
    assert "policy.tasks          []" in fresh
    assert "No task may run yet" in fresh
    assert "No task may run yet" not in world.hansa("site", "policy", "kiel").out
    told = world.json("site", "policy", "kiel")
    assert told["policy"]["signers"] == [json.loads(world.said["key"].out)["signer"]]
    assert told["limits"] == {"threads": 1, "memory_mb": 0, "round_seconds": 3600.0}


def test_sites_are_listed_with_who_attends(world: World) -> None:
    assert "No site has joined yet" in world.said["nobody"].out
    listed = world.hansa("sites")
    assert narrow(listed)
    assert listed.out.splitlines()[0].split("  ")[0] == "Site"
    for row, site in zip(listed.out.splitlines()[1:], SITES, strict=True):
        assert row.startswith(site)
        assert f"{site} hospital" in row
    told = world.json("sites")["sites"]
    assert [(row["name"], row["revoked"]) for row in told] == [(site, None) for site in SITES]


# ------------------------------------------------------------------ jobs


def test_unsigned_code_is_refused_and_everybody_says_why(world: World) -> None:
    watched, job = world.said["watch unsigned"], world.job("unsigned")
    assert watched.code == 2
    assert narrow(watched)
    assert "is not among policy.tasks, nor signed by" in " ".join(watched.out.split())
    assert "Error: the job is refused." in watched.err
    shown = world.hansa("jobs", job)
    assert narrow(shown)
    assert f"{job}: refused." in shown.out
    again = world.hansa("watch", job)
    assert (again.code, again.out) == (2, watched.out)


def test_a_job_that_ended_is_watched_from_its_start_to_its_end(world: World) -> None:
    watched = world.said["watch signed"]
    assert (watched.code, watched.err) == (0, "")
    assert narrow(watched)
    for words in ("toy is submitted", "kiel accepts", "luebeck accepts", "the job is done"):
        assert words in watched.out
    for number in range(3):
        assert f"round {number}: 2 of 2 in " in watched.out
    assert "evaluate: 2 of 2" in watched.out
    assert world.hansa("watch", world.job("signed")).out == watched.out


def test_events_as_json_are_one_object_a_line(world: World) -> None:
    done = world.hansa("watch", world.job("signed"), "--json")
    events = [json.loads(line) for line in done.out.splitlines()]
    assert done.code == 0
    assert [event["seq"] for event in events] == sorted(event["seq"] for event in events)
    assert {event["job"] for event in events} == {world.job("signed")}
    assert events[-1]["body"]["to"] == "done"


def test_jobs_are_listed_and_shown(world: World) -> None:
    assert "No job was submitted yet." in world.said["no jobs"].out
    listed, told = world.hansa("jobs"), world.json("jobs")["jobs"]
    assert narrow(listed)
    assert {row["id"] for row in told} >= {world.job("unsigned"), world.job("signed")}
    assert all(row["id"] in listed.out for row in told)
    shown, whole = world.hansa("jobs", world.job("signed")), world.json("jobs", world.job("signed"))
    assert narrow(shown)
    assert whole["model_sha256"] in shown.out
    assert [row["purpose"] for row in whole["rounds"]] == ["train"] * 3 + ["evaluate"]
    assert f"{whole['rounds'][2]['metrics']['accuracy']:.4g}" in shown.out
    assert {row["site"] for row in whole["verdicts"]} == set(SITES)


def test_a_statement_says_what_was_released(world: World) -> None:
    job = world.job("signed")
    done = world.hansa("jobs", job, "--statement", "s.json")
    assert done.code == 0, done.err
    assert "The privacy statement is in s.json." in done.err
    said = json.loads((world.folder / "s.json").read_text("utf-8"))
    assert (said["private"], said["epsilon"]) == (False, None)
    assert said["plan_digest"] == world.json("jobs", job)["plan_digest"]
    released = said["released"]
    assert (released["run"], released["final"]) == (job, True)
    assert (released["rounds"], released["measurements"]) == (3, 1)
    assert released["ledger_entries"] == 8
    lost = world.hansa("jobs", "--statement", "s.json")
    assert lost.code == 64
    assert "name the JOB" in lost.err


def test_the_statement_of_a_run_takes_an_audit_of_its_plan_alone(world: World) -> None:
    job, plan = world.job("signed"), compile_plan(load_job(world.folder / "small"))
    for name, of in (("right", plan.digest), ("wrong", "0" * 64)):
        audit_file.save(result(plan, plan_digest=of), world.folder / f"{name}.json")
    done = world.hansa("jobs", job, "--statement", "a.json", "--audit", "right.json")
    assert done.code == 0, done.err
    said = json.loads((world.folder / "a.json").read_text("utf-8"))
    assert said["audited"]["plan_digest"] == said["plan_digest"] == plan.digest
    assert said["released"]["run"] == job
    refused = world.hansa("jobs", job, "--statement", "b.json", "--audit", "wrong.json")
    assert refused.code == 2
    assert "the audit is of plan 0000000000000000" in " ".join(refused.err.split())
    assert not (world.folder / "b.json").exists()
    assert world.hansa("jobs", job, "--audit", "right.json").code == 64


def test_a_job_that_waits_is_watched_until_interrupted_and_then_cancelled(world: World) -> None:
    job = world.job("waiting")
    watching = subprocess.Popen(
        command("watch", job),
        cwd=world.folder,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert watching.stdout is not None
    assert "toy is submitted" in watching.stdout.readline()
    time.sleep(0.2)
    watching.send_signal(signal.SIGINT)
    _, err = watching.communicate(timeout=30)
    assert watching.returncode == 130
    assert "Traceback" not in err

    cancelled = world.hansa("cancel", job, "--reason", "the third site is late")
    assert cancelled.code == 0
    assert f"{job}: cancelled. the third site is late" in cancelled.out
    watched = world.hansa("watch", job)
    assert watched.code == 1
    assert "the job is cancelled: the third site is late" in watched.out
    late = world.hansa("cancel", job)
    assert (late.code, "is not open" in late.err) == (1, True)


@pytest.mark.parametrize("words", [("jobs", "nope"), ("watch", "nope"), ("cancel", "nope")])
def test_a_job_that_is_not_there(world: World, words: tuple[str, ...]) -> None:
    done = world.hansa(*words)
    assert (done.code, done.out) == (1, "")
    assert "'nope'" in done.err
    assert "Fix: " in done.err


# ------------------------------------------------------------------ what left, who is out


def test_the_log_says_what_left_and_why_not(world: World) -> None:
    done, told = world.hansa("site", "log", "kiel"), world.json("site", "log", "kiel")["entries"]
    assert narrow(done)
    left = [entry for entry in told if entry["kind"] == "left"]
    assert [(e["purpose"], e["round"]) for e in left] == [
        ("train", 0),
        ("train", 1),
        ("train", 2),
        ("evaluate", 3),
    ]
    assert f"4 updates left this site, {sum(e['bytes'] for e in left):,} bytes" in done.out
    lines = " ".join(done.out.split())
    assert f"refused {world.job('unsigned')}: this site's policy refuses the job" in lines
    assert f"accepted {world.job('signed')}" in lines
    assert f"received {world.job('signed')} evaluate" in lines
    assert told[0]["previous"] == "0" * 64


def test_a_revoked_site_is_out_and_says_why(world: World) -> None:
    unknown = world.hansa("revoke", "visby")
    assert (unknown.code, "knows no site 'visby'" in unknown.err) == (1, True)
    assert world.hansa("revoke", "luebeck", "--reason", "it was stolen").code == 0
    assert world.json("sites")["sites"][1]["revoked"] is not None
    assert "revoked" in world.hansa("sites").out
    log, ends = world.folder / "luebeck.log", time.monotonic() + 20
    while "it was stolen" not in log.read_text() and time.monotonic() < ends:
        time.sleep(0.05)
    assert "site 'luebeck' was revoked: it was stolen" in log.read_text()
    assert "Traceback" not in log.read_text()


# ------------------------------------------------------------------ nothing there


@pytest.mark.parametrize(
    "words",
    [
        ("jobs",),
        ("sites",),
        ("watch", "toy"),
        ("cancel", "toy"),
        ("revoke", "kiel"),
        ("submit", "toy"),
    ],
)
def test_a_coordinator_that_is_not_there(tmp_path: Path, words: tuple[str, ...]) -> None:
    make_jobs(tmp_path)
    for coordinator in ((), ("--coordinator", "nowhere")):
        done = run_here(*words, *coordinator, cwd=tmp_path)
        assert (done.code, done.out) == (1, "")
        assert "there is no coordinator's folder or operator.json at" in done.err
        assert "--coordinator" in done.err


@pytest.mark.parametrize(
    ("words", "fix"),
    [
        (("site", "run", "nowhere"), "hansa site join INVITE"),
        (("site", "policy", "nowhere"), "hansa site join INVITE"),
        (("site", "log", "nowhere"), "hansa site join INVITE"),
        (("coordinator", "serve", "nowhere"), "hansa coordinator init"),
        (("invite", "kiel", "--coordinator", "nowhere"), "hansa coordinator init"),
    ],
)
def test_a_folder_that_is_not_there(
    hansa: Callable[..., Run], words: tuple[str, ...], fix: str
) -> None:
    done = hansa(*words)
    assert (done.code, done.out) == (2, "")
    assert f"Fix: run: {fix}" in done.err


def test_a_coordinator_that_does_not_run(hansa: Callable[..., Run], tmp_path: Path) -> None:
    made = hansa("coordinator", "init", "coordinator", "--federation", "hanse")
    assert made.code == 0
    assert "  hansa invite SITE --coordinator coordinator\n" in made.out
    assert "does not answer" in hansa("jobs").err
    assert "holds a coordinator already" in hansa(
        "coordinator", "init", "coordinator", "--federation", "hanse"
    ).err.replace("\n  ", " ")
    assert hansa("invite", "kiel").out.startswith("hansa-invite-1.")  # it need not run for that
    bad = hansa("coordinator", "init", "other", "--federation", "Bad Name")
    assert (bad.code, (tmp_path / "other").exists()) == (1, False)


@pytest.mark.parametrize("group", ["site", "coordinator"])
def test_a_group_without_a_command(hansa: Callable[..., Run], group: str) -> None:
    done = hansa(group)
    assert (done.code, done.out) == (64, "")
    assert done.err == f"Error: Missing command.\n  Fix: see hansa {group} --help\n"
