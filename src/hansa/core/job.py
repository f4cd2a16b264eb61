"""What a scientist writes: a job, in the same words in Python and in `job.toml`.

A job is data. It names a task and says how it is trained; nothing is resolved, loaded or
contacted. Sections that are left out mean their safest reading.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

from hansa.core import metrics
from hansa.core.canonical import Json
from hansa.core.metrics import Metric
from hansa.core.parts import Algorithm
from hansa.core.vector import Layout, Schema, Segment, Tensor
from hansa.errors import HansaError

RiskTier = Literal["low", "medium", "high"]


class _Words:
    """A section: `deadline=60` and `deadline=60.0` are one word, and must have one digest."""

    __slots__ = ()

    def __post_init__(self) -> None:
        for word in fields(self):  # type: ignore[arg-type]  # every section is a dataclass
            value = getattr(self, word.name)
            if word.type == "float" and type(value) is int:
                object.__setattr__(self, word.name, float(value))  # frozen for everybody else


@dataclass(frozen=True, slots=True, kw_only=True)
class Rounds(_Words):
    """`[rounds]`: how long to train and when a round counts.

    Attributes:
      count: number of rounds.
      deadline: seconds that sites have for one round.
      quorum: fewest updates that make a round; 0 = more than half of the expected cohort.
      attempts: how often a void round is tried again before the job fails.
      patience: rounds without a better value of `watch` before training stops; 0 = never.
      watch: metric for `patience` and for `rollback` of `[defend]`.
    """

    count: int
    deadline: float = 300.0
    quorum: int = 0
    attempts: int = 3
    patience: int = 0
    watch: str = "loss"


@dataclass(frozen=True, slots=True, kw_only=True)
class Cohort(_Words):
    """`[cohort]`: who takes part.

    Attributes:
      population: number of clients in the federation.
      sampler: everyone in each round; poisson: each independently with `rate`; fixed: `size` of
        them, drawn without replacement; cyclic: `separation` groups that take turns; arrival: the
        first `buffer` updates that come, also from clients that began in an earlier round.
      rate: probability of taking part, for poisson; for cyclic, of the clients whose turn it is,
        0 = all of them.
      size: clients per round, for fixed.
      cap: most clients in a round, for poisson; 0 = the whole population.
      over_selection: share of extra clients that are asked, so that slow ones can be left out;
        1.3 asks 30 % more.
      separation: fewest rounds from one turn of a client to its next, for cyclic.
      buffer: updates that make a round, for arrival.
      concurrency: most clients at work at one time, for arrival.
      staleness_exponent: for arrival: an update from a model s rounds old is multiplied by (1 + s)
        to the power of minus this; 0 = it counts like a fresh one.
      max_staleness: rounds after which an update does not count any more, for arrival; 0 = never.
    """

    population: int
    sampler: Literal["everyone", "poisson", "fixed", "cyclic", "arrival"] = "everyone"
    rate: float = 0.0
    size: int = 0
    cap: int = 0
    over_selection: float = 1.0
    separation: int = 0
    buffer: int = 0
    concurrency: int = 0
    staleness_exponent: float = 0.5
    max_staleness: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Privacy(_Words):
    """`[privacy]`: differential privacy of what is released.

    Attributes:
      unit: whose data are hidden: client: all data of one client of the federation; example: one
        training example of one client.
      mechanism: none; gaussian: noise added by the coordinator to the sum; discrete: the same in
        whole steps, sampled exactly; correlated: noise of the coordinator's that later rounds
        take back in part (DP-FTRL); distributed: noise added by each client before its update is
        masked; local: noise added by each client, enough to hide its data in its own update;
        dpsgd: noise added by each client at every step, which hides its single examples.
      clip: norm bound C of one client's delta, in model units; of one example's gradient, for
        dpsgd.
      epsilon: target; the noise is found from it.
      delta: probability with which epsilon may not hold.
      noise_multiplier: noise of one round relative to the sensitivity, or of one client relative
        to its norm bound where it is distributed, or of one step where it is dpsgd; found from
        `epsilon` if 0.
      examples: fewest training examples of a client, for dpsgd: whoever has fewer takes no part.
      colluding: clients of a round whose noise is not counted on, for distributed: they may share
        what they know with the coordinator.
      metrics_clip: norm bound of one client's metric sums; 0 = no metrics leave the sites.
      metrics_noise_multiplier: noise of the metric sums relative to their sensitivity.
      matrix: how noise is correlated over the rounds, for correlated: blt: buffered linear
        Toeplitz; banded: over as many rounds as `separation`; tree: binary tree aggregation.
      clip_quantile: share of the clients whose deltas should be within the norm bound, which then
        adapts from `clip` on; 0 = `clip` is the bound of all rounds.
      clip_learning_rate: how fast the bound adapts.
      clip_noise: standard deviation of the noise on the number of clients within the bound; 0 = a
        twentieth of the clients expected in a round.
      purpose: what the job is for, as the privacy budgets name it that it draws from; empty = only
        budgets for any purpose.
    """

    unit: Literal["client", "example"] = "client"
    mechanism: Literal[
        "none", "gaussian", "discrete", "correlated", "distributed", "local", "dpsgd"
    ] = "none"
    clip: float = 0.0
    epsilon: float = 0.0
    delta: float = 0.0
    noise_multiplier: float = 0.0
    examples: int = 0
    colluding: int = 1
    metrics_clip: float = 0.0
    metrics_noise_multiplier: float = 0.0
    matrix: Literal["blt", "banded", "tree"] = "blt"
    clip_quantile: float = 0.0
    clip_learning_rate: float = 0.2
    clip_noise: float = 0.0
    purpose: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Aggregation(_Words):
    """`[aggregation]`: how updates become one.

    Attributes:
      rule: mean: the weighted sum; median and trimmed_mean: of each coordinate; krum, multi_krum,
        bulyan, geometric_median, centered_clipping, dnc, flame, foolsgold: robust rules over whole
        updates; fltrust: by likeness to one trusted client; agnostic: the mean of the clients
        with the largest losses.
      trim: share of clients dropped at each end, for trimmed_mean.
      bad: share of a round's clients that may be bad, for krum, multi_krum, bulyan, dnc and
        mixing.
      mixing: what is mixed before a robust rule: none; nearest: each update becomes the mean of
        its closest ones; bucketing: means of random pairs.
      trusted: name of the client that fltrust compares with, and standing where there is one.
      weighting: examples: a client counts by its training examples; uniform: every client once.
      max_weight: most examples that one client can count for; 0 = no bound.
      clip: norm bound of one client's delta where there is no `[privacy]`; 0 = none.
      fairness: q of q-FFL: a client counts by its loss to this power, too, so that losses become
        more alike; 0 = not at all. max_weight bounds the product then.
      tail: share of the clients whose losses are largest that is followed, for agnostic.
    """

    rule: Literal[
        "mean",
        "median",
        "trimmed_mean",
        "krum",
        "multi_krum",
        "bulyan",
        "geometric_median",
        "centered_clipping",
        "dnc",
        "flame",
        "foolsgold",
        "fltrust",
        "agnostic",
    ] = "mean"
    trim: float = 0.1
    bad: float = 0.2
    mixing: Literal["none", "nearest", "bucketing"] = "none"
    trusted: str = ""
    weighting: Literal["examples", "uniform"] = "examples"
    max_weight: float = 0.0
    clip: float = 0.0
    fairness: float = 0.0
    tail: float = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Quantization(_Words):
    """`[quantization]`: stochastic rounding of updates to integers modulo 2**bits.

    Attributes:
      step: width of one integer step of the delta, in model units; 0 = no quantization.
      bits: modulus of the ring: 16, 24 or 32.
      rotate: true: deltas are rotated by public random signs first, which spreads them evenly, so
        that a small ring holds them; distributed noise always does.
    """

    step: float = 0.0
    bits: int = 32
    rotate: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class SecureAggregation(_Words):
    """`[secure_aggregation]`: whether the coordinator sees sums only.

    Attributes:
      enabled: true: updates are masked, so that only their sum can be read.
      corrupt: largest share of the cohort that may collude with the coordinator.
      dropouts: largest share of the cohort that may vanish in the middle of a round.
      adversary: active: the coordinator may lie; curious: it follows the protocol.
      groups: random groups whose sums are revealed, for median and trimmed_mean over the groups;
        0 = one sum over the whole cohort.
    """

    enabled: bool = False
    corrupt: float = 0.1
    dropouts: float = 0.2
    adversary: Literal["active", "curious"] = "active"
    groups: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Defend(_Words):
    """`[defend]`: what becomes of clients that stand out, and of models that got worse.

    Attributes:
      standing: true: updates, or masked sums of groups, are scored beside each other; a client
        that goes on standing out counts half, in a masked sum in full, then is not asked any more.
      rollback: how much worse than the best so far the metric `rounds.watch` may be, in its own
        unit; a model that is worse is rejected, and the next round starts from the last accepted
        one. 0 = every model is kept.
    """

    standing: bool = False
    rollback: float = field(default=0.0, metadata={"left_out": 0.0})


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """A whole training job.

    Attributes:
      name: short name: letters, digits, dash, underscore.
      task: where the task's class is: `module:Class`, a module beside the job file or installed.
      risk_tier: how careful the checks are: low, medium or high.
      seed: number from which all repeatable randomness derives.
      evaluate_every: rounds between measurements on held-out examples; 0 = only after the last.
      folder: the folder that `task` is looked up in; not part of what is agreed on.
    """

    name: str
    task: str
    rounds: Rounds
    cohort: Cohort
    algorithm: Algorithm
    risk_tier: RiskTier = "medium"
    seed: int = 0
    evaluate_every: int = 1
    privacy: Privacy = Privacy()
    aggregation: Aggregation = Aggregation()
    quantization: Quantization = Quantization()
    secure_aggregation: SecureAggregation = SecureAggregation()
    defend: Defend = Defend()
    folder: Path | None = field(default=None, compare=False, metadata={"words": False})


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskFacts:
    """What a plan needs to know of a task; the coordinator knows no more than this.

    Attributes:
      schema: the arrays of the model.
      metrics: what is measured on held-out examples.
      digest: SHA-256 of the bundle that holds the task's code.
    """

    schema: Schema
    metrics: tuple[Metric, ...]
    digest: str

    def layout(self, *, with_metrics: bool, with_within: bool = False) -> Layout:
        """The segments of a training update: delta, weight, metric sums.

        The first two metric sums are the total and the count of the training loss. Where the norm
        bound adapts, one more says whether the delta was within it.
        """
        sums = 2 + sum(metric.size for metric in self.metrics) if with_metrics else 0
        segments = (Segment("delta", self.schema.size), Segment("weight", 1))
        within = (Segment("within", 1),) if with_within else ()
        return Layout((*segments, Segment("metrics", sums), *within))


def facts_of_json(value: Json) -> TaskFacts:
    """Reads the facts of a task back from canonical JSON that came from somebody else.

    Raises:
      HansaError: the value is not the JSON of any task's facts.
    """
    try:
        return _facts(value)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise HansaError(
            f"the facts of the task cannot be read ({type(error).__name__})",
            fix="submit the job again with this version of Hansa",
        ) from error


def _facts(value: Any) -> TaskFacts:
    tensors = tuple(
        Tensor(str(t["name"]), tuple(_dimension(n) for n in t["shape"]))
        for t in value["schema"]["tensors"]
    )
    if not tensors or len({t.name for t in tensors}) != len(tensors):
        raise ValueError("a model has at least one tensor, each with its own name")
    return TaskFacts(
        schema=Schema(tensors),
        metrics=tuple(metrics.of_json(item) for item in value["metrics"]),
        digest=str(value["digest"]),
    )


def _dimension(value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise ValueError("a dimension is a whole number")
    return value
