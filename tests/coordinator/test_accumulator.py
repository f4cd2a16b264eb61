"""Durable sums: whole or refused, never the slot that is kept, never another generation."""

from __future__ import annotations

import os
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    rule,
    run_state_machine_as_test,
)

from hansa.coordinator.accumulator import Draft, DurableAccumulator
from hansa.coordinator.rows import Fold, Slot
from hansa.errors import StoreError


@pytest.fixture
def sums(tmp_path):
    return DurableAccumulator(tmp_path / "sums", "job-1")


def durable(sums: DurableAccumulator, content: Any, generation: int, kept: Slot | None) -> Slot:
    return sums.sync(sums.write(content, generation, kept))


@pytest.mark.parametrize("size", [0, 1, 4095, 4096, 4097, 1_000_003])
def test_what_was_made_durable_is_read_back(sums, size):
    content = random.Random(size).randbytes(size)
    slot = durable(sums, content, 1, None)
    assert sums.read(slot) == content
    assert DurableAccumulator(sums.folder, "job-1").read(slot) == content


def test_a_vector_of_any_element_type_is_taken_as_its_bytes(sums):
    vector = np.arange(1000, dtype="<i8")
    slot = durable(sums, vector, 1, None)
    np.testing.assert_array_equal(np.frombuffer(sums.read(slot), "<i8"), vector)


def test_the_sum_may_change_after_write_and_before_sync(sums):
    vector = np.arange(1000, dtype="<i8")
    before = vector.tobytes()
    draft = sums.write(vector, 1, None)
    vector += 7
    assert sums.read(sums.sync(draft)) == before


def test_slots_alternate_by_what_is_kept(sums):
    kept, used = None, []
    for generation in range(1, 6):
        kept = durable(sums, bytes([generation]) * 10, generation, kept)
        used.append(kept.slot)
    assert used == [0, 1, 0, 1, 0]


def test_a_failed_commit_does_not_cost_the_durable_sum(sums):
    kept = durable(sums, b"one", 1, None)
    for generation in (2, 3, 4):  # written, synced, never committed
        durable(sums, b"lost", generation, kept)
        assert sums.read(kept) == b"one"


def test_a_fold_row_names_a_slot_as_well(sums):
    slot = durable(sums, b"one", 1, None)
    row = Fold(slot.generation, slot.slot, slot.checksum, ("kiel",))
    assert sums.read(row.place) == b"one"
    assert sums.write(b"two", 2, row.place).slot != slot.slot


def test_generations_grow(sums):
    kept = durable(sums, b"two", 2, None)
    for generation in (1, 2):
        with pytest.raises(StoreError, match="does not follow 2"):
            sums.write(b"again", generation, kept)


def test_a_smaller_sum_in_a_longer_file_is_read_alone(sums):
    durable(sums, b"x" * 10_000, 1, None)
    slot = durable(sums, b"small", 2, None)
    assert slot.slot == 0
    assert sums.read(slot) == b"small"


def test_files_are_set_aside_once_and_overwritten_in_place(sums):
    kept = durable(sums, bytes(100_000), 1, None)
    kept = durable(sums, bytes(100_000), 2, kept)
    before = {p.name: (p.stat().st_ino, p.stat().st_size) for p in sums.folder.iterdir()}
    for generation in range(3, 9):
        kept = durable(sums, bytes(100_000), generation, kept)
    after = {p.name: (p.stat().st_ino, p.stat().st_size) for p in sums.folder.iterdir()}
    assert after == before
    assert all(p.stat().st_mode & 0o777 == 0o600 for p in sums.folder.iterdir())
    assert sums.folder.stat().st_mode & 0o777 == 0o700


def test_space_is_set_aside_before_the_first_write(sums):
    sums.prepare(100_000)
    before = {p.name: (p.stat().st_ino, p.stat().st_blocks) for p in sums.folder.iterdir()}
    assert all(blocks * 512 >= 100_000 for _, blocks in before.values())
    kept = durable(sums, b"x" * 100_000, 1, None)
    kept = durable(sums, b"y" * 100_000, 2, kept)
    after = {p.name: (p.stat().st_ino, p.stat().st_blocks) for p in sums.folder.iterdir()}
    assert after == before
    sums.prepare(10)  # a smaller sum needs nothing
    assert sums.read(kept) == b"y" * 100_000


@pytest.mark.parametrize("size", [1, 5000])
def test_a_torn_slot_is_refused_wherever_it_is_torn(sums, size):
    old, new = b"\x00" * size, b"\xff" * size
    slot = durable(sums, new, 2, None)
    path = sums.folder / "job-1.0"
    whole = path.read_bytes()
    durable(sums, old, 1, None)
    stale = path.read_bytes()
    for cut in sorted({0, 8, 16, 24, 4096, 4096 + size - 1, *range(100, len(whole), 997)}):
        if whole[:cut] + stale[cut:] == whole:
            continue
        path.write_bytes(whole[:cut] + stale[cut:])  # the tail is of the generation before
        with pytest.raises(StoreError, match="does not hold generation 2"):
            sums.read(slot)
        path.write_bytes(whole[:cut])  # the tail is missing
        with pytest.raises(StoreError, match="does not hold generation 2"):
            sums.read(slot)
    path.write_bytes(whole)
    assert sums.read(slot) == new


def test_a_slot_of_another_generation_or_size_is_refused(sums):
    slot = durable(sums, b"one", 1, None)
    with pytest.raises(StoreError, match="generation 2"):
        sums.read(Slot(2, slot.slot, slot.checksum))
    huge = (2**60).to_bytes(8, "little")
    path = sums.folder / "job-1.0"
    content = bytearray(path.read_bytes())
    content[16:24] = huge
    path.write_bytes(content)
    with pytest.raises(StoreError, match="does not hold"):
        sums.read(slot)


def test_a_missing_slot_is_refused(sums):
    with pytest.raises(StoreError, match="cannot be read"):
        sums.read(Slot(1, 1, "0" * 64))


def test_remove_leaves_nothing(sums):
    durable(sums, b"two", 2, durable(sums, b"one", 1, None))
    sums.remove()
    assert list(sums.folder.iterdir()) == []
    sums.remove()


@pytest.mark.parametrize("name", ["", ".", "../x", "a/b", ".hidden", "a\n", "x" * 300])
def test_a_name_is_the_name_of_a_file(tmp_path, name):
    with pytest.raises(StoreError, match="cannot be the name"):
        DurableAccumulator(tmp_path, name)


def test_sync_comes_after_the_bytes_and_before_the_slot_is_named(sums, monkeypatch):
    calls = []
    for call in ("pwrite", "fdatasync", "fsync"):
        real = getattr(os, call)

        def spy(*args, _call=call, _real=real):
            calls.append(_call)
            return _real(*args)

        monkeypatch.setattr(os, call, spy)
    first = sums.write(b"one", 1, None)
    assert calls == ["fsync", "pwrite", "pwrite"]  # the folder once, for the new file
    kept = sums.sync(first)
    assert calls[3:] == ["fdatasync"]
    sums.sync(sums.write(b"two", 2, kept))
    calls.clear()
    sums.sync(sums.write(b"six", 3, kept))
    assert calls == ["pwrite", "pwrite", "fdatasync"]


class Crashes(RuleBasedStateMachine):
    """Writes, syncs, commits and crashes in any order: what was committed stays readable."""

    folder: Path

    def __init__(self):
        super().__init__()
        self.sums = DurableAccumulator(self.folder, f"sum-{id(self)}")
        self.kept: Slot | None = None
        self.content = b""
        self.generation = 0
        self.draft: tuple[Draft, bytes] | None = None
        self.pending: tuple[Slot, bytes] | None = None

    @rule(content=st.binary(max_size=6000))
    def write(self, content):
        self.generation += 1
        self.pending = None
        self.draft = (self.sums.write(content, self.generation, self.kept), content)

    @rule()
    def sync(self):
        if self.draft:
            draft, content = self.draft
            self.pending = (self.sums.sync(draft), content)

    @rule()
    def commit(self):
        if self.pending:
            self.kept, self.content = self.pending
            self.pending = self.draft = None

    @rule(spoil=st.booleans(), cut=st.integers(0, 10_000))
    def crash(self, spoil, cut):
        """The process dies; of the slot that is not kept anything may be left."""
        self.draft = self.pending = None
        self.generation = self.kept.generation if self.kept else 0
        spare = self.sums.folder / f"{self.sums.name}.{1 - self.kept.slot if self.kept else 0}"
        if spoil and spare.exists():
            spare.write_bytes(spare.read_bytes()[:cut])
        self.sums = DurableAccumulator(self.sums.folder, self.sums.name)

    @invariant()
    def the_committed_sum_is_whole(self):
        if self.kept:
            assert self.sums.read(self.kept) == self.content

    def teardown(self):
        self.sums.remove()


def test_no_order_of_writes_and_crashes_loses_a_committed_sum(tmp_path):
    Crashes.folder = tmp_path
    run_state_machine_as_test(
        Crashes,
        settings=settings(derandomize=True, deadline=None, max_examples=40, stateful_step_count=25),
    )
