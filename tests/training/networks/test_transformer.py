"""The Transformer is the paper's encoder, and Qlib's."""

import math

import pytest
import torch
from torch import nn

from mlops_tasks.errors import ConfigError
from mlops_tasks.modeling.networks.layers import (
    Dropout,
    SelfAttention,
    attend,
    causal_mask,
    sinusoidal_positions,
)
from mlops_tasks.modeling.networks.transformer import Transformer
from tests.training.networks.qlib_weights import from_qlib


def test_is_qlibs_transformer():
    """With Qlib's architecture and weights: its outputs and gradients, though the last layer makes one step only."""
    from qlib.contrib.model.pytorch_transformer_ts import Transformer as QlibTransformer

    torch.manual_seed(0)
    theirs = QlibTransformer(d_feat=20, d_model=64, nhead=2, num_layers=2, dropout=0.0)
    ours = Transformer(20, 15, d_model=64, heads=2, layers=2, feedforward=2048, dropout=0.0)
    ours.load_state_dict(from_qlib(theirs))
    x = torch.randn(32, 15, 20)
    y = torch.randn(32)
    scores, expected = ours(x), theirs(x)
    torch.testing.assert_close(scores, expected, atol=1e-5, rtol=1e-5)
    for output in (scores, expected):
        (output - y).square().mean().backward()
    gradients = from_qlib_gradients(theirs)
    for name, parameter in ours.named_parameters():
        torch.testing.assert_close(parameter.grad, gradients[name], atol=1e-5, rtol=1e-4)


def from_qlib_gradients(network: nn.Module) -> dict[str, torch.Tensor]:
    """Gradients under our names."""
    with torch.no_grad():
        for parameter in network.parameters():
            if parameter.grad is not None:
                parameter.copy_(parameter.grad)
    return from_qlib(network)


@pytest.mark.parametrize("causal", [False, True])
def test_score_reads_the_last_step_of_the_whole_encoder(causal):
    """The short way through the last layer is the head on the last step of `encode`."""
    torch.manual_seed(0)
    network = Transformer(5, 9, d_model=16, heads=4, causal=causal).eval()
    x = torch.randn(4, 9, 5)
    with torch.no_grad():
        torch.testing.assert_close(network(x), network.head(network.encode(x)[:, -1]).squeeze(-1))


def test_causal_steps_do_not_see_later_ones():
    """What represents step t is untouched by a change after t, and does change by one at t."""
    torch.manual_seed(0)
    network = Transformer(5, 9, d_model=16, heads=4, layers=3, causal=True).eval()
    x = torch.randn(2, 9, 5)
    for t in range(8):
        changed = x.clone()
        changed[:, t + 1 :] += 10 * torch.randn(2, 8 - t, 5)
        with torch.no_grad():
            a, b = network.encode(x), network.encode(changed)
        torch.testing.assert_close(a[:, : t + 1], b[:, : t + 1])
        assert (a[:, t + 1] - b[:, t + 1]).abs().max() > 1e-3


@pytest.mark.parametrize("masked", [False, True])
def test_attention_is_pytorchs(masked):
    """`attend` equals PyTorch's scaled dot-product attention."""
    q, k, v = torch.randn(3, 2, 4, 11, 8)
    mask = causal_mask(11) if masked else None
    expected = nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=mask)
    torch.testing.assert_close(attend(q, k, v, mask), expected)


def test_positions_are_the_papers():
    """PE(t, 2i) = sin(t / 10000^(2i/d)), PE(t, 2i+1) = cos of the same; odd widths end with a sine."""
    found = sinusoidal_positions(30, 7)
    for t in (0, 1, 29):
        for i in range(7):
            angle = t / 10000 ** ((i - i % 2) / 7)
            assert found[t, i].item() == pytest.approx(math.cos(angle) if i % 2 else math.sin(angle), abs=1e-5)


def test_heads_must_divide_the_width():
    """The error names key and remedy."""
    with pytest.raises(ConfigError, match=r"d_model: 30 cannot be divided among 4 heads; choose a multiple"):
        SelfAttention(30, 4)


@pytest.mark.parametrize("p", [0.1, 0.5])
def test_dropout_drops_its_share_and_keeps_the_mean(p):
    """Over a million numbers: the share within five standard errors of p rounded to 1/256, the mean kept."""
    torch.manual_seed(0)
    n = 1_000_003
    dropped = Dropout(p)(torch.ones(n))
    share = round(p * 256) / 256
    error = 5 * math.sqrt(share * (1 - share) / n)
    assert (dropped == 0).float().mean().item() == pytest.approx(share, abs=error)
    assert dropped.unique().tolist() == pytest.approx([0, 1 / (1 - share)])
    assert dropped.mean().item() == pytest.approx(1, abs=error / (1 - share))


def test_dropout_gradient_is_its_mask():
    """What was dropped gets no gradient, the rest the scale."""
    torch.manual_seed(0)
    x = torch.randn(1000, requires_grad=True)
    y = Dropout(0.3)(x)
    y.sum().backward()
    torch.testing.assert_close(x.grad * x.detach(), y.detach())


def test_dropout_does_nothing_when_it_scores():
    """In eval mode, and with p = 0, the input comes back."""
    x = torch.randn(10)
    assert Dropout(0.5).eval()(x) is x
    assert Dropout(0.0)(x) is x
