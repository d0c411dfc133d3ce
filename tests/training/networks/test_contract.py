"""What every network promises, whatever its architecture."""

from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from mlops_tasks.modeling.networks.informer import Informer
from mlops_tasks.modeling.networks.layers import activation_bytes, parameter_count
from mlops_tasks.modeling.networks.mlp import MLP
from mlops_tasks.modeling.networks.patchtst import PatchTST
from mlops_tasks.modeling.networks.recurrent import GRU, LSTM
from mlops_tasks.modeling.networks.timesnet import TimesNet
from mlops_tasks.modeling.networks.transformer import Transformer

SMALL: dict[str, tuple[Callable[..., nn.Module], dict]] = {
    "mlp": (MLP, {"hidden_size": 16}),
    "mlp_plain": (MLP, {"hidden_size": 16, "residual": False, "activation": "relu"}),
    "lstm": (LSTM, {"hidden_size": 8}),
    "gru_attention": (GRU, {"hidden_size": 8, "layers": 2, "pooling": "attention"}),
    "transformer": (Transformer, {"d_model": 8, "heads": 2, "feedforward": 16}),
    "transformer_causal": (Transformer, {"d_model": 8, "heads": 2, "causal": True, "positions": "learned"}),
    "informer": (Informer, {"d_model": 8, "heads": 2, "feedforward": 16}),
    "informer_causal": (Informer, {"d_model": 8, "heads": 2, "causal": True, "factor": 1}),
    "timesnet": (TimesNet, {"d_model": 8, "d_inner": 8}),
    "patchtst": (PatchTST, {"patch_length": 4, "stride": 3, "d_model": 8, "feedforward": 16}),
    "patchtst_normed": (PatchTST, {"patch_length": 3, "stride": 3, "d_model": 8, "instance_norm": True}),
}
every_network = pytest.mark.parametrize("name", SMALL)


def make(name: str, features: int, window: int, seed: int = 0, **more: object) -> nn.Module:
    """A small network of this name, its weights drawn from the seed."""
    network, architecture = SMALL[name]
    torch.manual_seed(seed)
    return network(features=features, window=window, **architecture, **more)


def windows(*shape: int, seed: int = 1) -> Tensor:
    """Standard normal numbers."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@every_network
@settings(max_examples=10, deadline=None)
@given(batch=st.integers(1, 9), window=st.integers(4, 23), features=st.integers(1, 12))
def test_scores_are_one_finite_number_a_row_and_depend_on_that_row_only(name, batch, window, features):
    """In eval mode a row scores the same alone as among others, and every time."""
    network = make(name, features, window).eval()
    x = windows(batch, window, features)
    with torch.no_grad():
        scores = network(x)
        alone = torch.cat([network(row[None]) for row in x])
        again = network(x)
    assert scores.shape == (batch,)
    assert torch.isfinite(scores).all()
    assert torch.equal(scores, again)
    torch.testing.assert_close(scores, alone, atol=1e-6, rtol=1e-5)


@every_network
def test_a_row_of_zeros_trains(name):
    """A name without any bar in its window is a window of zeros: its score and gradients are finite."""
    network = make(name, 5, 12)
    network(torch.zeros(3, 12, 5)).sum().backward()
    assert all(torch.isfinite(p.grad).all() for p in network.parameters())


@every_network
def test_equal_seeds_make_equal_networks(name):
    """Weights and a training step, dropout included, are a function of the seed; other seeds make other weights."""

    def trained(seed: int) -> list[Tensor]:
        network = make(name, 5, 12, seed)
        network(windows(6, 12, 5)).square().mean().backward()
        return [p.grad for p in network.parameters()]

    first, second, other = trained(3), trained(3), trained(4)
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(first, other, strict=True))


@every_network
def test_gradients_reach_every_parameter(name):
    """No parameter is idle."""
    network = make(name, 6, 12)
    network(windows(32, 12, 6)).square().sum().backward()
    idle = [n for n, p in network.named_parameters() if p.grad is None or not p.grad.abs().max() > 0]
    assert idle == []


@every_network
def test_learns_64_rows_by_heart(name):
    """Each network is rich enough, and its gradients right enough, to fit random labels."""
    network = make(name, 6, 12, dropout=0.0)
    x, y = windows(64, 12, 6), windows(64, seed=2)
    optimiser = torch.optim.Adam(network.parameters(), lr=0.01)
    for _ in range(250):
        loss = (network(x) - y).square().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        if loss < 0.05:
            return
    pytest.fail(f"loss {loss.item():.3f} after 250 steps")


@every_network
def test_parts_of_a_batch_add_up_to_its_gradient(name):
    """The gradient of a batch is the sum over its parts: parts may be as small as a cache wants them."""
    network = make(name, 5, 12, dropout=0.0)
    x = windows(10, 12, 5)
    network(x).square().sum().backward()
    whole = [p.grad for p in network.parameters()]
    network.zero_grad()
    for part in x.split(3):
        network(part).square().sum().backward()
    for a, b in zip(whole, (p.grad for p in network.parameters()), strict=True):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-4)


@every_network
def test_loads_what_it_saved(name):
    """The state is all of it: another network that loads it gives the same scores, bit for bit."""
    network, other = make(name, 5, 12, seed=0).eval(), make(name, 5, 12, seed=1).eval()
    other.load_state_dict(network.state_dict())
    x = windows(4, 12, 5)
    with torch.no_grad():
        assert torch.equal(network(x), other(x))


def test_counts_parameters():
    """A linear layer has inputs x outputs weights, and a bias an output."""
    assert parameter_count(nn.Linear(7, 3)) == 7 * 3 + 3


def test_activation_bytes_of_a_perceptron_by_hand():
    """Input, its hidden layer before and after ReLU is one tensor: 4 (features + hidden) bytes a row."""
    network = nn.Sequential(nn.Linear(50, 30), nn.ReLU(), nn.Linear(30, 1))
    assert activation_bytes(network, (1000, 50)) == 1000 * 4 * (50 + 30)


def test_activation_bytes_of_a_transformer_by_hand():
    """What a layer keeps, tensor by tensor, is what is measured."""
    features, window, d, heads, wide = 16, 20, 32, 4, 128
    network = Transformer(features, window, d_model=d, heads=heads, layers=2, feedforward=wide, dropout=0.0)
    # Of a step: the attention's weights and context, the sum before and the result of two norms with their means and
    # deviations, the hidden layer. Query, key and value come to it: of the last layer only the query is one step's.
    step = heads * window + d + 2 * (2 * d + 2) + wide
    numbers = window * (features + d) + window * (3 * d + step) + (2 * window * d + d + step)
    assert activation_bytes(network, (512, window, features)) == 4 * 512 * numbers
