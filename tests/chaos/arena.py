"""A federation of the four hospitals, as processes that tests kill and start again."""

from __future__ import annotations

import contextlib
import json
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

from hansa import simulate
from hansa.coordinator import config
from hansa.coordinator.store import Store
from hansa.core.job import Aggregation, Job, Privacy, Quantization, SecureAggregation
from hansa.errors import StoreError, Unavailable
from hansa.examples.heart.job import heart_job, heart_sites
from hansa.examples.heart.task import HOSPITALS
from hansa.local.federation import LocalFederation
from hansa.site.agent import ADDRESS, LOG
from hansa.submission import submit
from hansa.work.bundle import pack
from tests.chaos.evidence import Expected, Traces, no_receipt_is_ahead
from tests.support import mortal
from tests.support.proxy import Proxy

COORDINATOR = "coordinator"

PATIENCE = 60.0
"""Seconds in which whatever is waited for has to happen."""

LAST_WORDS = 30.0
"""Seconds in which a site has to come back and be told what became of its update."""

Make = Callable[[int, int], Job]
"""A kind of job: from a seed and a number of rounds."""


def plain_job(seed: int, rounds: int) -> Job:
    """The heart job without masks; a round counts only if all four hospitals take part."""
    job = heart_job(rounds=rounds, seed=seed)
    return replace(
        job,
        rounds=replace(job.rounds, deadline=PATIENCE, quorum=len(HOSPITALS)),
        aggregation=Aggregation(),
        quantization=Quantization(),
        secure_aggregation=SecureAggregation(),
    )


def private_job(seed: int, rounds: int) -> Job:
    """The same with noise from the coordinator, fresh in each run."""
    privacy = Privacy(
        mechanism="gaussian",
        clip=1.0,
        noise_multiplier=1.5,
        delta=1e-3,
        metrics_clip=500.0,
        metrics_noise_multiplier=4.0,
    )
    job = replace(plain_job(seed, rounds), privacy=privacy, risk_tier="low")
    return replace(job, aggregation=Aggregation(weighting="uniform"))


@lru_cache(maxsize=64)
def expected(make: Make, seed: int, rounds: int) -> Expected:
    """What such a job comes to when one process simulates it."""
    job = make(seed, rounds)
    result = simulate(job)
    found = Expected.of(result.records, result.model_sha256)
    return found if job.privacy.mechanism == "none" else found.private()


@dataclass(frozen=True, slots=True)
class Arena:
    """A running federation.

    Attributes:
      federation: its processes.
      store: the coordinator's store, opened beside it.
      doom: the folder that tells processes where to die; see `tests/support/mortal.py`.
      proxies: what stands between each site and the coordinator, if anything does.
    """

    federation: LocalFederation
    store: Store
    doom: Path
    proxies: Mapping[str, Proxy]

    @property
    def folders(self) -> Mapping[str, Path]:
        """Each site's folder."""
        return {site: self.federation.folder / site for site in HOSPITALS}

    def submit(self, job: Job) -> str:
        """Hands a job in; returns its identifier."""
        return submit(job, self.federation.remote).job

    def traces(self, job: str) -> Traces:
        """What is on disk about a job now."""
        return Traces.read(self.store, job, self.folders)

    # -------------------------------------------------------------- waiting

    def await_rounds(self, job: str, count: int) -> bool:
        """Waits until so many rounds were opened; False if the job ended before."""
        ended = False

        def opened() -> bool:
            nonlocal ended
            kinds = [event.kind for event in self.store.events(job)]
            ended = self.store.job(job).status.final
            return kinds.count("round.opened") >= count or ended

        wait_for(opened, f"{count} rounds of {job}", pause=0.002)
        return not ended

    def over(self, job: str) -> bool:
        """Whether a job has ended, or the coordinator has."""
        return not self.federation.running(COORDINATOR) or self.store.job(job).status.final

    def finished(self, job: str, *disturbed: str) -> Traces:
        """Everything about a job, once it has ended and the sites have written that down.

        Sites that were killed or cut off themselves may never say more; nobody waits for them long.
        """
        wait_for(lambda: self.store.job(job).status.final, f"the end of {job}")

        for site in HOSPITALS:
            self._hear_out(job, site, 2.0 if site in disturbed else LAST_WORDS)
        return self.traces(job)

    def _hear_out(self, job: str, site: str, seconds: float) -> None:
        """Waits for a site's last word; if it stays out, the traces show it."""
        with contextlib.suppress(AssertionError):
            wait_for(lambda: self._last_word(job, site) != "left", "last words", seconds=seconds)

    def _last_word(self, job: str, site: str) -> str:
        lines = (self.folders[site] / LOG).read_text("utf-8").splitlines()
        kinds = [entry["kind"] for entry in map(json.loads, lines) if entry["job"] == job]
        return kinds[-1] if kinds else ""

    # -------------------------------------------------------------- killing

    def condemn(self, name: str, point: str, count: int = 1) -> None:
        """Lets a process die when it reaches a point for the `count`-th time."""
        draft = self.doom / f".{name}"
        draft.write_text(f"{point} {count}", "utf-8")
        draft.replace(self.doom / name)

    def pardon(self, name: str) -> None:
        """Lets a process live that has not reached its point; one that has may be dying."""
        with contextlib.suppress(FileNotFoundError):
            (self.doom / name).unlink()
            return
        with contextlib.suppress(Unavailable):
            self.federation.wait(name, 0.5)

    def await_death(self, name: str) -> None:
        """Waits until a condemned process is dead."""
        self.federation.wait(name, PATIENCE)
        self.kill(name)

    def kill(self, *names: str) -> None:
        """Kills processes at one moment, and looks for receipts that are ahead of the disk."""
        self.federation.kill(*names)
        if self.federation.running(COORDINATOR):
            return
        time.sleep(0.05)  # for what the sites have heard and not written down yet
        for row in self.store.jobs():
            if not row.status.final:
                no_receipt_is_ahead(self.traces(row.id))

    def revive(self, *names: str) -> float:
        """Starts processes again; returns when, in seconds since the epoch."""
        since = time.time()
        for name in names:
            if name != COORDINATOR:
                self.federation.start_site(name)
        if COORDINATOR in names:
            self.federation.start_coordinator()
        return since

    def revive_to_die(self, seconds: float | None = None) -> None:
        """Starts the coordinator and kills it again: after a time, or where it is condemned."""
        with contextlib.suppress(Unavailable):  # it may die before it is ready
            self.federation.start_coordinator()
        if seconds is None:
            self.await_death(COORDINATOR)
        else:
            time.sleep(seconds)
            self.kill(COORDINATOR)

    def resumed(self, job: str, since: float) -> float | None:
        """Seconds from a moment to the next thing that happened to a job."""
        times = [event.time for event in self.store.events(job) if event.time > since]
        return min(times) - since if times else None

    @property
    def healthy(self) -> bool:
        """Whether another job can be run here: everybody runs and no job is open."""
        running = all(self.federation.running(name) for name in (COORDINATOR, *HOSPITALS))
        return running and all(row.status.final for row in self.store.jobs())


@contextmanager
def arena(
    folder: Path, *, pace: str = "", store: str = "", proxied: bool = False
) -> Iterator[Arena]:
    """Starts a coordinator and the four hospitals.

    Args:
      folder: where everything lies.
      pace: empty for `hansa` as it is; `plain` or `slow` for one that can be condemned.
      store: URL of a PostgreSQL; SQLite if empty.
      proxied: whether the sites reach the coordinator by proxies.
    """
    federation = LocalFederation(folder, store=store)
    doom = folder / "doom"
    doom.mkdir(parents=True)
    if pace:
        federation.program = (sys.executable, mortal.__file__, str(doom), pace)
    with contextlib.ExitStack() as stack:
        stack.enter_context(federation)
        federation.start_coordinator()
        settings = config.load(federation.coordinator)
        digest, proxies = pack(heart_job()).digest, {}
        for name, site in heart_sites().items():
            federation.join(name, site.config, [digest])
            if proxied:
                proxies[name] = stack.enter_context(Proxy(settings.sites_port).running())
                (folder / name / ADDRESS).write_text(proxies[name].address + "\n", "utf-8")
            federation.start_site(name)
        opened = stack.enter_context(Store.open(config.store_url(federation.coordinator, settings)))
        federation.wait_for_sites(len(HOSPITALS))
        yield Arena(federation, opened, doom, proxies)


def wait_for(
    what: Callable[[], bool], name: str, *, seconds: float = PATIENCE, pause: float = 0.02
) -> None:
    """Asks again and again, in bounded time."""
    ends = time.monotonic() + seconds
    while not _true(what):
        assert time.monotonic() < ends, f"{name}: not within {seconds:g} s"
        time.sleep(pause)


def _true(what: Callable[[], bool]) -> bool:
    """A store or a file that is being written is not there yet."""
    try:
        return what()
    except (StoreError, OSError, ValueError):
        return False
