"""Entry of the command line: runs a verb and turns what happens into words and an exit code.

| code | when                                                                     |
|------|--------------------------------------------------------------------------|
| 0    | done                                                                     |
| 1    | failed: `HansaError`, or an error that is a fault of Hansa               |
| 2    | refused: `Refused`; nothing was changed, contacted or spent              |
| 64   | wrong command line (EX_USAGE of sysexits.h)                              |
| 130  | interrupted (128 + SIGINT)                                               |
| 141  | the reader of the output went away (128 + SIGPIPE)                       |
"""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Sequence

WRONG_COMMAND_LINE = 64
INTERRUPTED = 130
READER_GONE = 141
DEBUG = "--debug"


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command line.

    Args:
      argv: the words after `hansa`; those of the process if None.

    Returns:
      The exit code.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    debug = DEBUG in words
    words = [word for word in words if word != DEBUG]
    try:
        code = _run(words, debug)
        sys.stdout.flush()
    except KeyboardInterrupt:
        code = INTERRUPTED
    except BrokenPipeError:
        code = READER_GONE
    if code == INTERRUPTED:
        print("\nInterrupted.", file=sys.stderr)
    if code == READER_GONE:
        _close_stdout()
    return code


def _run(words: list[str], debug: bool) -> int:
    import typer

    from hansa.cli.group import root
    from hansa.cli.output import fail, usage

    command = root()
    try:
        if not words:
            command.main(["--help"], "hansa", standalone_mode=False)
            return WRONG_COMMAND_LINE
        code = command.main(words, "hansa", standalone_mode=False)
    except typer.Abort:
        return INTERRUPTED
    except SystemExit as error:
        if isinstance(error.__context__, BrokenPipeError):  # this is how typer reports it
            return READER_GONE
        raise
    except typer.TyperException as error:
        usage(error)
        return WRONG_COMMAND_LINE
    except Exception as error:  # noqa: BLE001  the one place where errors become words
        if debug:
            traceback.print_exc()
        return fail(error)
    return code if isinstance(code, int) else 0


def _close_stdout() -> None:
    """Lets the interpreter end without a complaint about what it cannot write any more."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
