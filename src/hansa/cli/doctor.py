"""`hansa doctor`: whether this machine is fit for Hansa."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import typer

from hansa.cli.arguments import JSON
from hansa.cli.output import emit, say, table


def doctor(
    folder: Path = typer.Option(Path(), help="Where jobs and state will be written."),
    coordinator: Path | None = typer.Option(
        None, help="A coordinator's folder, whose ports are looked at too."
    ),
    json: bool = JSON,
) -> None:
    """Check what Hansa needs of this machine.

    Each line is ok, warn (something will not work or be slow) or fail (Hansa cannot work), with a
    fix. The exit code is 1 if one fails.
    """
    from hansa.doctor import examine

    checks = list(examine(folder.absolute(), coordinator))
    failed = sum(check.state == "fail" for check in checks)
    if json:
        emit({"ok": failed == 0, "checks": [asdict(check) for check in checks]})
    else:
        table(
            ("", "Check", "Found"),
            [(c.state, c.name, c.found + (f"\nFix: {c.fix}." if c.fix else "")) for c in checks],
        )
        warned = sum(check.state == "warn" for check in checks)
        say(f"{len(checks)} checks: {failed} failed, {warned} with a warning.")
    if failed:
        raise typer.Exit(1)
