"""The next character of what a role says, by a recurrent network over the characters before.

The task of LEAF (Caldas et al., "LEAF: A Benchmark for Federated Settings", 2018, arXiv
1812.01097), with the characters of its model. A sequence of 80 is one example, and each of its
characters is predicted from those before it, as in Reddi et al. (ICLR 2021, arXiv 2003.00295);
LEAF predicts the one after the 80th alone. The first 90 % of what a role says are trained on, and
the end of its part is held out.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

import hansa

from .plays import roles

Array = NDArray[Any]

CHARACTERS = "\n !\"&'(),-.0123456789:;>?ABCDEFGHIJKLMNOPQRSTUVWXYZ[]abcdefghijklmnopqrstuvwxyz}"
"""The 80 characters of LEAF's model; all others are one more."""

LENGTH = 80
"""Characters in a sequence."""

_TRAINED_ON = 0.9
_CODES = np.full(256, len(CHARACTERS), np.uint8)
_CODES[np.frombuffer(CHARACTERS.encode("latin-1"), np.uint8)] = np.arange(len(CHARACTERS))


class NextCharacter(nn.Module):
    """An embedding, one LSTM and a linear layer: 128 units, 81,089 parameters.

    Args:
      units: of the LSTM.
    """

    def __init__(self, units: int = 128) -> None:
        super().__init__()
        kinds = len(CHARACTERS) + 1
        self.embedding = nn.Embedding(kinds, 8)
        self.recurrent = nn.LSTM(8, units, batch_first=True)
        self.output = nn.Linear(units, kinds)

    def forward(self, characters: torch.Tensor) -> torch.Tensor:
        """(n, length) codes to (n, length, kinds) scores of the character after each of them."""
        hidden, _ = self.recurrent(self.embedding(characters.long()))
        scores: torch.Tensor = self.output(hidden)
        return scores


def right(outputs: hansa.Outputs) -> Array:
    """(n,) share of each sequence's characters whose likeliest guess was the right one."""
    share: Array = (outputs.probabilities.argmax(axis=-1) == outputs.targets).mean(axis=-1)
    return share


class Roles(hansa.TorchTask):
    """What a role says next. A site's examples are sequences of its own text."""

    metrics = (
        hansa.Loss(unit="nats per character"),
        hansa.Ratio("accuracy", "share of characters", hansa.Better.HIGHER, right),
    )

    def model(self) -> nn.Module:
        """The network."""
        return NextCharacter()

    def loss(self, outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Mean cross-entropy of a character."""
        return nn.functional.cross_entropy(outputs.flatten(0, 1), targets.flatten())

    def clients(self, job: hansa.Job) -> tuple[str, ...]:  # noqa: ARG002  the roles are given
        """The names of the roles."""
        return tuple(roles())

    def data(self, site: hansa.Site) -> hansa.Split:
        """One role's sequences.

        `site.config` has `path`, a text file. A client of a simulation has none: it is a role.

        Raises:
          HansaError: there is no such file or role, or its text is too short.
          Unavailable: the plays could not be fetched.
        """
        examples = sequences(_text_of(site))
        if len(examples) < 2:
            raise hansa.HansaError(
                f"the text of '{site.name}' is too short to train on and to hold out",
                fix=f"give it at least {2 * LENGTH + 1} characters",
            )
        at = min(round(_TRAINED_ON * len(examples)), len(examples) - 1)
        place = np.arange(len(examples))
        return hansa.Split(examples.take(place[:at]), examples.take(place[at:]))


def codes(text: str) -> Array:
    """(n,) uint8 the characters' places in `CHARACTERS`; its length for all others."""
    found: Array = _CODES[np.frombuffer(text.encode("latin-1", "replace"), np.uint8)]
    return found


def sequences(text: str) -> hansa.Examples:
    """(n, 80) characters, and (n, 80) the character after each; what is left over is dropped."""
    coded = codes(text)
    number = max(0, (len(coded) - 1) // LENGTH)
    inputs, targets = (coded[at : at + number * LENGTH] for at in (0, 1))
    return hansa.Examples(inputs.reshape(number, LENGTH), targets.reshape(number, LENGTH))


def _text_of(site: hansa.Site) -> str:
    path = site.config.get("path")
    if path is None:
        text = roles().get(site.name)
        if text is None:
            raise hansa.HansaError(
                f"site '{site.name}' is no role and does not say where its text is",
                fix='write path = "FILE" into its [data] section',
            )
        return text
    file = Path(str(site.config.get("folder", "")), str(path))
    try:
        return file.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise hansa.HansaError(
            f"the text '{file}' cannot be read: {type(error).__name__}",
            fix="set path in the site's [data] section to a text file in UTF-8",
        ) from error
