"""TimesNet. Wu et al., "TimesNet: temporal 2D-variation modeling for general time series analysis", ICLR 2023."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from mlops_tasks.errors import ConfigError
from mlops_tasks.modeling.networks.layers import Dropout, Embedding

SCORED_TOGETHER = 16
"""Rows that are convolved together when scoring."""


@dataclass(frozen=True)
class TimesNetConfig:
    """Architecture of a `TimesNet`."""

    d_model: int = 32
    d_inner: int = 32
    """Channels between the two inception blocks."""
    layers: int = 2
    top_k: int = 2
    """Number of periods at which each layer folds the window."""
    kernels: int = 2
    """Number of kernel sizes in an inception block: 1, 3, ..., 2 * kernels - 1."""
    dropout: float = 0.1


def dominant_periods(x: Tensor, top_k: int) -> tuple[Tensor, Tensor]:
    """Periods of the strongest frequencies and their amplitudes; (batch, steps, channels) -> (batch, top_k) each.

    Equation 1: amplitudes of the Fourier transform over the steps, averaged over the channels, frequency 0 left out;
    the period of frequency f is ceil(steps / f).
    """
    steps = x.shape[1]
    amplitude = torch.fft.rfft(x.float(), dim=1).abs().mean(-1)[:, 1:]
    strongest, index = amplitude.topk(top_k, dim=1)
    return -(-steps // (index + 1)), strongest


def fold(x: Tensor, period: int) -> Tensor:
    """Rows of one period each, zeros after the last step; (batch, steps, c) -> (batch, c, rows, period); equation 2."""
    padded = functional.pad(x, (0, 0, 0, -x.shape[1] % period))
    return padded.unflatten(1, (-1, period)).permute(0, 3, 1, 2)


def unfold(x: Tensor, steps: int) -> Tensor:
    """The inverse of `fold`: (batch, c, rows, period) -> (batch, steps, c)."""
    return x.permute(0, 2, 3, 1).flatten(1, 2)[:, :steps]


class Inception(nn.Module):
    """The mean of convolutions of sizes 1, 3, 5, ...; (batch, inputs, rows, columns) -> (batch, outputs, ...).

    After Szegedy et al., "Going deeper with convolutions", CVPR 2015, as the authors use it. A convolution is linear,
    so the mean of the outputs is the output of one convolution with the mean of the kernels, the smaller ones centred
    in the largest: one pass instead of one per size.
    """

    def __init__(self, inputs: int, outputs: int, kernels: int) -> None:
        super().__init__()
        self.kernels = nn.ModuleList(nn.Conv2d(inputs, outputs, 2 * n + 1, padding=n) for n in range(kernels))

    def forward(self, x: Tensor) -> Tensor:
        """Convolve."""
        largest = len(self.kernels) - 1
        weight = torch.stack([functional.pad(k.weight, [largest - n] * 4) for n, k in enumerate(self.kernels)]).mean(0)
        bias = torch.stack([k.bias for k in self.kernels]).mean(0)
        return functional.conv2d(x, weight, bias, padding=largest)


class TimesBlock(nn.Module):
    """Convolves the window folded at its strongest periods, and adds the result to it; equations 2 to 6.

    The periods are chosen for each row from its own amplitudes. The authors choose them once per batch, from the
    mean of its amplitudes; a score would then depend on the other rows of its batch. Rows of the same period are
    convolved together. (Their text and code agree that the weights of the periods are each row's own.)
    """

    def __init__(self, config: TimesNetConfig) -> None:
        super().__init__()
        self.top_k = config.top_k
        self.look = nn.Sequential(
            Inception(config.d_model, config.d_inner, config.kernels),
            nn.GELU(),
            Inception(config.d_inner, config.d_model, config.kernels),
        )

    def forward(self, x: Tensor) -> Tensor:
        """(batch, steps, d_model) -> the same."""
        periods, amplitudes = dominant_periods(x, self.top_k)
        order = periods.flatten().argsort(stable=True)
        # Pair `order[n]` is period `order % top_k` of row `order // top_k`; a period's pairs lie together.
        found, counts = periods.flatten().unique(return_counts=True)
        groups = x[order // self.top_k].split(counts.tolist())
        seen = [self._seen(rows, period) for rows, period in zip(groups, found.tolist(), strict=True)]
        by_period = torch.cat(seen)[order.argsort()].unflatten(0, (len(x), self.top_k))
        weights = amplitudes.softmax(1).to(by_period.dtype)
        return x + torch.einsum("bktc,bk->btc", by_period, weights)

    def _seen(self, rows: Tensor, period: int) -> Tensor:
        """The convolution of rows folded at one period, (rows, steps, d_model).

        When scoring, it takes exactly `SCORED_TOGETHER` rows at a time, padded with empty ones: the order of its sums
        may depend on the number of rows, and a score must not depend on how many other rows have the same period.
        """
        if self.training:
            return unfold(self.look(fold(rows, period)), rows.shape[1])
        full = functional.pad(rows, (0, 0, 0, 0, 0, -len(rows) % SCORED_TOGETHER))
        parts = [self.look(fold(part, period)) for part in full.split(SCORED_TOGETHER)]
        return unfold(torch.cat(parts), rows.shape[1])[: len(rows)]


class TimesNet(nn.Module):
    """Stacked TimesBlocks, each normalised; the score is a linear function of all days of the window, side by side."""

    def __init__(self, features: int, window: int, **architecture: Any) -> None:
        super().__init__()
        config = TimesNetConfig(**architecture)
        if config.top_k > window // 2:
            raise ConfigError(
                f"top_k: a window of {window} days has {window // 2} frequencies, but {config.top_k} were asked for; "
                "lower top_k or lengthen the window"
            )
        self.embedding = Embedding(features, window, config.d_model)
        self.blocks = nn.ModuleList(TimesBlock(config) for _ in range(config.layers))
        self.norm = nn.LayerNorm(config.d_model)
        self.dropout = Dropout(config.dropout)
        self.head = nn.Linear(window * config.d_model, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(batch, window, features) -> scores, (batch,)."""
        x = self.dropout(self.embedding(x))
        for block in self.blocks:
            x = self.norm(block(x))
        return self.head(self.dropout(functional.gelu(x)).flatten(1)).squeeze(-1)
