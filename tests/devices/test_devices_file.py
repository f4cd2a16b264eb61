"""`devices.toml`: what it says is what is built, and each mistake is named with its line."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import hansa.devices.file as module
from hansa.devices import (
    Always,
    Daily,
    Devices,
    Failures,
    LogNormal,
    Recorded,
    RecordedSpeeds,
    Speed,
    load_devices,
)
from hansa.errors import JobError


def written(folder: Path, text: str, **traces: str) -> Path:
    for name, rows in traces.items():
        (folder / f"{name}.csv").write_text(rows)
    (folder / "devices.toml").write_text(text)
    return folder / "devices.toml"


def test_an_empty_file_is_the_default(tmp_path):
    assert load_devices(written(tmp_path, "")) == Devices()
    assert isinstance(Devices().availability, Always)


def test_everything_that_the_docstring_shows_is_read(tmp_path):
    """The text in the module's docstring, each kind with its own keys."""
    doc = module.__doc__ or ""
    text = "\n".join(
        re.sub(r"\s{3,}.*", "", line[4:]) for line in doc.splitlines() if line.startswith("    ")
    )
    daily = "\n".join(x for x in text.splitlines() if not x.startswith(("trace", "period")))
    assert load_devices(written(tmp_path, daily)) == Devices(
        Daily(22.0, 8.0, (-8.0, -5.0, 0.0, 1.0), 1.0),
        LogNormal(),
        Failures(0.05, 0.1, 0.02, 10.0),
    )


def test_traces_are_read_beside_the_file(tmp_path):
    file = written(
        tmp_path,
        '[availability]\nkind = "recorded"\ntrace = "online.csv"\nperiod = 100\n'
        '[speed]\nkind = "recorded"\ntrace = "speeds.csv"\n',
        online="client,start,end\na,50,60\na,10,20\nb,0,5\n",
        speeds="client,model,compute,download,upload\na,x,1,2,3\nb,y,4,5,6\n",
    )
    devices = load_devices(str(file))
    assert devices.availability == Recorded(
        {"a": ((10.0, 20.0), (50.0, 60.0)), "b": ((0.0, 5.0),)}, 100.0
    )
    assert devices.speeds == RecordedSpeeds({"a": Speed(1, 2, 3), "b": Speed(4, 5, 6)})


WRONG = {
    "[availabilty]": (1, "there is no 'availabilty' here", "write availability"),
    "[speed": (1, "not TOML|never closed", ""),
    "speed = 3": (1, "speed is no section", "write [speed]"),
    '[availability]\nkind = "dayly"': (2, "no kind 'dayly' of availability", "write daily"),
    '[availability]\nkind = "daily"\nperiod = 3': (3, "has no 'period'", "the keys are"),
    '[availability]\nkind = "daily"\nbegins = "25:00"': (3, "no time of day", '"22:00"'),
    '[availability]\nkind = "daily"\nbegins = 22': (3, "no time of day", '"22:00"'),
    '[availability]\nkind = "daily"\nhours = 25': (3, "more than 0 and at most 24", ""),
    '[availability]\nkind = "daily"\nhours = 4\njitter = 2': (4, "can vanish", "below half"),
    '[availability]\nkind = "daily"\nhours = 22\njitter = 2': (4, "longer than a day", ""),
    '[availability]\nkind = "daily"\nzones = [15]': (3, "between -14 and 14", ""),
    '[availability]\nkind = "daily"\nzones = []': (3, "between -14 and 14", ""),
    '[availability]\nkind = "recorded"': (1, "names no trace", "trace = "),
    "[speed]\ncompute = 0": (2, "must be a number, more than 0", ""),
    "[speed]\ncompute = true": (2, "must be a number, more than 0", ""),
    "[speed]\ncompute = inf": (2, "must be a number, more than 0", ""),
    "[speed]\ncompute_spread = -1": (2, "at least 0 and at most 5", ""),
    "[speed]\nspread = 1": (2, "has no 'spread'", "the keys are"),
    "[failures]\nprobability = 1.5": (2, "at most 1", ""),
    "[failures]\nslowdown = 0.5": (2, "at least 1", ""),
    "[failures]\nchance = 0.5": (2, "has no 'chance'", "probability"),
}


@pytest.mark.parametrize("text", WRONG)
def test_a_mistake_is_named_with_its_line(tmp_path, text):
    line, message, fix = WRONG[text]
    with pytest.raises(JobError) as caught:
        load_devices(written(tmp_path, text))
    assert caught.value.line == line
    assert re.search(message, caught.value.message)
    assert fix in caught.value.fix
    assert "devices.toml" in str(caught.value)


TRACES = {
    "": (1, "no column 'client' among: nothing"),
    "client,start\na,1\n": (1, "no column 'end'"),
    "client,start,end\n": (1, "no lines below its header"),
    "client,start,end\na,1,x\n": (2, "end is x"),
    "client,start,end\na,1\n": (2, "end is missing"),
    "client,start,end\na,1,-2\n": (2, "end is -2"),
    "client,start,end\na,1,nan\n": (2, "end is nan"),
    "client,start,end\n,1,2\n": (2, "there is no client"),
    "client,start,end\na,1,2\na,5,4\n": (3, "goes offline before"),
    "client,start,end\na,1,3\na,5,8\na,2,4\n": (4, "is online already"),
    "client,start,end\na,1,300\n": (4, "lasts 300 s, and would begin again after 200 s"),
}


@pytest.mark.parametrize("rows", TRACES)
def test_a_mistake_in_a_trace_is_named_with_its_line(tmp_path, rows):
    line, message = TRACES[rows]
    text = '[availability]\nkind = "recorded"\ntrace = "online.csv"\nperiod = 200'
    with pytest.raises(JobError) as caught:
        load_devices(written(tmp_path, text, online=rows))
    assert (caught.value.line, message in caught.value.message) == (line, True)


@pytest.mark.parametrize(
    ("rows", "line", "message"),
    [
        ("client,compute,download,upload\na,1,0,1\n", 2, "has a speed of 0"),
        ("client,compute,download,upload\na,1,1,1\na,2,2,2\n", 3, "is there twice"),
    ],
)
def test_a_mistake_in_speeds_is_named_with_its_line(tmp_path, rows, line, message):
    text = '[speed]\nkind = "recorded"\ntrace = "speeds.csv"'
    with pytest.raises(JobError) as caught:
        load_devices(written(tmp_path, text, speeds=rows))
    assert (caught.value.line, message in caught.value.message) == (line, True)


def test_files_that_are_not_there_are_named(tmp_path):
    with pytest.raises(JobError, match="No such file"):
        load_devices(tmp_path / "none.toml")
    with pytest.raises(JobError, match="the trace cannot be read"):
        load_devices(written(tmp_path, '[speed]\nkind = "recorded"\ntrace = "none.csv"'))
