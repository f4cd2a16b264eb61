"""Containers of task code: one form, one digest, nothing that leads out of a folder."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hansa.errors import JobError
from hansa.work import container
from hansa.work.container import MAX_BYTES, MAX_FILES, Bundle, collect, parse, write

FILES = {"task.py": b"x = 1\n", "parts/net.py": "# Größe\r\n".encode()}


def raw(files: object, **more: object) -> bytes:
    """Container bytes as anybody could write them."""
    value = {"files": files, "format": 1, **more}
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode("ascii")


def test_what_is_packed_is_unpacked(tmp_path: Path):
    bundle = Bundle(FILES)
    assert parse(bundle.to_bytes()) == bundle
    write(bundle, tmp_path / "new" / "folder")
    assert collect(tmp_path / "new" / "folder") == bundle
    assert (tmp_path / "new" / "folder" / "parts" / "net.py").read_bytes() == FILES["parts/net.py"]
    assert [p.name for p in (tmp_path / "new").iterdir()] == ["folder"]  # no scratch is left
    write(bundle, tmp_path / "new" / "folder")  # again: nothing to do


def test_the_digest_is_that_of_the_sorted_paths_and_contents():
    pairs = [[path, hashlib.sha256(FILES[path]).hexdigest()] for path in sorted(FILES)]
    text = json.dumps(pairs, separators=(",", ":"))
    assert Bundle(FILES).digest == hashlib.sha256(text.encode()).hexdigest()
    turned = dict(reversed(FILES.items()))
    assert Bundle(turned).digest == Bundle(FILES).digest
    assert Bundle(turned).to_bytes() == Bundle(FILES).to_bytes()


@pytest.mark.parametrize(
    "other",
    [
        {"tusk.py": FILES["task.py"], "parts/net.py": FILES["parts/net.py"]},
        {"task.py": FILES["parts/net.py"], "parts/net.py": FILES["task.py"]},
        {"task.py": FILES["task.py"]},
        {**FILES, "task.py": b"x = 2\n"},
        {**FILES, "empty.py": b""},
    ],
    ids=("renamed", "swapped", "fewer", "changed", "more"),
)
def test_whatever_differs_differs_in_the_digest(other: dict[str, bytes]):
    assert Bundle(other).digest != Bundle(FILES).digest


@pytest.mark.parametrize(
    "path",
    [
        "../task.py",
        "parts/../../task.py",
        "/etc/task.py",
        "//host/task.py",
        "C:/task.py",
        "C:task.py",
        "parts\\net.py",
        "..\\task.py",
        "./task.py",
        "parts//net.py",
        "~/task.py",
        "task.py/",
        "task.py\n",
        "task.py\x00",
        "ta sk.py",
        "my-task.py",
        "1task.py",
        "tásk.py",
        ".hidden.py",
        ".git/hook.py",
        "task.pyc",
        "task.so",
        "task",
        ".py",
        "",
        "a" * 65 + ".py",
        "a/" * 8 + "x.py",
    ],
)
def test_no_path_leads_out_of_the_folder(path: str, tmp_path: Path):
    with pytest.raises(JobError, match="not a path of a Python module"):
        parse(raw({"task.py": "", path: "x"}))
    with pytest.raises(JobError, match="not a path of a Python module"):
        Bundle({path: b""})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "malformed"),
        (b"PK\x03\x04", "malformed"),
        (b"\xff\xfe", "malformed"),
        (b"[" * 100_000, "malformed"),
        (b'{"files":{"task.py":"\\ud800"},"format":1}', "malformed"),
        (raw(["task.py"]), "malformed"),
        (raw({"task.py": 1}), "malformed"),
        (raw({"task.py": {"a": "b"}}), "malformed"),
        (b'{"format":1}', "malformed"),
        (b'{"files":{"task.py":"","task.py":"x"},"format":1}', "not in the one form"),
        (raw({"task.py": ""}) + b"\n", "not in the one form"),
        (json.dumps({"files": {"task.py": ""}, "format": 1}).encode(), "not in the one form"),
        (raw({"task.py": ""}, extra=1), "not in the one form"),
        (raw({"task.py": ""}).replace(b'"format":1', b'"format":2'), "not in the one form"),
        (raw({"task.py": ""}).replace(b'"format":1', b'"format":true'), "not in the one form"),
        (raw({}), "holds no files"),
        (raw({f"m{i}.py": "" for i in range(MAX_FILES + 1)}), "at most 256"),
        (raw({"task.py": "", "Task.py": ""}), "upper and lower case"),
        (raw({"task.py": "x" * MAX_BYTES}), "more than 4 MiB"),
    ],
    ids=lambda value: value[:24] if isinstance(value, str) else None,
)
def test_a_malformed_container_is_refused(data: bytes, words: str):
    with pytest.raises(JobError, match=words) as refusal:
        parse(data)
    assert refusal.value.fix


@settings(derandomize=True, deadline=None, max_examples=300)
@given(data=st.one_of(st.binary(max_size=60), st.text(max_size=60).map(str.encode)))
def test_nothing_but_a_container_is_read(data: bytes):
    with pytest.raises(JobError):
        parse(data)


@settings(derandomize=True, deadline=None, max_examples=200)
@given(at=st.integers(0, 10_000), byte=st.integers(0, 255))
def test_one_changed_byte_is_another_digest_or_a_refusal(at: int, byte: int):
    bundle = Bundle(FILES)
    data = bytearray(bundle.to_bytes())
    at %= len(data)
    changed = data[at] != byte
    data[at] = byte
    try:
        assert (parse(bytes(data)).digest != bundle.digest) is changed
    except JobError:
        assert changed


def test_too_much_code_is_refused_before_it_is_packed():
    with pytest.raises(JobError, match="larger than 4 MiB"):
        Bundle({"task.py": b"x" * (MAX_BYTES + 1)})
    with pytest.raises(JobError, match="more than 4 MiB"):
        Bundle({"task.py": b"\n" * (MAX_BYTES - 10)}).to_bytes()  # each is two bytes in JSON


# ------------------------------------------------------------------ folders


def test_a_folder_gives_what_python_can_import(tmp_path: Path):
    for path in (
        "task.py", "parts/__init__.py", "parts/net.py", "__pycache__/task.py", ".git/hook.py",
        "venv/lib/thing.py", "my-notes.py", "data.csv", "two words/x.py",
    ):  # fmt: skip
        file = tmp_path / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("")
    (tmp_path / "venv" / "pyvenv.cfg").write_text("")
    assert set(collect(tmp_path).files) == {"task.py", "parts/__init__.py", "parts/net.py"}


def test_links_are_refused(tmp_path: Path):
    outside = tmp_path / "outside"
    (outside / "shared").mkdir(parents=True)
    (outside / "shared" / "net.py").write_text("")
    job = tmp_path / "job"
    job.mkdir()
    (job / "task.py").write_text("")
    (job / "data").symlink_to(outside)  # a folder of data may be a link
    assert set(collect(job).files) == {"task.py"}
    (job / "net.py").symlink_to(outside / "shared" / "net.py")
    with pytest.raises(JobError, match=r"'net.py' is a link"):
        collect(job)
    (job / "net.py").unlink()
    (job / "shared").symlink_to(outside / "shared")
    with pytest.raises(JobError, match="'shared' is a link"):
        collect(job)


def test_a_folder_that_is_no_job_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    with pytest.raises(JobError, match="holds no files"):
        collect(tmp_path)
    for i in range(MAX_FILES + 1):
        (tmp_path / f"m{i}.py").write_text("")
    with pytest.raises(JobError, match=r"files, at most 256"):
        collect(tmp_path)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "naïve.py").write_text("")
    with pytest.raises(JobError, match=r"'naïve.py' is a name"):
        collect(tmp_path / "other")
    monkeypatch.setattr(container, "_MAX_FOLDERS", 3)
    for i in range(4):
        (tmp_path / "deep" / f"d{i}").mkdir(parents=True)
    with pytest.raises(JobError, match="folders below"):
        collect(tmp_path / "deep")


def test_sources_must_be_utf8(tmp_path: Path):
    (tmp_path / "task.py").write_bytes(b"# coding: latin-1\nx = '\xe9'\n")
    with pytest.raises(JobError, match=r"'task.py' is not UTF-8"):
        collect(tmp_path).to_bytes()


def test_a_folder_with_other_files_is_left_alone(tmp_path: Path):
    (tmp_path / "task.py").write_text("mine = True\n")
    with pytest.raises(JobError, match="holds other files"):
        write(Bundle(FILES), tmp_path)
    assert (tmp_path / "task.py").read_text() == "mine = True\n"
    assert [p.name for p in tmp_path.iterdir()] == ["task.py"]


def test_an_empty_folder_is_filled(tmp_path: Path):
    (tmp_path / "new").mkdir()
    write(Bundle(FILES), tmp_path / "new")
    assert collect(tmp_path / "new") == Bundle(FILES)
