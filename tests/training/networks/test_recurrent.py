"""Recurrent networks run their papers' cells from the oldest day to the newest."""

import torch

from mlops_tasks.modeling.networks.recurrent import GRU, LSTM, AttentionPooling


def test_lstm_is_its_equations():
    """Gates i, f, o and candidate g: c = f c + i g, h = o tanh(c), from zero states; the head reads the last h."""
    torch.manual_seed(0)
    network = LSTM(3, 7, hidden_size=5).eval()
    x = torch.randn(2, 7, 3)
    cell = network.recurrent
    h = c = torch.zeros(2, 5)
    for day in x.unbind(1):
        gates = day @ cell.weight_ih_l0.T + cell.bias_ih_l0 + h @ cell.weight_hh_l0.T + cell.bias_hh_l0
        i, f, g, o = gates.chunk(4, -1)
        c = f.sigmoid() * c + i.sigmoid() * g.tanh()
        h = o.sigmoid() * c.tanh()
    torch.testing.assert_close(network(x), network.head(h).squeeze(-1))


def test_gru_is_its_equations():
    """Reset r, update z, candidate n = tanh(W x + r (U h)): h = (1 - z) n + z h."""
    torch.manual_seed(0)
    network = GRU(3, 7, hidden_size=5).eval()
    x = torch.randn(2, 7, 3)
    cell = network.recurrent
    h = torch.zeros(2, 5)
    for day in x.unbind(1):
        rx, zx, nx = (day @ cell.weight_ih_l0.T + cell.bias_ih_l0).chunk(3, -1)
        rh, zh, nh = (h @ cell.weight_hh_l0.T + cell.bias_hh_l0).chunk(3, -1)
        z = (zx + zh).sigmoid()
        h = (1 - z) * (nx + (rx + rh).sigmoid() * nh).tanh() + z * h
    torch.testing.assert_close(network(x), network.head(h).squeeze(-1))


def test_attention_pooling_in_closed_form():
    """Without a gate's say all days weigh the same; a very large one takes one day alone. The newest stands beside."""
    pooling = AttentionPooling(2)
    h = torch.tensor([[[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]]])
    with torch.no_grad():
        pooling.weigh.weight[:] = 0
        torch.testing.assert_close(pooling(h), torch.tensor([[0.0, 1 / 3, -1.0, 0.0]]))
        pooling.project.weight[:], pooling.project.bias[:] = torch.eye(2), 0
        pooling.weigh.weight[:] = torch.tensor([[0.0, 1000.0]])
        torch.testing.assert_close(pooling(h), torch.tensor([[0.0, 1.0, -1.0, 0.0]]))
