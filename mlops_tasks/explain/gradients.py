"""Networks: gradients integrated from rows of a background to the row that is explained.

Integrated gradients (Sundararajan, Taly and Yan, "Axiomatic attribution for deep networks", ICML 2017) averaged over
baselines from the background: expected gradients (Erion et al., Nature Machine Intelligence 3, 2021). They are Aumann
and Shapley's values: equal to Shapley's where the network is a sum of functions of one feature or of products of two.
The integral is Gauss and Legendre's with some points; what it misses is the gap. What the drawing of the baselines
leaves open is the standard error of their mean.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from mlops_tasks.explain.sampled import Sampled
from mlops_tasks.modeling.networks.trainer import SCORED_AT_ONCE, reproducible
from mlops_tasks.modeling.windows import FloatArray, aligned


@dataclass(frozen=True)
class ExpectedGradients:
    """Explains a network in eval mode.

    Attributes
    ----------
    background
        What the network sees of the baselines, float32: (b, features), or (b, window, features).
    points
        Of each integral.
    threads
        Of the CPU.
    """

    network: nn.Module
    background: FloatArray
    points: int
    threads: int

    def base(self) -> float:
        """Mean score of the background."""
        with reproducible(self.threads), torch.no_grad():
            scores = [self.network(part)[:count] for part, count in self._parts(self.background)]
        return float(torch.cat(scores).double().mean())

    def contributions(self, inputs: FloatArray) -> Sampled:
        """Of each feature, summed over the window, and its standard error. A row's do not depend on other rows.

        Parameters
        ----------
        inputs
            What the network sees of the rows: (n, features), or (n, window, features).
        """
        with reproducible(self.threads):
            found = [self._integral(part).first(count) for part, count in self._parts(inputs)]
        return Sampled.joined(found, inputs.shape[-1])

    def _integral(self, rows: Tensor) -> Sampled:
        places, weights = np.polynomial.legendre.leggauss(self.points)
        shape = (rows.shape[0], rows.shape[-1])
        total, squares = torch.zeros(shape, dtype=torch.float64), torch.zeros(shape, dtype=torch.float64)
        for baseline in torch.from_numpy(np.ascontiguousarray(self.background)):
            way = rows - baseline
            one = torch.zeros(rows.shape, dtype=torch.float64)
            for place, weight in zip((places + 1) / 2, weights / 2, strict=True):
                between = (baseline + float(place) * way).requires_grad_()
                (gradient,) = torch.autograd.grad(self.network(between).sum(), between)
                one += float(weight) * (gradient * way).double()
            summed = one if one.dim() == 2 else one.sum(dim=1)
            total += summed
            squares += summed**2
        return Sampled.of_sums(total.numpy(), squares.numpy(), len(self.background))

    @staticmethod
    def _parts(inputs: FloatArray) -> list[tuple[Tensor, int]]:
        """Always as many rows at once, the last ones filled up: how a product is summed may depend on their number."""
        parts = []
        for begin in range(0, len(inputs), SCORED_AT_ONCE):
            part = inputs[begin : begin + SCORED_AT_ONCE]
            full = aligned((SCORED_AT_ONCE, *inputs.shape[1:]))
            full[: len(part)], full[len(part) :] = part, 0.0
            parts.append((torch.from_numpy(full), len(part)))
        return parts
