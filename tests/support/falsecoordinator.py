"""A coordinator written by hand: it has a real certificate and says what a test wants."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import grpc
import grpc.aio

from hansa.core.contribute import Purpose
from hansa.identity.credentials import Credentials
from hansa.identity.keys import load_credentials
from hansa.wire.limits import CHUNK, PROTOCOL, SERVER_OPTIONS
from hansa.wire.methods import ATTEND, DELIVER, FETCH, RENEW, serve
from hansa.wire.v1 import sites_pb2 as pb
from tests.support.federation import Place

Said = AsyncIterator[bytes]
Context = Any


class FalseCoordinator:
    """The sites' door, served by a test.

    Attributes:
      credentials: the real coordinator's.
      blobs: what `Fetch` gives.
      heard: what sites said, hellos included.
    """

    def __init__(self, place: Place) -> None:
        self.credentials: Credentials = load_credentials(place.coordinator / "keys")
        self.blobs: dict[str, bytes] = {}
        self.heard: list[pb.FromSite] = []

    def welcome(self, site: str) -> pb.ToSite:
        """What an honest coordinator says first."""
        return pb.ToSite(
            welcome=pb.Welcome(
                federation=self.credentials.federation,
                site=site,
                protocol=PROTOCOL,
                coordinator_document=self.credentials.document,
            )
        )

    async def fetch(self, request: bytes, context: Context) -> AsyncIterator[pb.Chunk]:
        content = self.blobs.get(pb.FetchRequest.FromString(request).sha256)
        if content is None:
            await context.abort(grpc.StatusCode.UNAVAILABLE, "not today")
            return
        for start in range(0, len(content), CHUNK):
            yield pb.Chunk(data=content[start : start + CHUNK])


def round_id(job: str, number: int = 0) -> pb.RoundId:
    return pb.RoundId(job=job, purpose=Purpose.TRAIN.value, round=number, attempt=0)


@asynccontextmanager
async def false_coordinator(
    place: Place,
    attend: Callable[[FalseCoordinator, Said, Context], AsyncIterator[pb.ToSite]],
    deliver: Callable[[Said, Context], Awaitable[None]] | None = None,
) -> AsyncIterator[FalseCoordinator]:
    """Serves the sites' door of a federation whose coordinator does not run."""
    false = FalseCoordinator(place)

    async def attending(requests: Said, context: Context) -> AsyncIterator[pb.ToSite]:
        async for message in attend(false, requests, context):
            yield message

    async def nothing(request: Any, context: Context) -> Any:
        await context.abort(grpc.StatusCode.UNIMPLEMENTED, "not in this test")

    handlers: dict[Any, Any] = {
        ATTEND: attending,
        FETCH: false.fetch,
        DELIVER: deliver or nothing,
        RENEW: nothing,
    }
    server = grpc.aio.server(options=SERVER_OPTIONS)
    server.add_generic_rpc_handlers((serve(ATTEND.service, handlers),))
    server.add_secure_port(
        place.sites_door,
        grpc.ssl_server_credentials(
            [(false.credentials.key_pem, false.credentials.chain_pem)],
            false.credentials.root_pem,
            require_client_auth=True,
        ),
    )
    await server.start()
    try:
        yield false
    finally:
        await server.stop(0)
