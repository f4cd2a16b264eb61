"""Spam or not: adapters of low rank beside a frozen language model, on each site's own mails.

What is trained, and so what travels, is the adapters and one linear layer: 74,498 numbers, beside
the 22.6 million of the encoder that stay where they are.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from torch import nn

import hansa

from .adapters import adapt
from .base import MINILM, Base, minilm_folder, read_base
from .encoder import Encoder, Shape
from .mails import FOLDERS, Mails, names_of, read_site, share_of
from .wordpiece import table_of, vocabulary_of


class Spam(hansa.TorchTask):
    """Whether a mail is spam, by the first 64 tokens of its subject and text.

    `shape` and `wanted` describe the base: another one is another task, with another digest.
    """

    metrics = (hansa.Loss(), hansa.Accuracy(), hansa.AUROC())
    shape = Shape()
    wanted: Mapping[str, str] = MINILM
    length = 64
    rank = 8

    def __init__(self) -> None:
        self._base: Base | None = None
        self._vocabulary: dict[str, int] = {}

    def model(self) -> nn.Module:
        """Adapters at the queries and values of each layer, as Hu et al. put them, and a head."""
        with torch.device("meta"):  # names and sizes only: the weights come with the base
            encoder = Encoder(self.shape)
        return _Classifier(self, encoder, self.shape.width, self.rank)

    def loss(self, outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Mean cross-entropy."""
        return nn.functional.cross_entropy(outputs, targets)

    def clients(self, job: hansa.Job) -> tuple[str, ...]:
        """The names of the clients in a simulation."""
        return names_of(job.cohort.population)

    def data(self, site: hansa.Site) -> hansa.Split:
        """One client's mails.

        `site.config` may have `path`, a file of JSON lines, and `base`, a folder with the frozen
        weights; what is left out is fetched.

        Raises:
          HansaError: a file cannot be read, or the base is another one.
          Unavailable: something could not be fetched.
        """
        folder = str(site.config.get("folder", ""))
        path, base = site.config.get("path"), site.config.get("base")
        self.base(None if base is None else Path(folder, str(base)))
        train, test = share_of(site.name) if path is None else read_site(Path(folder, str(path)))
        return hansa.Split(self._examples(train), self._examples(test))

    def base(self, folder: Path | None = None) -> Base:
        """The frozen weights, read the first time.

        Raises:
          HansaError: they are not the ones that the task is trained on.
          Unavailable: they could not be fetched.
        """
        if self._base is None:
            self._base = read_base(minilm_folder() if folder is None else folder, self.wanted)
            self._vocabulary = vocabulary_of(self._base.vocabulary)
        return self._base

    def _examples(self, mails: Mails) -> hansa.Examples:
        tokens = table_of(mails.texts, self._vocabulary, self.length)
        return hansa.Examples(tokens, mails.spam.astype(np.int64))


class SpamFolders(Spam):
    """The same among the corpus's five folders, each of which has mails of one class alone."""

    def clients(self, job: hansa.Job) -> tuple[str, ...]:  # noqa: ARG002  there are five folders
        """The names of the folders."""
        return FOLDERS


class _Classifier(nn.Module):
    """An adapted encoder and a linear layer on its vector of a text."""

    def __init__(self, task: Spam, encoder: Encoder, width: int, rank: int) -> None:
        super().__init__()
        adapt(encoder, r"attention\.self\.(query|value)", rank)
        self.encoder = encoder
        self.head = nn.Linear(width, 2)
        self._task = task
        self._filled = False

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """(n, length) tokens to (n, 2) scores."""
        if not self._filled:
            self._task.base().fill(self.encoder)
            self._filled = True
        scores: torch.Tensor = self.head(self.encoder(tokens))
        return scores
