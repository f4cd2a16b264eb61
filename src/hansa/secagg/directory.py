"""Who signed: members of the federation, by the authority's word and not the coordinator's."""

from __future__ import annotations

from typing import Protocol


class Directory(Protocol):
    """What a client needs to know of the federation to check its neighbours itself."""

    def verify(self, name: str, document: str, message: bytes, signature: bytes) -> str | None:
        """Checks a member's signature.

        Args:
          name: who is said to have signed.
          document: the authority's word on that member's key.
          message: what was signed.
          signature: (64 bytes).

        Returns:
          The member's organisation; None if the document is not of this member and this
          federation, is expired or revoked, or the signature is not its key's.
        """
