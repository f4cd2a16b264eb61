"""An exported log: whole as it is, and broken by any change of any byte."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from hansa.budget.audit import CHAIN, Cosigned, End, export, verify_export
from hansa.budget.book import Book
from hansa.budget.cost import Need
from hansa.budget.entry import Key
from hansa.coordinator import chain
from hansa.core import canonical
from hansa.core.events import Gaussian, PoissonSampled
from hansa.errors import HansaError
from hansa.identity.authority import Authority
from tests.support.budgets import block
from tests.support.ca import FEDERATION, NOW, make_authority


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return make_authority(tmp_path_factory.mktemp("authority") / "ca")


@pytest.fixture(scope="module")
def coordinator(authority: Authority) -> tuple[str, Ed25519PrivateKey]:
    issued = authority.issue_coordinator(("localhost",), NOW)
    return issued.document, issued.signing_key()


def entries() -> list[str]:
    """Two blocks, two jobs, every kind of entry."""
    book = Book()
    book.create(block(), 1.0)
    book.create(block("owner", owner="kiel", order=8), 1.5)
    for job in ("heart-1", "heart-2"):
        book.hold(job, {"patients": Need(900, 300, 3), "owner": Need(600, 200, 3)}, 2.0)
        for number in range(3):
            key = Key(job, "train", number, 0)
            event = PoissonSampled(0.1, Gaussian(1.0 + number))
            book.reserve(key, event, {"patients": 300, "owner": 200}, 3.0 + number)
            if number == 0:
                book.refund(key, "nobody was contacted", 3.5)
            elif number == 1:
                book.commit(key, 4.5)
    book.settle("heart-1", 9.25)
    return [
        canonical.dumps({"chain": CHAIN, "seq": seq, **entry.body})
        for seq, entry in enumerate(book.log, 1)
    ]


def exported(
    texts: Iterable[str], authority: Authority, signer: tuple[str, Ed25519PrivateKey]
) -> Iterator[str]:
    texts = list(texts)
    hashes = ["0" * 64]
    for text in texts:
        hashes.append(chain.link(hashes[-1], text))
    seen = [Cosigned("kiel", 3, hashes[3], "ab" * 64)] if len(texts) >= 3 else []
    end = End(federation=FEDERATION, chain=CHAIN, seq=len(texts), hash=hashes[-1], time=12.5)
    return export(texts, seen, end, authority.root_pem.decode(), *signer)


@pytest.fixture(scope="module")
def lines(authority: Authority, coordinator: tuple[str, Ed25519PrivateKey]) -> list[bytes]:
    return [line.encode("ascii") for line in exported(entries(), authority, coordinator)]


def test_an_export_says_what_was_spent(lines, authority):
    found = verify_export(lines, authority.root_pem.decode())
    assert found.federation == FEDERATION
    assert found.pinned
    assert found.end.seq == len(entries())
    numbers = {b.name: (a.held, a.reserved, a.committed) for b, a in found.accounts}
    # heart-1 is settled: rounds 1 and 2 are spent. heart-2 is open: round 1 is spent, round 2
    # reserved, and round 0, which was refunded, is held.
    assert numbers == {"owner": (200, 200, 600), "patients": (300, 300, 900)}
    assert [one.site for one in found.cosigned] == ["kiel"]


def test_without_a_root_the_export_says_that_nothing_was_compared(lines):
    assert not verify_export(lines).pinned


def test_another_federations_root_is_noticed(lines, tmp_path):
    other = make_authority(tmp_path / "ca").root_pem.decode()
    with pytest.raises(HansaError, match="another root"):
        verify_export(lines, other)


def test_nothing_at_all_is_an_export_too(authority, coordinator):
    empty = [line.encode() for line in exported([], authority, coordinator)]
    assert verify_export(empty).accounts == ()


def flips(lines: list[bytes], count: int) -> int:
    """How many of so many random changes of a single byte are noticed."""
    content, noticed, chance = b"".join(lines), 0, random.Random("flips")
    for _ in range(count):
        at = chance.randrange(len(content))
        other = bytes([content[at] ^ chance.randrange(1, 256)])
        broken = content[:at] + other + content[at + 1 :]
        try:
            verify_export(broken.splitlines(keepends=True))
        except HansaError:
            noticed += 1
    return noticed


def test_every_one_of_500_flipped_bytes_is_noticed(lines):
    assert flips(lines, 500) == 500


@pytest.mark.soak
def test_every_one_of_10000_flipped_bytes_is_noticed(lines):
    assert flips(lines, 10_000) == 10_000


@pytest.mark.parametrize(
    "how", ["shorter", "no end", "no beginning", "swapped", "twice", "more", "no line end", "empty"]
)
def test_lines_cannot_be_moved_removed_or_added(lines, how):
    broken = {
        "shorter": lines[:5] + lines[6:],
        "no end": lines[:-1],
        "no beginning": lines[1:],
        "swapped": [*lines[:3], lines[4], lines[3], *lines[5:]],
        "twice": [*lines[:4], lines[3], *lines[4:]],
        "more": [*lines, lines[-1]],
        "no line end": [*lines[:-1], lines[-1].rstrip()],
        "empty": [],
    }[how]
    with pytest.raises(HansaError, match="broken"):
        verify_export(broken)


def test_a_signature_is_written_in_one_way_only(lines):
    head, _, tail = lines[-1].partition(b'"signature":"')
    with pytest.raises(HansaError, match="cannot be read"):
        verify_export([*lines[:-1], head + b'"signature":"' + tail.replace(b"a", b"A", 1)])


def test_a_log_that_was_rewritten_and_linked_anew_is_not_signed(lines, authority):
    """Whoever has no key of the coordinator cannot make an export, however well it is linked."""
    own = Ed25519PrivateKey.generate()
    document = authority.issue_coordinator(("localhost",), NOW).document
    forged = [line.encode() for line in exported(entries()[:4], authority, (document, own))]
    with pytest.raises(HansaError, match="not signed by the coordinator"):
        verify_export(forged)


def test_a_site_cannot_sign_an_export(authority, tmp_path: Path):
    from tests.support.ca import enrol

    site = enrol(authority, tmp_path / "kiel")
    forged = exported(entries(), authority, (site.document, site.signing_key()))
    with pytest.raises(HansaError, match="somebody else"):
        verify_export([line.encode() for line in forged])


def test_a_signed_log_that_breaks_a_rule_is_refused(authority, coordinator):
    """The coordinator itself cannot spend above a block: whoever audits sees it."""
    texts = entries()
    texts[3] = texts[3].replace('"urdp":900', '"urdp":90000000000')
    forged = [line.encode() for line in exported(texts, authority, coordinator)]
    with pytest.raises(HansaError, match="cannot stand here"):
        verify_export(forged)
