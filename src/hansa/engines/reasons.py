"""Why a client did not count, in words that may be shown to everybody."""

from __future__ import annotations

from hansa.errors import ClientFailed, HansaError


def told(cause: BaseException | None) -> str:
    """An error of Hansa has words that may leave a site; of any other only the type is told."""
    return cause.message if isinstance(cause, HansaError) else type(cause).__name__


def reason_of(error: HansaError | None, otherwise: str) -> str:
    """Why a client is not in the sum; what a task raised may quote data and is not told."""
    if error is None:
        return otherwise
    return told(error.__cause__) if isinstance(error, ClientFailed) else error.message
