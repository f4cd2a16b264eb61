"""`hansa clients`: what the clients of a simulation hold."""

from __future__ import annotations

import json
from xml.etree import ElementTree as ET

import pytest

from hansa.cli import main


def test_the_hospitals_are_told_apart(capsys):
    assert main(["clients", "heart", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    sizes = {row["client"]: row["examples"] for row in said["by_client"]}
    assert sizes == {"cleveland": 212, "hungarian": 183, "switzerland": 32, "va": 91}
    assert (
        said["examples"]
        == sum(sizes.values())
        == sum(map(sum, (r["by_class"] for r in said["by_client"])))
    )
    assert (said["population"], said["clients"], said["labels"]) == (4, 4, [0, 1])
    assert (said["smallest"], said["largest"]) == (32, 212)


def test_people_see_the_largest_first_within_80_columns(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    assert main(["clients", "heart"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 80
    names = [line.split()[0] for line in lines if line.startswith(("cle", "hun", "swi", "va "))]
    assert names == ["cleveland", "hungarian", "va", "switzerland"]


def test_few_of_many_are_looked_at_and_drawn(tmp_path, capsys):
    file = tmp_path / "who.svg"
    assert main(["clients", "images", "--most", "7", "--picture", str(file), "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert (said["population"], said["clients"]) == (100, 7)
    assert said["by_client"][0]["client"] == "part-000-of-100"
    assert said["by_client"][-1]["client"] == "part-099-of-100"
    assert "7 clients" in "".join(ET.parse(file).getroot().itertext())


@pytest.mark.parametrize(
    "words", [("no-such-job",), ("heart", "--picture", "/no/such/folder/x.svg")]
)
def test_what_cannot_be_is_said(words, capsys):
    assert main(["clients", *words]) in (1, 2)
    assert "Fix:" in capsys.readouterr().err
