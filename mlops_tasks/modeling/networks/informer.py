"""Informer. Zhou et al., "Informer: beyond efficient transformer for long sequence time-series forecasting", AAAI 2021.

The paper forecasts a sequence; here its encoder (ProbSparse self-attention and distilling) scores the window's newest
day, so its generative decoder is replaced by a linear head.
"""

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from mlops_tasks.modeling.networks.layers import (
    Activation,
    Dropout,
    Embedding,
    EncoderLayer,
    FeedForward,
    SelfAttention,
    attend,
    causal_mask,
)


@dataclass(frozen=True)
class InformerConfig:
    """Architecture of an `Informer`."""

    d_model: int = 64
    heads: int = 4
    layers: int = 2
    feedforward: int = 128
    dropout: float = 0.1
    activation: Activation = "gelu"
    factor: int = 3
    """c of the paper: ceil(c ln steps) keys are sampled, and as many queries attend."""
    distil: bool = True
    """Halve the steps between two layers."""
    causal: bool = False
    """A step sees only itself and earlier ones."""


def sparse_size(factor: int, steps: int) -> int:
    """How many keys are sampled and how many queries attend: ceil(factor ln steps), from 1 to steps."""
    return min(steps, max(1, math.ceil(factor * math.log(steps))))


def sample_keys(steps: int, size: int) -> Tensor:
    """True at the `size` keys that are sampled for each query, the same in every process; shape (steps, steps)."""
    generator = torch.Generator().manual_seed(0)
    return torch.stack([torch.randperm(steps, generator=generator) < size for _ in range(steps)])


def sparsity(query: Tensor, key: Tensor, sampled: Tensor, *, causal: bool = False) -> Tensor:
    """How far a query's attention is from uniform, over its `sampled` keys; (..., steps, size) each -> (..., steps).

    max_j(q k_j / sqrt(size)) - mean_j(q k_j / sqrt(size)), the paper's max-mean measurement (equation 4) over the
    sample of algorithm 1. With `causal`, over the sampled keys up to the query's own step and that step's key.
    """
    products = (query * query.shape[-1] ** -0.5) @ key.transpose(-1, -2)
    if causal:
        sampled = (sampled | torch.eye(len(sampled), dtype=torch.bool, device=sampled.device)) & causal_mask(
            len(sampled), sampled.device
        )
    largest = products.masked_fill(~sampled, -torch.inf).amax(-1)
    return largest - products.masked_fill(~sampled, 0.0).sum(-1) / sampled.sum(-1)


def dominant(measure: Tensor, size: int, *, causal: bool = False) -> Tensor:
    """Which queries attend: the `size` with the largest measure; (..., steps) -> bool of the same shape.

    With `causal` a query is compared only with those up to its own step; otherwise later days would affect the choice.
    """
    larger = measure[..., None, :] > measure[..., :, None]
    steps = measure.shape[-1]
    # Of equal measures the earlier one comes first, so that exactly `size` are chosen.
    earlier = torch.ones(steps, steps, dtype=torch.bool, device=measure.device).tril(-1)
    before = larger | ((measure[..., None, :] == measure[..., :, None]) & earlier)
    if causal:
        before = before & causal_mask(steps, measure.device)
    return before.sum(-1) < size


class ProbSparseAttention(SelfAttention):
    """Self-attention of the queries that matter (section 3.1, algorithm 1); the others take the mean of the values.

    The sample of keys is drawn once, from a fixed seed, so that a row's score depends on nothing but the row; the
    authors' code draws one per batch. With `causal` the mean is over the values up to the query's step (the authors'
    code takes their sum, which grows with the step). No gradient flows through the choice. All products are computed
    and then chosen from: for a window of tens of days that costs less than gathering, but saves nothing compared with
    full attention.
    """

    def __init__(self, d_model: int, heads: int, steps: int, factor: int) -> None:
        super().__init__(d_model, heads)
        self.size = sparse_size(factor, steps)
        self.sampled: Tensor
        self.register_buffer("sampled", sample_keys(steps, self.size))

    def forward(self, x: Tensor, *, causal: bool = False, last: bool = False) -> Tensor:
        """(batch, steps, d_model) -> the same; with `last` only the last step's output, (batch, 1, d_model)."""
        query, key, value = (self.split(part) for part in self.qkv(x).chunk(3, -1))
        with torch.no_grad():
            chosen = dominant(sparsity(query, key, self.sampled, causal=causal), self.size, causal=causal)[..., None]
        if causal:
            mask = causal_mask(x.shape[1], x.device)
            mixed = torch.where(chosen, attend(query, key, value, mask), (mask / mask.sum(-1, keepdim=True)) @ value)
        else:
            mixed = torch.where(chosen, attend(query, key, value), value.mean(-2, keepdim=True))
        return self.merge(mixed[:, :, -1:] if last else mixed)


class Distilling(nn.Module):
    """Halves the steps: max-pooling (width 3, stride 2) of ELU of a convolution (width 3); section 3.2, equation 5.

    (batch, steps, d_model) -> (batch, ceil(steps / 2), d_model), the newest step always the last. The convolution pads
    with zeros, not circularly. With `causal` both look only backwards. The authors' code has a batch normalisation
    between the two; the paper has none, and neither has this class.
    """

    def __init__(self, d_model: int, *, causal: bool) -> None:
        super().__init__()
        self.convolution = nn.Conv1d(d_model, d_model, 3)
        self.causal = causal
        self.convolved = (2, 0) if causal else (1, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Convolve, activate, pool."""
        x = functional.elu(self.convolution(functional.pad(x.transpose(1, 2), self.convolved)))
        around = (1 + x.shape[-1] % 2, 0) if self.causal else (1, 1)
        return functional.max_pool1d(functional.pad(x, around, value=-torch.inf), 3, 2).transpose(1, 2)


class Informer(nn.Module):
    """The encoder of the paper; the score is computed from the newest step's output and the mean of all steps'."""

    def __init__(self, features: int, window: int, **architecture: Any) -> None:
        super().__init__()
        config = InformerConfig(**architecture)
        self.causal = config.causal
        self.embedding = Embedding(features, window, config.d_model)
        self.dropout = Dropout(config.dropout)
        self.layers = nn.ModuleList()
        self.distillings = nn.ModuleList()
        steps = window
        for layer in range(config.layers):
            if config.distil and layer:
                self.distillings.append(Distilling(config.d_model, causal=config.causal))
                steps = math.ceil(steps / 2)
            self.layers.append(
                EncoderLayer(
                    ProbSparseAttention(config.d_model, config.heads, steps, config.factor),
                    FeedForward(config.d_model, config.feedforward, config.activation),
                    config.dropout,
                )
            )
        self.head = nn.Linear(2 * config.d_model, 1)

    def encode(self, x: Tensor) -> Tensor:
        """(batch, window, features) -> (batch, steps, d_model); each distilling halves the steps, rounding up."""
        x = self.dropout(self.embedding(x))
        for number, layer in enumerate(self.layers):
            if number and self.distillings:
                x = self.distillings[number - 1](x)
            x = layer(x, causal=self.causal)
        return x

    def forward(self, x: Tensor) -> Tensor:
        """(batch, window, features) -> scores, (batch,)."""
        x = self.encode(x)
        return self.head(torch.cat([x[:, -1], x.mean(1)], -1)).squeeze(-1)
