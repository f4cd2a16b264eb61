"""Joining a federation: an invite becomes keys, a certificate and a folder for the agent."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

import grpc
import grpc.aio

from hansa.errors import HansaError
from hansa.identity.credentials import Credentials
from hansa.identity.invites import parse_invite
from hansa.identity.keys import install_credentials, make_site_keys
from hansa.site import config
from hansa.site.agent import ADDRESS, KEYS
from hansa.wire.limits import CALL_SECONDS, CHANNEL_OPTIONS
from hansa.wire.methods import ENROL, call
from hansa.wire.status import of_status
from hansa.wire.v1 import sites_pb2 as pb


async def join(invite_text: str, folder: Path, now: datetime) -> Credentials:
    """Enrols a site with a one-time invite; private keys never leave the folder.

    Raises:
      IdentityError: the invite is no good any more, or the coordinator refused it.
      Unavailable: the coordinator cannot be reached; the invite is still good.
      HansaError: the folder is a site already.
    """
    if (folder / ADDRESS).exists():
        raise HansaError(
            f"{folder} is a site already", fix="choose another folder, or remove this one"
        )
    invite = parse_invite(invite_text, now)
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    request = make_site_keys(folder / KEYS, invite.site, invite.federation)
    tls = grpc.ssl_channel_credentials(invite.root_pem)  # the pinned root, and no other
    async with grpc.aio.secure_channel(
        invite.enrol_address, tls, options=CHANNEL_OPTIONS
    ) as channel:
        try:
            reply: pb.EnrolReply = await call(channel, ENROL)(
                pb.EnrolRequest(token=invite.token, csr_pem=request.csr_pem),
                timeout=CALL_SECONDS,
            )
        except grpc.aio.AioRpcError as error:
            raise of_status(error, invite.enrol_address) from error
    credentials = install_credentials(
        folder / KEYS, reply.chain_pem, invite.root_pem, reply.node_document
    )
    (folder / ADDRESS).write_text(invite.coordinator_address + "\n", "utf-8")
    if not (folder / config.NAME).exists():
        text = config.TEMPLATE.format(federation=invite.federation)
        (folder / config.NAME).write_text(text, "utf-8")
    return credentials
