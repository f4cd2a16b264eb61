"""The seams: what every part of a job must be able to do. All are one small protocol each.

Parts are frozen dataclasses of plain values. State goes in and comes out; what is random is drawn
from a key or a noise source that is handed in. Every part has a plan-time method over facts
(`infer`, `amplify`) beside its run-time method over values.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum, IntEnum
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Protocol, TypeVar, runtime_checkable

from numpy.typing import NDArray

from hansa.core.events import Event
from hansa.core.keys import KeyedNoise, Noise, ReplayKey
from hansa.core.metrics import Metric, Outputs
from hansa.core.spec import UpdateSpec
from hansa.core.vector import Layout, Schema, Vector

if TYPE_CHECKING:
    from hansa.core.standing import Judge

State = TypeVar("State")
Facts = Mapping[str, UpdateSpec]
"""The facts of each segment of an update, by the segment's name."""


# ------------------------------------------------------------------ what runs on a site's data


@dataclass(frozen=True, slots=True)
class Examples:
    """n examples: `inputs` (n, ...) and integer `targets` (n,).

    Where one example is a sequence of targets they are (n, length), for a loss and metrics of the
    task's own; whoever counts classes wants (n,).
    """

    inputs: NDArray[Any]
    targets: NDArray[Any]

    def __len__(self) -> int:
        return len(self.targets)

    def take(self, index: NDArray[Any]) -> Examples:
        """The examples at these positions."""
        return Examples(self.inputs[index], self.targets[index])


@dataclass(frozen=True, slots=True)
class Split:
    """A site's own data: what it trains on and what it holds out."""

    train: Examples
    test: Examples


@dataclass(frozen=True, slots=True)
class Site:
    """Who is asked for data: a site's name and its own configuration for the task."""

    name: str
    config: Mapping[str, Any]


class Model(Protocol):
    """The mathematics of a task over a flat (d,) float32 parameter vector."""

    @property
    def schema(self) -> Schema:
        """The arrays of the model."""

    @property
    def metrics(self) -> Sequence[Metric]:
        """What is measured on held-out examples."""

    def initial(self, seed: int) -> Vector:
        """(d,) parameters to start from."""

    def gradient(self, params: Vector, batch: Examples) -> tuple[float, Vector]:
        """Mean loss over the batch and its (d,) gradient; the gradient may be reused memory."""

    def predict(self, params: Vector, examples: Examples) -> Outputs:
        """What the model says about the examples."""


class Task(Model, Protocol):
    """A model together with the code that reads one site's data."""

    def data(self, site: Site) -> Split:
        """The site's examples, read from its own configuration."""


@dataclass(frozen=True, slots=True)
class Context:
    """One client's place in one round; everything random it does derives from `key`.

    Noise that protects the client is the exception: whoever knows the key could subtract it.

    Attributes:
      client: its name.
      round: number of the round.
      key: the key of everything repeatable that the client does in this round.
      model: the mathematics of the task.
      noise: where the client's own noise comes from; None in a simulation, where it derives from
        the key. A real site hands in `NoiseSource()`.
      clip: norm bound of this round, where it adapts; None where it is fixed.
      examples: how many examples the client trains on.
      loss: gives the mean loss of the model as received over these examples; None in a round that
        only measures. It takes a pass over all of them, and is asked for where it is needed.
    """

    client: str
    round: int
    key: ReplayKey
    model: Model
    noise: Noise | None = None
    clip: float | None = None
    examples: int = 0
    loss: Callable[[], float] | None = field(default=None, repr=False, compare=False)


class ClientWork(Protocol[State]):
    """What a client does with the parameters and its batches: pure, one batch at a time."""

    def batches(self, examples: int, ctx: Context) -> Iterator[NDArray[Any]]:
        """Positions of the examples of each step, in order."""

    def init(self, shared: Vector, ctx: Context) -> State:
        """State before the first step."""

    def step(self, state: State, batch: Examples, ctx: Context) -> State:
        """State after one batch; `state` is consumed."""

    def finish(self, shared: Vector, state: State) -> tuple[Vector, float]:
        """The (d,) delta to be averaged and the mean training loss; `state` is consumed."""


@runtime_checkable
class Protects(Protocol):
    """Client work whose delta hides single training examples by itself, from everybody."""

    @property
    def reveals(self) -> Event:
        """What the delta of one round tells at most of one example of the client."""


# ------------------------------------------------------------------ what happens to updates


@dataclass(frozen=True, slots=True)
class Update:
    """What one client contributes: one flat vector, cut into segments by its layout.

    A stage that owns its input may write into `vector`; nobody keeps an update it passed on.
    """

    vector: Vector = field(repr=False)
    layout: Layout

    def segment(self, name: str) -> Vector:
        """A view of one segment; empty if the layout lacks it."""
        return self.layout.slice(self.vector, name)


class Role(IntEnum):
    """What a stage is for. Roles fix the order of stages, not the user."""

    WEIGHT = 1
    SHAPE = 2
    BOUND = 3
    NOISE = 4
    ENCODE = 5
    HIDE = 6


class Stage(Protocol):
    """A two-sided transform: client halves run in order, server halves in reverse.

    Laws: encode, sum, decode equals the sum; no update escapes the facts that `infer` returned.
    """

    @property
    def role(self) -> Role:
        """Where the stage stands among the others."""

    def infer(self, spec: UpdateSpec) -> UpdateSpec:
        """Facts after the stage; a segment it does not touch passes unchanged.

        Raises:
          PlanError: the stage cannot work on such updates.
        """

    def encode(self, update: Update, ctx: Context) -> Update:
        """The client's half."""

    def admit(self, update: Update, facts: Facts) -> None:
        """The server's own check of what it can see of one update after all encoding.

        Raises:
          UpdateRejected: the update is not one that an honest client can send.
        """

    def decode(self, total: Vector, layout: Layout) -> Vector:
        """The server's half, on the sum; `total` is consumed."""


@runtime_checkable
class EncodesRows(Stage, Protocol):
    """A stage that can take the updates of several clients in one pass, to the same bits."""

    def encode_rows(self, rows: Vector, layout: Layout) -> None:
        """The client's half of each row of (k, d) updates, in place.

        Raises:
          HansaError: `encode` would raise for one of them; the rows are spoilt.
        """

    def admit_rows(self, rows: Vector, layout: Layout, facts: Facts) -> None:
        """The server's own check of each row.

        Raises:
          UpdateRejected: `admit` would reject one of them.
        """


@runtime_checkable
class Adapts(Protocol):
    """A stage whose norm bound C follows the updates; facts are then in units of C.

    Clients send their delta divided by C, and in the segment `within` whether it was within C.
    """

    @property
    def start(self) -> float:
        """C of the first round, in model units."""

    def next(self, clip: float, within: float, clients: float) -> float:
        """C of the next round.

        Args:
          clip: C of this round.
          within: the public sum of the segment `within`.
          clients: expected number of clients in a round.
        """


@dataclass(frozen=True, slots=True)
class Partial:
    """Some updates already folded together, and whose they were."""

    value: Any = field(repr=False)
    members: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Dropout:
    """A client of the cohort whose update did not count, with the reason in words.

    Attributes:
      client: its name.
      reason: in words.
      refused: whether an update came that broke its contract.
    """

    client: str
    reason: str
    refused: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Course:
    """How a round went, from an engine that knows more than who counted.

    Attributes:
      seconds: what the round would take on the devices of a simulation; None without such.
      ages: how many updates counted that were 0, 1, 2 and so on rounds old, where they arrive
        late; empty where they do not.
      flights: who is still at work, in a simulation whose updates arrive late.
      late: how many rounds old each update was that counted and was not fresh, by its client. It
        is for who judges clients, and is in no record.
    """

    seconds: float | None = None
    ages: tuple[int, ...] = ()
    flights: Any = field(default=None, repr=False)
    late: Mapping[str, int] = field(default_factory=lambda: MappingProxyType({}), repr=False)


class Aggregator(Protocol):
    """A commutative monoid over updates, then one finisher.

    Laws: any order and any grouping of `add` and `merge` give the same bits.
    """

    @property
    def linear(self) -> bool:
        """Whether it is a sum, hence O(model) in memory whatever the cohort."""

    def infer(self, spec: UpdateSpec) -> UpdateSpec:
        """Facts of one client's influence on the result.

        Raises:
          PlanError: it cannot aggregate such updates.
        """

    def zero(self, layout: Layout, facts: Facts) -> Partial:
        """No updates at all."""

    def add(self, partial: Partial, client: str, update: Update, facts: Facts) -> Partial:
        """One more update; `partial` is consumed.

        Raises:
          UpdateRejected: a coordinate is not finite or out of range; `partial` is unchanged.
        """

    def merge(self, left: Partial, right: Partial) -> Partial:
        """Both together; both are consumed."""

    def finish(self, partial: Partial, layout: Layout, facts: Facts) -> Vector:
        """The total in the stages' encoding; `partial` is consumed."""


@runtime_checkable
class AddsRows(Aggregator, Protocol):
    """An aggregator that can add the updates of several clients in one pass, to the same bits."""

    def add_rows(
        self,
        partial: Partial,
        clients: Sequence[str],
        rows: Vector,
        layout: Layout,
        facts: Facts,
        weight: float = 1.0,
    ) -> Partial:
        """All rows of (k, d) updates, their deltas times `weight`, or none; consumes `partial`.

        Raises:
          UpdateRejected: `add` would reject one of them; `partial` is unchanged.
        """


@runtime_checkable
class Discounts(Aggregator, Protocol):
    """An aggregator that can count an update from an older model for less."""

    def add_discounted(
        self, partial: Partial, client: str, update: Update, facts: Facts, weight: float
    ) -> Partial:
        """One more update, its delta times `weight`; `partial` is consumed.

        The weight is at most 1, and is applied after all checks: bounds hold as they did.

        Raises:
          UpdateRejected: as `add`.
        """


@runtime_checkable
class DecodingAggregator(Aggregator, Protocol):
    """An aggregator over several sums, each of which must be decoded before it can be looked at."""

    def finish_decoded(
        self,
        partial: Partial,
        decode: Callable[[Vector], Vector],
        layout: Layout,
        facts: Facts,
    ) -> Vector:
        """The total in model units, float64; `partial` is consumed.

        Args:
          partial: what was folded.
          decode: the stages' server halves, for one sum; consumes it.
          layout: segments.
          facts: of each segment.

        Raises:
          RoundVoid: the sums that are left do not make a round.
        """


# ------------------------------------------------------------------ what becomes public


class Relation(Enum):
    """Which two datasets a guarantee compares."""

    ADD_OR_REMOVE_ONE = "one unit more or less"
    REPLACE_ONE = "one unit replaced by another"
    ZERO_OUT = "one unit's data zeroed out"


class Mechanism(Protocol):
    """The only gate to the public: turns a private sum into something that may be seen."""

    @property
    def relation(self) -> Relation:
        """The relation its sensitivity is computed for."""

    def infer(self, spec: UpdateSpec) -> Event:
        """What releasing this segment of the sum reveals.

        Raises:
          PlanError: the segment cannot be released with the promised guarantee.
        """

    def releases(self, spec: UpdateSpec) -> bool:
        """Whether this segment of the sum is released at all; what is not is discarded."""

    def apply(self, total: Vector, spec: UpdateSpec, noise: Noise) -> Vector:
        """The public form of one segment of the sum; `total` is consumed."""


@runtime_checkable
class Correlated(Mechanism, Protocol):
    """A mechanism whose noise on the delta in one round depends on that of the rounds before.

    The noise of all rounds derives from one secret key, so that the key is all that must be kept:
    whoever goes on after a crash computes the same noise again.
    """

    @property
    def orthogonal(self) -> bool:
        """Whether each participation is a Gaussian of its own, which sampling can amplify."""

    def remember(self, spec: UpdateSpec, rows: int, noise: KeyedNoise) -> Any:
        """What the noise of the next release needs, after `rows` releases; computed anew."""

    def correlate(
        self, memory: Any, row: int, total: Vector, spec: UpdateSpec, noise: KeyedNoise
    ) -> tuple[Any, Vector]:
        """The memory after release number `row`, from 0, and its public form.

        `memory` and `total` are consumed.
        """


class ClientSampler(Protocol):
    """Who takes part in a round. Claims amplification only for what it really does."""

    @property
    def relation(self) -> Relation:
        """The relation under which `amplify` is valid."""

    @property
    def population(self) -> int:
        """Number of clients that may be drawn."""

    @property
    def expected(self) -> float:
        """Expected number of clients in a round."""

    @property
    def cap(self) -> int:
        """Most clients in a round."""

    def check(self) -> None:
        """Raises PlanError if the sampler cannot do what it promises."""

    def draw(self, population: Sequence[str], key: ReplayKey, number: int = 0) -> tuple[str, ...]:
        """The cohort of round `number`, in the population's order."""

    def amplify(self, event: Event) -> Event:
        """What `event` costs a unit that may not have been drawn."""

    def participations(self, rounds: int) -> int:
        """Most of so many consecutive rounds in which one client can take part."""


class Accountant(Protocol):
    """Turns events into epsilon; refuses what it does not understand."""

    @property
    def name(self) -> str:
        """Method and version, as claims name it."""

    def unsupported(self, event: Event, relation: Relation) -> str | None:
        """Why it cannot account for the event under the relation; None if it can."""

    def epsilon(self, event: Event, delta: float, relation: Relation) -> float:
        """Smallest epsilon it can prove at this delta; inf without a guarantee."""


class ServerOptimizer(Protocol[State]):
    """Turns the public mean delta into new parameters: pure post-processing."""

    def init(self, params: Vector) -> State:
        """State before the first round: a tuple of vectors."""

    def apply(self, state: State, params: Vector, step: Vector) -> tuple[State, Vector]:
        """New state and new (d,) float32 parameters; `step` (d,) float64 is consumed."""


@dataclass(frozen=True, slots=True)
class Algorithm:
    """A named method of federated optimisation: what clients do and what the server does.

    The fields of `work` and `server` carry the names of the words in a job's `[algorithm]`.
    """

    name: str
    work: ClientWork[Any]
    server: ServerOptimizer[Any]


@dataclass(frozen=True, slots=True)
class Parts:
    """A job's words turned into parts, in order; what `core.plan.check` proves to fit.

    The judge, if there is one, remembers who stands out; see `core.standing`.
    """

    algorithm: Algorithm
    sampler: ClientSampler
    stages: tuple[Stage, ...]
    aggregator: Aggregator
    mechanism: Mechanism
    judge: Judge | None = None

    @property
    def adapts(self) -> Adapts | None:
        """The stage whose norm bound adapts, if there is one."""
        return next((stage for stage in self.stages if isinstance(stage, Adapts)), None)
