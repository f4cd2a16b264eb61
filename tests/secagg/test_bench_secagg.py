"""The benchmark's short form: all its keys, and ratios that hold on any machine."""

from __future__ import annotations

import json

import pytest

from bench.secagg import (
    DEVICES,
    SETTINGS,
    UPLOAD,
    Setting,
    aes_speed,
    main,
    mask_speed,
    measure,
    upload_ratio,
)
from hansa.secagg.parameters import Scheme


def test_the_short_form_prints_one_object(capsys: pytest.CaptureFixture[str]):
    main(["--quick", "--json", "--peers", "--only", "n50_d100k", "--seconds", "0.05"])
    found = json.loads(capsys.readouterr().out)
    assert found.keys() == {
        "n50_d100k",
        "upload_ratio",
        "mask_gb_per_s",
        "aes_ctr_gb_per_s",
        "peers",
    }
    assert 0 < found["n50_d100k"] < 60
    assert all(peer["recorded"] is True for peer in found["peers"])


def test_the_settings_are_those_that_the_keys_say():
    assert [setting.name for setting in SETTINGS if setting.quick] == [
        "n50_d100k",
        "n50_d1.7M",
        "n50_d1.7M_drop20",
    ]
    (large,) = [setting for setting in SETTINGS if not setting.quick]
    assert large.rule.scheme(large.clients) == Scheme(1000, 66, 31)


@pytest.mark.parametrize(
    "setting",
    [
        Setting("few", 5, 100),
        Setting("dropouts", 10, 100, drop=0.2),
        Setting("sparse", 64, 50, drop=0.1, rule=DEVICES, repeats=2),
    ],
)
def test_a_sum_is_measured_and_checked(setting):
    assert measure(setting) > 0


def test_a_client_sends_little_more_than_its_vector():
    assert 1 < upload_ratio(*UPLOAD) <= 1.05


def test_masks_cost_no_more_than_twice_their_cipher():
    """The best of some short runs of each, turn by turn, as the machine may do other things."""
    speeds = [(mask_speed(300_000, 0.1), aes_speed(300_000, 0.05)) for _ in range(3)]
    assert max(mask for mask, _ in speeds) >= 0.5 * max(aes for _, aes in speeds)
