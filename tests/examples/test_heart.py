"""The four hospitals: what is read, what is learnt, and that it was worth it."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats

import hansa
from hansa.core.keys import ReplayKey
from hansa.core.parts import Context, Site, Task
from hansa.examples.heart import report
from hansa.examples.heart.job import heart_job, heart_sites
from hansa.examples.heart.task import COLUMNS, FEATURES, HOSPITALS, Heart, clean, features, read
from hansa.jobfile import job_from_words, job_to_words
from hansa.work.bundle import load_bundled_task, load_task, pack, unpack
from hansa.work.torch import TorchTask

FILES = {name: Path(str(site.config["path"])) for name, site in heart_sites().items()}
HOME = {
    "cleveland": (303, 303),
    "hungarian": (294, 261),
    "switzerland": (123, 46),
    "va": (200, 130),
}


class HeartTorch(TorchTask):
    """The same model, data and start as `Heart`, in PyTorch."""

    metrics = Heart.metrics

    def model(self) -> torch.nn.Module:
        linear = torch.nn.Linear(len(FEATURES), 1)
        with torch.no_grad():
            for parameter in linear.parameters():
                parameter.zero_()
        return linear

    def loss(self, outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.binary_cross_entropy_with_logits(outputs[:, 0], targets.float())

    def probabilities(self, outputs: torch.Tensor) -> torch.Tensor:
        sick = outputs[:, 0].sigmoid()
        return torch.stack([1 - sick, sick], dim=1)

    def clients(self, job: hansa.Job) -> tuple[str, ...]:
        return HOSPITALS

    def data(self, site: hansa.Site) -> hansa.Split:
        return Heart().data(site)


# ------------------------------------------------------------------ the data


@pytest.mark.parametrize("hospital", HOSPITALS)
def test_cleaning_leaves_the_published_patients(hospital):
    patients = read(FILES[hospital])
    assert (len(patients), len(clean(patients))) == HOME[hospital]
    assert not np.isnan(clean(patients)).any()


def test_the_share_of_the_sick_is_the_published_one():
    sick = [round(float((clean(read(FILES[h]))[:, -1] > 0).mean()), 2) for h in HOSPITALS]
    assert sick == [0.46, 0.38, 0.98, 0.78]


def test_features_of_the_first_patient_by_hand():
    """63,1,1,145,233,1,2,150,0,2.3,... of Cleveland."""
    expected = [0.8, 1, 1, 0, 0, 0, 0.75, -0.14, 0, 1, 0, 0, 2.3]
    found = features(clean(read(FILES["cleveland"])))
    np.testing.assert_allclose(found[0], expected, rtol=1e-6)
    assert found.dtype == np.float32
    assert len(FEATURES) == found.shape[1]
    np.testing.assert_array_equal(found[:, 2:6].sum(axis=1), 1)  # one kind of pain each


def test_cholesterol_of_zero_is_not_measured():
    found = features(clean(read(FILES["switzerland"])))
    missing, level = found[:, 8], found[:, 7]
    assert missing.all()  # as the data set's own description says of this hospital
    assert not level.any()


def test_a_hospital_is_split_by_its_seed():
    for name, site in heart_sites(split_seed=3).items():
        split = Heart().data(site)
        n = HOME[name][1]
        assert (len(split.train), len(split.test)) == (round(0.7 * n), n - round(0.7 * n))
        both = np.concatenate([split.train.inputs, split.test.inputs])
        whole = features(clean(read(FILES[name])))
        np.testing.assert_array_equal(np.sort(both, axis=0), np.sort(whole, axis=0))
        again, other = Heart(3).data(Site(name, {})), Heart().data(Site(name, {}))
        np.testing.assert_array_equal(split.test.inputs, again.test.inputs)
        assert other.test.inputs.tobytes() != split.test.inputs.tobytes()


def test_a_site_reads_its_own_file_only(tmp_path):
    text = FILES["va"].read_text()
    (tmp_path / "patients.csv").write_text(text)
    for config in (
        {"path": str(tmp_path / "patients.csv")},
        {"path": "patients.csv", "folder": str(tmp_path)},
    ):
        split = Heart().data(Site("elsewhere", config))
        assert len(split.train) + len(split.test) == 130


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("1,2,3\n", ("line 1", "14 numbers", "age, sex")),
        ("63,1,1,145,233,1,2,150,0,2.3,3,0,6,0\n63,1,1,145,abc,1,2,150,0,2.3,3,0,6,0", ("line 2",)),
    ],
)
def test_a_wrong_file_is_refused_without_showing_a_value(tmp_path, text, words):
    (tmp_path / "patients.csv").write_text(text)
    with pytest.raises(hansa.HansaError) as refusal:
        Heart().data(Site("kiel", {"path": str(tmp_path / "patients.csv")}))
    for word in words:
        assert word in str(refusal.value)
    assert "abc" not in str(refusal.value)


def test_a_site_without_a_file_is_told_what_to_write(tmp_path):
    for site in (Site("kiel", {}), Site("kiel", {"path": str(tmp_path / "none.csv")})):
        with pytest.raises(hansa.HansaError, match=r"\[data\] section"):
            Heart().data(site)


def test_the_data_keep_their_credit():
    credit = (FILES["va"].parent / "README.md").read_text()
    for word in ("CC BY 4.0", "10.24432/C52P4X", "Janosi", *COLUMNS):
        assert word in credit


# ------------------------------------------------------------------ the model


def test_numpy_and_torch_have_one_gradient():
    split, rng = Heart().data(Site("va", {})), np.random.default_rng(2)
    params = rng.normal(size=14).astype(np.float32)
    loss, gradient = Heart().gradient(params, split.train)
    torch_loss, torch_gradient = HeartTorch().gradient(params, split.train)
    assert loss == pytest.approx(torch_loss, rel=1e-5)
    np.testing.assert_allclose(gradient, torch_gradient, atol=1e-6)
    ours, theirs = (t.predict(params, split.test) for t in (Heart(), HeartTorch()))
    np.testing.assert_allclose(ours.probabilities, theirs.probabilities, atol=1e-6)
    np.testing.assert_allclose(ours.losses, theirs.losses, atol=1e-5)


def test_a_score_beyond_every_exponential_is_a_probability():
    params = np.full(14, 1e4, np.float32)
    inputs = np.array([[1.0] * 13, [-1.0] * 13], np.float32)
    np.testing.assert_array_equal(Heart().predict(params, hansa.Examples(inputs, np.array([1, 0])))
                                  .probabilities, [[0, 1], [1, 0]])  # fmt: skip


@pytest.mark.parametrize("make", [Heart, HeartTorch])
def test_a_run_repeats_bit_by_bit(make: Callable[[], Task]):
    one, other = (hansa.simulate(heart_job(rounds=2), task=make()) for _ in range(2))
    assert one.model_sha256 == other.model_sha256


def test_numpy_and_torch_agree_after_twenty_rounds():
    job = heart_job(rounds=20)
    ours, theirs = (hansa.simulate(job, task=task()) for task in (Heart, HeartTorch))
    np.testing.assert_allclose(ours.state.params, theirs.state.params, atol=1e-5)
    assert np.abs(ours.state.params).max() > 0.3  # something was learnt that could differ
    assert ours.metrics["accuracy"] == pytest.approx(theirs.metrics["accuracy"])


# ------------------------------------------------------------------ the job


def test_the_file_is_the_job_in_python():
    job = hansa.load_job("heart")
    assert job == heart_job()
    assert job_from_words(job_to_words(job)) == heart_job()


def test_the_task_works_from_its_bundle(tmp_path):
    """What a site unpacks has code only; with the hospital's path it is the same task."""
    job = heart_job()
    bundle = pack(job)
    assert "task.py" in bundle.files
    assert unpack(bundle.to_bytes(), tmp_path / "b").digest == bundle.digest
    bundled, installed = load_bundled_task(tmp_path / "b", job.task), load_task(job)
    assert type(bundled) is not type(installed)
    assert bundled.schema == installed.schema
    for site in heart_sites().values():
        one, other = bundled.data(site), installed.data(site)
        np.testing.assert_array_equal(one.train.inputs, other.train.inputs)
    with pytest.raises(hansa.HansaError, match="does not say where"):
        bundled.data(Site("va", {}))


# ------------------------------------------------------------------ the report


@pytest.mark.parametrize("levels", [2, 5, 1000])
def test_auroc_is_that_of_scipy(levels):
    rng = np.random.default_rng(levels)
    scores, targets = rng.integers(0, levels, 300) / levels, rng.integers(0, 2, 300)
    sick, healthy = scores[targets == 1], scores[targets == 0]
    u = stats.mannwhitneyu(sick, healthy).statistic
    assert report.auroc(scores, targets) == pytest.approx(u / (len(sick) * len(healthy)))


def test_what_is_not_defined_is_not_a_number():
    assert math.isnan(report.auroc(np.array([0.1, 0.9]), np.array([1, 1])))
    assert math.isnan(report.accuracy(np.zeros(0), np.zeros(0)))
    assert report.accuracy(np.array([0.2, 0.7, 0.6]), np.array([0, 1, 0])) == pytest.approx(2 / 3)


def auroc_on(params: Any, task: Heart, sites: dict[str, Site]) -> float:
    held_out = [task.data(site).test for site in sites.values()]
    scores = np.concatenate([task.predict(params, e).probabilities[:, 1] for e in held_out])
    return report.auroc(scores, np.concatenate([e.targets for e in held_out]))


def test_the_federation_is_worth_it_whatever_the_seed():
    """Within 0.02 AUROC of training on all data, above the mean hospital's own model."""
    gains, gaps = [], []
    for seed in range(10):
        job, task, sites = heart_job(seed=seed), Heart(seed), heart_sites(seed)
        splits = {name: task.data(site) for name, site in sites.items()}
        federated = hansa.simulate(job, task=task).state.params
        everybody = hansa.Examples(
            np.concatenate([s.train.inputs for s in splits.values()]),
            np.concatenate([s.train.targets for s in splits.values()]),
        )
        pooled = report.train_alone(job, task, "pooled", everybody)
        local = [report.train_alone(job, task, n, s.train) for n, s in splits.items()]
        ours = auroc_on(federated, task, sites)
        gaps.append(ours - auroc_on(pooled, task, sites))
        gains.append(ours - np.mean([auroc_on(params, task, sites) for params in local]))
        assert abs(gaps[-1]) < 0.02
        assert gains[-1] > 0
    assert abs(np.mean(gaps)) < 0.005
    assert np.mean(gains) > 0.02


def test_training_alone_is_a_federation_of_one():
    """The same client work and the same number of steps, only without the others."""
    job, task = heart_job(rounds=3), Heart()
    split = task.data(Site("va", {}))
    alone = report.train_alone(job, task, "va", split.train)
    params = task.initial(0)
    for number in range(3):
        key = ReplayKey.of_seed(0).derive("alone", "va", "round", number)
        ctx = Context(
            "va", number, ReplayKey.of_seed(0).derive("alone", "va").derive("round", number), task
        )
        assert key.key != ctx.key.key
        batches = list(job.algorithm.work.batches(len(split.train), ctx))
        assert len(batches) == 20
        for index in batches:
            _, gradient = task.gradient(params, split.train.take(index))
            params = params - np.float32(0.1) * gradient
    np.testing.assert_allclose(alone, params, atol=1e-5)


def test_the_report_says_what_each_model_does():
    job, task = heart_job(rounds=5), Heart()
    splits = {name: task.data(site) for name, site in heart_sites().items()}
    result = hansa.simulate(job)
    found = report.compare(job, task, splits, result.state.params)
    plain = json.loads(json.dumps(found.to_json(), allow_nan=False))
    assert plain["patients"] == sum(len(s.test) for s in splits.values()) == 222
    assert plain.keys() == {
        "patients", "local_only", "local_at_home", "local_elsewhere", "federated",
        "federated_at_home", "pooled",
    }  # fmt: skip
    for name in plain.keys() - {"patients"}:
        for metric in ("accuracy", "auroc"):
            low, high = plain[name][f"{metric}_interval"]
            assert 0 <= low <= plain[name][metric] <= high <= 1
            assert 0.01 < high - low < 0.4
            estimate = getattr(getattr(found, name), metric)
            assert (plain[name][metric], low, high) == dataclasses.astuple(estimate)
    # The federation's own measurement, from sums that the hospitals sent, is the same number.
    assert plain["federated"]["accuracy"] == pytest.approx(result.metrics["accuracy"])
    auroc = result.metrics["auroc"]
    assert auroc is not None
    assert plain["federated"]["auroc"] == pytest.approx(auroc, abs=0.01)


def test_an_interval_is_as_wide_as_theory_says():
    """For a share p of n patients of one hospital: p +- 1.96 sqrt(p (1 - p) / n)."""
    n, p = 400, 0.8
    scores = np.zeros((1, n))
    scores[0, : int(n * p)] = 1.0
    judged = report._Judged(scores, np.ones(n, np.int64), np.zeros(n, np.int64))
    estimate = report._score(judged, [(0, np.ones(n, bool))]).accuracy
    half = 1.96 * math.sqrt(p * (1 - p) / n)
    assert estimate.value == p
    assert estimate.high - p == pytest.approx(half, rel=0.15)
    assert p - estimate.low == pytest.approx(half, rel=0.15)
