"""PatchTST. Nie et al., "A time series is worth 64 words: long-term forecasting with transformers", ICLR 2023."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from mlops_tasks.errors import ConfigError
from mlops_tasks.modeling.networks.layers import (
    Activation,
    Dropout,
    Embedding,
    EncoderLayer,
    FeedForward,
    SelfAttention,
)


@dataclass(frozen=True)
class PatchTSTConfig:
    """Architecture of a `PatchTST`."""

    patch_length: int = 16
    stride: int = 8
    d_model: int = 8
    heads: int = 1
    layers: int = 1
    feedforward: int = 16
    channel_size: int = 4
    """How many numbers summarise a channel's patches before the channels are combined."""
    hidden_size: int = 64
    """Width of the head that combines the channels."""
    dropout: float = 0.1
    activation: Activation = "gelu"
    instance_norm: bool = False
    """Remove each channel's mean and standard deviation over the window, and with them its level."""


def patch_count(window: int, patch_length: int, stride: int) -> int:
    """Patches of a window whose newest day is repeated `stride` times: floor((window - length) / stride) + 2."""
    return (window - patch_length) // stride + 2


def patches(x: Tensor, patch_length: int, stride: int) -> Tensor:
    """Overlapping pieces of each series (section 3.1); (..., window) -> (..., patch_count, patch_length)."""
    newest = x[..., -1:].expand(*x.shape[:-1], stride)
    return torch.cat([x, newest], -1).unfold(-1, patch_length, stride)


class PatchTST(nn.Module):
    """Each channel (feature) passes separately through one shared Transformer over its patches; then they are combined.

    Channel independence (section 3.1): what `encode` returns for a channel depends only on that channel, whatever its
    position. The paper forecasts each channel; a score is one number for all of them, so a head summarises each channel
    in `channel_size` numbers, with the same weights, and a perceptron with one hidden layer combines those. Layer
    normalisation is used where the authors' code normalises over the batch. `instance_norm` is the paper's, after Kim
    et al., "Reversible instance normalization", ICLR 2022, without its learned scale; there is no forecast to reverse
    it on.

    Cost: a row has features x patches tokens (158 x 2 with the defaults, Alpha158 and 20 days), where a Transformer has
    one per day; this is why the defaults are so narrow.
    """

    def __init__(self, features: int, window: int, **architecture: Any) -> None:
        super().__init__()
        config = PatchTSTConfig(**architecture)
        if config.patch_length > window:
            raise ConfigError(
                f"patch_length: {config.patch_length} days do not fit into a window of {window}; shorten the patch or "
                "lengthen the window"
            )
        self.config = config
        count = patch_count(window, config.patch_length, config.stride)
        self.embedding = Embedding(config.patch_length, count, config.d_model, "learned")
        self.dropout = Dropout(config.dropout)
        self.layers = nn.ModuleList(
            EncoderLayer(
                SelfAttention(config.d_model, config.heads),
                FeedForward(config.d_model, config.feedforward, config.activation),
                config.dropout,
            )
            for _ in range(config.layers)
        )
        self.summarise = nn.Linear(count * config.d_model, config.channel_size)
        self.combine = nn.Linear(features * config.channel_size, config.hidden_size)
        self.head = nn.Linear(config.hidden_size, 1)

    def encode(self, x: Tensor) -> Tensor:
        """Representation of each channel; (batch, window, features) -> (batch, features, patches * d_model)."""
        config = self.config
        x = x.transpose(1, 2)
        if config.instance_norm:
            x = functional.layer_norm(x, x.shape[-1:])
        channels = patches(x, config.patch_length, config.stride).flatten(0, 1)
        tokens = self.dropout(self.embedding(channels))
        for layer in self.layers:
            tokens = layer(tokens)
        return tokens.flatten(1).unflatten(0, x.shape[:2])

    def forward(self, x: Tensor) -> Tensor:
        """(batch, window, features) -> scores, (batch,)."""
        summary = functional.gelu(self.summarise(self.encode(x))).flatten(1)
        return self.head(self.dropout(functional.gelu(self.combine(summary)))).squeeze(-1)
