"""`hansa key`: a key to sign task code with."""

from __future__ import annotations

from pathlib import Path

import typer

from hansa.cli.arguments import JSON
from hansa.cli.output import emit, say


def key(
    file: Path = typer.Argument(metavar="FILE", help="New file for the private key."),
    json: bool = JSON,
) -> None:
    """Make a key to sign task code with."""
    from hansa.work.signature import make_key

    public = make_key(file)
    if json:
        emit({"file": str(file), "signer": public})
        return
    say(f"The private key is in {file}; nobody else may read it.")
    say("Sites that trust you name this public key in policy.signers:")
    print(public)
