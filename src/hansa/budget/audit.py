"""An exported log: one JSON line for each entry, checked without the store that it came from.

    {"export": 1, "federation": ..., "root": ..., "coordinator": ...}        who exports
    {"entry": {...}}                                                         one line per entry
    {"cosignature": {"site": ..., "seq": ..., "hash": ..., "signature": ...}}
    {"end": {...}, "signature": ...}                       signed by the coordinator

Every line is canonical JSON, and the end says the SHA-256 of all bytes before it, so that no byte
can be another one.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from hansa.budget.block import Block
from hansa.budget.book import Book
from hansa.budget.entry import entry_of
from hansa.budget.rules import Account
from hansa.core import canonical
from hansa.errors import HansaError, IdentityError
from hansa.identity.documents import open_document
from hansa.identity.names import Role

CHAIN = "budget"
"""Name of the chain over all blocks."""

FORMAT = 1
"""Version of the export."""

_CONTEXT: Final = b"hansa/budget-export/1\0"


@dataclass(frozen=True, slots=True, kw_only=True)
class End:
    """Where an export ends; what the coordinator signs.

    Attributes:
      federation: whose log it is.
      chain: name of the chain.
      seq: how many entries it has.
      hash: its end, 64 hexadecimal digits.
      time: when this was so, seconds since the epoch.
      sha256: of all lines before.
    """

    federation: str
    chain: str
    seq: int
    hash: str
    time: float
    sha256: str = ""

    @property
    def message(self) -> bytes:
        """What is signed."""
        return _CONTEXT + canonical.dumps(self).encode("ascii")


@dataclass(frozen=True, slots=True)
class Cosigned:
    """A site's signature in an export; whoever has the site's node document can verify it."""

    site: str
    seq: int
    hash: str
    signature: str


@dataclass(frozen=True, slots=True)
class Audited:
    """What an export proves.

    Attributes:
      federation: whose log it is.
      root: SHA-256 of the root certificate that its signature was followed to.
      pinned: whether that is the root that the auditor gave.
      end: where the chain ends.
      accounts: each block with its numbers, recomputed from the entries.
      cosigned: sites' signatures over heads that are in the chain.
    """

    federation: str
    root: str
    pinned: bool
    end: End
    accounts: tuple[tuple[Block, Account], ...]
    cosigned: tuple[Cosigned, ...]


def export(
    entries: Iterable[str],
    cosignatures: Iterable[Cosigned],
    end: End,
    root: str,
    coordinator: str,
    key: Ed25519PrivateKey,
) -> Iterator[str]:
    """The lines of an export, each with its line end.

    Args:
      entries: canonical JSON of all entries up to the head, in order.
      cosignatures: sites' signatures over heads up to this one.
      end: where the chain ends; the SHA-256 is filled in.
      root: PEM of the federation's root certificate.
      coordinator: the coordinator's node document, which names its signing key.
      key: that key.
    """
    content = hashlib.sha256()
    first = {
        "export": FORMAT,
        "federation": end.federation,
        "root": root,
        "coordinator": coordinator,
    }
    lines: list[Iterable[Mapping[str, Any]]] = [
        [first],
        ({"entry": json.loads(entry)} for entry in entries),
        ({"cosignature": _plain(one)} for one in cosignatures),
    ]
    for part in lines:
        for value in part:
            line = canonical.dumps(value) + "\n"
            content.update(line.encode("ascii"))
            yield line
    end = replace(end, sha256=content.hexdigest())
    signature = key.sign(end.message).hex()
    yield canonical.dumps({"end": end, "signature": signature}) + "\n"


def verify_export(lines: Iterable[bytes], root: str = "") -> Audited:
    """Recomputes everything that an export says: chain, rules, sums and signature.

    Args:
      lines: of the file, each with its line end.
      root: PEM of the federation's root certificate, from somewhere else than the file; without
        it the signature is only known to be of whoever wrote the file.

    Raises:
      HansaError: any byte is not what was exported, or an entry breaks a rule.
    """
    reading = _Reading()
    for line in lines:
        reading.take(line)
    return reading.audited(root)


class _Reading:
    """One pass over an export."""

    def __init__(self) -> None:
        self._content = hashlib.sha256()
        self._first: Mapping[str, Any] | None = None
        self._last: Mapping[str, Any] | None = None
        self._book = Book()
        self._hash, self._seq = "0" * 64, 0
        self._number = 0
        self._cosigned: list[Cosigned] = []
        self._heads: dict[int, str] = {}

    def take(self, line: bytes) -> None:
        self._number += 1
        said = self._parsed(line)
        if self._last is not None:
            raise self._broken("something follows the end")
        if self._first is None:
            if said.get("export") != FORMAT or said.keys() != {
                "export",
                "federation",
                "root",
                "coordinator",
            }:
                raise self._broken("it is no export of this version")
            self._first = said
        elif said.keys() == {"entry"} and not self._cosigned:
            self._entry(said["entry"])
        elif said.keys() == {"cosignature"}:
            self._cosignature(said["cosignature"])
        elif said.keys() == {"end", "signature"}:
            self._last = said
            return
        else:
            raise self._broken("it is no line of an export")
        self._content.update(line)

    def audited(self, root: str) -> Audited:
        first, last = self._first, self._last
        if first is None or last is None:
            raise self._broken("the end is missing")
        try:
            end = End(**{name: value for name, value in last["end"].items() if name != "is"})
            signature = bytes.fromhex(last["signature"])
            if canonical.plain(end) != last["end"] or signature.hex() != last["signature"]:
                raise ValueError("written in another way")
            document = open_document(first["coordinator"], first["root"].encode("ascii"))
        except (ValueError, TypeError, AttributeError, IdentityError):
            raise self._broken("its signature cannot be read") from None
        if (end.chain, end.seq, end.hash) != (CHAIN, self._seq, self._hash):
            raise self._broken("the chain ends elsewhere than the signed end says")
        if end.sha256 != self._content.hexdigest():
            raise self._broken("the lines before are not those that were signed")
        if not document.federation == end.federation == first["federation"] or (
            document.role != Role.COORDINATOR.value
        ):
            raise self._broken("it is signed by somebody else than the federation's coordinator")
        try:
            document.public_key.verify(signature, end.message)
        except InvalidSignature:
            raise self._broken("it is not signed by the coordinator") from None
        if root and root.strip() != first["root"].strip():
            raise self._broken("it was signed under another root certificate than yours")
        blocks = self._book.blocks()
        return Audited(
            federation=end.federation,
            root=hashlib.sha256(first["root"].encode("ascii")).hexdigest(),
            pinned=bool(root),
            end=end,
            accounts=tuple((blocks[n], self._book.account(n)) for n in sorted(blocks)),
            cosigned=tuple(self._cosigned),
        )

    def _entry(self, said: object) -> None:
        if not isinstance(said, dict):
            raise self._broken("it is no entry")
        self._seq += 1
        if (said.get("chain"), said.get("seq")) != (CHAIN, self._seq):
            raise self._broken("the entry has another place")
        digest = hashlib.sha256(canonical.dumps(said).encode("ascii")).hexdigest()
        self._hash = hashlib.sha256(bytes.fromhex(self._hash + digest)).hexdigest()
        self._heads[self._seq] = self._hash
        try:
            self._book.post(entry_of(said))
        except HansaError as error:
            raise self._broken(error.message) from None

    def _cosignature(self, said: object) -> None:
        try:
            found = Cosigned(**said)  # type: ignore[arg-type]  # a wrong field is what is caught
        except TypeError:
            raise self._broken("it is no signature of a site") from None
        if self._heads.get(found.seq) != found.hash:
            raise self._broken(f"site '{found.site}' signed a head that is not in the chain")
        self._cosigned.append(found)

    def _parsed(self, line: bytes) -> Mapping[str, Any]:
        try:
            said = json.loads(line)
            if isinstance(said, dict) and (canonical.dumps(said) + "\n").encode("ascii") == line:
                return said
        except (ValueError, TypeError, RecursionError):
            pass
        raise self._broken("it is no line of canonical JSON")

    def _broken(self, why: str) -> HansaError:
        return HansaError(
            f"the export is broken at line {self._number}: {why}",
            fix="export it again; if it stays so, find out who changed the file or the store",
        )


def _plain(one: Cosigned) -> dict[str, Any]:
    return {name: getattr(one, name) for name in Cosigned.__slots__}
