"""How many examples an update must be made of before a site lets it leave without noise."""

from __future__ import annotations

from typing import Any

import pytest

from hansa.algorithms import fedavg, fedsgd
from hansa.core.job import Aggregation, Privacy
from hansa.core.parts import Algorithm
from hansa.errors import PolicyRefused
from hansa.site.config import Policy
from hansa.site.policy import check_examples
from tests.support.toy import TOY, plan

FEWEST = Policy().min_examples


def steps(**words: Any) -> Algorithm:
    return fedavg(client_lr=0.1, **words)


@pytest.mark.parametrize(
    ("algorithm", "examples", "allowed"),
    [
        (fedsgd(server_lr=1.0), FEWEST, True),
        (fedsgd(server_lr=1.0), FEWEST - 1, False),
        (steps(local_steps=1, batch_size=FEWEST), 100, True),
        (steps(local_steps=1, batch_size=FEWEST - 1), 100, False),
        (steps(local_steps=2, batch_size=FEWEST - 1), 100, True),
        (steps(local_steps=50, batch_size=1), FEWEST - 1, False),
        (steps(local_epochs=1, batch_size=1), FEWEST, True),
        (steps(local_epochs=1, batch_size=1), 0, True),
    ],
)
def test_what_counts_is_how_many_different_examples_are_in_an_update(algorithm, examples, allowed):
    found = plan(algorithm=algorithm)
    if allowed:
        check_examples(FEWEST, found, TOY, examples)
        return
    with pytest.raises(PolicyRefused, match=r"fewer training examples than policy\.min_examples"):
        check_examples(FEWEST, found, TOY, examples)


def test_noise_of_the_clients_own_hides_single_examples_already():
    by_example = Privacy(
        unit="example", mechanism="dpsgd", clip=1, epsilon=4, delta=1e-3, examples=2
    )
    local = Privacy(mechanism="local", clip=1, epsilon=4, delta=1e-3)
    central = Privacy(mechanism="gaussian", clip=1, epsilon=4, delta=1e-3)
    uniform = Aggregation(weighting="uniform")
    one = steps(local_steps=1, batch_size=1)
    for privacy in (by_example, local):
        check_examples(FEWEST, plan(privacy=privacy, aggregation=uniform, algorithm=one), TOY, 5)
    with pytest.raises(PolicyRefused):  # the coordinator adds the noise after it has seen it
        check_examples(FEWEST, plan(privacy=central, aggregation=uniform, algorithm=one), TOY, 5)


def test_a_site_may_ask_for_none():
    check_examples(1, plan(algorithm=steps(local_steps=1, batch_size=1)), TOY, 1)
