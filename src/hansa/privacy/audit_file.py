"""A result of an audit as a file: what `hansa audit privacy --output` writes, read again."""

from __future__ import annotations

import json
from pathlib import Path

from hansa.errors import HansaError
from hansa.privacy.audit_report import AuditReport, report_of_json


def check_place(file: Path) -> None:
    """Asks, before an attack that takes a minute, whether its result can be written.

    Raises:
      HansaError: the folder is not there, or the name is that of a folder.
    """
    if not file.parent.is_dir() or file.is_dir():
        raise HansaError(f"{file} cannot be written", fix="name a file in a folder that exists")


def save(report: AuditReport, file: Path) -> None:
    """Writes the result: one JSON object with sorted keys.

    Raises:
      HansaError: the file cannot be written.
    """
    text = json.dumps(report.json(), indent=2, sort_keys=True, allow_nan=False) + "\n"
    try:
        file.write_text(text, "utf-8")
    except OSError as error:
        raise HansaError(
            f"{file} cannot be written ({error.strerror})", fix="name another file"
        ) from error


def load(file: Path) -> AuditReport:
    """Reads a result.

    Raises:
      HansaError: the file cannot be read.
      Refused: it is no result of an audit.
    """
    try:
        text = file.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise HansaError(
            f"the audit's result in {file} cannot be read",
            fix="name the file that hansa audit privacy JOB --output FILE wrote",
        ) from error
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        value = None
    return report_of_json(value)
