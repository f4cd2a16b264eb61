"""The methods of the sites' door, typed; bytes on the server side so that nothing is parsed early.

A server handler is given raw requests: it authenticates first, then parses with `parse`, which
answers a malformed message with a clear error instead of an exception inside the library.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Generic, TypeVar

import grpc
import grpc.aio
from google.protobuf.message import DecodeError, Message

from hansa.errors import HansaError
from hansa.wire.v1 import sites_pb2 as pb

Request = TypeVar("Request", bound=Message)
Reply = TypeVar("Reply", bound=Message)
AnyMessage = TypeVar("AnyMessage", bound=Message)

Handler = Callable[[Any, Any], Awaitable[Message] | AsyncIterator[Message]]


@dataclass(frozen=True, slots=True)
class Method(Generic[Request, Reply]):
    """One method: its service, name, message types and which sides stream."""

    service: str
    name: str
    request: type[Request]
    reply: type[Reply]
    streams_in: bool = False
    streams_out: bool = False

    @property
    def path(self) -> str:
        """The HTTP/2 path of the method."""
        return f"/{self.service}/{self.name}"


ENROL: Final = Method("hansa.v1.Enrolment", "Enrol", pb.EnrolRequest, pb.EnrolReply)
ATTEND: Final = Method("hansa.v1.Sites", "Attend", pb.FromSite, pb.ToSite, True, True)
FETCH: Final = Method("hansa.v1.Sites", "Fetch", pb.FetchRequest, pb.Chunk, False, True)
DELIVER: Final = Method("hansa.v1.Sites", "Deliver", pb.DeliverPart, pb.DeliverReply, True, True)
RENEW: Final = Method("hansa.v1.Sites", "Renew", pb.RenewRequest, pb.RenewReply)


def parse(kind: type[AnyMessage], data: bytes) -> AnyMessage:
    """Reads a message.

    Raises:
      HansaError: the bytes are no such message.
    """
    message = kind()
    try:
        message.ParseFromString(data)
    except DecodeError as error:
        raise HansaError(
            f"{len(data)} bytes are not a {kind.DESCRIPTOR.name}",
            fix="use a client of this version of Hansa",
        ) from error
    return message


def call(channel: grpc.aio.Channel, method: Method[Request, Reply]) -> Any:
    """The client's callable for a method.

    Requests are messages or their bytes; replies are messages, or bytes where they are chunks.
    """
    kinds = {
        (False, False): channel.unary_unary,
        (False, True): channel.unary_stream,
        (True, False): channel.stream_unary,
        (True, True): channel.stream_stream,
    }
    make: Any = kinds[method.streams_in, method.streams_out]
    return make(
        method.path,
        request_serializer=_serialized,
        response_deserializer=None if method.reply is pb.Chunk else method.reply.FromString,
    )


def serve(service: str, handlers: Mapping[Method[Any, Any], Handler]) -> grpc.GenericRpcHandler:
    """The server's side of a service: handlers take bytes and give messages or their bytes."""
    kinds: dict[tuple[bool, bool], Any] = {
        (False, False): grpc.unary_unary_rpc_method_handler,
        (False, True): grpc.unary_stream_rpc_method_handler,
        (True, False): grpc.stream_unary_rpc_method_handler,
        (True, True): grpc.stream_stream_rpc_method_handler,
    }
    table = {
        method.name: kinds[method.streams_in, method.streams_out](
            handler,
            request_deserializer=None,
            response_serializer=_serialized,
        )
        for method, handler in handlers.items()
    }
    return grpc.method_handlers_generic_handler(service, table)


def _serialized(message: Message | bytes) -> bytes:
    return message if isinstance(message, bytes) else message.SerializeToString()
