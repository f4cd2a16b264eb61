"""Who may sign in a federation, checked by each member itself against the root that it pinned."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from hansa.errors import IdentityError
from hansa.identity.documents import NodeDocument, open_document
from hansa.identity.names import Role
from hansa.identity.revocations import RevocationList, read_revocations
from hansa.identity.trust import check_window

KEPT: Final = 20_000
"""Documents whose signatures are not followed to the root again; their dates always are."""


@dataclass(slots=True)
class Directory:
    """The members of one federation, as their documents present themselves.

    Attributes:
      root_pem: the pinned root.
      federation: its name.
      clock: the time now.
      revoked: names that are refused, by the newest list that was seen.
    """

    root_pem: bytes = field(repr=False)
    federation: str
    clock: Callable[[], datetime] = lambda: datetime.now(UTC)
    revoked: RevocationList | None = None
    _known: OrderedDict[str, tuple[NodeDocument, Ed25519PublicKey]] = field(
        default_factory=OrderedDict, repr=False
    )

    def revoke(self, text: str) -> None:
        """Takes over a newer list of revoked sites; an older one than was seen changes nothing.

        Raises:
          IdentityError: it is not the authority's, or too old.
        """
        listed = read_revocations(text, self.root_pem, self.federation, self.clock())
        if self.revoked is None or listed.issued >= self.revoked.issued:
            self.revoked = listed

    def verify(self, name: str, document: str, message: bytes, signature: bytes) -> str | None:
        """Checks a site's signature by the authority's word on its key.

        Returns:
          The site's organisation; None if the document is not of this site in this federation,
          is not valid now, the site is revoked, or its key did not make the signature.
        """
        try:
            known, key = self._open(document)
            check_window(
                "a node document", _moment(known.not_before), _moment(known.not_after), self.clock()
            )
            key.verify(signature, message)
        except (IdentityError, InvalidSignature):
            return None
        if (known.federation, known.role, known.name) != (self.federation, Role.SITE.value, name):
            return None
        if self.revoked is not None and name in self.revoked.sites:
            return None
        return known.organisation

    def _open(self, document: str) -> tuple[NodeDocument, Ed25519PublicKey]:
        known = self._known.get(document)
        if known is None:
            opened = open_document(document, self.root_pem)
            known = self._known[document] = opened, opened.public_key
            if len(self._known) > KEPT:
                self._known.popitem(last=False)
        return known


def _moment(seconds: int) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)
