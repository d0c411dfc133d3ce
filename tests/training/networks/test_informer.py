"""ProbSparse attention and distilling are the paper's."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mlops_tasks.modeling.networks.informer import (
    Distilling,
    Informer,
    ProbSparseAttention,
    dominant,
    sample_keys,
    sparse_size,
    sparsity,
)
from mlops_tasks.modeling.networks.layers import SelfAttention


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("last", [False, True])
def test_equals_full_attention_when_nothing_is_dropped(causal, last):
    """With a factor so large that every key is sampled and every query attends."""
    torch.manual_seed(0)
    sparse = ProbSparseAttention(16, 4, steps=13, factor=100)
    full = SelfAttention(16, 4)
    full.load_state_dict({name: value for name, value in sparse.state_dict().items() if name != "sampled"})
    x = torch.randn(3, 13, 16)
    torch.testing.assert_close(sparse(x, causal=causal, last=last), full(x, causal=causal, last=last))


def test_drops_something_otherwise():
    """With few queries the output differs from full attention, and the lazy ones share one value: the mean."""
    torch.manual_seed(0)
    sparse = ProbSparseAttention(8, 1, steps=40, factor=1)
    x = torch.randn(1, 40, 8)
    out = sparse(x)[0].detach()
    value = sparse.qkv(x).chunk(3, -1)[2]
    lazy = (out - sparse.out(value.mean(1))).abs().amax(-1) < 1e-6
    assert lazy.sum() == 40 - sparse_size(1, 40) == 40 - 4


def test_causal_lazy_queries_take_the_mean_so_far():
    """A query that does not attend takes the mean of the values up to its own step."""
    torch.manual_seed(0)
    sparse = ProbSparseAttention(8, 1, steps=40, factor=1)
    x = torch.randn(1, 40, 8)
    value = sparse.qkv(x).chunk(3, -1)[2]
    so_far = torch.stack([value[0, : t + 1].mean(0) for t in range(40)])
    lazy = (sparse(x, causal=True)[0] - sparse.out(so_far)).abs().amax(-1) < 1e-6
    # The first step's own value is its mean and its attention.
    assert lazy[0]
    assert 20 < lazy.sum() < 38


def test_sparsity_in_closed_form():
    """One query (a, 0) and keys (1, 0), (0, 1), (-1, 0): max - mean of a (1, 0, -1) / sqrt(2) is a / sqrt(2)."""
    query = torch.tensor([[3.0, 0.0], [0.0, 5.0], [0.0, 0.0]])
    key = torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]])
    everything = torch.ones(3, 3, dtype=torch.bool)
    expected = torch.tensor([3.0, 5.0 - 5.0 / 3, 0.0]) / math.sqrt(2)
    torch.testing.assert_close(sparsity(query, key, everything), expected)
    # Only the second and third key sampled: max(0, -3) - mean = 1.5; max(5, 0) - mean = 2.5.
    some = torch.tensor([[False, True, True]]).expand(3, 3)
    torch.testing.assert_close(sparsity(query, key, some), torch.tensor([1.5, 2.5, 0.0]) / math.sqrt(2))
    # Causal: the first query sees its own key alone; the second, of those two, its own.
    torch.testing.assert_close(sparsity(query, key, some, causal=True), torch.tensor([0.0, 0.0, 0.0]))


@settings(max_examples=30, deadline=None)
@given(steps=st.integers(2, 40), size=st.integers(1, 40), seed=st.integers(0, 1000))
def test_dominant_is_the_top(steps, size, seed):
    """As many queries as asked for, none of the others with a larger measure; ties broken, so never more."""
    generator = torch.Generator().manual_seed(seed)
    measure = torch.randint(0, 8, (2, 3, steps), generator=generator).float()
    chosen = dominant(measure, size)
    assert (chosen.sum(-1) == min(size, steps)).all()
    least = measure.masked_fill(~chosen, torch.inf).amin(-1)
    assert (measure.masked_fill(chosen, -torch.inf).amax(-1) <= least).all()
    causal = dominant(measure, size, causal=True)
    for t in range(steps):
        assert torch.equal(causal[..., t], dominant(measure[..., : t + 1], size)[..., t])


def test_a_query_that_dominates_is_chosen():
    """One query points at one key, the others nowhere in particular: it is chosen wherever it stands."""
    torch.manual_seed(0)
    key = torch.randn(30, 8)
    for place in (0, 13, 29):
        query = 0.1 * torch.randn(30, 8)
        query[place] = 5 * key[3]
        chosen = dominant(sparsity(query, key, sample_keys(30, sparse_size(5, 30))), 1)
        assert chosen.nonzero().flatten().tolist() == [place]


def test_samples_as_many_keys_as_the_paper():
    """ceil(c ln L) different keys for each query, never more than there are; not the same for all."""
    assert sparse_size(5, 96) == math.ceil(5 * math.log(96)) == 23
    assert sparse_size(5, 4) == 4
    assert sparse_size(5, 1) == 1
    sampled = sample_keys(96, 23)
    assert (sampled.sum(1) == 23).all()
    assert len(sampled.unique(dim=0)) > 90


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("steps", range(1, 10))
def test_distilling_halves_the_steps(steps, causal):
    """ceil(steps / 2) are left, and the newest step reaches the last one."""
    torch.manual_seed(0)
    distilling = Distilling(4, causal=causal)
    x = torch.randn(2, steps, 4, requires_grad=True)
    out = distilling(x)
    assert out.shape == (2, math.ceil(steps / 2), 4)
    out[:, -1].sum().backward()
    assert x.grad[:, -1].abs().max() > 0


def test_distilling_is_a_convolution_an_elu_and_a_maximum():
    """Equation 5 by hand, on one channel: kernel (1, 0, 0) takes the step before."""
    distilling = Distilling(1, causal=False)
    with torch.no_grad():
        distilling.convolution.weight[:] = torch.tensor([1.0, 0.0, 0.0])
        distilling.convolution.bias[:] = 0
        out = distilling(torch.tensor([-1.0, 4.0, -2.0, -3.0, 5.0])[None, :, None]).flatten()
    # Shifted: 0, -1, 4, -2, -3; ELU of negative numbers exp(x) - 1; maxima of steps {0, 1}, {1, 2, 3}, {3, 4}.
    torch.testing.assert_close(out, torch.tensor([0.0, 4.0, math.exp(-2) - 1]))


@pytest.mark.parametrize("window", [11, 12])
def test_causal_steps_do_not_see_later_ones(window):
    """With masks a step does not move with what comes after it, through sampling, choice and distilling."""
    torch.manual_seed(0)
    network = Informer(5, window, d_model=16, heads=2, layers=2, factor=1, causal=True).eval()
    x = torch.randn(8, window, 5)
    steps = math.ceil(window / 2)
    for kept in range(steps):
        # Distilled step `kept` ends with this day.
        day = window - 1 - 2 * (steps - 1 - kept)
        changed = x.clone()
        changed[:, day + 1 :] = 3 * torch.randn(8, window - day - 1, 5)
        with torch.no_grad():
            torch.testing.assert_close(network.encode(x)[:, : kept + 1], network.encode(changed)[:, : kept + 1])
            changed[:, day] += 3
            assert (network.encode(x)[:, kept] - network.encode(changed)[:, kept]).abs().max() > 1e-3
