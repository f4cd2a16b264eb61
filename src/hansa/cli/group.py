"""The root of the command line: a group whose commands are imported when they are called."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any

import typer
from typer.core import TyperGroup

from hansa import __version__
from hansa.cli.verbs import VERBS, Verb
from hansa.nearest import nearest

OPTIONS: dict[str, Any] = {
    "add_completion": False,
    "rich_markup_mode": None,
    "pretty_exceptions_enable": False,
}
"""How every `typer.Typer` of this command line is made: plain help, errors left to `run`."""

EPILOG = "Exit codes: 0 done, 1 failed, 2 refused, 64 wrong command line, 130 interrupted."


class LazyGroup(TyperGroup):
    """Lists verbs from a table and imports one only to run it or to show its own help."""

    def list_commands(self, ctx: Any) -> list[str]:  # noqa: ARG002  typer's seam
        """The verbs, in the table's order."""
        return list(VERBS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:  # noqa: ARG002  typer's seam
        """The command of a verb; None if there is no such verb."""
        verb = VERBS.get(cmd_name)
        return None if verb is None else command_of(cmd_name, verb)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """The command that is called; an unknown verb is answered with the nearest one."""
        word = args[0]
        if word not in VERBS and not word.startswith("-"):
            near = nearest(word, VERBS)
            ctx.fail(f"There is no verb '{word}'." + f" Did you mean '{near}'?" * bool(near))
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: Any, formatter: Any) -> None:  # noqa: ARG002  typer's seam
        """The table of verbs, by chapter, without importing any."""
        for chapter in dict.fromkeys(verb.chapter for verb in VERBS.values()):
            with formatter.section(chapter):
                formatter.write_dl(
                    [(name, verb.help) for name, verb in VERBS.items() if verb.chapter == chapter]
                )


def command_of(name: str, verb: Verb) -> Any:
    """Imports a verb and turns it into a command or a group of commands."""
    module, _, attribute = verb.where.partition(":")
    found: Any = getattr(import_module(module), attribute)
    command = typer.main.get_command(found if isinstance(found, typer.Typer) else _single(found))
    command.name = name
    return command


def _single(function: Callable[..., None]) -> typer.Typer:
    single = typer.Typer(**OPTIONS)
    single.command(epilog=EPILOG)(function)
    return single


def root() -> Any:
    """The whole command line as one command."""
    app = typer.Typer(cls=LazyGroup, epilog=EPILOG, **OPTIONS)
    app.callback()(_root)
    return typer.main.get_command(app)


def _version(wanted: bool) -> None:
    if wanted:
        print(f"hansa {__version__}")
        raise typer.Exit


def _root(
    version: bool = typer.Option(
        False, "--version", help="Print the version.", callback=_version, is_eager=True
    ),
    debug: bool = typer.Option(
        False, "--debug", help="Show tracebacks; may stand anywhere on the line."
    ),
) -> None:
    """Federated learning that is checked before it runs."""
