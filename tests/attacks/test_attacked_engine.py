"""Clients that attack in a simulation: what is sent, what is seen, what is refused."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest

from hansa import attacks
from hansa.attacks.catalogue import ATTACKS, Attack, attack_named
from hansa.attacks.data import Backdoor, LabelFlip, Trigger
from hansa.attacks.engine import AttackedEngine, bad_clients, organisation
from hansa.attacks.projected import Projected, heaviest
from hansa.attacks.site import Attacking
from hansa.core.contribute import RoundTask, context_of, train_locally
from hansa.core.job import Aggregation, Quantization, Rounds, SecureAggregation
from hansa.core.keys import ReplayKey
from hansa.core.parts import Dropout
from hansa.core.train import initial_state, train
from hansa.engines.inline import InlineEngine
from hansa.errors import HansaError
from tests.support import toy

FIVE = Rounds(count=2, quorum=5)
BAD = frozenset(toy.POPULATION[-2:])


def ran(plan: Any, engine: Any) -> Any:
    world = toy.world(plan, engine)
    params = toy.start()
    params.flags.writeable = False
    state = asyncio.run(train(plan, initial_state(plan, params), world))
    return state, world.journal.records  # type: ignore[attr-defined]


def attacked(name: str | Attack, bad: frozenset[str] = BAD, **words: Any) -> AttackedEngine:
    attack = attack_named(name) if isinstance(name, str) else name
    return AttackedEngine(InlineEngine(toy.TOY, toy.data), attack, bad, **words)


def trained(task: RoundTask, client: str, data: Any = toy.data) -> np.ndarray:
    ctx = context_of(task, client, toy.TOY, data(client))
    return train_locally(task, ctx, data(client))[0]


def gathered(plan: Any, engine: Any) -> list[Any]:
    async def whole() -> list[Any]:
        task = toy.round_task(plan)
        return [item async for item in engine.gather(task, toy.POPULATION)]

    return asyncio.run(whole())


@dataclass(frozen=True)
class Spy:
    """The mean, and what it is given."""

    inner: Any
    seen: dict[str, np.ndarray]

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    def add(self, partial: Any, client: str, update: Any, facts: Any) -> Any:
        weight = float(update.segment("weight")[0])
        self.seen[client] = update.segment("delta") / np.float32(weight)
        return self.inner.add(partial, client, update, facts)


def sent(engine: AttackedEngine, **words: Any) -> tuple[dict[str, np.ndarray], RoundTask]:
    """Each client's delta, per unit of weight, as the aggregator sees it."""
    plan = toy.plan(**words)
    seen: dict[str, np.ndarray] = {}
    spied = toy.with_parts(plan, aggregator=Spy(plan.parts.aggregator, seen))
    gathered(spied, engine)
    return seen, toy.round_task(plan)


PLANS = {
    "mean": {},
    "median": {"aggregation": Aggregation(rule="median"), "rounds": FIVE},
    "clipped": {"aggregation": Aggregation(clip=0.1, max_weight=40.0)},
    "masked": {
        "aggregation": Aggregation(clip=0.5, max_weight=40.0),
        "quantization": Quantization(step=1e-4),
        "secure_aggregation": SecureAggregation(enabled=True, corrupt=0.2, dropouts=0.2),
    },
}


@pytest.mark.parametrize("words", PLANS.values(), ids=PLANS)
@pytest.mark.parametrize("bad", [BAD, frozenset()], ids=["none_of_two", "sign_flip_of_nobody"])
def test_without_an_attack_the_bits_are_those_of_inline(words, bad):
    plan = toy.plan(**words)
    engine = attacked("none" if bad else "sign_flip", bad)
    state, records = ran(plan, engine)
    expected, others = ran(plan, InlineEngine(toy.TOY, toy.data))
    assert state.model == expected.model
    assert [r.metrics for r in records] == [r.metrics for r in others]
    assert [r.members for r in records] == [r.members for r in others]


def test_the_bad_ones_send_what_the_attack_makes_of_all_honest_updates():
    seen, task = sent(attacked("sign_flip"))
    honest = [trained(task, c) for c in toy.POPULATION[:-2]]
    for client, delta in zip(toy.POPULATION, honest, strict=False):
        np.testing.assert_allclose(seen[client], delta, rtol=1e-5, atol=1e-7)
    for client in BAD:
        np.testing.assert_allclose(
            seen[client], -np.mean(honest, axis=0, dtype=float), rtol=1e-5, atol=1e-6
        )


def test_who_does_not_see_others_makes_it_of_its_own():
    seen, task = sent(attacked("sign_flip", omniscient=False))
    own = [trained(task, c) for c in sorted(BAD)]
    for client in BAD:
        np.testing.assert_allclose(
            seen[client], -np.mean(own, axis=0, dtype=float), rtol=1e-5, atol=1e-6
        )


def test_poisoned_clients_train_on_poisoned_data_and_others_do_not():
    poison = LabelFlip(2)
    seen, task = sent(attacked("label_flip", poison=poison))

    def data(client: str) -> Any:
        split = toy.data(client)
        return poison.poison(split, ReplayKey.of_seed(0)) if client in BAD else split

    for client in toy.POPULATION:
        np.testing.assert_allclose(seen[client], trained(task, client, data), rtol=1e-5, atol=1e-7)
    bad = min(BAD)
    assert np.abs(seen[bad] - trained(task, bad)).max() > 0.01


def test_the_boost_is_n_over_f():
    poison = LabelFlip(2)
    plain, _ = sent(attacked("label_flip", poison=poison))
    seen, _ = sent(attacked("backdoor_boosted", poison=poison))
    for client in BAD:
        np.testing.assert_allclose(seen[client], 3 * plain[client], rtol=1e-4)


def test_the_clients_own_clip_cuts_an_attack():
    clip = 0.1
    seen, _ = sent(attacked("scaling"), aggregation=Aggregation(clip=clip, max_weight=40.0))
    for client in BAD:
        assert np.linalg.norm(seen[client]) == pytest.approx(clip, rel=1e-4)


def test_sybils_are_one_organisation_and_say_nearly_the_same():
    attack = attack_named("sybils")
    seen, _ = sent(attacked("sybils"))
    one, two = (seen[c] for c in sorted(BAD))
    assert not np.array_equal(one, two)
    assert np.linalg.norm(one - two) < 0.01 * np.linalg.norm(one)
    assert {organisation(c, attack, BAD) for c in BAD} == {"sybils"}
    assert organisation(toy.POPULATION[0], attack, BAD) == toy.POPULATION[0]
    assert organisation(min(BAD), attack_named("alie"), BAD) == min(BAD)


def two_rounds(
    name: str | Attack, **words: Any
) -> tuple[list[dict[str, np.ndarray]], list[np.ndarray]]:
    """What the aggregator sees in two rounds, and the model at the start of each."""
    plan = toy.plan(rounds=Rounds(count=2))
    seen: dict[str, np.ndarray] = {}
    spied = toy.with_parts(plan, aggregator=Spy(plan.parts.aggregator, seen))
    engine, models, rounds = attacked(name, **words), [], []

    class Watching:
        real = False

        async def gather(self, task: RoundTask, cohort: Any) -> Any:
            models.append(np.array(task.params))
            async for item in engine.gather(task, cohort):
                yield item
            rounds.append(dict(seen))

    ran(spied, Watching())
    return rounds, models


def test_a_replay_repeats_the_first_round():
    (first, second, *_), _ = two_rounds("replay")
    for client in toy.POPULATION:
        same = np.allclose(first[client], second[client], rtol=1e-5)
        assert same == (client in BAD)


def test_a_free_rider_follows_the_model():
    (first, second, *_), (start, then, *_) = two_rounds("free_rider")
    step = then - start
    for client in BAD:
        assert not first[client].any()
        off = np.linalg.norm(second[client] - step) / np.linalg.norm(step)
        assert 0 < off < 0.4


DURABLE = replace(  # five parameters are few: Neurotoxin's twentieth of them is none
    attack_named("neurotoxin"),
    work=lambda work, previous: Projected(work, heaviest(previous, 0.4)),
)
MARK = Backdoor(Trigger((3,), 3.0), 0)


def projected(params: np.ndarray, number: int, client: str, split: Any, alone: Any) -> np.ndarray:
    """What training gives that leaves some parameters alone, as it is written in the plan else."""
    task = replace(toy.round_task(toy.plan(rounds=Rounds(count=2)), number=number), params=params)
    work = Projected(task.plan.parts.algorithm.work, alone)
    return train_locally(task, context_of(task, client, toy.TOY, split), split, work)[0]


def test_neurotoxin_trains_round_what_the_last_round_moved_most():
    (first, second, *_), (start, then, *_) = two_rounds(DURABLE, poison=MARK)
    alone = np.argsort(-np.abs(then - start))[:2]
    key = ReplayKey.of_seed(0).derive("attack", "neurotoxin")
    for client in toy.POPULATION:
        bad = client in BAD
        assert first[client].all()  # nothing was seen before
        assert (second[client][alone] == 0).all() == bad
        split = toy.data(client)
        if bad:
            split = MARK.poison(split, key, sorted(BAD).index(client))
        left = alone if bad else alone[:0]
        for number, (params, seen) in enumerate(((start, first), (then, second))):
            expected = projected(params, number, client, split, left if number else alone[:0])
            np.testing.assert_allclose(seen[client], expected, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("poisons", [True, False])
def test_a_site_alone_does_the_same(poisons):
    client, split = toy.POPULATION[0], toy.data(toy.POPULATION[0])
    plan = toy.plan(rounds=Rounds(count=2))
    site = Attacking(replace(DURABLE, poisoner=(lambda *_: MARK) if poisons else None))
    models = toy.start(), toy.start() + np.array([0.1, -0.9, 0.2, 0.8, 0.0], np.float32)
    for number, params in enumerate(models):
        task = replace(toy.round_task(plan, number=number), params=params)
        update = site(task, client, toy.TOY, split)
        seen = update.segment("delta") / update.segment("weight")
        key = context_of(task, client, toy.TOY, split).key.derive("poison")
        mine = MARK.poison(split, key) if poisons else split
        alone = np.array([1, 3] if number else [], int)
        expected = projected(params, number, client, mine, alone)
        np.testing.assert_allclose(seen, expected, rtol=1e-5, atol=1e-7)
        assert (seen[alone] == 0).all()


REFUSED = {
    "nan": "not finite",
    "infinite": "not finite",
    "huge": "norm bound",
    "scaled": "norm bound",
    "heavy": "weight",
    "negative": "weight",
    "short": "shape",
    "long": "shape",
    "matrix": "shape",
}


@pytest.mark.parametrize(("name", "words"), REFUSED.items(), ids=REFUSED)
@pytest.mark.parametrize("rule", ["mean", "median"])
def test_updates_of_a_false_form_are_refused_and_the_rest_counts(name, words, rule):
    aggregation = Aggregation(rule=rule, clip=0.5, max_weight=40.0)
    items = gathered(toy.plan(aggregation=aggregation, rounds=FIVE), attacked(name))
    refused = {item.client: item.reason for item in items if isinstance(item, Dropout)}
    assert set(refused) == BAD
    assert all(words in reason for reason in refused.values())
    assert items[-1].members == toy.POPULATION[:-2]


def test_small_numbers_are_no_lie():
    items = gathered(toy.plan(), attacked("denormal"))
    assert items[-1].members == toy.POPULATION


@pytest.mark.parametrize("name", ["wrong_dtype", "words"])
def test_another_type_is_refused(name):
    items = gathered(toy.plan(), attacked(name))
    refused = {item.client: item.reason for item in items if isinstance(item, Dropout)}
    assert set(refused) == BAD
    assert all("where the plan says float32" in reason for reason in refused.values())


def test_a_client_that_fails_is_left_out_of_what_is_seen():
    def data(client: str) -> Any:
        if client == toy.POPULATION[0]:
            raise ValueError("no data")
        return toy.data(client)

    engine = replace(attacked("sign_flip"), inline=InlineEngine(toy.TOY, data))
    items = gathered(toy.plan(), engine)
    assert [item.client for item in items if isinstance(item, Dropout)] == [toy.POPULATION[0]]
    assert items[-1].members == toy.POPULATION[1:]


def test_an_adaptive_attack_is_given_its_rule():
    calls = []

    def rule(x: Any) -> Any:
        calls.append(x.shape)
        return np.median(x, axis=0)

    seen, task = sent(attacked("adaptive_ipm", rule=rule))
    assert set(calls) == {(6, 5)}
    honest = np.stack([trained(task, c) for c in toy.POPULATION[:-2]])
    expected = attacks.adaptive_ipm(honest, 2, lambda x: np.median(x, axis=0))
    np.testing.assert_allclose(seen[min(BAD)], expected[0], rtol=1e-4, atol=1e-5)
    with pytest.raises(HansaError, match="a rule that it does not know"):
        gathered(toy.plan(), attacked("adaptive_ipm"))


@pytest.mark.parametrize("share", [0.0, 0.2, 0.34, 0.5])
def test_so_many_are_bad_and_always_the_same(share):
    population = tuple(f"c{i}" for i in range(50))
    found = bad_clients(population, share, ReplayKey.of_seed(1))
    assert len(found) == int(round(share * 50, 6))
    assert found == bad_clients(population, share, ReplayKey.of_seed(1))
    if share:
        assert found != bad_clients(population, share, ReplayKey.of_seed(2))


def test_not_everybody_is_bad():
    with pytest.raises(HansaError, match="cannot be bad"):
        bad_clients(("a", "b"), 1.0, ReplayKey.of_seed(0))


def test_names_are_known_and_others_are_not():
    assert set(ATTACKS) >= {"sign_flip", "alie", "min_max", "label_flip", "nan", "replay"}
    with pytest.raises(HansaError, match="no attack 'alei'") as error:
        attack_named("alei")
    assert "alie" in error.value.fix
