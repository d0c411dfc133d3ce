"""The feed-forward block by blocks is the feed-forward block."""

import pytest
import torch

from mlops_tasks.modeling.networks import layers
from mlops_tasks.modeling.networks.layers import FeedForward, activation_bytes


def run(steps: int, activation: str, size: int, *, dtype: torch.dtype | None = None) -> list[torch.Tensor]:
    """Output of three rows, then the gradients of input and parameters; `size` hidden bytes at a time."""
    torch.manual_seed(0)
    block = FeedForward(8, 32, activation)
    x = torch.randn(3, steps, 8, requires_grad=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(layers, "HIDDEN_BYTES", size)
        with torch.autocast("cpu", dtype, enabled=dtype is not None):
            out = block(x)
        out.float().square().sum().backward()
    return [out, x.grad, *(p.grad for p in block.parameters())]


@pytest.mark.parametrize("activation", layers.ACTIVATIONS)
@pytest.mark.parametrize("size", [1, 400, 32 * 20 * 4])
def test_blocks_change_nothing(activation, size):
    """Of one, three or twenty steps: output and every gradient are those of the whole."""
    for found, expected in zip(run(7, activation, size), run(7, activation, 10**9), strict=True):
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


def test_blocks_take_part_in_mixed_precision():
    """Under autocast the output is bfloat16, gradients of parameters are float32, as without blocks."""
    blocked, whole = (run(7, "gelu", size, dtype=torch.bfloat16) for size in (400, 10**9))
    for found, expected in zip(blocked, whole, strict=True):
        assert found.dtype == expected.dtype
        torch.testing.assert_close(found, expected, atol=0.05, rtol=0.05)


def test_blocks_do_not_keep_the_hidden_layer(monkeypatch):
    """What a batch keeps is its input alone: hidden numbers would be 64 times that."""
    monkeypatch.setattr(layers, "HIDDEN_BYTES", 1)
    assert activation_bytes(FeedForward(4, 256, "relu"), (1000, 5, 4)) == 1000 * 5 * 4 * 4
