"""Broken job files and what is said about each.

`golden.txt` holds the messages, beside the lines that they are about, and is read by eye: after
changing a message, write it again and read the difference.

    python tests/jobfile/test_golden.py > /tmp/golden.txt && mv /tmp/golden.txt tests/jobfile/

The line of a mistake does not come from there: each broken line says `#!` in its own text.
"""

from __future__ import annotations

import contextlib
import tempfile
from pathlib import Path

import pytest

from hansa.errors import JobError, JobRefused
from hansa.jobfile import load_job

GOLDEN = Path(__file__).with_name("golden.txt")

BASE = """\
name = "images"
task = "task:Images"

[rounds]
count = 20

[cohort]
population = 100

[algorithm]
name = "fedavg"
"""

DP = """\
name = "images"
task = "task:Images"

[rounds]
count = 20

[cohort]
population = 1000
sampler = "poisson"
rate = 0.1

[algorithm]
name = "fedadam"

[privacy]
mechanism = "gaussian"
clip = 0.5
epsilon = 8.0
delta = 1e-5
"""


def edit(base: str, old: str, new: str) -> str:
    assert base.count(old) == 1, old
    return base.replace(old, new)


CASES: dict[str, str | bytes] = {
    # -------------------------------------------------------------- sections and keys
    "a section that does not exist": BASE + "\n[privcy] #!\nepsilon = 8.0\n",
    "a section that is like no other": BASE + "\n[dashboard] #!\nport = 80\n",
    "a section inside a section": BASE + "\n[rounds.privacy] #!\nclip = 1.0\n",
    "a section twice": BASE + "\n[rounds] #!\nquorum = 3\n",
    "a list of sections": BASE + '\n[[aggregation]] #!\nrule = "mean"\n',
    "a key where a section is expected": edit(BASE, "[rounds]\ncount = 20\n", "rounds = 20 #!\n"),
    "an unknown key, nearly right": edit(BASE, "count = 20", "count = 20\nqorum = 10 #!"),
    "an unknown key, like no other": edit(BASE, "count = 20", "count = 20\ncolour = 3 #!"),
    "a required key, misspelled": edit(BASE, "count = 20", "cuont = 20 #!"),
    "a key below the wrong header": edit(BASE, "count = 20", "count = 20\nepsilon = 8.0 #!"),
    "a key of two other sections": edit(BASE, "count = 20", "count = 20\nclip = 1.0 #!"),
    "a key of the file's top": BASE + "seed = 7 #!\n",
    "a section's key at the file's top": "count = 20 #!\n" + BASE,
    "a key of another algorithm": BASE + "beta1 = 0.9 #!\n",
    "an algorithm's key, misspelled": BASE + "batchsize = 16 #!\n",
    "an algorithm that does not exist": edit(BASE, '"fedavg"', '"fedavgg" #!'),
    "an algorithm without a name": edit(
        BASE, '[algorithm]\nname = "fedavg"', "[algorithm] #!\nclient_lr = 0.1"
    ),
    "a required key is missing": edit(BASE, "[cohort]\npopulation = 100\n", "[cohort] #!\n"),
    "a required section is missing": edit(BASE, "[rounds]\ncount = 20\n", ""),
    "the algorithm is missing": edit(BASE, '[algorithm]\nname = "fedavg"\n', ""),
    "the name is missing": edit(BASE, 'name = "images"\n', ""),
    # -------------------------------------------------------------- types and ranges
    "a number in quotes": edit(BASE, "count = 20", 'count = "20" #!'),
    "a fraction of a round": edit(BASE, "count = 20", "count = 2.5 #!"),
    "true for a number": edit(BASE, "count = 20", "count = true #!"),
    "a text without its quotes' sense": edit(BASE, 'task = "task:Images"', "task = 5 #!"),
    "a task without a class": edit(BASE, '"task:Images"', '"task.py" #!'),
    "a name with a space": edit(BASE, '"images"', '"my images" #!'),
    "a word that is not among the choices": edit(BASE, "= 100", '= 100\nsampler = "poison" #!'),
    "no rounds": edit(BASE, "count = 20", "count = 0 #!"),
    "a rate above one": edit(DP, "rate = 0.1", "rate = 1.5 #!"),
    "a negative epsilon": edit(DP, "epsilon = 8.0", "epsilon = -1.0 #!"),
    "a delta of one": edit(DP, "delta = 1e-5", "delta = 1 #!"),
    "an infinite clip": edit(DP, "clip = 0.5", "clip = inf #!"),
    "a duration that is none": edit(BASE, "count = 20", 'count = 20\ndeadline = "5 days" #!'),
    "a negative duration": edit(BASE, "count = 20", "count = 20\ndeadline = -60 #!"),
    "a ring of 20 bits": BASE + "\n[quantization]\nstep = 1e-4\nbits = 20 #!\n",
    "a tier in capitals": 'risk_tier = "High" #!\n' + BASE,
    "a switch in quotes": BASE + '\n[secure_aggregation]\nenabled = "yes" #!\n',
    "a negative learning rate": BASE + "client_lr = -0.1 #!\n",
    "work counted twice": BASE + "local_epochs = 1\nlocal_steps = 5 #!\n",
    # -------------------------------------------------------------- what goes together
    "a rate, and everyone takes part": edit(BASE, "= 100", "= 100\nrate = 0.1 #!"),
    "more are asked, and everyone is": edit(BASE, "= 100", "= 100\nover_selection = 1.3 #!"),
    "poisson without a rate": edit(DP, "[cohort]", "[cohort] #!").replace("rate = 0.1\n", ""),
    "fixed without a size": edit(BASE, "[cohort]", "[cohort] #!").replace(
        "= 100", '= 100\nsampler = "fixed"'
    ),
    "turns without groups": edit(BASE, "[cohort]", "[cohort] #!").replace(
        "= 100", '= 100\nsampler = "cyclic"'
    ),
    "by arrival without a buffer": edit(BASE, "[cohort]", "[cohort] #!").replace(
        "= 100", '= 100\nsampler = "arrival"\nconcurrency = 30'
    ),
    "by arrival, and nobody at work": edit(BASE, "[cohort]", "[cohort] #!").replace(
        "= 100", '= 100\nsampler = "arrival"\nbuffer = 10'
    ),
    "more at work than there are": edit(
        BASE, "= 100", '= 100\nsampler = "arrival"\nbuffer = 10\nconcurrency = 101 #!'
    ),
    "old updates, and everyone waits": edit(BASE, "= 100", "= 100\nmax_staleness = 5 #!"),
    "more groups than there are clients": edit(
        BASE, "= 100", '= 100\nsampler = "cyclic"\nseparation = 101 #!'
    ),
    "groups that nobody forms": edit(DP, "rate = 0.1", "rate = 0.1\nseparation = 4 #!"),
    "more in a round than there are": edit(
        BASE, "= 100", '= 100\nsampler = "fixed"\nsize = 101 #!'
    ),
    "noise given both ways": DP + "noise_multiplier = 1.0 #!\n",
    "noise without an amount": edit(DP, "[privacy]", "[privacy] #!").replace("epsilon = 8.0\n", ""),
    "noise without a clip": edit(DP, "[privacy]", "[privacy] #!").replace("clip = 0.5\n", ""),
    "epsilon without a delta": edit(DP, "[privacy]", "[privacy] #!").replace("delta = 1e-5\n", ""),
    "epsilon without a mechanism": BASE + "\n[privacy]\nepsilon = 8.0 #!\n",
    "metric noise without metrics": DP + "metrics_noise_multiplier = 10.0 #!\n",
    "metrics without noise": edit(DP, "[privacy]", "[privacy] #!") + "metrics_clip = 100.0\n",
    "examples without their floor": edit(DP, "[privacy]", "[privacy] #!").replace(
        'mechanism = "gaussian"', 'unit = "example"\nmechanism = "dpsgd"'
    ),
    "a floor of examples for clients": edit(DP, "clip = 0.5", "clip = 0.5\nexamples = 500 #!"),
    "two clips": DP + "\n[aggregation]\nclip = 2.0 #!\n",
    "standing under a mean": BASE + "\n[defend]\nstanding = true #!\n",
    "no tolerance": BASE + "\n[defend]\nrollback = 0 #!\n",
    "going back without measurements": "evaluate_every = 0\n"
    + BASE
    + "\n[defend]\nrollback = 0.1 #!\n",
    "a trim that trims nothing": BASE + "\n[aggregation]\ntrim = 0.2 #!\n",
    "bits of nothing": BASE + "\n[quantization]\nbits = 24 #!\n",
    "patience without measurements": "evaluate_every = 0\n"
    + edit(BASE, "count = 20", "count = 20\npatience = 5 #!"),
    "many mistakes at once": edit(
        edit(edit(DP, "count = 20", 'count = "20" #!'), "rate = 0.1", "rate = 10 #!"),
        "delta = 1e-5",
        "delta = 1e-5\nepsilom = 4.0 #!",
    ),
    # -------------------------------------------------------------- TOML
    "a key twice": BASE + 'server_lr = 1.0\nname = "fedadam" #!\n',
    "a key twice, over two lines": edit(
        BASE, "count = 20", "count = 20\nquorum = 3\nquorum = [ #!\n3]"
    ),
    "a section over a dotted key": "rounds.quorum = 3\n" + edit(BASE, "[rounds]", "[rounds] #!"),
    "a text without quotes": edit(BASE, '"task:Images"', "task:Images #!"),
    "True as in Python": BASE + "\n[secure_aggregation]\nenabled = True #!\n",
    "a quote that is not closed": edit(BASE, '"images"', '"images #!'),
    "a text over lines that is not closed": edit(BASE, '"images"', '"""images #!'),
    "a bracket that is not closed": edit(BASE, "count = 20", "count = [20, #!\n\nquorum = 3"),
    "a header that is not closed": edit(BASE, "[cohort]", "[cohort #!"),
    "a key without a value": edit(BASE, "count = 20", "count #!"),
    "two keys on a line": edit(BASE, "count = 20", "count = 20 quorum = 3 #!"),
    "a colon as in YAML": edit(BASE, "count = 20", "count: 20 #!"),
    # -------------------------------------------------------------- files
    "a file in Latin-1": edit(BASE, "count = 20", "count = 20 # Süd #!").encode("latin-1"),
    "a file in UTF-16": BASE.encode("utf-16"),
    "an empty file": "\n  \n",
    "a file that is no text": b"\x00\x01\x02" * 400_000,
}

PATHS = {
    "no such file": "missing.toml",
    "no such file, but one that is nearly so": "jbo.toml",
    "no such file, but an example": "hart",
    "a folder without a job": "empty",
    "a folder with one other TOML file": "other",
    "a path through a file": "job.toml/job.toml",
}


def refusal(path: str) -> JobError | JobRefused:
    try:
        job = load_job(path)
    except (JobError, JobRefused) as error:
        return error
    raise AssertionError(f"{path} was read as {job}")


def errors(refused: JobError | JobRefused) -> tuple[JobError, ...]:
    return refused.errors if isinstance(refused, JobRefused) else (refused,)


def marked(text: str | bytes) -> list[int]:
    """The lines that say they are broken."""
    lines = text.split(b"\n") if isinstance(text, bytes) else text.encode().split(b"\n")
    return [number for number, line in enumerate(lines, 1) if b"#!" in line]


def excerpt(text: str | bytes, numbers: list[int]) -> list[str]:
    """The broken lines and their neighbours, numbered, without the marks."""
    lines = text.decode("latin-1").split("\n") if isinstance(text, bytes) else text.split("\n")
    near = sorted({n + d for n in numbers for d in (-1, 0, 1) if 0 < n + d <= len(lines)})
    return [f"  {n:>4} | {lines[n - 1].replace(' #!', '')}".rstrip() for n in near]


@contextlib.contextmanager
def case(text: str | bytes | None):
    """A folder with the job file in it, and it is the current one."""
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        data = text.encode() if isinstance(text, str) else text
        Path("job.toml").write_bytes(data if data is not None else BASE.encode())
        Path("empty").mkdir()
        Path("other").mkdir()
        Path("other/jobs.toml").write_text(BASE)
        yield


def golden() -> str:
    chapters = []
    for title, text in CASES.items():
        with case(text):
            said = str(refusal("job.toml"))
        chapters.append("\n".join([f"# {title}", *excerpt(text, marked(text)), said]))
    for title, path in PATHS.items():
        with case(None):
            chapters.append(f"# {title}\n{refusal(path)}")
    return "\n\n".join(chapters) + "\n"


def test_messages_are_those_that_were_read_by_eye():
    assert golden() == GOLDEN.read_text(encoding="utf-8")


@pytest.mark.parametrize("title", CASES)
def test_the_line_is_the_broken_one(title):
    with case(CASES[title]):
        found = [error.line for error in errors(refusal("job.toml")) if error.line]
    assert found == marked(CASES[title])


@pytest.mark.parametrize("title", [*CASES, *PATHS])
def test_every_message_has_a_fix_and_reads_as_one_sentence(title):
    with case(CASES.get(title)):
        for error in errors(refusal(PATHS.get(title, "job.toml"))):
            assert error.file == PATHS.get(title, "job.toml")
            assert error.fix
            assert not error.fix.endswith(".")
            assert not error.message.endswith(".")
            assert "\n" not in str(error)


@pytest.mark.parametrize("base", [BASE, DP])
def test_the_files_that_are_edited_are_right_themselves(base):
    with case(base):
        assert load_job("job.toml").name == "images"


if __name__ == "__main__":
    print(golden(), end="")
