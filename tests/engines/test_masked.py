"""Masked rounds in simulation: the same bits, and who drops out is said as without masks."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from hansa.core.contribute import Purpose
from hansa.core.job import Aggregation, Quantization, Rounds, SecureAggregation
from hansa.core.parts import Context, Split, Update
from hansa.core.plan import Plan
from hansa.core.round import RoundRecord, TrainState, run_round
from hansa.core.train import initial_state, train
from hansa.engines.inline import InlineEngine
from hansa.errors import ClientFailed
from hansa.stages.mask import Mask
from tests.support.toy import (
    POPULATION,
    TOY,
    data,
    gathered,
    plan,
    round_task,
    run,
    start,
    world,
)

BAD = POPULATION[3]


def hidden(bits: int = 32, **words: object) -> Plan:
    return plan(
        **{
            "aggregation": Aggregation(clip=1.0, weighting="uniform", max_weight=2),
            "quantization": Quantization(step=0.01 if bits == 16 else 1e-4, bits=bits),
            "secure_aggregation": SecureAggregation(enabled=True),
            **words,
        }
    )


def trained(of: Plan, engine: InlineEngine) -> tuple[TrainState, list[RoundRecord]]:
    records: list[RoundRecord] = []
    state = run(train(of, initial_state(of, start()), world(of, engine), records.append))
    return state, records


def missing(client: str) -> Split:
    if client == BAD:
        raise FileNotFoundError("/data/patients-4711.csv")
    return data(client)


@pytest.mark.parametrize("bits", [16, 24, 32])
def test_masked_and_unmasked_give_the_same_bits(bits: int) -> None:
    of = hidden(bits)
    masked, plain = (
        trained(of, InlineEngine(TOY, data, masked=masked)) for masked in (True, False)
    )
    assert masked[0].model == plain[0].model
    assert [r.metrics for r in masked[1]] == [r.metrics for r in plain[1]]
    assert masked[1][-1].purpose is Purpose.EVALUATE


def test_the_mask_changes_the_plan_and_nothing_of_the_sum() -> None:
    of = hidden()
    bare = hidden(secure_aggregation=SecureAggregation())
    assert of.digest != bare.digest
    with_masks, without = (trained(each, InlineEngine(TOY, data))[0] for each in (of, bare))
    assert with_masks.model == without.model


def test_who_fails_drops_out_and_the_others_are_summed() -> None:
    of = hidden()
    (masked,), dropouts = gathered(InlineEngine(TOY, missing), round_task(of), POPULATION)
    (plain,), _ = gathered(InlineEngine(TOY, missing, masked=False), round_task(of), POPULATION)
    assert [(d.client, d.reason) for d in dropouts] == [(BAD, "FileNotFoundError")]
    assert set(masked.members) == set(plain.members) == set(POPULATION) - {BAD}
    assert (masked.value == plain.value).all()


def test_in_debug_mode_the_first_failure_is_raised() -> None:
    engine = InlineEngine(TOY, missing, debug=True)
    with pytest.raises(ClientFailed, match=BAD):
        gathered(engine, round_task(hidden()), POPULATION)


def test_below_the_quorum_nothing_is_summed() -> None:
    def only_two(client: str) -> Split:
        if client not in POPULATION[:2]:
            raise FileNotFoundError(client)
        return data(client)

    of = hidden(rounds=Rounds(count=3, quorum=4))
    partials, dropouts = gathered(InlineEngine(TOY, only_two), round_task(of), POPULATION)
    assert partials == []
    assert {d.client for d in dropouts} == set(POPULATION)


@pytest.mark.parametrize("segment", ["delta", "weight"])
@pytest.mark.parametrize("sign", [1, -1])
def test_a_sum_that_honest_clients_cannot_have_makes_the_round_void(
    segment: str, sign: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One client adds a value far beyond its bound; nobody can see whose it is."""
    of = hidden()
    honest = Mask.encode

    def encode(self: Mask, update: Update, ctx: Context) -> Update:
        sent = honest(self, update, ctx)
        if ctx.client == BAD:
            spec = of.facts[segment]
            beyond = int(sign * 10 * spec.cohort * spec.peak / spec.quantum)
            sent.segment(segment)[0] = np.uint32(beyond % 2**32)
        return sent

    monkeypatch.setattr(Mask, "encode", encode)
    state, record = one_round(of)
    assert record.void
    assert state.attempt == 1
    assert all("honest clients" in d.reason for d in record.dropouts)
    monkeypatch.undo()
    assert not one_round(of)[1].void


def one_round(of: Plan) -> tuple[TrainState, RoundRecord]:
    result: tuple[TrainState, RoundRecord] = run(
        run_round(of, initial_state(of, start()), world(of, InlineEngine(TOY, data)))
    )
    return result


def test_a_measurement_under_masks_keeps_the_quorum() -> None:
    def only_two(client: str) -> Split:
        if client not in POPULATION[:2]:
            raise FileNotFoundError(client)
        return data(client)

    of = hidden(rounds=Rounds(count=3, quorum=4))
    state = replace(initial_state(of, start()), round=3)
    engine = InlineEngine(TOY, only_two, masked=False)
    assert run(run_round(of, state, world(of, engine), Purpose.EVALUATE))[1].void
