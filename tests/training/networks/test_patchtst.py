"""PatchTST keeps channels apart until its head."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mlops_tasks.errors import ConfigError
from mlops_tasks.modeling.networks.patchtst import PatchTST, patch_count, patches


def network(features: int = 6, **more: object) -> PatchTST:
    """Small, ready to score."""
    torch.manual_seed(0)
    return PatchTST(features, 15, patch_length=5, stride=4, d_model=8, layers=2, **more).eval()


@settings(max_examples=50, deadline=None)
@given(window=st.integers(1, 60), length=st.integers(1, 60), stride=st.integers(1, 20))
def test_as_many_patches_as_the_paper_says(window, length, stride):
    """floor((window - length) / stride) + 2, each a stretch of the window, the newest day repeated at the end."""
    length = min(length, window)
    x = torch.arange(float(window))[None]
    found = patches(x, length, stride)
    assert found.shape == (1, patch_count(window, length, stride), length)
    for n, patch in enumerate(found[0].tolist()):
        assert patch == [min(day, window - 1) for day in range(n * stride, n * stride + length)]


@pytest.mark.parametrize("instance_norm", [False, True])
def test_channels_are_independent(instance_norm):
    """A change of one channel changes that channel's representation, and no other's, not by a bit."""
    net = network(instance_norm=instance_norm)
    x = torch.randn(3, 15, 6)
    changed = x.clone()
    changed[..., 2] = torch.randn(3, 15)
    with torch.no_grad():
        before, after = net.encode(x), net.encode(changed)
    same = (before == after).flatten(2).all(-1).all(0)
    assert same.tolist() == [True, True, False, True, True, True]


def test_channels_are_interchangeable():
    """The backbone is shared: channels in another order have their representations in that order."""
    net = network()
    x = torch.randn(3, 15, 6)
    order = torch.tensor([4, 0, 5, 1, 3, 2])
    with torch.no_grad():
        torch.testing.assert_close(net.encode(x[..., order]), net.encode(x)[:, order])


def test_head_tells_channels_apart():
    """The score does depend on which channel is which."""
    net = network()
    x = torch.randn(3, 15, 6)
    with torch.no_grad():
        assert (net(x) - net(x.flip(-1))).abs().min() > 1e-4


def test_instance_norm_takes_level_and_scale_out():
    """With it a channel a x + b has the representation of x; without it, not."""
    x = torch.randn(3, 15, 6)
    with torch.no_grad():
        normed, plain = network(instance_norm=True), network()
        torch.testing.assert_close(normed.encode(5 * x + 7), normed.encode(x), atol=1e-3, rtol=1e-3)
        assert (plain.encode(5 * x + 7) - plain.encode(x)).abs().max() > 0.1


def test_a_patch_longer_than_the_window_is_refused():
    """The error names key and remedy."""
    with pytest.raises(ConfigError, match=r"patch_length: 30 days do not fit into a window of 20; shorten the patch"):
        PatchTST(5, 20, patch_length=30)
