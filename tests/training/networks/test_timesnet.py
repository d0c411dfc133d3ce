"""TimesNet finds periods, folds by them, and is the paper's but for choosing them row by row."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from mlops_tasks.errors import ConfigError
from mlops_tasks.modeling.networks.timesnet import (
    Inception,
    TimesBlock,
    TimesNet,
    TimesNetConfig,
    dominant_periods,
    fold,
    unfold,
)


def waves(*periods: int, steps: int, amplitudes: tuple[float, ...]) -> torch.Tensor:
    """A sum of sines in three channels of different phase; shape (1, steps, 3)."""
    t = torch.arange(steps)[:, None]
    phase = torch.tensor([0.0, 1.0, 2.0])
    parts = [a * torch.sin(2 * math.pi * t / p + phase) for p, a in zip(periods, amplitudes, strict=True)]
    return torch.stack(parts).sum(0)[None]


@pytest.mark.parametrize("period", [2, 3, 4, 6, 8, 12])
def test_finds_a_planted_period_in_noise(period):
    """A sine of amplitude 1 in noise of deviation 0.5, over 48 days."""
    torch.manual_seed(0)
    x = waves(period, steps=48, amplitudes=(1.0,)) + 0.5 * torch.randn(1, 48, 3)
    assert dominant_periods(x, 1)[0].item() == period


def test_strongest_period_comes_first_with_its_amplitude():
    """The transform of a sin of a whole frequency has amplitude a steps / 2; a constant does not count."""
    x = 100 + waves(12, 4, steps=24, amplitudes=(1.0, 3.0))
    periods, amplitudes = dominant_periods(x, 2)
    assert periods.tolist() == [[4, 12]]
    torch.testing.assert_close(amplitudes, torch.tensor([[3.0 * 12, 1.0 * 12]]))


@settings(max_examples=40, deadline=None)
@given(steps=st.integers(1, 30), period=st.integers(1, 30))
def test_folding_can_be_undone(steps, period):
    """Each row of a fold is one period, in order, and unfolding gives the series back."""
    x = torch.arange(2 * steps * 3, dtype=torch.float32).view(2, steps, 3) + 1
    folded = fold(x, period)
    assert folded.shape == (2, 3, math.ceil(steps / period), period)
    for t in range(steps):
        assert torch.equal(folded[:, :, t // period, t % period], x[:, t])
    assert folded.count_nonzero() == x.numel()
    assert torch.equal(unfold(folded, steps), x)


@pytest.mark.parametrize("kernels", [1, 2, 3])
def test_inception_is_the_mean_of_its_convolutions(kernels):
    """One convolution by the mean kernel equals the mean of the convolutions."""
    torch.manual_seed(0)
    block = Inception(3, 5, kernels)
    x = torch.randn(2, 3, 4, 7)
    expected = torch.stack(
        [functional.conv2d(x, k.weight, k.bias, padding=n) for n, k in enumerate(block.kernels)]
    ).mean(0)
    torch.testing.assert_close(block(x), expected, atol=1e-5, rtol=1e-5)


def test_block_is_the_papers_sum_over_periods():
    """Row by row: fold at each period, look, unfold, weight by the softmax of the amplitudes, add to the input."""
    torch.manual_seed(0)
    block = TimesBlock(TimesNetConfig(d_model=6, d_inner=4, top_k=3, kernels=2)).eval()
    x = torch.randn(5, 20, 6)
    periods, amplitudes = dominant_periods(x, 3)
    assert len(periods.unique(dim=0)) > 1, "rows differ in their periods"
    for row, found, strength, out in zip(x, periods, amplitudes, block(x), strict=True):
        expected = row.clone()
        for period, weight in zip(found.tolist(), strength.softmax(0), strict=True):
            expected = expected + weight * unfold(block.look(fold(row[None], period)), 20)[0]
        torch.testing.assert_close(out, expected, atol=1e-5, rtol=1e-5)


def test_too_many_periods_are_refused():
    """The error names key and remedy."""
    with pytest.raises(ConfigError, match=r"top_k: a window of 6 days has 3 frequencies, but 4 were.*; lower top_k"):
        TimesNet(5, 6, top_k=4)
