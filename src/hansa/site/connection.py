"""Dialling the coordinator, and finding out why it does not answer."""

from __future__ import annotations

import asyncio
import contextlib
import random
import ssl
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path

import grpc
import grpc.aio
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from hansa.errors import HansaError, IdentityError, Unavailable
from hansa.identity.credentials import Credentials
from hansa.wire.limits import CHANNEL_OPTIONS
from hansa.wire.status import of_status

PROBE_SECONDS = 2.0
"""How long one handshake of a diagnosis may take."""

AGAIN_SECONDS = 0.2
"""Time after which a coordinator that is going down does not answer any more."""


@dataclass(frozen=True, slots=True)
class Line:
    """A connection and the key that signs its receipts."""

    channel: grpc.aio.Channel
    address: str
    receipt_key: Ed25519PublicKey


@asynccontextmanager
async def dialled(address: str, credentials: Credentials) -> AsyncIterator[grpc.aio.Channel]:
    """A channel on which both sides show certificates of one federation."""
    tls = grpc.ssl_channel_credentials(
        credentials.root_pem, credentials.key_pem, credentials.chain_pem
    )
    async with grpc.aio.secure_channel(address, tls, options=CHANNEL_OPTIONS) as channel:
        yield channel


@contextmanager
def answered(address: str) -> Iterator[None]:
    """Turns what the gRPC library raises into the error that the coordinator meant.

    A connection that is closed cancels its calls, and that looks as if the caller were cancelled.

    Raises:
      HansaError: the coordinator refused, or does not answer.
    """
    try:
        yield
    except grpc.aio.AioRpcError as error:
        raise of_status(error, address) from error
    except asyncio.CancelledError:
        task = asyncio.current_task()
        if task is None or task.cancelling():
            raise
        raise Unavailable(
            f"the connection to {address} was closed", fix="it is tried again on the next one"
        ) from None


def backoff(failures: int) -> float:
    """Seconds to wait after so many failures in a row: from 0.2 to 15, half of it by chance.

    Each wait is half as long again as the one before, so that a site is back soon after its
    coordinator whether that was away for seconds or for an hour. Chance spreads a fleet that lost
    its coordinator at one moment over the time in which it comes back.
    """
    return random.uniform(0.5, 1.0) * min(15.0, 0.4 * 1.5 ** min(failures - 1, 10))


async def diagnose(address: str, credentials: Credentials) -> HansaError:
    """Why the coordinator cannot be reached: the network, its certificate, or ours.

    The gRPC library says only that a connection failed, so plain TLS handshakes are made. A server
    of that library refuses a certificate by hanging up without a word; one that is going down does
    the same, but is gone a moment later.
    """
    found = await _probe(address, credentials)
    if found is None:
        await asyncio.sleep(AGAIN_SECONDS)
        found = await _probe(address, credentials)
    return found or IdentityError(
        f"the coordinator at {address} refuses this site's certificate: it hangs up when it is "
        f"shown it (federation '{credentials.federation}', valid until "
        f"{credentials.not_after:%Y-%m-%d %H:%M:%S} UTC)",
        fix="check the federation and the clocks of both machines, or join with a new invite",
    )


async def _probe(address: str, credentials: Credentials) -> HansaError | None:
    """What one handshake shows; None if the other side hangs up after a whole one."""
    host, _, port = address.rpartition(":")
    try:
        async with asyncio.timeout(PROBE_SECONDS):
            reader, writer = await asyncio.open_connection(
                host.strip("[]"), int(port), ssl=_context(credentials)
            )
            with contextlib.closing(writer):
                answer = await reader.read(1)  # a server that accepts us sends its settings first
    except ssl.SSLCertVerificationError as error:
        return IdentityError(
            f"what answers at {address} is not the coordinator of federation "
            f"'{credentials.federation}' ({error.verify_message})",
            fix="check the address; if the federation was made anew, join it with a new invite",
        )
    except ssl.SSLError as error:
        reason = (error.reason or "").lower().replace("_", " ") or "TLS failed"
        return IdentityError(
            f"the coordinator at {address} refuses this site's certificate ({reason})",
            fix="check the certificate's dates and federation, or join again with a new invite",
        )
    except (OSError, TimeoutError) as error:
        reason = getattr(error, "strerror", None) or type(error).__name__
        return Unavailable(
            f"the coordinator at {address} cannot be reached ({reason})",
            fix="check that it runs, and the address and the way to it",
        )
    if not answer:
        return None
    return Unavailable(
        f"the coordinator at {address} closed the connection",
        fix="see the coordinator's log if it goes on",
    )


def _context(credentials: Credentials) -> ssl.SSLContext:
    context = ssl.create_default_context(cadata=credentials.root_pem.decode("ascii"))
    context.set_alpn_protocols(["h2"])
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "pair.pem"  # the library reads certificates from files only
        path.touch(mode=0o600)
        path.write_bytes(credentials.chain_pem + credentials.key_pem)
        context.load_cert_chain(path)
    return context
