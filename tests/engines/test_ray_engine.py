"""The ray engine on a real cluster of two nodes: the bits of inline, whoever is lost."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import ExitStack
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest

import hansa
from hansa.core.job import Aggregation, Quantization, Rounds, SecureAggregation
from hansa.core.train import initial_state, train
from hansa.engines.inline import InlineEngine
from hansa.engines.ray import RayEngine
from hansa.engines.ray_actor import FromBundle
from hansa.errors import HansaError, MissingExtra, Unavailable, VersionMismatch
from hansa.simulation import choose, simulate
from tests.laws.engines import EngineLaws
from tests.support.cli import make_jobs, run_here
from tests.support.ray_nodes import Nodes, nodes
from tests.support.sources import Both, Ending, Infinite, Killing, Raising, Slow, Telling
from tests.support.toy import (
    POPULATION,
    TOY,
    data,
    gathered,
    job,
    plan,
    round_task,
    run,
    start,
    world,
)

pytestmark = pytest.mark.xdist_group("ray")

PLAN = plan()
CORES = 0.25
"""What an actor says that it takes: more of them fit on the two cores of the nodes."""

GROUPS = job(
    quantization=Quantization(step=1e-4),
    secure_aggregation=SecureAggregation(enabled=True, groups=3),
    aggregation=Aggregation(rule="median", weighting="uniform", clip=1.0, max_weight=2),
    rounds=Rounds(count=3, quorum=6),
)


@pytest.fixture(scope="module")
def cluster():
    with nodes() as made:
        yield made


@pytest.fixture
def engine(cluster):
    """Makes engines of two actors, and ends them."""
    with ExitStack() as held:

        def make(source, number=2, cores=CORES) -> RayEngine:
            made = RayEngine(Both(TOY, source), cluster.address, number, cores)
            return held.enter_context(made)

        yield make


def model_of(engine, of=PLAN) -> str:
    model: str = run(train(of, initial_state(of, start()), world(of, engine))).model
    return model


EXPECTED = model_of(InlineEngine(TOY, data))


def members(partials) -> list[str]:
    return sorted(member for partial in partials for member in partial.members)


def pids(engine: RayEngine) -> set[int]:
    return {actor.hello.pid for actor in engine.start().actors if actor.hello}


def gone(pid: int) -> bool:
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return True
    return text.rpartition(")")[2].split()[0] in "ZX"


def wait_for(what, seconds: float = 30.0) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if what():
            return True
        time.sleep(0.02)
    return False


# ------------------------------------------------------------------ the same bits


@pytest.fixture(scope="class")
def pools(cluster):
    """One engine for each source, ended at the end."""
    with ExitStack() as held:

        @cache
        def make(source):
            number = 2 if source is data else 1
            made = RayEngine(Both(TOY, source), cluster.address, number, CORES)
            return held.enter_context(made)

        yield make


class TestRay(EngineLaws):
    @pytest.fixture(autouse=True)
    def _pools(self, pools):
        self.pools = pools

    def engine(self, model, source):
        assert model is TOY
        return self.pools(source)

    @pytest.mark.parametrize("source", [Raising(POPULATION[2]), Infinite(POPULATION[0])])
    def test_who_drops_out_is_told_as_inline_tells_it(self, source):
        with np.errstate(all="ignore"):
            _, expected = gathered(InlineEngine(TOY, source), round_task(PLAN), POPULATION)
            _, dropouts = gathered(self.pools(source), round_task(PLAN), POPULATION)
        assert len(expected) == 1
        assert dropouts == expected


def test_a_whole_job_gives_the_bits_and_records_of_inline(cluster):
    """Ring elements, groups that masks would hide, and a rule over them."""
    inline = simulate(GROUPS, masked=False)
    there = simulate(GROUPS, engine="ray", address=cluster.address, masked=False)
    assert (there.engine, there.engine_because) == ("ray", "it was asked for")
    assert there.model_sha256 == inline.model_sha256
    assert [(r.members, r.dropouts, r.metrics, r.model) for r in there.records] == [
        (r.members, r.dropouts, r.metrics, r.model) for r in inline.records
    ]


# ------------------------------------------------------------------ what lies where


def test_data_is_read_where_the_actors_are_and_parameters_are_put_once(
    engine, tmp_path, monkeypatch
):
    """An actor that takes a core is alone on its node, reads its own clients, sends one sum."""
    import ray

    put, puts = ray.put, []

    def counted(value, **words):
        puts.append(value)
        return put(value, **words)

    monkeypatch.setattr(ray, "put", counted)
    there = engine(Slow(tmp_path, 0.0), cores=1.0)
    partials, _ = gathered(there, round_task(PLAN), POPULATION)
    read = {tuple(file.name.rsplit("-", 1)) for file in tmp_path.iterdir()}
    assert len(partials) == 2
    assert sorted(client for client, _ in read) == sorted(POPULATION)
    assert {int(pid) for _, pid in read} == pids(there)
    assert os.getpid() not in pids(there)
    assert len({actor.hello.node for actor in there.start().actors}) == 2
    puts.clear()
    assert model_of(there) == EXPECTED
    assert len(puts) == 4, "three rounds and the measurement"
    assert all(isinstance(each, np.ndarray) for each in puts)
    for file in tmp_path.iterdir():
        file.unlink()
    for client in POPULATION:  # alone, they would all go to the same actor
        gathered(there, round_task(PLAN), [client])
    assert list(tmp_path.iterdir()) == [], "each is trained where its examples are"


def test_a_task_is_unpacked_where_its_folder_is_not(cluster):
    of = FromBundle.of(job())
    far = replace(of, job=replace(of.job, folder=Path("/nowhere")))
    before = unpacked()
    with RayEngine(far, cluster.address, 1, CORES) as there:
        assert model_of(there) == EXPECTED
        assert len(unpacked() - before) == 1
    assert wait_for(lambda: unpacked() == before), "it is removed"


def test_a_folder_with_other_code_is_not_used(tmp_path):
    (tmp_path / "task.py").write_text("raise RuntimeError('another one')")
    of = FromBundle.of(job())
    before = unpacked()
    task, examples = replace(of, job=replace(of.job, folder=tmp_path))()
    assert len(examples(POPULATION[0]).train) == len(data(POPULATION[0]).train)
    assert len(unpacked() - before) == 1
    del task, examples
    assert unpacked() == before
    assert of()[0] is not None
    assert unpacked() == before, "the same code needs no copy"


def unpacked() -> set[Path]:
    return set(Path(tempfile.gettempdir()).glob("hansa-task-*"))


def test_nothing_that_a_task_says_of_its_data_is_in_rays_files(cluster, engine):
    value = "haemoglobin of 41.5 in bed 7"
    there = engine(Telling(POPULATION[1], value), number=1)
    _, dropouts = gathered(there, round_task(PLAN), POPULATION)
    assert [(d.client, d.reason) for d in dropouts] == [(POPULATION[1], "RuntimeError")]
    there.close()
    time.sleep(0.3)
    files = [file for file in cluster.folder.rglob("*") if file.is_file()]
    assert any("worker" in file.name for file in files)
    assert [file for file in files if value.encode() in file.read_bytes()] == []


# ------------------------------------------------------------------ losses


def test_a_lost_actor_is_replaced_and_nobody_counts_twice(engine, tmp_path):
    """It dies with clients that it had folded already; they are trained once more."""
    there = engine(Killing(POPULATION[4], tmp_path, times=1))
    assert model_of(there) == EXPECTED
    assert [file.name for file in tmp_path.iterdir()] == ["1"]
    cluster = there.start()
    assert wait_for(lambda: len(run(cluster.fill())) == 2)
    assert {actor.number for actor in cluster.actors} < {1, 2, 3}
    assert cluster.actors[-1].number == 3


def test_actors_that_are_lost_again_and_again_end_the_run(engine, tmp_path, monkeypatch):
    monkeypatch.setattr("hansa.engines.ray.MOST_LOSSES", 2)
    there = engine(Killing(POPULATION[4], tmp_path))
    with pytest.raises(HansaError, match="is gone, though its node is there") as caught:
        gathered(there, round_task(PLAN, number=7), POPULATION)
    assert "lost 2 times in round 7" in caught.value.message
    assert f"'{POPULATION[4]}'" in caught.value.message
    assert len(list(tmp_path.iterdir())) == 2


def test_a_round_that_is_given_up_ends_the_actors(engine, tmp_path):
    there = engine(Slow(tmp_path, 60.0))

    async def give_up() -> set[int]:
        async def all_of_it() -> None:
            async for _ in there.gather(round_task(PLAN), POPULATION):
                pass

        going = asyncio.create_task(all_of_it())
        while len(list(tmp_path.iterdir())) < 2:  # noqa: ASYNC110  another process
            await asyncio.sleep(0.01)
        working = pids(there)
        going.cancel()
        with pytest.raises(asyncio.CancelledError):
            await going
        return working

    working = run(give_up())
    assert len(working) == 2
    assert wait_for(lambda: all(gone(pid) for pid in working))


def test_a_lost_node_changes_nothing_and_a_new_one_is_used(cluster: Nodes, tmp_path):
    """Its actor is in the middle of its share when the node and all its processes go."""
    source = Both(TOY, Slow(tmp_path, 0.1))
    with RayEngine(source, cluster.address, cores=1.0) as there:
        gathered(there, round_task(PLAN), ())
        there.start()
        far: dict[str, int] = {}

        def lose() -> None:
            assert wait_for(lambda: len(list(tmp_path.iterdir())) >= 3)
            hellos = [actor.hello for actor in there.start().actors if actor.hello]
            far.update((h.node, h.pid) for h in hellos if h.node == cluster.other.node_id)
            cluster.lose()

        losing = threading.Thread(target=lose)
        losing.start()
        assert model_of(there) == EXPECTED
        losing.join()
        assert len(far) == 1
        assert all(gone(pid) for pid in far.values())
        again = [f.name.rsplit("-", 1)[0] for f in tmp_path.iterdir()]
        assert len(again) > len(set(again)), "some clients were trained once more"
        ready = [actor for actor in there.start().actors if actor.hello]
        assert len(ready) == 1

        cluster.join()
        assert wait_for(lambda: len(run(there.start().fill())) == 2)
        partials, _ = gathered(there, round_task(PLAN), POPULATION)
        assert len(partials) == 2
        assert members(partials) == sorted(POPULATION)


SCRIPT = """
import sys
from pathlib import Path
import ray
from ray._private import services
from hansa.engines.ray import RayEngine
from tests.support.sources import Both, Slow
from tests.support.toy import POPULATION, TOY, gathered, plan, round_task

services.get_node_ip_address = ray.util.get_node_ip_address = lambda *_: "127.0.0.1"
with RayEngine(Both(TOY, Slow(Path(sys.argv[2]), 60.0)), sys.argv[1], 1, 0.25) as engine:
    gathered(engine, round_task(plan()), POPULATION)
"""


def test_actors_end_with_the_simulation_also_if_it_is_killed(cluster, tmp_path):
    root = Path(__file__).resolve().parents[2]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(root), *filter(None, sys.path)])}
    command = [sys.executable, "-c", SCRIPT, cluster.address, str(tmp_path)]
    with subprocess.Popen(command, env=env, cwd=root, stderr=subprocess.DEVNULL) as simulation:
        assert wait_for(lambda: len(list(tmp_path.iterdir())) == 1, 60)
        working = [int(file.name.rpartition("-")[2]) for file in tmp_path.iterdir()]
        assert not any(gone(pid) for pid in working)
        simulation.send_signal(signal.SIGKILL)
        simulation.wait(30)
    assert wait_for(lambda: all(gone(pid) for pid in working))


# ------------------------------------------------------------------ what cannot be


def test_a_task_that_cannot_be_loaded_there_is_told(cluster):
    of = FromBundle.of(job())
    with (
        RayEngine(replace(of, job=job(task="task:Missing")), cluster.address, 1, CORES) as there,
        pytest.raises(HansaError, match=r"an actor cannot work.*Missing"),
    ):
        gathered(there, round_task(PLAN), POPULATION)


def test_a_process_that_ends_while_it_loads_is_told(cluster, monkeypatch):
    monkeypatch.setattr("hansa.engines.ray_cluster.MOST_FAILED_STARTS", 2)
    with (
        RayEngine(Ending(), cluster.address, 1, CORES) as there,
        pytest.raises(HansaError, match="2 actors ended while they loaded the task"),
    ):
        gathered(there, round_task(PLAN), POPULATION)


def test_a_node_with_another_version_is_refused(engine, monkeypatch):
    monkeypatch.setattr(hansa, "__version__", "9.9.9")
    with pytest.raises(VersionMismatch, match=r"9\.9\.9"):
        gathered(engine(data, number=1), round_task(PLAN), POPULATION)


def test_a_cluster_without_room_is_waited_for_in_vain(cluster, monkeypatch):
    monkeypatch.setattr("hansa.engines.ray_cluster.START_SECONDS", 0.3)
    with (
        RayEngine(Both(TOY, data), cluster.address, 1, 50.0) as there,
        pytest.raises(Unavailable, match="no actor could be started"),
    ):
        gathered(there, round_task(PLAN), POPULATION)


def test_a_store_without_room_is_told(engine, monkeypatch):
    import ray

    def full(_):
        raise ray.exceptions.ObjectStoreFullError

    there = engine(data, number=1)
    there.start()
    monkeypatch.setattr(ray, "put", full)
    with pytest.raises(HansaError, match="no room for"):
        gathered(there, round_task(PLAN), POPULATION)


def test_another_cluster_is_refused_while_this_one_is_connected(cluster):
    with pytest.raises(HansaError, match=r"connected .* already, not to 10\.0\.0\.1:6379"):
        RayEngine(Both(TOY, data), "10.0.0.1:6379").start()


# ------------------------------------------------------------------ from a process without Ray


@pytest.fixture
def unconnected(cluster):
    import ray

    ray.shutdown()
    yield
    if ray.is_initialized():
        ray.shutdown()
    cluster.connect()


def test_the_command_connects_and_lets_go(cluster, unconnected, tmp_path):
    import ray

    make_jobs(tmp_path)
    words = ("simulate", "toy", "--json", "--engine")
    here = json.loads(run_here(*words, "inline", cwd=tmp_path).out)
    done = run_here(*words, "ray", cwd=tmp_path)
    assert done.code == 0
    assert "round 3/3" in done.err
    there = json.loads(done.out)
    assert there["engine"] == "ray"
    assert there["model_sha256"] == here["model_sha256"]
    assert not ray.is_initialized()
    assert os.environ["RAY_USAGE_STATS_ENABLED"] == "0"


@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("127.0.0.1:1", "nobody answers at 127.0.0.1:1"),
        ("nowhere", "'nowhere' is not the address"),
        ("ray://127.0.0.1:10001", "by ray job submit"),
    ],
)
def test_where_nobody_is_that_is_told_soon(unconnected, address, words):
    begun = time.monotonic()
    with pytest.raises(HansaError) as caught:
        simulate(job(), engine="ray", address=address)
    assert words in str(caught.value)
    assert time.monotonic() - begun < 10


def test_without_an_address_the_last_cluster_is_tried(unconnected, tmp_path, monkeypatch):
    """What Ray wrote down may be gone, and there may be none at all."""
    from ray._private import services

    monkeypatch.setattr(services, "find_gcs_addresses", cache(set))
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    with pytest.raises(Unavailable, match="no Ray cluster was found on this machine") as caught:
        simulate(job(), engine="ray")
    assert "ray start --head" in caught.value.fix
    (tmp_path / "ray").mkdir(exist_ok=True)
    (tmp_path / "ray" / "ray_current_cluster").write_text("127.0.0.1:1")
    with pytest.raises(Unavailable, match=r"nobody answers at 127\.0\.0\.1:1"):
        simulate(job(), engine="ray")


def test_without_ray_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    monkeypatch.delitem(sys.modules, "hansa.engines.ray_cluster", raising=False)
    with pytest.raises(MissingExtra, match=r"hansa\[ray\]"):
        simulate(job(), engine="ray")


def test_what_needs_this_process_is_refused():
    for words in ({"debug": True, "handed": False}, {"debug": False, "handed": True}):
        with pytest.raises(HansaError, match="the engine is ray"):
            choose("ray", job(), masked=True, **words)
    with pytest.raises(HansaError, match="an address is for the engine ray"):
        simulate(job(), engine="workers", address="127.0.0.1:6379")
    assert choose("ray", GROUPS, debug=False, masked=True, handed=False).name == "inline"


def test_hansa_without_the_engine_loads_no_ray():
    script = "import sys, hansa.simulation; sys.exit('ray' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0
