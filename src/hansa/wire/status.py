"""Errors across the wire: a class name, a message and a fix, in a status code and its details.

| error            | status              |
|------------------|---------------------|
| IdentityError    | PERMISSION_DENIED   |
| VersionMismatch  | FAILED_PRECONDITION |
| UpdateRejected   | INVALID_ARGUMENT    |
| RoundVoid        | ABORTED             |
| other HansaError | FAILED_PRECONDITION |

Details are canonical JSON. Where no details come back (the connection broke, TLS refused), the
client makes an `Unavailable` of the status.
"""

from __future__ import annotations

import contextlib
import json
from typing import Any

import grpc
import grpc.aio

from hansa import errors
from hansa.core import canonical
from hansa.errors import HansaError

_CODES = {
    errors.IdentityError: grpc.StatusCode.PERMISSION_DENIED,
    errors.UpdateRejected: grpc.StatusCode.INVALID_ARGUMENT,
    errors.RoundVoid: grpc.StatusCode.ABORTED,
}

_KINDS: dict[str, type[HansaError]] = {
    kind.__name__: kind
    for kind in (
        errors.HansaError,
        errors.IdentityError,
        errors.UpdateRejected,
        errors.VersionMismatch,
        errors.PolicyRefused,
        errors.DigestMismatch,
        errors.RoundVoid,
        errors.Unavailable,
        errors.StoreError,
    )
}


async def abort(context: grpc.aio.ServicerContext[Any, Any], error: HansaError) -> None:
    """Ends a call with an error that `of_status` reads back; the handler returns afterwards."""
    details = canonical.dumps(
        {"error": type(error).__name__, "message": error.message[:2000], "fix": error.fix[:500]}
    )
    code = _CODES.get(type(error), grpc.StatusCode.FAILED_PRECONDITION)
    with contextlib.suppress(grpc.aio.InternalError):
        # Who does not read what was written before cannot be told; the call is cancelled then.
        await context.abort(code, details)


def of_status(error: grpc.aio.AioRpcError, peer: str) -> HansaError:
    """The error that the other side meant, or `Unavailable` if it said nothing readable."""
    try:
        told = json.loads(error.details() or "")
        kind = _KINDS[told["error"]]
        return kind(str(told["message"]), fix=str(told["fix"]))
    except (ValueError, KeyError, TypeError):
        code = error.code().name.lower().replace("_", " ")
        return errors.Unavailable(
            f"no answer from {peer}: {code}",
            fix="check that the other side runs and that the address and the network are right",
        )
