"""Enrolled sites: who a connection belongs to, enrolment, renewal, revocation, receipts."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import grpc.aio

from hansa.coordinator.desk import RoundKey
from hansa.coordinator.keyring import Keyring
from hansa.coordinator.rows import Certificate, Revocations
from hansa.coordinator.store import Store
from hansa.errors import IdentityError
from hansa.identity.authority import Authority, IssuedCertificate
from hansa.identity.credentials import Credentials
from hansa.identity.directory import Directory
from hansa.identity.invites import token_hash
from hansa.identity.names import Role
from hansa.identity.peer import Peer, identify
from hansa.identity.receipts import Receipt, sign_receipt
from hansa.wire.limits import PROTOCOL
from hansa.wire.v1 import sites_pb2 as pb

GRACE_SECONDS = 0.2
"""Time in which a stream can tell a revoked site why, before its calls are cut off."""


@dataclass(frozen=True, slots=True)
class Caller:
    """A site that calls, with the certificate that says so."""

    peer: Peer
    certificate: bytes


class Members:
    """Answers every question about identity; the only place that reads certificates of calls."""

    def __init__(
        self,
        authority: Authority,
        keyring: Keyring,
        store: Store,
        clock: Callable[[], float],
    ) -> None:
        self._authority = authority
        self._trust = authority.trust
        self._keyring = keyring
        self._store = store
        self._clock = clock
        self._revoked: Revocations = store.revocations()
        self._calls: dict[str, set[asyncio.Timeout]] = {}
        self.directory = Directory(authority.root_pem, authority.federation, self._now)

    def revocation_list(self) -> str:
        """Who is revoked now, in the authority's words, for sites that check each other."""
        return self._authority.sign_revocations(self._revoked.sites, self._now())

    @property
    def federation(self) -> str:
        """Name of the federation."""
        return self._authority.federation

    @property
    def credentials(self) -> Credentials:
        """The coordinator's own, fresh enough."""
        return self._keyring.current()

    def welcome(self, caller: Caller) -> pb.Welcome:
        """What a site is told first: who it is here, and which key signs its receipts."""
        return pb.Welcome(
            federation=self.federation,
            site=caller.peer.name,
            protocol=PROTOCOL,
            coordinator_document=self._keyring.current().document,
        )

    @asynccontextmanager
    async def calling(self, context: grpc.aio.ServicerContext[Any, Any]) -> AsyncIterator[Caller]:
        """Whose connection this is, by its certificate alone, for the time of one call.

        A call ends when its certificate expires or is revoked, also while it waits for something.

        Raises:
          IdentityError: expired, revoked, of another federation, or no site.
        """
        pem = next(iter(context.auth_context().get("x509_pem_cert", ())), b"")
        caller = Caller(self._identify(pem), pem)
        calls = self._calls.setdefault(caller.peer.name, set())
        try:
            async with asyncio.timeout(self.seconds_left(caller)) as ends:
                calls.add(ends)
                try:
                    yield caller
                finally:
                    calls.discard(ends)
        except TimeoutError:
            self.recheck(caller)  # if this is why, it says so
            raise

    def recheck(self, caller: Caller) -> None:
        """Raises IdentityError if the certificate has expired or was revoked since."""
        self._identify(caller.certificate)

    def seconds_left(self, caller: Caller) -> float:
        """Time until the certificate expires, at least a little more than nothing."""
        return max(caller.peer.not_after.timestamp() - self._clock(), 0.0) + 0.05

    def _identify(self, pem: bytes) -> Peer:
        return identify(
            pem,
            self._trust,
            self._now(),
            role=Role.SITE,
            revoked_sites=self._revoked.sites,
            revoked_serials=self._revoked.serials,
        )

    def _now(self) -> datetime:
        return datetime.fromtimestamp(self._clock(), UTC)

    # -------------------------------------------------------------- certificates

    async def enrol(self, request: pb.EnrolRequest) -> pb.EnrolReply:
        """Burns an invite's token and issues the site's first certificate.

        Raises:
          IdentityError: the token is unknown, used or expired, or the request is not the site's.
        """
        issued = await asyncio.to_thread(self._enrol, request)
        return pb.EnrolReply(chain_pem=issued.chain_pem, node_document=issued.document)

    def _enrol(self, request: pb.EnrolRequest) -> IssuedCertificate:
        invite = self._store.burn_invite(token_hash(request.token), self._clock())
        return self._issue(request.csr_pem, invite.site, invite.organisation)

    async def renew(self, caller: Caller, csr_pem: bytes) -> pb.RenewReply:
        """A new certificate and node document for a site's new keys."""
        peer = caller.peer
        issued = await asyncio.to_thread(self._issue, csr_pem, peer.name, peer.organisation)
        return pb.RenewReply(chain_pem=issued.chain_pem, node_document=issued.document)

    def _issue(self, csr_pem: bytes, site: str, organisation: str) -> IssuedCertificate:
        issued = self._authority.issue_site(csr_pem, site, organisation, self._now())
        self._store.add_certificate(
            Certificate(
                serial=issued.serial_hex,
                site=site,
                not_before=issued.not_before.timestamp(),
                not_after=issued.not_after.timestamp(),
                public_key_sha256=issued.public_key_sha256,
            )
        )
        return issued

    async def revoke(self, site: str, reason: str) -> IdentityError:
        """Refuses the site from now on; returns the error that its stream is ended with."""
        await asyncio.to_thread(
            self._store.revoke, site=site, serial=None, reason=reason, now=self._clock()
        )
        self._revoked = await asyncio.to_thread(self._store.revocations)
        for ends in self._calls.get(site, ()):
            if not ends.expired():
                ends.reschedule(asyncio.get_running_loop().time() + GRACE_SECONDS)
        return IdentityError(
            f"site '{site}' was revoked: {reason}",
            fix="ask why; its name stays refused, so it comes back under a new one by a new invite",
        )

    # -------------------------------------------------------------- receipts

    def receipt(self, caller: Caller, key: RoundKey, header: pb.DeliverHeader) -> pb.Receipt:
        """The signed statement that a site's update is in a durable sum."""
        receipt = Receipt(
            federation=self.federation,
            job=key.job,
            purpose=key.purpose.value,
            round=key.round,
            attempt=key.attempt,
            site=caller.peer.name,
            update=header.sha256,
            plan=header.plan_digest,
        )
        signature = sign_receipt(receipt, self._keyring.current().signing_key())
        return pb.Receipt(document=receipt.document, signature=signature)
