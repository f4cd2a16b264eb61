"""Algorithms by name, and the words that give them again."""

from __future__ import annotations

import inspect
from dataclasses import replace

import pytest

from hansa import algorithms
from hansa.algorithms import ALGORITHMS, build_algorithm, words_of
from hansa.algorithms.optimizers.adam import ServerAdam
from hansa.core import canonical
from hansa.core.parts import Algorithm
from hansa.errors import PlanError
from hansa.nearest import nearest, suggest
from hansa.work.sgd import LocalSGD


@pytest.mark.parametrize("name", ALGORITHMS)
def test_words_give_the_same_algorithm_again(name):
    algorithm = build_algorithm(name, {})
    assert algorithm.name == name
    assert build_algorithm(name, words_of(algorithm)) == algorithm
    assert words_of(algorithm).keys() == inspect.signature(ALGORITHMS[name]).parameters.keys()


@pytest.mark.parametrize("name", ALGORITHMS)
def test_each_word_reaches_a_part(name):
    """Every keyword changes the algorithm, and comes back as it was given."""
    unusual = {"local_epochs": 3, "local_steps": 0, "batch_size": 7, "server_lr": 0.123}
    numbers = dict.fromkeys(inspect.signature(ALGORITHMS[name]).parameters, 0.321)
    given = {**numbers, **{k: v for k, v in unusual.items() if k in numbers}}
    assert words_of(build_algorithm(name, given)) == given
    default = build_algorithm(name, {})
    for word, value in given.items():
        if word != "local_steps":
            assert build_algorithm(name, {word: value}) != default


@pytest.mark.parametrize("name", ALGORITHMS)
def test_every_keyword_is_keyword_only_typed_documented_and_has_a_default(name):
    function = ALGORITHMS[name]
    documented = inspect.getdoc(function)
    assert documented
    for parameter in inspect.signature(function).parameters.values():
        assert parameter.kind is inspect.Parameter.KEYWORD_ONLY
        assert parameter.annotation in {"int", "float"}
        assert parameter.default is not inspect.Parameter.empty
        assert f"  {parameter.name}: " in documented
    assert getattr(algorithms, name) is function


def test_local_steps_alone_are_enough():
    words = words_of(build_algorithm("fedavg", {"local_steps": 20}))
    assert (words["local_epochs"], words["local_steps"]) == (0, 20)


def test_a_whole_number_and_its_float_are_one_job():
    one, other = (build_algorithm("fedadam", {"client_lr": lr}) for lr in (1, 1.0))
    assert canonical.digest(one) == canonical.digest(other)


@pytest.mark.parametrize(
    ("name", "options", "part", "words"),
    [
        ("fedavgg", {}, "algorithm.name", ("'fedavgg'", "write fedavg;")),
        ("sgd", {}, "algorithm.name", ("fedadam, fedavg, fedavgm",)),
        ("fedavg", {"client_rl": 0.1}, "algorithm.client_rl", ("write client_lr;", "fedavg")),
        ("fedavg", {"proximal": 0.1}, "algorithm.proximal", ("no key of fedavg",)),
        ("fedavg", {"client_lr": 0}, "algorithm.client_lr", ("above 0",)),
        (
            "fedavg",
            {"local_epochs": 1, "local_steps": 5},
            "algorithm.local_steps",
            ("leave one of local_epochs and local_steps out",),
        ),
    ],
)
def test_refusals_name_the_key_and_the_fix(name, options, part, words):
    with pytest.raises(PlanError) as refusal:
        build_algorithm(name, options)
    assert refusal.value.part == part
    for word in words:
        assert word in str(refusal.value)


def test_an_algorithm_without_words_is_refused():
    made = build_algorithm("fedavg", {})
    hidden = replace(made, work=LocalSGD(client_lr=0.1, proximal=0.5))
    for algorithm in (
        hidden,  # fedavg has no word for the proximal term, so it would be lost
        replace(made, server=ServerAdam(server_lr=0.1)),
        Algorithm("mine", made.work, made.server),
    ):
        with pytest.raises(PlanError, match="cannot name"):
            words_of(algorithm)


def test_nearest_forgives_case_and_dashes():
    assert nearest("FedAvg", ALGORITHMS) == "fedavg"
    assert nearest("client-lr", ["client_lr", "server_lr"]) == "client_lr"
    assert nearest("zzz", ALGORITHMS) is None
    assert suggest("zzz", [], "keys") == "the keys are none"
