"""What a site remembers of the budgets' chain, and what it does not believe."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from hansa.errors import HansaError, IdentityError, PolicyRefused, StoreError
from hansa.identity import files
from hansa.identity.heads import BudgetHead, sign_head
from hansa.site.heads import NAME, Heads
from hansa.wire.v1 import sites_pb2 as pb

KEY = Ed25519PrivateKey.generate()
DIGESTS = [hashlib.sha256(str(i).encode()).digest() for i in range(40)]
EMPTY = BudgetHead(federation="hanse")


def head(seq: int, digests: list[bytes] = DIGESTS) -> BudgetHead:
    return EMPTY.extended(digests[:seq])


def shown(seq: int, after: int, digests: list[bytes] = DIGESTS) -> pb.LedgerHead:
    of = head(seq, digests)
    return pb.LedgerHead(
        seq=seq,
        hash=of.hash,
        after=after,
        digests=b"".join(digests[after:seq]),
        signature=sign_head(of, KEY),
    )


@pytest.fixture
def heads(tmp_path: Path) -> Heads:
    return Heads(tmp_path, "hanse")


def test_the_hash_of_a_chain_is_that_of_the_formula():
    last = bytes(32)
    for digest in DIGESTS[:3]:
        last = hashlib.sha256(last + digest).digest()
    assert head(3).hash == last.hex()


def test_the_first_head_is_taken_as_it_is_and_each_later_one_must_follow(heads, tmp_path):
    assert heads.seen.seq == 0
    for message in (shown(5, 5), shown(7, 5), shown(7, 7), shown(20, 7)):
        found = heads.hear(message, KEY.public_key())
        assert found == head(message.seq)
    heads.check(20)
    again = Heads(tmp_path, "hanse")
    assert again.seen == head(20)
    again.hear(shown(21, 20), KEY.public_key())


def test_more_hashes_than_needed_are_no_harm(heads):
    heads.hear(shown(9, 9), KEY.public_key())
    heads.hear(shown(12, 3), KEY.public_key())
    assert heads.seen == head(12)


def test_a_long_way_is_shown_in_pages(heads):
    heads.hear(shown(2, 2), KEY.public_key())
    for start, end in ((2, 12), (12, 22)):
        page = pb.LedgerHead(after=start, digests=b"".join(DIGESTS[start:end]))
        assert heads.hear(page, KEY.public_key()) is None
    assert heads.hear(shown(30, 22), KEY.public_key()) == head(30)


OTHER = [*DIGESTS[:8], b"\1" * 32, *DIGESTS[9:]]


def lies() -> dict[str, pb.LedgerHead]:
    few = shown(12, 10)
    few.digests = DIGESTS[10]
    cut = shown(12, 10)
    cut.digests = cut.digests[:-1]
    wrong = shown(12, 10)
    wrong.digests = bytes(64)
    return {
        "set back": shown(9, 9),
        "emptied": pb.LedgerHead(seq=0, hash=EMPTY.hash, signature=sign_head(EMPTY, KEY)),
        "forked": shown(12, 10, OTHER),
        "forked at the same place": shown(10, 10, OTHER),
        "forked, with its own hashes": shown(14, 0, OTHER),
        "a gap": shown(14, 12),
        "one hash too few": few,
        "half a hash": cut,
        "hashes of something else": wrong,
    }


@pytest.mark.parametrize("lie", lies())
def test_a_chain_that_was_set_back_or_forked_is_refused(heads, tmp_path, lie):
    heads.hear(shown(10, 10), KEY.public_key())
    heads.check(10)
    with pytest.raises(PolicyRefused) as caught:
        heads.hear(lies()[lie], KEY.public_key())
    assert caught.value.fix
    assert heads.seen == head(10)
    for seq in (0, 10, 12):
        with pytest.raises(PolicyRefused):
            heads.check(seq)
    assert Heads(tmp_path, "hanse").seen == head(10)


def test_the_newest_chain_makes_up_for_it(heads):
    heads.hear(shown(10, 10), KEY.public_key())
    with pytest.raises(PolicyRefused, match="set back or forked: it shows 9 entries"):
        heads.hear(shown(9, 9), KEY.public_key())
    heads.hear(shown(11, 10), KEY.public_key())
    heads.check(11)


def test_a_head_of_nobody_is_refused(heads):
    forged = shown(3, 3)
    forged.signature = sign_head(head(3), Ed25519PrivateKey.generate())
    with pytest.raises(IdentityError, match="sign"):
        heads.hear(forged, KEY.public_key())
    with pytest.raises(IdentityError):
        heads.check(3)
    assert heads.seen == EMPTY


def test_a_head_of_another_federation_is_refused(tmp_path):
    other = Heads(tmp_path, "other")
    with pytest.raises(IdentityError):
        other.hear(shown(3, 3), KEY.public_key())


def test_work_under_an_older_head_than_was_seen_is_refused(heads):
    heads.check(0)
    heads.hear(shown(5, 5), KEY.public_key())
    with pytest.raises(PolicyRefused, match="set back or forked: it shows 4 entries"):
        heads.check(4)


def test_hashes_without_end_are_not_kept(heads):
    page = b"".join(DIGESTS) * 1000
    for number in range(3):
        message = pb.LedgerHead(after=number * 40_000, digests=page)
        assert heads.hear(message, KEY.public_key()) is None
    with pytest.raises(HansaError):
        heads.hear(pb.LedgerHead(after=120_000, digests=page), KEY.public_key())


def test_what_cannot_be_written_down_is_not_signed(heads, monkeypatch):
    def full(path: Path, content: bytes) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files, "write", full)
    with pytest.raises(StoreError, match="No space left"):
        heads.hear(shown(5, 5), KEY.public_key())
    assert heads.seen == EMPTY
    monkeypatch.undo()
    heads.hear(shown(5, 5), KEY.public_key())
    heads.check(5)


@pytest.mark.parametrize(
    "content", ["", "{}", '{"seq": 1}', "[]", '{"federation": "hanse", "seq": 1, "hash": "zz"}']
)
def test_a_damaged_memory_is_no_empty_one(tmp_path, content):
    (tmp_path / NAME).write_text(content)
    with pytest.raises(HansaError, match="cannot be read") as caught:
        Heads(tmp_path, "hanse")
    assert caught.value.fix


def test_the_memory_is_of_one_federation(tmp_path):
    words = {"federation": "hanse", "seq": 5, "hash": head(5).hash}
    (tmp_path / NAME).write_text(json.dumps(words))
    with pytest.raises(IdentityError, match="is about federation 'hanse'"):
        Heads(tmp_path, "other")
