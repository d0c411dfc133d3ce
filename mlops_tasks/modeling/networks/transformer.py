"""Transformer encoder. Vaswani et al., "Attention is all you need", NeurIPS 2017."""

from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from mlops_tasks.modeling.networks.layers import (
    Activation,
    Dropout,
    Embedding,
    EncoderLayer,
    FeedForward,
    Positions,
    SelfAttention,
)


@dataclass(frozen=True)
class TransformerConfig:
    """Architecture of a `Transformer`."""

    d_model: int = 64
    heads: int = 4
    layers: int = 2
    feedforward: int = 128
    dropout: float = 0.1
    activation: Activation = "relu"
    positions: Positions = "sinusoidal"
    causal: bool = False
    """A step sees only itself and earlier ones."""


class Transformer(nn.Module):
    """The encoder of the paper (section 3.1) over the days of a window; the score is computed from the newest day.

    Dropout follows section 5.4: on each sub-layer's output and on the embedded steps. Only the newest day's
    output is used, so the last layer computes only that: the same function for about half the work of two layers.
    With dropout 0, ReLU, sinusoidal positions and `feedforward` 2048 it is the function of Qlib's
    `pytorch_transformer_ts`.
    """

    def __init__(self, features: int, window: int, **architecture: Any) -> None:
        super().__init__()
        config = TransformerConfig(**architecture)
        self.causal = config.causal
        self.embedding = Embedding(features, window, config.d_model, config.positions)
        self.dropout = Dropout(config.dropout)
        self.layers = nn.ModuleList(
            EncoderLayer(
                SelfAttention(config.d_model, config.heads),
                FeedForward(config.d_model, config.feedforward, config.activation),
                config.dropout,
            )
            for _ in range(config.layers)
        )
        self.head = nn.Linear(config.d_model, 1)

    def encode(self, x: Tensor) -> Tensor:
        """Representation of each day of the window; (batch, window, features) -> (batch, window, d_model)."""
        x = self.dropout(self.embedding(x))
        for layer in self.layers:
            x = layer(x, causal=self.causal)
        return x

    def forward(self, x: Tensor) -> Tensor:
        """(batch, window, features) -> scores, (batch,)."""
        x = self.dropout(self.embedding(x))
        *lower, top = self.layers
        for layer in lower:
            x = layer(x, causal=self.causal)
        return self.head(top(x, last=True)[:, -1]).squeeze(-1)
