"""A hostile process among ten image sites, all real: it is outvoted, then quarantined."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from hansa.core.job import Aggregation, Cohort, Defend, Job, Rounds
from hansa.examples.images.fetch import Dataset, save
from hansa.examples.images.job import images_job
from hansa.examples.images.sites import share_of
from hansa.local.federation import LocalFederation
from hansa.submission import submit
from hansa.work.bundle import pack

SITES = tuple(f"site-{i}" for i in range(10))
HOSTILE = SITES[3]
SILENCE = 120.0


def small(share: Dataset, train: int, test: int) -> Dataset:
    """The first images of a share."""
    return Dataset(
        share.train_inputs[:train],
        share.train_targets[:train],
        share.test_inputs[:test],
        share.test_targets[:test],
    )


def defended() -> Job:
    return replace(
        images_job(small=True),
        rounds=Rounds(count=7, quorum=6, deadline=SILENCE),
        cohort=Cohort(population=len(SITES)),
        aggregation=Aggregation(rule="geometric_median", clip=20.0, weighting="uniform"),
        defend=Defend(standing=True),
    )


def test_a_hostile_process_is_quarantined_and_the_model_learns(tmp_path: Path) -> None:
    job = defended()
    with LocalFederation(tmp_path / "federation", name="images") as federation:
        federation.start_coordinator()
        digest = pack(job).digest
        for number, site in enumerate(SITES):
            path = tmp_path / f"{site}.npz"
            share = share_of(f"part-{number:03d}-of-{len(SITES)}", rule="iid")
            save(small(share, 120, 40), path)
            federation.join(site, {"path": str(path)}, [digest])
            if site == HOSTILE:
                federation.start_hostile_site(site, "sign_flip_5")
            else:
                federation.start_site(site)
        done = submit(job, federation.remote)
        for event in federation.remote.events(done.job, 0, seconds=SILENCE):
            if event["body"].get("to") in ("done", "failed", "refused", "cancelled"):
                break
        whole = federation.remote.job(done.job)
        assert (whole["status"], whole["reason"]) == ("done", "")
        said = federation.remote.standing(done.job)
        assert [c for c, s in said["clients"].items() if s["state"] != "trusted"] == [HOSTILE]
        assert said["clients"][HOSTILE]["state"] == "quarantined"
        assert federation.remote.replay_standing(done.job)["agrees"]
        last = whole["rounds"][-1]
        assert HOSTILE not in last["cohort"]
        first, final = whole["rounds"][0]["metrics"], last["metrics"]
        assert final["accuracy"] > first["accuracy"] + 0.2
        assert np.isfinite(final["loss"])
        assert "quarantined and counts 0" in federation.log(HOSTILE).read_text("utf-8")
