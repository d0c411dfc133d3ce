"""Multi-layer perceptron over one day's features."""

from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from mlops_tasks.modeling.networks.layers import ACTIVATIONS, Activation, Dropout


@dataclass(frozen=True)
class MLPConfig:
    """Architecture of an `MLP`."""

    hidden_size: int = 128
    layers: int = 2
    dropout: float = 0.1
    activation: Activation = "gelu"
    residual: bool = True
    """Each block is added to its input."""


class Block(nn.Module):
    """norm, widen, activation, dropout, narrow; added to its input if `residual`."""

    def __init__(self, config: MLPConfig) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(config.hidden_size)
        self.widen = nn.Linear(config.hidden_size, config.hidden_size)
        self.narrow = nn.Linear(config.hidden_size, config.hidden_size)
        self.dropout = Dropout(config.dropout)
        self.activation = ACTIVATIONS[config.activation]
        self.residual = config.residual

    def forward(self, x: Tensor) -> Tensor:
        """(batch, hidden_size) -> the same."""
        y = self.narrow(self.dropout(self.activation(self.widen(self.norm(x)))))
        return x + y if self.residual else y


class MLP(nn.Module):
    """The residual network of Gorishniy et al., "Revisiting deep learning models for tabular data", NeurIPS 2021
    (section 3.2), with layer instead of batch normalisation, so that a row's score is a function of that row alone.

    A window of several days is treated as one long row.
    """

    def __init__(self, features: int, window: int = 1, **architecture: Any) -> None:
        super().__init__()
        config = MLPConfig(**architecture)
        self.embed = nn.Linear(features * window, config.hidden_size)
        self.blocks = nn.Sequential(*(Block(config) for _ in range(config.layers)))
        self.norm = nn.LayerNorm(config.hidden_size)
        self.activation = ACTIVATIONS[config.activation]
        self.head = nn.Linear(config.hidden_size, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(batch, features), or (batch, window, features) -> scores, (batch,)."""
        x = self.blocks(self.embed(x.flatten(1)))
        return self.head(self.activation(self.norm(x))).squeeze(-1)
