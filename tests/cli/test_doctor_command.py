"""`hansa doctor` looks at real things, and says what to do."""

from __future__ import annotations

import json
import shutil
import socket
import time
from importlib import metadata
from pathlib import Path

import pytest

from hansa.doctor import (
    LITTLE_DISK,
    Check,
    clock,
    disk,
    examine,
    packages,
    port_is_free,
    processors,
    python,
    threads,
    writing,
)


def test_this_machine_is_fit(tmp_path):
    checks = list(examine(tmp_path))
    assert [check for check in checks if check.state == "fail"] == []
    assert [c.name for c in checks] == [
        "Python",
        "packages",
        *[c.name for c in checks if c.name.startswith("extra ")],
        "writing",
        "disk",
        "clock",
        "threads",
        "open files",
    ]


def test_every_check_that_is_not_ok_has_a_fix(tmp_path):
    found = [
        python((3, 10, 1)),
        python((3, 14, 0)),
        writing(Path("/proc")),
        disk(tmp_path / "nowhere"),
        clock(0.0),
        threads({}, 2, 64),
        threads({"OMP_NUM_THREADS": "8"}, 2, 64),
        threads({"OMP_NUM_THREADS": "many"}, 2, 64),
    ]
    assert all(check.state != "ok" and check.fix for check in found), found


@pytest.mark.parametrize("minor", [11, 12, 13])
def test_supported_pythons(minor):
    assert python((3, minor, 0)) == Check("Python", "ok", f"3.{minor}.0")


def test_packages_are_those_that_the_metadata_asks_for():
    said = {check.name: check for check in packages()}
    assert f"numpy {metadata.version('numpy')}" in said["packages"].found
    assert {"extra torch", "extra coordinator", "extra postgres"} <= said.keys()
    assert "extra dev" not in said


def test_disk_is_what_the_system_says(tmp_path):
    free = shutil.disk_usage(tmp_path).free
    assert disk(tmp_path).found == f"{free / 1e9:.1f} GB free"
    assert (disk(tmp_path).state == "ok") == (free >= LITTLE_DISK)


def test_writing_leaves_nothing_behind(tmp_path):
    assert writing(tmp_path).state == "ok"
    assert list(tmp_path.iterdir()) == []


def test_the_clock_may_be_right_or_a_little_ahead():
    assert clock(time.time()).state == "ok"
    assert clock(time.time() + 3600).state == "ok"
    assert "1970-01-01" in clock(0.0).found


@pytest.mark.parametrize(
    ("environment", "usable", "present", "state"),
    [
        ({}, 8, 8, "ok"),
        ({}, 2, 8, "warn"),
        ({"OPENBLAS_NUM_THREADS": "2"}, 2, 8, "ok"),
        ({"OPENBLAS_NUM_THREADS": "1"}, 2, 8, "ok"),
        ({"MKL_NUM_THREADS": "4"}, 2, 8, "warn"),
        ({"OMP_NUM_THREADS": ""}, 8, 8, "ok"),
    ],
)
def test_threads(environment, usable, present, state):
    assert threads(environment, usable, present).state == state


def test_processors_are_at_least_one():
    assert processors() >= 1


def test_a_port_is_free_until_somebody_listens():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        busy = port_is_free("sites port", "127.0.0.1", port, "sites_port")
    assert busy.state == "warn"
    assert "sites_port" in busy.fix
    assert port_is_free("sites port", "127.0.0.1", port, "sites_port").state == "ok"


def test_the_command_says_the_same_in_words_and_json(hansa, tmp_path):
    spoken = hansa("doctor")
    said = json.loads(hansa("doctor", "--json").out)
    assert spoken.code == 0
    assert said["ok"] is True
    flat = " ".join(spoken.out.split())
    for check in said["checks"]:
        assert check.keys() == {"name", "state", "found", "fix"}
        assert f"{check['state']} {check['name']}" in flat


def test_a_coordinators_ports_are_looked_at(hansa, tmp_path):
    from datetime import UTC, datetime

    from hansa.coordinator import config

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        settings = config.Settings(federation="f", sites_port=port)
        config.init(tmp_path / "c", settings, datetime.now(UTC))
        said = json.loads(hansa("doctor", "--coordinator", "c", "--json").out)
    states = {check["name"]: check["state"] for check in said["checks"]}
    assert states["sites port"] == "warn"
    assert {"enrol port", "people port"} <= states.keys()


def test_no_coordinator_in_the_folder_is_a_failure(hansa):
    done = hansa("doctor", "--coordinator", "nowhere")
    assert done.code == 1
    assert "there is no coordinator here" in " ".join(done.out.split())
