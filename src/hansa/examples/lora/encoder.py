"""The encoder of BERT (Devlin et al., NAACL 2019), in the names of its published weights.

All-MiniLM-L6-v2 is one: six layers, 384 wide (Wang et al., NeurIPS 2020; Reimers and Gurevych,
EMNLP 2019). There is no dropout: what is frozen needs none.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

PAD = 0
"""The token that stands where a text has ended."""


@dataclass(frozen=True, slots=True)
class Shape:
    """How large an encoder is; the defaults are those of all-MiniLM-L6-v2."""

    tokens: int = 30522
    width: int = 384
    layers: int = 6
    heads: int = 12
    inner: int = 1536
    positions: int = 512
    epsilon: float = 1e-12


class Encoder(nn.Module):
    """Tokens to one vector for each text: the mean over its tokens.

    Args:
      shape: its sizes.
    """

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.embeddings = _Embeddings(shape)
        self.encoder = _Layers(shape)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """(n, length) tokens, filled up with `PAD`, to (n, width)."""
        tokens = tokens.long()
        start = torch.arange(tokens.shape[1]) == 0  # a text without tokens still has a beginning
        there = (tokens != PAD) | start
        hidden = self.encoder(self.embeddings(tokens), there)
        counted = there.unsqueeze(-1).to(hidden.dtype)
        mean: torch.Tensor = (hidden * counted).sum(dim=1) / counted.sum(dim=1)
        return mean


class _Embeddings(nn.Module):
    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.word_embeddings = nn.Embedding(shape.tokens, shape.width)
        self.position_embeddings = nn.Embedding(shape.positions, shape.width)
        self.token_type_embeddings = nn.Embedding(2, shape.width)
        self.LayerNorm = nn.LayerNorm(shape.width, eps=shape.epsilon)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        place = torch.arange(tokens.shape[1])
        kind = self.token_type_embeddings(torch.zeros_like(place))  # all of them of the first kind
        whole = self.word_embeddings(tokens) + self.position_embeddings(place) + kind
        normed: torch.Tensor = self.LayerNorm(whole)
        return normed


class _Layers(nn.Module):
    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.layer = nn.ModuleList(_Layer(shape) for _ in range(shape.layers))

    def forward(self, hidden: torch.Tensor, there: torch.Tensor) -> torch.Tensor:
        for layer in self.layer:
            hidden = layer(hidden, there)
        return hidden


class _Layer(nn.Module):
    """Self-attention, then two dense layers; each with a way around it and a norm after."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.attention = _Attention(shape)
        self.intermediate = nn.ModuleDict({"dense": nn.Linear(shape.width, shape.inner)})
        self.output = _Around(shape.inner, shape)

    def forward(self, hidden: torch.Tensor, there: torch.Tensor) -> torch.Tensor:
        hidden = self.attention(hidden, there)
        inner = nn.functional.gelu(self.intermediate["dense"](hidden))
        outputs: torch.Tensor = self.output(inner, hidden)
        return outputs


class _Attention(nn.Module):
    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.self = _Heads(shape)  # the name that published weights have
        self.output = _Around(shape.width, shape)

    def forward(self, hidden: torch.Tensor, there: torch.Tensor) -> torch.Tensor:
        outputs: torch.Tensor = self.output(self.self(hidden, there), hidden)
        return outputs


class _Heads(nn.Module):
    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.heads = shape.heads
        self.query, self.key, self.value = (nn.Linear(shape.width, shape.width) for _ in range(3))

    def forward(self, hidden: torch.Tensor, there: torch.Tensor) -> torch.Tensor:
        query, key, value = (
            layer(hidden).unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for layer in (self.query, self.key, self.value)
        )
        mixed = nn.functional.scaled_dot_product_attention(
            query, key, value, attn_mask=there[:, None, None, :]
        )
        return mixed.transpose(1, 2).flatten(2)


class _Around(nn.Module):
    """A dense layer, the way around what came before it, and the norm of both."""

    def __init__(self, inputs: int, shape: Shape) -> None:
        super().__init__()
        self.dense = nn.Linear(inputs, shape.width)
        self.LayerNorm = nn.LayerNorm(shape.width, eps=shape.epsilon)

    def forward(self, inputs: torch.Tensor, around: torch.Tensor) -> torch.Tensor:
        outputs: torch.Tensor = self.LayerNorm(self.dense(inputs) + around)
        return outputs
