"""When a certificate is renewed: after two thirds of its life, a little earlier for some.

The last third is time to try again in. Members that joined in the same minute must not come back in
the same minute, so each is early by up to a twelfth of the lifetime; how much is derived from the
serial number, so that a restart does not change it.
"""

from __future__ import annotations

import hashlib
from datetime import datetime


def renew_at(not_before: datetime, not_after: datetime, serial: str) -> datetime:
    """The moment from which a certificate is renewed.

    Args:
      not_before: first moment of the certificate.
      not_after: last moment of the certificate.
      serial: its serial number, which spreads the members.

    Returns:
      Between 7/12 and 8/12 of the lifetime.
    """
    number = int.from_bytes(hashlib.sha256(f"hansa/renew/{serial}".encode()).digest()[:8], "big")
    early = number / 2**64 / 12
    return not_before + (not_after - not_before) * (2 / 3 - early)


def due(not_before: datetime, not_after: datetime, serial: str, now: datetime) -> bool:
    """Whether a certificate should be renewed now."""
    return now >= renew_at(not_before, not_after, serial)
