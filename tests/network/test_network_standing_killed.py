"""Standing after `kill -9` of the coordinator, several times: each round is observed once."""

from __future__ import annotations

import time
from pathlib import Path

from hansa.core.job import Rounds
from hansa.local.federation import LocalFederation
from hansa.submission import submit
from hansa.work.bundle import pack
from tests.network.test_network_standing import WORDS, simulated
from tests.support.federation import LONG, job
from tests.support.sitejob.task import SITES

KILLS, ROUNDS = 3, 30


def test_a_coordinator_that_is_killed_observes_each_round_once(tmp_path: Path) -> None:
    """The killed run ends with the model, the standings and the transitions of a simulation."""
    of = job(**{**WORDS, "rounds": Rounds(count=ROUNDS, deadline=LONG, quorum=5)})
    with LocalFederation(tmp_path / "federation", name="hanse") as federation:
        federation.start_coordinator()
        for site in SITES:
            federation.join(site, {"delay": 0.03}, [pack(of).digest])
            if site == "kiel":
                federation.start_hostile_site(site, "sign_flip_5")
            else:
                federation.start_site(site)
        federation.wait_for_sites(len(SITES))
        done = submit(of, federation.remote)
        for number in range(KILLS):
            ends = time.monotonic() + 2 * LONG
            while len(federation.remote.job(done.job)["rounds"]) < 3 + 4 * number:
                assert time.monotonic() < ends
                time.sleep(0.02)
            federation.kill("coordinator")
            federation.start_coordinator()
        ends = time.monotonic() + 4 * LONG
        while (status := federation.remote.job(done.job)["status"]) in ("offered", "running"):
            assert time.monotonic() < ends
            time.sleep(0.2)
        assert status == "done", federation.remote.job(done.job)["reason"]
        said = federation.remote.standing(done.job)
        again = federation.remote.replay_standing(done.job)
        whole = federation.remote.job(done.job)
    sites = tuple(whole["rounds"][0]["cohort"])  # one has too few examples for its own policy
    assert len(sites) == 5
    state, journal = simulated(done.plan, "sign_flip_5", sites)
    assert whole["model_sha256"] == state.model
    assert [r["cohort"] for r in whole["rounds"]] == [list(r.cohort) for r in journal.records]
    found = state.standing.standings
    for client, standing in found.clients.items():
        told = said["clients"][client]
        assert (told["state"], told["rounds"]) == (standing.state.value, standing.rounds)
        assert told["recent"] == list(standing.recent)
    assert [(c["client"], c["round"], c["after"]) for c in said["changes"]] == [
        (c.client, c.round, c.after.value) for c in state.standing.changes
    ]
    assert again["agrees"]
    assert again["rounds"] == ROUNDS
