"""Gradient inversion: it must succeed where it can, and what is to stop it must stop it."""

from __future__ import annotations

import struct
import zlib

import numpy as np
import pytest
import torch
from torch import nn

from hansa.core.keys import NoiseSource
from hansa.core.parts import Examples, Site
from hansa.core.vector import Vector
from hansa.examples.heart.task import HOSPITALS, Heart
from hansa.redteam.inversion import (
    Target,
    dlg,
    idlg,
    inverting,
    psnr,
    rows_of_first_layer,
    share_within,
)
from hansa.redteam.png import write_png
from hansa.redteam.views import Exposure, clipped, label_prior, noised, summed

SHAPE, CLASSES, CLIENTS = (8, 8), 6, 8


@pytest.fixture(autouse=True, scope="module")
def _one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def target():
    torch.manual_seed(0)
    module = nn.Sequential(nn.Flatten(), nn.Linear(64, 40), nn.Sigmoid(), nn.Linear(40, CLASSES))
    return Target(module, SHAPE, CLASSES, scale=4.0)


@pytest.fixture(scope="module")
def pictures():
    """Bright bars on black, each in a place of its own, and labels."""
    rng = np.random.default_rng(1)
    images = np.zeros((200, *SHAPE), np.float32)
    for image in images:
        row, column = rng.integers(0, 6, 2)
        image[row : row + 2, column : column + 3] = 1.0
        image[:, rng.integers(0, 8)] = 0.6
    return images, rng.integers(0, CLASSES, 200)


def attacked(target, pictures, size, view) -> Exposure:
    images, labels = pictures
    rng, ratios, nearest, hits, sums = np.random.default_rng(2), [], [], [], []
    for victim in range(CLIENTS):
        members = [victim, *rng.choice(np.arange(CLIENTS, 200), size - 1, replace=False)]
        seen = view([target.gradient(images[[i]], labels[[i]]) for i in members])
        found = inverting(target, seen, seed=victim, steps=200)
        ratios.append(psnr(found.inputs[0], images[victim]))
        nearest.append(max(psnr(found.inputs[0], images[i]) for i in members))
        hits.append(found.labels[0] == labels[victim])
        sums.append(labels[members])
    near, close, right = (float(np.mean(found)) for found in (ratios, nearest, hits))
    return Exposure(near, close, right, label_prior(sums), CLIENTS)


def test_a_raw_update_gives_the_picture_and_the_label_away(target, pictures):
    found = attacked(target, pictures, 1, lambda seen: seen[0])
    assert found.psnr > 20
    assert found.labels == 1.0


def test_a_clip_alone_hides_nothing(target, pictures):
    found = attacked(target, pictures, 1, lambda seen: clipped(seen[0], 0.1))
    assert found.psnr > 20
    assert found.labels == 1.0


def test_a_sum_over_twenty_hides_both(target, pictures):
    found = attacked(target, pictures, 20, summed)
    assert found.hides, found
    assert found.any_psnr < 15, found


def test_noise_hides_both(target, pictures):
    found = attacked(target, pictures, 1, lambda seen: noised(seen, 0.1, 1.0, NoiseSource()))
    assert found.psnr < 12
    assert found.labels < 0.9


def test_both_attacks_by_distance_find_the_picture(target, pictures):
    images, labels = pictures
    for attack in (dlg, idlg):
        seen = target.gradient(images[:1], labels[:1])
        best = max((attack(target, seen, seed=s, steps=40) for s in range(2)), key=_near)
        assert psnr(best.inputs[0], images[0]) > 20, attack.__name__
        assert best.labels[0] == labels[0]


def _near(found) -> float:
    return -float(found.distance)


def test_every_label_is_read_from_the_last_layer(target, pictures):
    images, labels = pictures
    found = [target.label(target.gradient(images[[i]], labels[[i]])) for i in range(50)]
    assert found == labels[:50].tolist()


# ------------------------------------------------------------------ tables


def patients(count: int) -> Examples:
    rows = Heart().data(Site(HOSPITALS[0], {})).train
    return rows.take(np.arange(count))


def rebuilt(rows: Examples) -> Vector:
    task = Heart()
    slope = task.gradient(np.zeros(task.schema.size, np.float32), rows)[1]
    views = task.schema.views(slope)
    return rows_of_first_layer(views["weights"][None], views["bias"])


def test_a_patient_is_read_from_a_raw_update_and_not_from_a_sum():
    for place in range(5):
        one = patients(5).take(np.array([place]))
        assert share_within(rebuilt(one)[None], one.inputs, 1e-3) == 1.0
    many = patients(10)
    assert share_within(rebuilt(many)[None], many.inputs, 0.1) == 0.0


# ------------------------------------------------------------------ measures


def test_psnr_in_decibels():
    assert psnr(np.full((4, 4), 0.6), np.full((4, 4), 0.5)) == pytest.approx(20)
    assert psnr(np.zeros(3), np.zeros(3)) == np.inf


def test_the_gate_counts_labels_and_pictures():
    assert Exposure(11.0, 11.0, 0.3, 0.3, 20).hides
    assert not Exposure(13.0, 13.0, 0.3, 0.3, 20).hides
    assert not Exposure(11.0, 11.0, 0.6, 0.3, 20).hides
    assert label_prior([np.array([1, 1, 2, 3]), np.array([0, 0, 0, 0])]) == 0.75


def test_a_png_holds_the_picture(tmp_path):
    picture = np.linspace(0, 1, 12).reshape(3, 4)
    write_png(tmp_path / "a.png", picture)
    raw = (tmp_path / "a.png").read_bytes()
    assert raw.startswith(b"\x89PNG\r\n\x1a\n")
    assert struct.unpack(">II", raw[16:24]) == (4, 3)
    place = raw.index(b"IDAT")
    (length,) = struct.unpack(">I", raw[place - 4 : place])
    rows = np.frombuffer(zlib.decompress(raw[place + 4 : place + 4 + length]), np.uint8)
    expected = np.rint(picture * 255).astype(np.uint8)
    np.testing.assert_array_equal(rows.reshape(3, 5)[:, 1:], expected)
