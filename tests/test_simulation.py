"""Whole runs on one machine."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import numpy as np
import pytest

from hansa.core.contribute import Purpose
from hansa.core.job import Aggregation, Cohort, Privacy, Quantization, Rounds
from hansa.core.round import RoundRecord
from hansa.core.vector import sha256
from hansa.errors import ClientFailed, HansaError, PlanRefused, RoundVoid
from hansa.simulation import population_of, simulate
from tests.support.toy import TOY, job
from tests.support.toyjob.task import Toy

UNIFORM = Aggregation(weighting="uniform")
JOBS = {
    "mean": job(),
    "median": job(aggregation=Aggregation(rule="median"), rounds=Rounds(count=3, quorum=5)),
    "trimmed mean": job(
        aggregation=Aggregation(rule="trimmed_mean", trim=0.26), rounds=Rounds(count=3, quorum=5)
    ),
    "clipped": job(aggregation=Aggregation(weighting="uniform", clip=0.5)),
    "ring": job(
        aggregation=Aggregation(weighting="uniform", clip=1.0, max_weight=50),
        quantization=Quantization(step=1e-6),
    ),
    "private": job(
        aggregation=UNIFORM,
        privacy=Privacy(mechanism="gaussian", clip=1.0, noise_multiplier=0.4, delta=1e-3),
    ),
    "sampled": job(
        aggregation=UNIFORM,
        cohort=Cohort(population=40, sampler="poisson", rate=0.4),
        privacy=Privacy(
            mechanism="gaussian",
            clip=1.0,
            noise_multiplier=0.5,
            delta=1e-5,
            metrics_clip=20.0,
            metrics_noise_multiplier=0.5,
        ),
    ),
}


@pytest.mark.parametrize("name", JOBS)
def test_every_kind_of_job_runs_and_repeats_bit_by_bit(name):
    one, two = simulate(JOBS[name]), simulate(JOBS[name])
    assert one.model_sha256 == two.model_sha256 == sha256(one.state.params)
    assert [r.metrics for r in one.records] == [r.metrics for r in two.records]
    assert one.model_sha256 != simulate(JOBS[name], seed=1).model_sha256
    assert np.isfinite(one.state.params).all()


@pytest.mark.parametrize("name", ["mean", "median", "trimmed mean", "clipped", "ring"])
def test_it_learns(name):
    result = simulate(JOBS[name], rounds=8)
    losses = [r.metrics["loss"] for r in result.records]
    assert result.metrics["accuracy"] > 0.8  # type: ignore[operator]
    assert losses[-1] < 0.7 * losses[0]  # type: ignore[operator]


def test_quantising_finely_changes_next_to_nothing():
    plain = simulate(replace(JOBS["ring"], quantization=Quantization()))
    ring = simulate(JOBS["ring"])
    assert ring.state.params == pytest.approx(plain.state.params, abs=1e-5)
    assert ring.model_sha256 != plain.model_sha256


def test_a_result_says_what_ran_and_how_fast():
    heard: list[RoundRecord] = []
    result = simulate(JOBS["mean"], on_round=heard.append)
    assert result.records == tuple(heard)
    assert [r.purpose for r in heard] == [Purpose.TRAIN] * 3 + [Purpose.EVALUATE]
    assert result.plan.job.name == "toy"
    assert result.state.round == 3
    assert result.metrics == heard[-1].metrics
    assert result.seconds_per_round == pytest.approx(np.mean([r.seconds for r in heard[:3]]))
    assert result.clients_per_second == pytest.approx(24 / sum(r.seconds for r in heard))


def test_overrides_are_in_the_plan():
    result = simulate(JOBS["mean"], clients=4, seed=5, rounds=2)
    assert (result.plan.job.cohort.population, result.plan.job.seed) == (4, 5)
    assert len(result.records) == 3
    assert len(result.records[0].cohort) == 4


def test_private_metrics_stay_at_home_or_carry_noise():
    quiet = simulate(JOBS["private"])
    assert quiet.metrics == {}
    assert all(r.metrics == {} for r in quiet.records)
    noisy = simulate(JOBS["sampled"])
    assert noisy.metrics["loss"] is not None
    assert len(noisy.records) == noisy.plan.charges == 4


def test_the_task_can_be_handed_in():
    assert simulate(JOBS["mean"], task=TOY).model_sha256 == simulate(JOBS["mean"]).model_sha256


class Named(Toy):
    def clients(self, of):
        return ("kiel", "riga", "visby", "reval", "danzig", "wismar", "bergen")


def test_a_task_can_name_its_clients():
    result = simulate(JOBS["mean"], task=Named())
    assert result.records[0].members == ("danzig", "kiel", "reval", "riga", "visby", "wismar")
    assert population_of(job(), TOY)[:2] == ("client-0001", "client-0002")
    with pytest.raises(HansaError, match="Named knows 7"):
        simulate(JOBS["mean"], clients=8, task=Named())


class Broken(Toy):
    def data(self, site):
        if site.name == "client-0003":
            raise ValueError("no such ward")
        return super().data(site)


def test_a_broken_client_is_left_out_or_stops_the_run():
    result = simulate(JOBS["mean"], task=Broken())
    assert [(d.client, d.reason) for d in result.records[0].dropouts] == [
        ("client-0003", "ValueError")
    ]
    with pytest.raises(ClientFailed, match="no such ward"):
        simulate(JOBS["mean"], task=Broken(), debug=True)


class Hopeless(Toy):
    def data(self, site):
        raise ValueError("nothing here")


def test_too_few_clients_end_the_run():
    with pytest.raises(RoundVoid, match="void 2 times"):
        simulate(job(rounds=Rounds(count=3, attempts=2)), task=Hopeless())


def test_a_job_that_does_not_fit_does_not_start():
    with pytest.raises(PlanRefused):
        simulate(job(aggregation=Aggregation(clip=1.0)))


def test_an_unknown_engine_is_named_with_its_nearest():
    with pytest.raises(HansaError, match="no engine 'inlien'") as caught:
        simulate(JOBS["mean"], engine="inlien")
    assert "write inline" in caught.value.fix


def test_it_runs_inside_a_notebook():
    """A running event loop, as a notebook has one."""

    async def cell() -> str:
        return simulate(JOBS["mean"]).model_sha256

    assert asyncio.run(cell()) == simulate(JOBS["mean"]).model_sha256


def test_the_public_name_is_the_function():
    import hansa.simulation  # what is loaded first must not hide the function

    assert hansa.simulate is simulate
