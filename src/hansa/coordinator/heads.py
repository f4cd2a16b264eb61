"""The budgets' chain, shown to the sites: each head before the work that is charged under it.

    reserve a round ──► head, with the hashes since the one a site saw ──► work under that head
                                     │
                                     └─► the site's signature over the head, kept beside the chain

A site that has seen more than this store holds refuses, and so it should: the store was set back.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable
from dataclasses import dataclass, field

from hansa.coordinator.budget import Budgets
from hansa.coordinator.roster import Roster
from hansa.coordinator.rows import Cosignature
from hansa.errors import HansaError, StoreError
from hansa.identity.credentials import Credentials
from hansa.identity.directory import Directory
from hansa.identity.heads import BudgetHead, sign_head
from hansa.wire.v1 import sites_pb2 as pb

PAGE = 1000
"""Hashes in one message: 32 KB."""

PAGES = 100
"""Messages in which a site is led to the newest head; one that is further behind joins anew."""

_log = logging.getLogger(__name__)


@dataclass(slots=True, eq=False)
class Heads:
    """What each attending site has seen of the chain.

    Attributes:
      budgets: the chain.
      federation: whose it is.
      roster: who attends.
      directory: checks what sites sign.
      credentials: the coordinator's, as they are now.
      clock: seconds since the epoch.
    """

    budgets: Budgets
    federation: str
    roster: Roster
    directory: Directory
    credentials: Callable[[], Credentials]
    clock: Callable[[], float]
    _head: BudgetHead | None = None
    _recent: tuple[int, list[bytes]] = (0, [])
    _signature: bytes = b""
    _seen: dict[str, int] = field(default_factory=dict)
    _shown: dict[str, BudgetHead] = field(default_factory=dict)
    _signed: dict[str, tuple[BudgetHead, bytes]] = field(default_factory=dict)
    _keeping: asyncio.Task[None] | None = None

    def entered(self, site: str, seq: int) -> None:
        """A site attends that has seen a chain of so many entries."""
        self._seen[site] = seq
        self._shown.pop(site, None)

    async def refresh(self) -> None:
        """Looks up where the chain ends now; what another job has looked up later stays."""
        head, recent = await asyncio.to_thread(self._current, self._lowest())
        if self._head is None or head.seq > self._head.seq:
            key = self.credentials().signing_key()
            self._head, self._recent, self._signature = head, recent, sign_head(head, key)

    def show(self, site: str) -> int:
        """Shows a site the newest head, unless it was shown it on this very connection.

        A site that came with as many entries is shown it too: they may be others.

        Returns:
          The number of entries of the chain that work is charged under.
        """
        head = self._head
        if head is None or (not head.seq and not self._seen.get(site)):
            return 0
        after = self._seen.get(site, 0)
        if after > head.seq:
            _log.error(
                "site %s has seen %d entries of the privacy ledger, this store holds %d: it was "
                "set back, restore the newest one",
                site,
                after,
                head.seq,
            )
        if self._shown.get(site) == head:
            return head.seq
        for message in self._messages(head, after):
            if not self.roster.push(site, pb.ToSite(ledger=message)):
                return head.seq
        self._seen[site], self._shown[site] = head.seq, head
        return head.seq

    def heard(self, site: str, seen: pb.HeadSeen) -> None:
        """A site's signature over a head.

        Raises:
          HansaError: it is not the site's.
        """
        head = BudgetHead(federation=self.federation, seq=seen.seq, hash=seen.hash[:64])
        signer = self.directory.verify(site, seen.document, head.message, seen.signature)
        if signer is None:
            raise HansaError(
                f"site '{site}' did not sign the head of the budgets' chain that it names",
                fix="renew the site's certificate, or let it join again",
            )
        self._signed[site] = head, seen.signature
        if self._keeping is None or self._keeping.done():
            self._keeping = asyncio.create_task(self._keep())

    async def close(self) -> None:
        """Waits until what was signed is kept."""
        if self._keeping is not None:
            with contextlib.suppress(asyncio.CancelledError):
                await self._keeping

    def _lowest(self) -> int:
        """Fewest entries that an attending site has seen; 0 if none has seen any."""
        return min(
            (s for s in (self._seen.get(site, 0) for site in self.roster.present) if s), default=0
        )

    def _current(self, after: int) -> tuple[BudgetHead, tuple[int, list[bytes]]]:
        """Where the chain ends, and the hashes that most sites lack, read at once."""
        head = self.budgets.head()
        start = max(after, head.seq - PAGE) if after else head.seq
        found = BudgetHead(federation=self.federation, seq=head.seq, hash=head.hash)
        return found, (
            start,
            self.budgets.digests(start, head.seq - start) if start < head.seq else [],
        )

    def _page(self, start: int, count: int) -> list[bytes]:
        first, digests = self._recent
        if start >= first:
            return digests[start - first : start - first + count]
        return self.budgets.digests(start, count)

    def _messages(self, head: BudgetHead, after: int) -> list[pb.LedgerHead]:
        """Each page leads to a head of its own; only what ends at the newest one is signed."""
        first = head.seq if after <= 0 or after > head.seq else max(after, head.seq - PAGE * PAGES)
        pages = [
            (start, self._page(start, min(PAGE, head.seq - start)))
            for start in range(first, head.seq, PAGE)
        ]
        messages = [
            pb.LedgerHead(after=start, digests=b"".join(digests)) for start, digests in pages[:-1]
        ]
        start, digests = pages[-1] if pages else (head.seq, [])
        messages.append(
            pb.LedgerHead(
                seq=head.seq,
                hash=head.hash,
                after=start,
                digests=b"".join(digests),
                signature=self._signature,
            )
        )
        return messages

    async def _keep(self) -> None:
        """Writes down what sites signed, all that waits at once."""
        while self._signed:
            waiting, self._signed = self._signed, {}
            try:
                await asyncio.to_thread(self._store, waiting)
            except StoreError as error:
                _log.error("signatures over the budgets' head are not kept: %s", error)

    def _store(self, signed: dict[str, tuple[BudgetHead, bytes]]) -> None:
        now = self.clock()
        strange = self.budgets.store_cosignatures(
            [
                Cosignature(site, head.seq, head.hash, signature.hex(), now)
                for site, (head, signature) in signed.items()
            ]
        )
        for site in strange:
            _log.error("site %s signed a head that is not in the budgets' chain", site)
