"""Recurrent networks: LSTM and GRU.

Hochreiter and Schmidhuber, "Long short-term memory", Neural Computation 9(8), 1997; Cho et al., "Learning phrase
representations using RNN encoder-decoder for statistical machine translation", EMNLP 2014. The cells are PyTorch's.
"""

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from mlops_tasks.modeling.networks.layers import Dropout


@dataclass(frozen=True)
class RecurrentConfig:
    """Architecture of an `LSTM` or `GRU`."""

    hidden_size: int = 64
    layers: int = 1
    dropout: float = 0.1
    pooling: Literal["last", "attention"] = "last"
    """What the score is computed from: the newest day's hidden state, or that and a weighted mean of all days'."""


class AttentionPooling(nn.Module):
    """Weights the days of a window: a_t = softmax_t(u' tanh(W h_t + b)), sum_t a_t h_t beside h_T.

    Feng et al., "Enhancing stock movement prediction with adversarial training", IJCAI 2019, equation 3.
    """

    def __init__(self, size: int) -> None:
        super().__init__()
        self.project = nn.Linear(size, size)
        self.weigh = nn.Linear(size, 1, bias=False)

    def forward(self, h: Tensor) -> Tensor:
        """(batch, steps, size) -> (batch, 2 size)."""
        weights = self.weigh(self.project(h).tanh()).softmax(1)
        return torch.cat([(weights * h).sum(1), h[:, -1]], -1)


class Recurrent(nn.Module):
    """A recurrent cell that runs over the window from the oldest day to the newest, beginning with a zero state."""

    cell: ClassVar[type[nn.RNNBase]]

    def __init__(self, features: int, window: int, **architecture: Any) -> None:
        super().__init__()
        config = RecurrentConfig(**architecture)
        size, attention = config.hidden_size, config.pooling == "attention"
        between = config.dropout if config.layers > 1 else 0.0
        self.recurrent = self.cell(features, size, config.layers, batch_first=True, dropout=between)
        self.pooling = AttentionPooling(size) if attention else None
        self.dropout = Dropout(config.dropout)
        self.head = nn.Linear(size * (1 + attention), 1)

    def forward(self, x: Tensor) -> Tensor:
        """(batch, window, features) -> scores, (batch,)."""
        # Always in float32: PyTorch's LSTM in bfloat16 fails on a processor without AVX-512.
        with torch.autocast("cpu", enabled=False):
            h, _ = self.recurrent(x)
        return self.head(self.dropout(self.pooling(h) if self.pooling else h[:, -1])).squeeze(-1)


class LSTM(Recurrent):
    """Long short-term memory, Hochreiter and Schmidhuber 1997, with forget gates (Gers et al. 2000)."""

    cell = nn.LSTM


class GRU(Recurrent):
    """Gated recurrent unit, Cho et al. 2014."""

    cell = nn.GRU
