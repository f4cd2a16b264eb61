"""Jobs as words and back, and files against the same words in Python."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hansa.algorithms import ALGORITHMS, fedadam, fedavg, fedprox
from hansa.core import canonical
from hansa.core.job import (
    Aggregation,
    Cohort,
    Defend,
    Job,
    Privacy,
    Quantization,
    Rounds,
    SecureAggregation,
)
from hansa.errors import JobError, JobRefused
from hansa.jobfile import job_from_words, job_to_words, load_job
from hansa.jobfile.keys import LIMITS, algorithm_keys, section_keys, sections, top_keys
from hansa.jobfile.values import seconds

counts, naturals = st.integers(1, 10**6), st.integers(0, 10**6)
amounts = st.floats(0, 1e6, allow_subnormal=False)
positive = st.floats(1e-6, 1e6)
names = st.text("abcXYZ019_-", min_size=1, max_size=64)

rounds = st.builds(
    Rounds,
    count=counts,
    deadline=positive,
    quorum=naturals,
    attempts=counts,
    patience=naturals,
    watch=st.text(min_size=1, max_size=20),
)
cohorts = st.builds(
    Cohort,
    population=counts,
    sampler=st.sampled_from(["everyone", "poisson", "fixed"]),
    rate=st.floats(0, 1),
    size=naturals,
    cap=naturals,
    over_selection=st.floats(1, 10),
)
privacies = st.builds(
    Privacy,
    mechanism=st.sampled_from(["none", "gaussian"]),
    clip=amounts,
    epsilon=amounts,
    delta=st.floats(0, 1, exclude_max=True),
    noise_multiplier=amounts,
    metrics_clip=amounts,
    metrics_noise_multiplier=amounts,
)
aggregations = st.builds(
    Aggregation,
    rule=st.sampled_from(["mean", "median", "trimmed_mean", "krum", "flame", "fltrust"]),
    trim=st.floats(0, 0.5, exclude_max=True),
    bad=st.floats(0, 0.5, exclude_min=True, exclude_max=True),
    mixing=st.sampled_from(["none", "nearest", "bucketing"]),
    trusted=st.text(max_size=9),
    weighting=st.sampled_from(["examples", "uniform"]),
    max_weight=amounts,
    clip=amounts,
)
algorithms = st.one_of(
    st.builds(
        fedavg,
        client_lr=positive,
        local_epochs=naturals,
        batch_size=naturals,
        momentum=st.floats(0, 0.99),
        weight_decay=amounts,
        server_lr=positive,
    ),
    st.builds(fedavg, local_steps=counts),
    st.builds(fedadam, client_lr=positive, server_lr=positive, beta1=st.floats(0, 0.99)),
    st.builds(fedprox),
)
jobs = st.builds(
    Job,
    name=names,
    task=st.sampled_from(["task:Heart", "a.b_c:D", "_x:y1"]),
    rounds=rounds,
    cohort=cohorts,
    algorithm=algorithms,
    risk_tier=st.sampled_from(["low", "medium", "high"]),
    seed=naturals,
    evaluate_every=naturals,
    privacy=privacies,
    aggregation=aggregations,
    quantization=st.builds(Quantization, step=amounts, bits=st.sampled_from([16, 24, 32])),
    secure_aggregation=st.builds(SecureAggregation, enabled=st.booleans()),
    defend=st.builds(Defend, standing=st.booleans(), rollback=amounts),
)


@given(jobs)
@settings(derandomize=True, deadline=None, max_examples=200)
def test_words_give_the_job_back(job):
    words = job_to_words(job)
    assert job_from_words(words) == job
    assert canonical.digest(job_from_words(words)) == canonical.digest(job)


@given(jobs)
@settings(derandomize=True, deadline=None, max_examples=100)
def test_words_survive_the_wire(job):
    """JSON is what travels; it keeps every word and its type."""
    words = job_to_words(job)
    travelled = json.loads(json.dumps(words))
    assert travelled == words
    assert job_to_words(job_from_words(travelled)) == words


@given(jobs)
@settings(derandomize=True, deadline=None, max_examples=100)
def test_a_file_says_the_same_as_the_words(tmp_path_factory, job):
    """A file written from the words is read back, unless its keys do not go together."""
    file = tmp_path_factory.mktemp("job") / "job.toml"
    file.write_text(to_toml(job_to_words(job)), encoding="utf-8")
    try:
        read = load_job(file)
    except (JobError, JobRefused) as refused:
        said = str(refused)
        assert any(w in said for w in ("no effect", "is missing", "more than", "both ways"))
    else:
        assert read == job


def to_toml(words: Mapping[str, Any]) -> str:
    """The words as TOML, by JSON's literals, which are TOML's."""
    lines = [f"{k} = {literal(v)}" for k, v in words.items() if not isinstance(v, dict)]
    for section, keys in words.items():
        if isinstance(keys, dict):
            lines.append(f"[{section}]")
            lines += [f"{k} = {literal(v)}" for k, v in keys.items()]
    return "\n".join(lines)


def literal(value: object) -> str:
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


# ------------------------------------------------------------------ the same words everywhere


def test_the_file_of_the_design_is_the_job_in_python(tmp_path):
    (tmp_path / "job.toml").write_text(
        """
name = "images"
task = "task:Images"
risk_tier = "high"

[rounds]
count = 200
deadline = "60s"
quorum = 80

[cohort]
population = 1_000
sampler = "poisson"
rate = 0.1

[algorithm]
name = "fedadam"
local_epochs = 1
batch_size = 16
client_lr = 0.05
server_lr = 0.01

[privacy]
unit = "client"
mechanism = "gaussian"
clip = 0.5
epsilon = 8            # a whole number is a number
delta = 1e-5

[secure_aggregation]
enabled = true

[aggregation]
rule = "mean"
"""
    )
    job = Job(
        name="images",
        task="task:Images",
        risk_tier="high",
        rounds=Rounds(count=200, deadline=60, quorum=80),
        cohort=Cohort(population=1000, sampler="poisson", rate=0.1),
        algorithm=fedadam(local_epochs=1, batch_size=16, client_lr=0.05, server_lr=0.01),
        privacy=Privacy(mechanism="gaussian", clip=0.5, epsilon=8.0, delta=1e-5),
        secure_aggregation=SecureAggregation(enabled=True),
    )
    assert load_job(tmp_path) == load_job(tmp_path / "job.toml") == job
    assert load_job(tmp_path).folder == tmp_path.resolve()


MINIMAL: dict[str, Any] = {
    "name": "x",
    "task": "task:X",
    "rounds": {"count": 1},
    "cohort": {"population": 2},
    "algorithm": {"name": "fedavg"},
}


def test_what_a_file_leaves_out_is_what_python_leaves_out():
    python = Job(
        name="x",
        task="task:X",
        rounds=Rounds(count=1),
        cohort=Cohort(population=2),
        algorithm=fedavg(),
    )
    assert job_from_words(MINIMAL) == python
    assert canonical.dumps(job_from_words(MINIMAL)) == canonical.dumps(python)


@pytest.mark.parametrize("name", ALGORITHMS)
def test_every_algorithm_has_its_python_defaults(name):
    job = job_from_words({**MINIMAL, "algorithm": {"name": name}})
    assert job.algorithm == ALGORITHMS[name]()


def test_empty_sections_are_sections_left_out():
    names = ("privacy", "aggregation", "quantization", "secure_aggregation", "defend")
    empty: dict[str, dict[str, object]] = {name: {} for name in names}
    assert job_from_words({**MINIMAL, **empty}) == job_from_words(MINIMAL)


def test_every_word_of_a_job_is_a_key_and_every_key_a_word():
    words = job_to_words(job_from_words(MINIMAL))
    fields = {f.name for f in dataclasses.fields(Job)} - {"folder"}
    assert words.keys() == fields == {*top_keys(), *sections(), "algorithm"}
    for section, of in sections().items():
        late = {f.name for f in dataclasses.fields(of) if "left_out" in f.metadata}
        assert words[section].keys() == {f.name for f in dataclasses.fields(of)} - late
        assert section_keys(section).keys() == words[section].keys() | late


def test_a_word_that_came_later_is_written_where_it_is_used():
    """Who does not know it can read a job that does not use it."""
    job = job_from_words({**MINIMAL, "defend": {"rollback": 0.25}})
    assert job.defend.rollback == 0.25
    assert job_to_words(job)["defend"] == {"standing": False, "rollback": 0.25}
    assert "rollback" not in job_to_words(job_from_words(MINIMAL))["defend"]


def test_every_number_has_a_range():
    """A number without one would take -1, and so would a limit on a key that is gone."""
    keys = [*top_keys().values()]
    for section in sections():
        keys += section_keys(section).values()
    bounded = {key.path for key in keys if key.type in (int, float)}
    assert bounded <= LIMITS.keys()
    assert LIMITS.keys() <= {key.path for key in keys}


@pytest.mark.parametrize("section", sections())
def test_defaults_are_in_their_range(section):
    for key in section_keys(section).values():
        assert key.default is dataclasses.MISSING or key.limit.admits(key.default), key


def test_every_key_has_a_meaning():
    keys = [*top_keys().values()]
    for section in sections():
        keys += section_keys(section).values()
    for function in ALGORITHMS.values():
        keys += algorithm_keys(function).values()
    assert [key.path for key in keys if not key.meaning] == []


# ------------------------------------------------------------------ values

EDGES: dict[tuple[str, ...], tuple[list[object], list[object]]] = {
    ("cohort", "rate"): ([0.0, 1.0, 1], [-0.001, 1.001, math.inf, math.nan, True, "0.5"]),
    ("cohort", "population"): ([1], [0, 1.0, True, "1"]),
    ("rounds", "count"): ([1], [0, -1, 1.0]),
    ("rounds", "deadline"): ([0.1, 1, "1s", "1.5 h"], [0, "0s", -1, "1d", "s", "", math.inf]),
    ("privacy", "delta"): ([0.0, 0.999], [1.0, 1, -1e-9]),
    ("privacy", "epsilon"): ([0, 1e9], [-1e-9, math.inf, math.nan]),
    ("aggregation", "trim"): ([0.0, 0.499], [0.5, -0.1]),
    ("quantization", "bits"): ([16, 24, 32], [8, 17, 64, "16", 16.5]),
    ("defend", "rollback"): ([0.0, 1e-3, 5], [-1e-9, math.inf, math.nan, "0.1"]),
    ("defend", "standing"): ([True, False], [1, "on"]),
    ("secure_aggregation", "enabled"): ([True, False], [1, 0, "true"]),
    ("cohort", "over_selection"): ([1, 1.3], [0.999]),
    ("seed",): ([0, 2**62], [-1, 1.0, "0"]),
    ("name",): (["a", "A-b_1", "x" * 64], ["", "a b", "ä", "x" * 65, "a\n", "../x"]),
    ("task",): (["a:B", "a.b:C"], ["a", "a:", ":B", "a:B.c", "a/b:C", "a:B\n", "a b:C"]),
    ("risk_tier",): (["low"], ["Low", "", 1]),
}


def with_value(path: tuple[str, ...], value: object) -> dict[str, Any]:
    words: dict[str, Any] = {k: dict(v) if isinstance(v, dict) else v for k, v in MINIMAL.items()}
    target = words if len(path) == 1 else words.setdefault(path[0], {})
    target[path[-1]] = value
    return words


@pytest.mark.parametrize(
    ("path", "value"), [(p, v) for p, (right, _) in EDGES.items() for v in right]
)
def test_takes(path, value):
    job = job_from_words(with_value(path, value))
    found = getattr(job, path[0])
    found = found if len(path) == 1 else getattr(found, path[1])
    assert found == seconds(value)


@pytest.mark.parametrize(
    ("path", "value"), [(p, v) for p, (_, wrong) in EDGES.items() for v in wrong]
)
def test_refuses(path, value):
    with pytest.raises(JobError) as caught:
        job_from_words(with_value(path, value), "job.toml", {path[:1]: 3, path: 7})
    assert caught.value.line == 7
    assert ".".join(path) in caught.value.message


@pytest.mark.parametrize(
    ("text", "value"), [("60s", 60), ("5m", 300), ("2h", 7200), ("1.5 h", 5400), ("0.5s", 0.5)]
)
def test_durations(text, value):
    assert seconds(text) == value


@pytest.mark.parametrize("text", ["60", "5 minutes", "1e3s", "-5s", "5S", "s", "1h30m"])
def test_what_is_no_duration_stays_a_text(text):
    assert seconds(text) == text


# ------------------------------------------------------------------ several mistakes


def test_collects_every_mistake_of_an_algorithm():
    words = {**MINIMAL, "algorithm": {"name": "fedavg", "client_lr": -1, "momentum": 2, "x": 1}}
    with pytest.raises(JobRefused) as caught:
        job_from_words(words)
    said = "\n".join(map(str, caught.value.errors))
    assert all(f"algorithm.{word}" in said for word in ("client_lr", "momentum"))
    assert "no key x" in said


def test_one_mistake_is_a_job_error_and_has_no_place_on_the_wire():
    with pytest.raises(JobError, match=r"^rounds\.count is 0"):
        job_from_words({**MINIMAL, "rounds": {"count": 0}})


@pytest.mark.parametrize(
    "words",
    [
        {**MINIMAL, "x" * 10**6: 1},
        {**MINIMAL, "x" * 10**6: {}},
        {**MINIMAL, "seed": [[0] * 10**5] * 3},
        {**MINIMAL, "name": "x" * 10**6},
        {**MINIMAL, "rounds": {"count": 1, "y" * 10**6: 2}},
        {**MINIMAL, "algorithm": {"name": "z" * 10**6}},
    ],
    ids=range(6),
)
def test_messages_stay_short_whatever_somebody_sends(words):
    with pytest.raises(JobError) as caught:
        job_from_words(words)
    assert len(str(caught.value)) < 1500


def test_a_filled_in_job_travels():
    """The wire takes what a file may not say: every number found, also what follows from others."""
    job = job_from_words(MINIMAL)
    filled = dataclasses.replace(
        job,
        cohort=dataclasses.replace(job.cohort, size=2, cap=2),
        privacy=Privacy(
            mechanism="gaussian", clip=1.0, epsilon=8.0, delta=1e-5, noise_multiplier=1.25
        ),
    )
    assert job_from_words(job_to_words(filled)) == filled


def test_numbers_that_are_equal_are_the_same_words():
    """A site builds the job from words; it must reach the digest of the job made in Python."""
    job = Job(
        name="x",
        task="task:X",
        rounds=Rounds(count=1, deadline=60),
        cohort=Cohort(population=2, sampler="poisson", rate=1, over_selection=1),
        algorithm=fedavg(client_lr=1),
        privacy=Privacy(mechanism="gaussian", clip=1, epsilon=8, delta=0),
        aggregation=Aggregation(max_weight=100),
        quantization=Quantization(step=1),
    )
    travelled = job_from_words(json.loads(json.dumps(job_to_words(job))))
    assert canonical.dumps(travelled) == canonical.dumps(job)


def test_a_byte_order_mark_and_windows_line_ends_are_no_mistake(tmp_path):
    file = tmp_path / "job.toml"
    text = to_toml(MINIMAL)
    file.write_bytes(b"\xef\xbb\xbf" + text.replace("\n", "\r\n").encode())
    assert load_job(file) == job_from_words(MINIMAL)
    file.write_bytes(text.replace("count = 1", "count = 0").replace("\n", "\r\n").encode())
    with pytest.raises(JobError) as caught:
        load_job(file)
    assert text.split("\n")[caught.value.line - 1] == "count = 1"


def test_a_path_object_is_a_path(tmp_path):
    (tmp_path / "job.toml").write_text(to_toml(MINIMAL))
    assert load_job(str(tmp_path)) == load_job(Path(tmp_path))
