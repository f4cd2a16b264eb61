"""What a member trusts: one root, pinned when it joined, and the intermediates below it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Self

from hansa.errors import IdentityError
from hansa.identity.certificates import (
    federation_of,
    issued_by,
    read_chain,
    read_one,
    to_pem,
)


@dataclass(frozen=True, slots=True)
class Trust:
    """A federation's authorities.

    Attributes:
      federation: whose they are.
      root_pem: the pinned root.
      intermediates: PEM of each intermediate, newest first; two of them while one replaces
        the other.
    """

    federation: str
    root_pem: bytes
    intermediates: tuple[bytes, ...]

    @classmethod
    def of_chain(cls, root_pem: bytes, chain_pem: bytes) -> Self:
        """The trust that a member's own chain speaks of, under the root it pinned.

        Raises:
          IdentityError: there is no intermediate of this root in the chain.
        """
        root = read_one(root_pem)
        below = tuple(to_pem(c) for c in read_chain(chain_pem)[1:] if issued_by(c, root))
        if not below:
            raise IdentityError(
                "the certificate chain does not lead to the pinned root",
                fix="join again with an invite of this federation",
            )
        return cls(federation_of(root), root_pem, below)


def check_window(what: str, not_before: datetime, not_after: datetime, now: datetime) -> None:
    """Refuses what is not valid yet or not valid any more; both ends are still valid.

    Raises:
      IdentityError: `now` is outside.
    """
    if now > not_after:
        raise IdentityError(
            f"{what} expired at {not_after:%Y-%m-%d %H:%M:%S} UTC, it is {now:%Y-%m-%d %H:%M:%S}",
            fix="renew it; if it is too late for that, join again with a new invite",
        )
    if now < not_before:
        raise IdentityError(
            f"{what} is valid from {not_before:%Y-%m-%d %H:%M:%S} UTC, "
            f"it is {now:%Y-%m-%d %H:%M:%S}",
            fix="set the clocks of both machines right",
        )
