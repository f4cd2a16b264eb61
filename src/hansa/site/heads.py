"""What a site has seen of the budgets' chain: it works under no chain that was set back or forked.

    head shown ──► signed? ──► extends what was seen? ──► written down ──► countersigned
                                     │ no
                                     ▼
                      no private work until a head extends it

The memory is one file, which the site's owner may remove.
"""

from __future__ import annotations

import json
import logging
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from hansa.errors import HansaError, IdentityError, PolicyRefused, StoreError
from hansa.identity.heads import BudgetHead, verify_head
from hansa.site.memory import remember
from hansa.wire.v1 import sites_pb2 as pb

NAME = "budget-head.json"

SIZE = 32
"""Bytes of a hash."""

MOST = 4 << 20
"""Bytes of hashes that are listened to before a head must come."""

_log = logging.getLogger(__name__)


class Heads:
    """The last head that was seen, in one small file that is replaced as one step.

    Args:
      folder: the site's folder.
      federation: its name.
    """

    def __init__(self, folder: Path, federation: str) -> None:
        self._path = folder / NAME
        self._seen = _read(self._path, federation)
        self._fault: HansaError | None = None
        self._start, self._digests = 0, b""

    @property
    def seen(self) -> BudgetHead:
        """The last head; one of no entries before the first."""
        return self._seen

    def hear(self, shown: pb.LedgerHead, key: Ed25519PublicKey) -> BudgetHead | None:
        """A head is shown, or the first part of what leads to it.

        Args:
          shown: as it came.
          key: the coordinator's receipt key.

        Returns:
          The head, which is taken over; None if more follows.

        Raises:
          HansaError: see `follow`.
        """
        if shown.after != self._start + len(self._digests) // SIZE:
            self._start, self._digests = shown.after, b""
        self._digests += shown.digests
        if not shown.hash and len(self._digests) <= MOST:
            return None
        head = BudgetHead(federation=self._seen.federation, seq=shown.seq, hash=shown.hash)
        start, found = self._start, self._digests
        self._start, self._digests = 0, b""
        digests = [found[at : at + SIZE] for at in range(0, len(found), SIZE)]
        self.follow(head, start, digests, shown.signature, key)
        return head

    def follow(
        self,
        head: BudgetHead,
        after: int,
        digests: list[bytes],
        signature: bytes,
        key: Ed25519PublicKey,
    ) -> None:
        """Takes a head over that extends the one before; the first one is taken as it is.

        Args:
          head: as it is shown.
          after: number of entries before the first of `digests`.
          digests: SHA-256 of each entry since.
          signature: the coordinator's.
          key: the coordinator's receipt key.

        Raises:
          PolicyRefused: it does not extend what this site has seen.
          IdentityError: the coordinator did not sign it.
          StoreError: it cannot be written down.
        """
        try:
            verify_head(head, signature, key)
            self._check(head, after, digests)
            if head != self._seen:
                self._write(head)
        except HansaError as error:
            if not isinstance(error, StoreError):
                _log.error("the budgets of the federation are not believed: %s", error)
            self._fault = error
            raise
        self._seen, self._fault = head, None

    def check(self, seq: int) -> None:
        """Whether private work may begin that is charged under the head of `seq` entries.

        Raises:
          HansaError: the last head that was shown is not believed, or this is an older one.
        """
        if self._fault is not None:
            raise self._fault
        if seq < self._seen.seq:
            raise _set_back(self._path, f"shows {seq:,} entries", self._seen.seq)

    def _check(self, head: BudgetHead, after: int, digests: list[bytes]) -> None:
        seen = self._seen
        if not seen.seq:
            return
        if head.seq < seen.seq:
            raise _set_back(self._path, f"shows {head.seq:,} entries", seen.seq)
        if after > seen.seq or after + len(digests) != head.seq:
            raise PolicyRefused(
                f"the coordinator shows {len(digests):,} entries after number {after:,} to prove a "
                f"budget's chain of {head.seq:,}, this site has seen {seen.seq:,}",
                fix="let the coordinator's administrator look at it; it is asked again at the next "
                "connection",
            )
        if seen.extended(digests[seen.seq - after :]) != head:
            raise _set_back(self._path, "shows another past", seen.seq)

    def _write(self, head: BudgetHead) -> None:
        words = {"federation": head.federation, "seq": head.seq, "hash": head.hash}
        remember(self._path, words, "the head of the budgets' chain")


def _set_back(path: Path, what: str, seen: int) -> PolicyRefused:
    return PolicyRefused(
        f"the coordinator's privacy ledger was set back or forked: it {what}, this site has seen "
        f"{seen:,}, so what was spent would count as unspent",
        fix="let the coordinator restore the newest ledger; if its loss is agreed on, remove "
        f"{path.name} from this site's folder",
    )


def _read(path: Path, federation: str) -> BudgetHead:
    try:
        content = json.loads(path.read_text("utf-8"))
        found = BudgetHead(
            federation=str(content["federation"]),
            seq=int(content["seq"]),
            hash=bytes.fromhex(content["hash"]).hex(),
        )
    except FileNotFoundError:
        return BudgetHead(federation=federation)
    except (ValueError, TypeError, KeyError) as error:
        raise HansaError(
            f"{path} cannot be read ({type(error).__name__})",
            fix="restore it; without it, a ledger that was set back is not noticed",
        ) from error
    if found.federation != federation:
        raise IdentityError(
            f"{path} is about federation '{found.federation}', this site is in '{federation}'",
            fix="use a folder of its own for each federation",
        )
    return found
