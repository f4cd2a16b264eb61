"""The ray engine: clients on the nodes of a Ray cluster, one sum from each actor and round.

    one round:   parameters ──► Ray's object store, once; each node copies them for its actors
                 actor: load, train, fold the clients of its share ──► one partial sum

| what happens                              | result                                           |
|-------------------------------------------|--------------------------------------------------|
| nothing of note                           | the bits of the inline engine                    |
| a client raises, an update is rejected    | Dropout, with the reason that inline gives       |
| an actor or a node is lost                | its share is trained again, by who is there      |
| a node joins                              | it gets actors in the next round                 |
| actors are lost again and again           | HansaError, with clients of the last share       |
| the simulation is interrupted or killed   | Ray ends the actors                              |
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING

from hansa.core.contribute import RoundTask
from hansa.core.parts import Dropout, Partial
from hansa.engines.division import divide
from hansa.engines.sums import Placed, summed, without_done
from hansa.engines.workers_messages import Order, Report, Source, without_bulk
from hansa.errors import HansaError

if TYPE_CHECKING:
    from hansa.engines.ray_cluster import Cluster

MOST_LOSSES = 5
"""How often shares of one round may be lost and trained again."""

_NAMED = 3


@dataclass(slots=True)
class RayEngine:
    """Runs the clients of a simulation in actors of a Ray cluster that is there already.

    Where the plan hides updates, they are summed without masks, which gives the same sum. What
    travels does so as Ray sends it: this is for simulations, and no network of sites.
    Close it, or use it as a context manager.

    Attributes:
      source: how an actor gets the model and the clients' examples; it is sent by pickle.
      address: of the cluster, HOST:PORT; auto for the one that this machine is a node of.
      number: how many actors; None for as many as the cluster has room for, round by round.
      cores: processor cores that each actor takes; it computes on one.
    """

    source: Source
    address: str = "auto"
    number: int | None = None
    cores: float = 1.0
    _cluster: Cluster | None = field(default=None, repr=False)
    _examples: dict[str, int] = field(default_factory=dict, repr=False)
    _homes: dict[str, int] = field(default_factory=dict, repr=False)

    @property
    def real(self) -> bool:
        """False: all clients are this cluster."""
        return False

    def start(self) -> Cluster:
        """Connects to the cluster.

        Raises:
          MissingExtra: Ray is not installed.
          Unavailable: there is no cluster at this address.
          HansaError: the address is none, or this process is connected to another cluster.
        """
        if self._cluster is None:
            from hansa.engines.ray_cluster import Cluster

            self._cluster = Cluster(self.source, self.address, self.number, self.cores)
        return self._cluster

    def close(self) -> None:
        """Ends the actors; a later round would start new ones."""
        if self._cluster is not None:
            self._cluster.close()
            self._cluster = None
            self._homes.clear()

    def __enter__(self) -> RayEngine:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    async def gather(
        self, task: RoundTask, cohort: Sequence[str]
    ) -> AsyncIterator[Partial | Dropout]:
        """Trains the clients and yields one partial from each actor.

        Raises:
          HansaError: actors were lost again and again, or cannot load the task.
        """
        whole = False
        try:
            async for item in summed(task, cohort, partial(self._reports, task)):
                yield item
            whole = True
        finally:
            if not whole:  # what the actors still do belongs to no round
                self.close()

    async def _reports(
        self, task: RoundTask, left: list[Placed], hidden: bool
    ) -> AsyncIterator[Report]:
        """Orders until every client is in a report; the share of a lost actor is divided anew."""
        if not left:
            return
        cluster, lost = self.start(), ""
        params = cluster.put(task.params)
        for _ in range(MOST_LOSSES):
            actors = await cluster.fill()
            numbers = [actor.number for actor in actors]
            shares = divide(left, self._examples, self._homes, numbers)
            orders = {
                number: Order(
                    without_bulk(task), task.plan, len(task.params), share, len(share), hidden
                )
                for number, share in shares.items()
            }
            async for actor, said in cluster.work(orders, task.plan.digest, params):
                share = shares[actor.number]
                if isinstance(said, str):
                    lost = f"{said}, with {_names(share)}"
                    continue
                self._examples.update(said.examples)
                self._homes.update((client, actor.number) for _, client in share)
                left = without_done(left, said)
                yield said
            if not left:
                return
        raise HansaError(
            f"actors were lost {MOST_LOSSES} times in round {task.round}; the last one {lost}",
            fix="look at the data of these clients and at the memory of the nodes, or use the "
            'engine "inline"',
        )


def _names(share: Sequence[Placed]) -> str:
    named = [f"'{client}'" for _, client in share[:_NAMED]]
    return ", ".join(named) + (f" and {len(share) - _NAMED} more" if share[_NAMED:] else "")
