"""A site that attacks, to be run against one's own federation: the ordinary agent, other updates.

    python -m hansa.attacks.site FOLDER --attack sign_flip

It takes only attacks that need no more than the site's own knowledge; one that would see all honest
updates sees what the site's own honest training gives.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import signal
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from hansa.attacks.catalogue import ATTACKS, Attack, Knowledge, attack_named
from hansa.attacks.data import Poison
from hansa.attacks.memory import Memory
from hansa.core.contribute import Purpose, RoundTask, context_of, encoded, train_locally
from hansa.core.keys import Noise
from hansa.core.parts import Model, Split, Update
from hansa.errors import HansaError


@dataclass(slots=True)
class Attacking:
    """The contribution of one site that attacks.

    Attributes:
      attack: what it does.
    """

    attack: Attack
    _memory: Memory = field(default_factory=Memory, repr=False)
    _poison: Poison | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        if self.attack.knows == "rule":
            raise HansaError(
                f"a site alone cannot do '{self.attack.name}': it needs to know the rule's result",
                fix="take one of " + ", ".join(alone()),
            )

    def __call__(
        self, task: RoundTask, client: str, model: Model, split: Split, noise: Noise | None = None
    ) -> Update:
        """The site's update in a round."""
        ctx = context_of(task, client, model, split, noise)
        if task.purpose is not Purpose.TRAIN:
            return encoded(task, ctx, split, None)
        previous = self._memory.step(task)
        work = self.attack.work_of(task.plan, previous)
        honest = own = train_locally(task, ctx, split)
        if self.attack.poisoner is not None:
            if self._poison is None:
                classes = int(split.train.targets.max(initial=1)) + 1
                self._poison = self.attack.poisoner([split.train], classes)
            poisoned = self._poison.poison(split, ctx.key.derive("poison"))
            own = train_locally(task, ctx, poisoned, work)
        elif work is not None:
            own = train_locally(task, ctx, split, work)
        if self.attack.send is not None:
            mine = own[0][None]
            known = Knowledge(
                honest=honest[0][None],
                own=mine,
                old=self._memory.first([client], mine),
                previous=previous,
                cohort=max(int(task.plan.parts.sampler.expected), 1),
                key=ctx.key.derive("attack", self.attack.name),
            )
            own = self.attack.send(known)[0], own[1]
        update = encoded(task, ctx, split, own)
        if self.attack.lie is None:
            return update
        return Update(self.attack.lie(update.vector, update.layout), update.layout)


def alone() -> list[str]:
    """Names of the attacks that a site can do by itself."""
    return sorted(name for name, attack in ATTACKS.items() if attack.knows != "rule")


def main(arguments: Sequence[str]) -> int:
    """Runs the agent of a site's folder until it is told to stop."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="the site's folder")
    parser.add_argument("--attack", required=True, choices=alone())
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    try:
        asyncio.run(_run(options.folder, Attacking(attack_named(options.attack))))
    except HansaError as error:
        print(f"{error.message}\n{error.fix}", file=sys.stderr)  # noqa: T201  a command's own voice
        return 1
    return 0


async def _run(folder: Path, contribution: Attacking) -> None:
    from hansa.site.agent import Agent

    said = logging.getLogger("hansa.attacks").info
    running = asyncio.ensure_future(Agent(folder, said, contribution).run())
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, running.cancel)
    try:
        await running
    except asyncio.CancelledError:
        said("stopped")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
