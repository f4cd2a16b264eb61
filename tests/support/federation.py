"""A federation in a test: real folders, invites, certificates, sockets and store, on loopback.

The coordinator and the sites' agents run in the test's own event loop, so that a test can look at
both sides. A folder is made once and copied for each test, with ports of its own.
"""

from __future__ import annotations

import asyncio
import json
import shutil
import time
from collections.abc import AsyncIterator, Callable, Collection, Iterable
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import Any

from hansa.algorithms import fedavg
from hansa.coordinator import config
from hansa.coordinator.inviting import invite
from hansa.coordinator.rows import JobRow
from hansa.coordinator.serve import Coordinator, serving
from hansa.core.job import Cohort, Job, Rounds
from hansa.core.keys import ReplayKey
from hansa.core.parts import Site, Split
from hansa.core.plan import Plan
from hansa.core.round import RoundRecord, TrainState, World
from hansa.core.train import initial_state, train
from hansa.engines.inline import InlineEngine
from hansa.engines.memory import MemoryJournal
from hansa.errors import Unavailable
from hansa.identity.authority import Authority
from hansa.identity.credentials import Credentials
from hansa.identity.keys import load_credentials
from hansa.local.federation import reserve_ports
from hansa.privacy.ledger import MemoryLedger
from hansa.remote import Remote
from hansa.site import config as site_config
from hansa.site.agent import ADDRESS, KEYS, Agent
from hansa.site.join import join
from hansa.submission import submit
from hansa.work.bundle import load_task, pack
from tests.support import sitejob
from tests.support.sitejob.task import SITES

NAME = "hanse"
FOLDER = Path(sitejob.__path__[0])
LONG = 30.0
"""Longest wait for anything that must happen; reached only by a test that fails."""


# ------------------------------------------------------------------ jobs


def job(task: str = "Small", **words: Any) -> Job:
    """A job for three sites: two rounds and a measurement."""
    usual: dict[str, Any] = {
        "name": "net",
        "task": f"task:{task}",
        "rounds": Rounds(count=2, deadline=LONG),
        "cohort": Cohort(population=3),
        "algorithm": fedavg(client_lr=0.5, local_epochs=2, batch_size=8),
        "folder": FOLDER,
    }
    return Job(**{**usual, **words})


def expected(
    plan: Plan, without: Collection[str] = (), *, masks: bool = True
) -> tuple[TrainState, list[RoundRecord]]:
    """What the plainest engine makes of a plan when some sites never answer."""
    task = load_task(plan.job)

    @lru_cache
    def data(site: str) -> Split:
        if site in without:
            raise RuntimeError("this site does not answer")
        return task.data(Site(site, {}))

    key, journal = ReplayKey.of_seed(plan.job.seed), MemoryJournal()
    world = World(
        job=plan.job.name,
        engine=InlineEngine(task, data, masked=masks),
        ledger=MemoryLedger(plan.charges),
        journal=journal,
        noise=key,
        key=key,
        population=SITES[: plan.job.cohort.population],
    )
    params = task.initial(plan.job.seed)
    params.flags.writeable = False
    state = asyncio.run(train(plan, initial_state(plan, params), world))
    return state, journal.records


def outcome(records: Iterable[RoundRecord]) -> list[tuple[object, ...]]:
    """What must be equal between engines: all but the seconds and the words of why not."""
    return [
        (
            record.purpose,
            record.round,
            record.attempt,
            record.cohort,
            record.members,
            frozenset(dropout.client for dropout in record.dropouts),
            record.void,
            record.metrics,
            record.model,
        )
        for record in records
    ]


# ------------------------------------------------------------------ folders


@dataclass(frozen=True)
class Place:
    """The folder of a federation: `coordinator/` and one folder per site."""

    path: Path

    @property
    def coordinator(self) -> Path:
        return self.path / "coordinator"

    @property
    def settings(self) -> config.Settings:
        return config.load(self.coordinator)

    @property
    def sites_door(self) -> str:
        return f"127.0.0.1:{self.settings.sites_port}"

    @property
    def authority(self) -> Authority:
        return Authority.load(self.coordinator / "ca")

    def site(self, name: str) -> Path:
        return self.path / name

    def credentials(self, name: str) -> Credentials:
        return load_credentials(self.site(name) / KEYS)

    def config(self, name: str) -> site_config.SiteConfig:
        return site_config.load(self.site(name))

    def write_site(self, name: str, data: dict[str, Any] | None = None, **policy: Any) -> None:
        """Writes a `site.toml` that allows the tests' tasks, unless `policy` says otherwise.

        Sites are small here, so that updates of few examples may leave.
        """
        usual = {"federations": [NAME], "tasks": [pack(job()).digest], "min_examples": 1}
        allowed = {**usual, **policy}
        lines = ["[data]", *_toml(data or {}), "[policy]", *_toml(allowed)]
        (self.site(name) / site_config.NAME).write_text("\n".join(lines) + "\n")

    def copy(self, path: Path) -> Place:
        """A federation of its own, with the same members, on ports that are free now."""
        shutil.copytree(self.path, path, symlinks=True)
        copied = Place(path)
        copied.use_ports()
        return copied

    def use_ports(self) -> None:
        """Moves the federation to ports that are free now."""
        sites, enrol, people = free_ports()
        settings = {
            "federation": self.settings.federation,
            "host": "127.0.0.1",
            "sites_port": sites,
            "enrol_port": enrol,
            "people_port": people,
        }
        (self.coordinator / config.SETTINGS).write_text("\n".join(_toml(settings)) + "\n")
        operator = self.coordinator / "operator.json"
        words = json.loads(operator.read_text())
        operator.write_text(json.dumps({**words, "url": f"https://127.0.0.1:{people}"}))
        for address in self.path.glob(f"*/{ADDRESS}"):
            address.write_text(f"127.0.0.1:{sites}\n")


def make(path: Path, sites: Iterable[str] = SITES, name: str = NAME) -> Place:
    """Makes a federation: a coordinator's folder, and sites that joined with real invites."""
    path.mkdir(parents=True)
    place = Place(path)
    sites_port, enrol_port, people_port = free_ports()
    settings = config.Settings(
        federation=name,
        host="127.0.0.1",
        sites_port=sites_port,
        enrol_port=enrol_port,
        people_port=people_port,
    )
    config.init(place.coordinator, settings, datetime.now(UTC))

    async def enrol() -> None:
        async with serving(place.coordinator):
            for site in sites:
                await joined(place, site)

    asyncio.run(enrol())
    return place


async def joined(place: Place, site: str) -> Credentials:
    """Invites a site and lets it join the running coordinator."""
    now = datetime.now(UTC)
    text = await asyncio.to_thread(invite, place.coordinator, site, f"{site} hospital", now)
    credentials = await join(text, place.site(site), now)
    place.write_site(site)
    return credentials


def free_ports() -> tuple[int, int, int]:
    """Ports that nobody has or reserves, and that no connection is given."""
    with ExitStack() as held:
        return reserve_ports(held)


def _toml(words: dict[str, Any]) -> list[str]:
    return [f"{key} = {json.dumps(value)}" for key, value in words.items()]


# ------------------------------------------------------------------ running


@dataclass
class Running:
    """An agent that runs, and what it said."""

    agent: Agent
    task: asyncio.Task[None]
    said: list[str]

    async def stop(self) -> None:
        self.task.cancel()
        await asyncio.wait([self.task])


@dataclass
class Federation:
    """A federation whose coordinator runs in this event loop."""

    place: Place
    coordinator: Coordinator
    _agents: list[Running] = field(default_factory=list)

    @property
    def remote(self) -> Remote:
        return Remote.load(self.place.coordinator)

    def agent(self, site: str, kind: Callable[..., Agent] = Agent) -> Running:
        """Starts a site's agent."""
        said: list[str] = []
        agent = kind(self.place.site(site), said.append)
        running = Running(agent, asyncio.create_task(agent.run(), name=f"agent {site}"), said)
        self._agents.append(running)
        return running

    async def agents(self, *sites: str) -> list[Running]:
        """Starts agents and waits until they attend."""
        started = [self.agent(site) for site in sites]
        await self.attending(*sites)
        return started

    async def attending(self, *sites: str) -> None:
        await until(lambda: self.coordinator.roster.present >= set(sites))

    async def submit(self, wanted: Job) -> tuple[str, Plan]:
        """Submits a job by the people's door."""
        done = await asyncio.to_thread(submit, wanted, self.remote)
        return done.job, done.plan

    async def ended(self, job_id: str, seconds: float = LONG) -> JobRow:
        """Waits for the end of a job."""
        async with asyncio.timeout(seconds):
            while True:
                news = self.coordinator.people.bulletin.next()
                row = self.coordinator.store.job(job_id)
                if row.status.final:
                    return row
                await news

    async def reached(self, job_id: str, closed: int, seconds: float = LONG) -> None:
        """Waits until so many rounds of a job are closed, void ones counted."""
        async with asyncio.timeout(seconds):
            while True:
                news = self.coordinator.people.bulletin.next()
                if len(self.coordinator.store.records(job_id)) >= closed:
                    return
                await news

    def records(self, job_id: str) -> list[RoundRecord]:
        return self.coordinator.store.records(job_id)

    def model(self, job_id: str) -> str:
        """SHA-256 of a job's newest model."""
        state = self.coordinator.store.state(job_id)
        return state.model_sha256 if state else self.coordinator.store.job(job_id).initial_sha256

    async def revoke(self, site: str, reason: str = "it was stolen") -> float:
        """Shuts a site out by the people's door; returns the moment at which that was asked."""
        asked = time.monotonic()
        await asyncio.to_thread(self.remote.revoke, site, reason)
        return asked


@asynccontextmanager
async def running(place: Place) -> AsyncIterator[Federation]:
    """Runs the coordinator; ends the agents that were started, then the coordinator."""
    async with AsyncExitStack() as stack:
        coordinator = await _served(place, stack)
        federation = Federation(place, coordinator)
        try:
            yield federation
        finally:
            for agent in federation._agents:
                await agent.stop()


async def _served(place: Place, stack: AsyncExitStack) -> Coordinator:
    """The coordinator; on other ports if somebody took its own since they were chosen."""
    for _ in range(5):
        try:
            return await stack.enter_async_context(serving(place.coordinator))
        except Unavailable:
            place.use_ports()
    return await stack.enter_async_context(serving(place.coordinator))


async def until(condition: Callable[[], bool], seconds: float = LONG) -> None:
    """Waits for something that nobody announces."""
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110  it is looked for because nobody announces it
            await asyncio.sleep(0.005)
