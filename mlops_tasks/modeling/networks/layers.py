"""What the networks share: activations, positions, attention, the encoder layer, and the memory of a batch."""

import math
from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from mlops_tasks.errors import ConfigError

Activation = Literal["relu", "gelu", "silu"]
Positions = Literal["sinusoidal", "learned"]

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": functional.relu,
    "gelu": functional.gelu,
    "silu": functional.silu,
}


aten = torch.ops.aten
_ACTIVATE = {"relu": aten.relu.out, "gelu": aten.gelu.out, "silu": aten.silu.out}


def check_heads(d_model: int, heads: int) -> None:
    """ConfigError unless the model's width can be divided among the heads."""
    if d_model % heads:
        raise ConfigError(f"d_model: {d_model} cannot be divided among {heads} heads; choose a multiple of heads")


def sinusoidal_positions(length: int, d_model: int) -> Tensor:
    """Sine and cosine of each step at geometrically spaced wavelengths; shape (length, d_model).

    Vaswani et al., "Attention is all you need", NeurIPS 2017, section 3.5.
    """
    step = torch.arange(length, dtype=torch.float32)[:, None]
    rate = torch.exp(torch.arange(0, d_model, 2, dtype=torch.float32) * (-math.log(10000.0) / d_model))
    positions = torch.zeros(length, d_model)
    positions[:, 0::2] = torch.sin(step * rate)
    positions[:, 1::2] = torch.cos(step * rate[: d_model // 2])
    return positions


class Embedding(nn.Module):
    """Each step's features as a vector, plus its position; (batch, steps, features) -> (batch, steps, d_model)."""

    def __init__(self, features: int, steps: int, d_model: int, positions: Positions = "sinusoidal") -> None:
        super().__init__()
        self.project = nn.Linear(features, d_model)
        self.positions: Tensor
        if positions == "learned":
            self.positions = nn.Parameter(0.02 * torch.randn(steps, d_model))
        else:
            self.register_buffer("positions", sinusoidal_positions(steps, d_model), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Project and add."""
        return self.project(x) + self.positions


def attend(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None = None) -> Tensor:
    """Scaled dot-product attention, softmax(query key' / sqrt(size)) value; (..., steps, size) each.

    `mask` is True where a query may look. It is written out because, for windows of tens of steps, two batched products
    are several times as fast on a CPU as the blockwise kernel behind `scaled_dot_product_attention`.
    """
    weights = (query * query.shape[-1] ** -0.5) @ key.transpose(-1, -2)
    if mask is not None:
        weights = weights.masked_fill(~mask, -torch.inf)
    return weights.softmax(-1) @ value


def causal_mask(steps: int, device: torch.device | None = None) -> Tensor:
    """True where a step (row) may look at another (column): at itself and earlier ones; shape (steps, steps)."""
    return torch.ones(steps, steps, dtype=torch.bool, device=device).tril()


class Dropout(nn.Module):
    """Sets each number to 0 with probability p and scales the others to keep the mean; only in training.

    Srivastava et al., "Dropout: a simple way to prevent neural networks from overfitting", JMLR 15, 2014. p is rounded
    to a multiple of 1/256 (at least 1/256, unless it is 0). Taking one random byte per number makes this several times
    as fast on a CPU as `torch.nn.Dropout`, which took a sixth of a training step.
    """

    def __init__(self, p: float) -> None:
        super().__init__()
        self.dropped = min(255, max(1, round(p * 256))) if p > 0 else 0

    def forward(self, x: Tensor) -> Tensor:
        """(...) -> the same."""
        if not self.training or not self.dropped:
            return x
        words = torch.randint(-(2**63), 2**63 - 1, (x.numel() // 8 + 1,), device=x.device)
        kept = words.view(torch.uint8)[: x.numel()].view(x.shape) >= self.dropped
        return x * kept.to(x.dtype).mul_(256 / (256 - self.dropped))


class SelfAttention(nn.Module):
    """Multi-head self-attention (Vaswani et al. 2017, section 3.2); the three projections are one product."""

    def __init__(self, d_model: int, heads: int) -> None:
        super().__init__()
        check_heads(d_model, heads)
        self.heads = heads
        self.qkv = nn.Linear(d_model, 3 * d_model)
        self.out = nn.Linear(d_model, d_model)

    def split(self, x: Tensor) -> Tensor:
        """(batch, steps, d_model) -> (batch, heads, steps, d_model / heads)."""
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)

    def merge(self, x: Tensor) -> Tensor:
        """The inverse of `split`, then the output projection."""
        return self.out(x.transpose(1, 2).flatten(2))

    def forward(self, x: Tensor, *, causal: bool = False, last: bool = False) -> Tensor:
        """(batch, steps, d_model) -> the same; with `last` only the last step's output, (batch, 1, d_model)."""
        if not last:
            query, key, value = (self.split(part) for part in self.qkv(x).chunk(3, -1))
            return self.merge(attend(query, key, value, causal_mask(x.shape[1], x.device) if causal else None))
        # The last step sees every step, masked or not.
        width = x.shape[-1]
        weight, bias = self.qkv.weight, self.qkv.bias
        query = functional.linear(x[:, -1:], weight[:width], bias[:width])
        key, value = functional.linear(x, weight[width:], bias[width:]).chunk(2, -1)
        return self.merge(attend(self.split(query), self.split(key), self.split(value)))


HIDDEN_BYTES = 320 * 2048 * 4
"""How much of a feed-forward block's hidden layer exists at once: what fits into a core's cache beside the weights."""


class FeedForward(nn.Module):
    """Two layers, applied to each step alone (Vaswani et al. 2017, section 3.3).

    The hidden layer is many times as wide as input and output, and on a CPU moving it to memory and back takes longer
    than computing it. So a large one is computed for a few steps at a time and never kept; the backward pass computes
    it again. That is a sixth more arithmetic, but takes less than half the time. The function is the same.
    """

    def __init__(self, d_model: int, feedforward: int, activation: Activation) -> None:
        super().__init__()
        self.widen = nn.Linear(d_model, feedforward)
        self.narrow = nn.Linear(feedforward, d_model)
        self.activation = activation

    def forward(self, x: Tensor) -> Tensor:
        """(..., d_model) -> the same."""
        if x.device.type != "cpu" or x.shape[:-1].numel() * self.widen.out_features * 4 <= HIDDEN_BYTES:
            return self.narrow(ACTIVATIONS[self.activation](self.widen(x)))
        tensors = [x, self.widen.weight, self.widen.bias, self.narrow.weight, self.narrow.bias]
        if torch.is_autocast_enabled("cpu"):
            tensors = [tensor.to(torch.get_autocast_dtype("cpu")) for tensor in tensors]
        return _BlockedFeedForward.apply(self.activation, *tensors)


class _BlockedFeedForward(torch.autograd.Function):
    """narrow(activation(widen(x))) in blocks of steps; a block's hidden layer is computed again for its gradient.

    Both weights are laid out as (inputs, outputs) in memory, and both gradients as (narrow, wide), which makes the
    products a third faster.
    """

    @staticmethod
    @torch.amp.custom_fwd(device_type="cpu", cast_inputs=None)
    def forward(ctx: Any, activation: Activation, x: Tensor, *parameters: Tensor) -> Tensor:
        ctx.activation = activation
        ctx.save_for_backward(x, *parameters)
        weight, bias, narrow_weight, narrow_bias = parameters
        hidden = _HiddenLayer(activation, x, weight, bias)
        narrowing = narrow_weight.t().contiguous()
        out = torch.empty_like(x.flatten(0, -2))
        with torch.autocast("cpu", enabled=False):
            for block, block_out in zip(hidden.blocks(x), hidden.blocks(out), strict=True):
                torch.addmm(narrow_bias, hidden(block), narrowing, out=block_out)
        return out.view(x.shape)

    @staticmethod
    @torch.amp.custom_bwd(device_type="cpu")
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, bias, narrow_weight, _ = ctx.saved_tensors
        hidden = _HiddenLayer(ctx.activation, x, weight, bias)
        # In float32 even if the products are in bfloat16, in which sums stop growing after a few hundred blocks.
        d_weight, d_bias, d_narrow = (torch.zeros(each.shape) for each in (weight.t(), bias, narrow_weight))
        d_x, d_wide = torch.empty_like(x.flatten(0, -2)), torch.empty_like(hidden.wide)
        for block, d_out, d_block in zip(*map(hidden.blocks, (x, gradient, d_x)), strict=True):
            _add_product(d_narrow, d_out.t(), hidden(block))
            d_hidden = torch.mm(d_out, narrow_weight, out=d_wide[: len(block)])
            hidden.take_through(d_hidden)
            _add_product(d_weight, block.t(), d_hidden)
            d_bias += d_hidden.sum(0)
            torch.mm(d_hidden, weight, out=d_block)
        return None, d_x.view(x.shape), d_weight.t(), d_bias, d_narrow, gradient.flatten(0, -2).sum(0)


class _HiddenLayer:
    """activation(widen(x)) of a block of steps; each block overwrites the one before."""

    def __init__(self, activation: Activation, x: Tensor, weight: Tensor, bias: Tensor) -> None:
        self.activation, self.bias = activation, bias
        self.weight = weight.t().contiguous()
        self.steps = max(1, HIDDEN_BYTES // (len(weight) * x.element_size()))
        self.wide = torch.empty(min(self.steps, x.shape[:-1].numel()), len(weight), dtype=x.dtype)
        self.activated = self.wide if activation == "relu" else torch.empty_like(self.wide)
        self.now = slice(0, 0)

    def blocks(self, x: Tensor) -> tuple[Tensor, ...]:
        """Parts of the steps of x."""
        return x.flatten(0, -2).split(self.steps)

    def __call__(self, block: Tensor) -> Tensor:
        """(steps, d_model) -> (steps, feedforward), to be used before the next call."""
        self.now = slice(0, len(block))
        wide, activated = self.wide[self.now], self.activated[self.now]
        torch.addmm(self.bias, block, self.weight, out=wide)
        return _ACTIVATE[self.activation](wide, out=activated)

    def take_through(self, gradient: Tensor) -> None:
        """Turn the gradient for the latest call's result into that for the activation's input, in place."""
        wide = self.wide[self.now]
        if self.activation == "relu":  # `wide` holds the result, which is above 0 where the input was
            aten.threshold_backward.grad_input(gradient, wide, 0, grad_input=gradient)
        elif self.activation == "gelu":
            aten.gelu_backward.grad_input(gradient, wide, grad_input=gradient)
        else:
            aten.silu_backward.grad_input(gradient, wide, grad_input=gradient)


def _add_product(total: Tensor, left: Tensor, right: Tensor) -> None:
    if total.dtype == left.dtype:
        total.addmm_(left, right)
    else:
        total += left @ right


class EncoderLayer(nn.Module):
    """Attention, then a feed-forward block, each added to its input and normalised (Vaswani et al. 2017, section 3.1).

    `attention` is any module (batch, steps, d_model) -> the same that takes `causal` and `last`.
    """

    def __init__(self, attention: nn.Module, block: FeedForward, dropout: float) -> None:
        super().__init__()
        d_model = block.narrow.out_features
        self.attention = attention
        self.feedforward = block
        self.norm1 = nn.LayerNorm(d_model)
        self.norm2 = nn.LayerNorm(d_model)
        self.dropout = Dropout(dropout)

    def forward(self, x: Tensor, *, causal: bool = False, last: bool = False) -> Tensor:
        """(batch, steps, d_model) -> the same; with `last` only the last step's output, (batch, 1, d_model)."""
        attended = self.attention(x, causal=causal, last=last)
        x = self.norm1((x[:, -1:] if last else x) + self.dropout(attended))
        return self.norm2(x + self.dropout(self.feedforward(x)))


def parameter_count(network: nn.Module) -> int:
    """Number of parameters that are learned."""
    return sum(p.numel() for p in network.parameters() if p.requires_grad)


def activation_bytes(network: nn.Module, shape: tuple[int, ...]) -> int:
    """Bytes that a forward pass on a batch of this shape keeps for the backward pass, parameters not counted.

    `shape` is (batch, window, features) or (batch, features). It is measured on two small batches and extrapolated
    linearly, because each row adds the same amount. A training step peaks at about twice as much, because the backward
    pass allocates gradients while it frees these bytes.
    """
    few, more = 4, 8
    at_few, at_more = (_saved_bytes(network, (rows, *shape[1:])) for rows in (few, more))
    per_row = (at_more - at_few) / (more - few)
    return max(0, round(at_few + per_row * (shape[0] - few)))


def _saved_bytes(network: nn.Module, shape: tuple[int, ...]) -> int:
    own = {p.untyped_storage().data_ptr() for p in (*network.parameters(), *network.buffers())}
    kept: dict[int, Any] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage  # kept, so that no later tensor gets the same address
        return tensor

    generator = torch.Generator().manual_seed(0)
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        network(torch.randn(shape, generator=generator))
    return sum(storage.nbytes() for storage in kept.values())
