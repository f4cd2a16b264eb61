"""Inviting a site: works on the coordinator's folder, whether the coordinator runs or not."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

from hansa.coordinator import config
from hansa.coordinator.rows import Invite
from hansa.coordinator.store import Store
from hansa.identity.authority import Authority
from hansa.identity.invites import create_invite


def invite(folder: Path, site: str, organisation: str, now: datetime) -> str:
    """Makes a one-time invite and returns the line to give to the site.

    Raises:
      HansaError: the folder is no coordinator's, or a name cannot be one.
    """
    settings = config.load(folder)
    record, text = create_invite(
        site,
        organisation,
        f"{settings.host}:{settings.sites_port}",
        f"{settings.host}:{settings.enrol_port}",
        Authority.load(folder / "ca"),
        now,
    )
    store = Store.open(config.store_url(folder, settings))
    try:
        store.add_invite(
            Invite(
                token_hash=record.token_hash,
                site=record.site,
                organisation=record.organisation,
                role=record.role.value,
                created=record.created.timestamp(),
                expires=record.expires.timestamp(),
                ca_fingerprint=record.ca_fingerprint,
            )
        )
    finally:
        store.close()
    return text
