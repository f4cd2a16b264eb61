"""The trampoline: a server and its clients in one process, turn by turn."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping

from hansa.errors import HansaError
from hansa.secagg.messages import Message, ToServer
from hansa.secagg.server import Ask, Sum

Client = Generator[ToServer, Message, None]
Refusal = Callable[[str, HansaError], None]


def drive(
    server: Generator[Ask[Message], None, Sum],
    clients: Mapping[str, Client],
    refused: Refusal | None = None,
) -> Sum:
    """Carries messages until the server has its sum.

    A client that raises takes no further part, as one whose process died.

    Args:
      server: from `server_flow`.
      clients: from `client_flow`, by name; one that is missing never answers.
      refused: is told of each client that raised, and of each reply that the server refused.

    Raises:
      RoundVoid: too few clients were left.
    """
    going = turns(server, clients, refused)
    while True:
        try:
            next(going)
        except StopIteration as end:
            result: Sum = end.value
            return result


def turns(
    server: Generator[Ask[Message], None, Sum],
    clients: Mapping[str, Client],
    refused: Refusal | None = None,
) -> Generator[None, None, Sum]:
    """Like `drive`, with a pause after each client's turn."""
    try:
        ask = next(server)
        while True:
            for name, message in ask.messages.items():
                if name in clients:
                    _turn(ask, name, clients[name], message, refused)
                    yield
            ask = server.send(None)
    except StopIteration as end:
        result: Sum = end.value
        return result


def _turn(
    ask: Ask[Message], name: str, client: Client, message: Message, refused: Refusal | None
) -> None:
    try:
        reply = client.send(message)  # the first message is None: it starts the generator
        ask.take(name, reply)
    except StopIteration:
        return  # it was over for this client already
    except HansaError as error:
        if refused is not None:
            refused(name, error)
