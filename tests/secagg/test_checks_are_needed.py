"""Each check of the protocol is taken out on its own: some test must miss it."""

from __future__ import annotations

import pytest

from tests.secagg import removals


@pytest.mark.soak
@pytest.mark.parametrize("module", removals.FIRST)
def test_each_check_is_needed(module):
    missed = [row for row in removals.table([module]) if not row[-1]]
    assert missed == []


@pytest.mark.parametrize("module", removals.FIRST)
def test_checks_are_found_and_taken_out_one_at_a_time(module):
    source = (removals.SOURCE / f"{module}.py").read_text()
    found = list(removals.removals(module, source))
    assert len(found) >= 2
    assert len({removal.source for removal in found}) >= len(found) - 1
    for removal in found:
        compile(removal.source, module, "exec")
