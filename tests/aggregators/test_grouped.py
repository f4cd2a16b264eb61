"""A robust rule over masked sums of groups: what it needs, and what it bears."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import numpy as np
import pytest

from hansa.aggregators.grouped import Grouped
from hansa.aggregators.robust import Median, TrimmedMean
from hansa.core.job import Aggregation, Cohort, Quantization, Rounds, SecureAggregation
from hansa.core.parts import Context, Split, Update
from hansa.core.plan import Plan
from hansa.core.round import RoundRecord, TrainState
from hansa.core.train import initial_state, train
from hansa.engines.inline import InlineEngine
from hansa.engines.masking import groups_of
from hansa.errors import PlanRefused, RoundVoid
from hansa.stages.mask import Mask, mask_of
from tests.support.toy import TOY, data, gathered, plan, round_task, run, start, world

NAMES = tuple(f"client-{i:04d}" for i in range(1, 13))


def grouped(
    rule: Literal["mean", "median", "trimmed_mean"] = "median", groups: int = 4, **words: Any
) -> Plan:
    return plan(
        **{
            "cohort": Cohort(population=len(NAMES)),
            "rounds": Rounds(count=2, quorum=8),
            "aggregation": Aggregation(
                rule=rule, trim=0.25, clip=1.0, weighting="uniform", max_weight=64
            ),
            "quantization": Quantization(step=1e-6),
            "secure_aggregation": SecureAggregation(enabled=True, groups=groups),
            **words,
        }
    )


def trained(of: Plan, engine: InlineEngine) -> tuple[TrainState, list[RoundRecord]]:
    records: list[RoundRecord] = []
    there = world(of, engine, population=NAMES)
    return run(train(of, initial_state(of, start()), there, records.append)), records


@pytest.mark.parametrize("rule", ["median", "trimmed_mean"])
def test_masked_and_unmasked_groups_give_the_same_bits(
    rule: Literal["median", "trimmed_mean"],
) -> None:
    of = grouped(rule)
    masked, plain = (trained(of, InlineEngine(TOY, data, masked=m)) for m in (True, False))
    assert masked[0].model == plain[0].model
    assert [len(r.members) for r in masked[1]] == [12, 12, 12]
    assert [r.metrics for r in masked[1]] == [r.metrics for r in plain[1]]


def test_the_result_is_the_median_of_the_means_of_the_groups() -> None:
    """Recomputed from the updates in the open, by NumPy alone."""
    of = grouped()
    task = round_task(of)
    partials, _ = gathered(InlineEngine(TOY, data), task, NAMES)
    whole = partials[0]
    for other in partials[1:]:
        whole = of.parts.aggregator.merge(whole, other)
    assert isinstance(of.parts.aggregator, Grouped)

    def decode(total: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        for stage in reversed(of.parts.stages):
            total = stage.decode(total, of.layout)
        return total

    found = of.parts.aggregator.finish_decoded(whole, decode, of.layout, of.facts)
    mask = mask_of(of)
    assert mask is not None
    means = []
    for group in groups_of(task, mask, NAMES):
        (one,), _ = gathered(
            InlineEngine(TOY, data, masked=False), round_task(grouped(groups=1, rule="mean",
            secure_aggregation=SecureAggregation(enabled=True))), group
        )  # fmt: skip
        signed = one.value.astype(np.int32).astype(np.float64)
        means.append(of.layout.slice(signed, "delta") * 1e-6 / len(group))
    middle = np.median(np.array(means), axis=0)
    assert np.allclose(of.layout.slice(found, "delta"), middle * len(NAMES), rtol=0, atol=2e-5)


def test_groups_differ_by_round_and_hold_everybody_once() -> None:
    of, mask = grouped(), Mask(groups=4)
    drawn = [groups_of(round_task(of, number=n), mask, NAMES) for n in range(3)]
    for groups in drawn:
        assert [len(group) for group in groups] == [3, 3, 3, 3]
        assert sorted(name for group in groups for name in group) == sorted(NAMES)
    assert drawn[0] != drawn[1] != drawn[2]


@pytest.mark.parametrize("rule", ["median", "trimmed_mean"])
def test_one_client_that_sends_anything_moves_the_model_no_further_than_the_honest(
    rule: Literal["median", "trimmed_mean"], monkeypatch: pytest.MonkeyPatch
) -> None:
    of, honest = grouped(rule), Mask.encode
    without = trained(of, InlineEngine(TOY, data))[0].params

    def encode(self: Mask, update: Update, ctx: Context) -> Update:
        sent = honest(self, update, ctx)
        if ctx.client == NAMES[5]:
            sent.segment("delta")[:] = 2**31 // 3
        return sent

    monkeypatch.setattr(Mask, "encode", encode)
    attacked = trained(of, InlineEngine(TOY, data))[0].params
    mean = grouped(rule="mean", secure_aggregation=SecureAggregation(enabled=True))
    moved = np.abs(attacked - without).max()
    assert moved < 2.0  # two rounds of norm 1
    with pytest.raises(RoundVoid, match="honest clients can send"):
        trained(mean, InlineEngine(TOY, data))


@pytest.mark.parametrize("segment", ["weight", "metrics"])
@pytest.mark.parametrize("value", [2**31 - 1, 2**31])
def test_a_group_whose_weight_or_metrics_cannot_be_is_left_out_and_the_round_counts(
    segment: str, value: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise one bad client could make every round void."""
    honest = Mask.encode

    def encode(self: Mask, update: Update, ctx: Context) -> Update:
        sent = honest(self, update, ctx)
        if ctx.client == NAMES[5]:
            sent.segment(segment)[:] = value
        return sent

    monkeypatch.setattr(Mask, "encode", encode)
    _, records = trained(grouped(), InlineEngine(TOY, data))
    assert [record.void for record in records] == [False] * 3


def absent(number: int, lost: int) -> tuple[set[str], Callable[[str], Split]]:
    """Two of three in some of the groups of a round: what is left of these shows nothing."""
    mask = mask_of(grouped())
    assert mask is not None
    groups = groups_of(round_task(grouped(), number=number), mask, NAMES)
    gone = {name for group in groups[:lost] for name in group[:2]}

    def some(client: str) -> Split:
        if client in gone:
            raise FileNotFoundError(client)
        return data(client)

    return {name for group in groups[lost:] for name in group}, some


@pytest.mark.parametrize("masked", [True, False])
def test_a_group_that_falls_apart_is_left_out(masked: bool) -> None:
    left, some = absent(0, 1)
    engine = InlineEngine(TOY, some, masked=masked)
    partials, dropouts = gathered(engine, round_task(grouped()), NAMES)
    members = {name for partial in partials for name in partial.members}
    if masked:
        assert members == left
        assert {d.client for d in dropouts} == set(NAMES) - left
    assert len(members) + len(dropouts) == len(NAMES)


def test_too_few_groups_make_a_void_round() -> None:
    """Two of four are left: enough updates for the quorum, too few to tell a bad group."""
    _, some = absent(0, 2)
    of = grouped(rounds=Rounds(count=1, quorum=8, attempts=1))
    with pytest.raises(RoundVoid):
        trained(of, InlineEngine(TOY, some))


@pytest.mark.parametrize(
    ("words", "part", "because", "fix"),
    [
        ({"groups": 2}, "Grouped", "protects against nobody", "at least 3"),
        ({"groups": 3, "rule": "trimmed_mean"}, "Grouped", "drops none of 3", "at least 4"),
        ({"groups": 5}, "Mask", "sum of one update", "at least 10"),
        ({"rule": "mean"}, "secure_aggregation.groups", "only the sum of all", "median"),
        ({"secure_aggregation": SecureAggregation(groups=4)}, "Grouped", "hide nothing",
         "enabled = true"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused(
    words: dict[str, Any], part: str, because: str, fix: str
) -> None:
    with pytest.raises(PlanRefused) as caught:
        grouped(**words)
    found = [e for e in caught.value.errors if e.part.startswith(part) and because in e.because]
    assert found, [str(e) for e in caught.value.errors]
    assert fix in found[0].fix


def test_the_claims_name_groups_and_what_they_bear() -> None:
    words = "\n".join(grouped().claims)
    assert "the sums over 4 groups of at most 3 clients" in words
    assert "each of which one bad client spoils" in words
    assert str(Grouped(Median(), 4)) in words
    assert "largest and smallest" in str(Grouped(TrimmedMean(0.25), 4))
