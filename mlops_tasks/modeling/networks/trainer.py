"""How a network is trained: in epochs of steps over windows of days, with scores between them.

Equal seeds give equal bytes on a CPU with the same number of threads: the random draws of an epoch (the order of the
rows, dropout) depend only on the seed and the epoch's number, so a training that continues from a checkpoint ends
where an uninterrupted one does.
"""

import math
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from mlops_tasks.modeling.problem import FloatArray, IntArray, LearningProblem
from mlops_tasks.modeling.windows import PanelWindows, batches, epoch_order

SCORED_AT_ONCE = 128
"""Windows per forward pass when scoring. Always this many: the order of sums in a product may depend on it."""
IMPORTANCE_SAMPLE = 2048

State = dict[str, Tensor]


@dataclass(frozen=True)
class TrainerConfig:
    """How a network is trained; a model's other hyper-parameters are its architecture.

    Attributes
    ----------
    window
        Trading days that the network sees.
    epochs
        Maximum number of epochs.
    samples_per_epoch
        Rows drawn for each epoch, without replacement; 0: all.
    valid_rows_per_epoch
        Rows on which an epoch's validation metrics are measured: about this many, the same in every epoch, the same
        share of each day; 0: all.
    batch_size
        Rows per optimiser step.
    micro_batch_size
        Rows whose gradient is computed at once; these gradients add up to the batch's. 0: the whole batch. A part that
        fits into the processor's cache is several times as fast. A network with batch normalisation always gets whole
        batches, because its statistics are those of the batch.
    optimizer
        `adamw` (Loshchilov and Hutter, "Decoupled weight decay regularization", ICLR 2019) or `adam` (Kingma and Ba,
        ICLR 2015), whose weight decay is an L2 penalty.
    learning_rate
        The largest one.
    schedule
        What the learning rate does after the first `warmup_steps`, over which it rises linearly: it stays the same
        (`constant`), or falls along half a cosine to 0 at the end of all `epochs` (Loshchilov and Hutter, ICLR 2017).
    gradient_clip
        Largest Euclidean norm of a step's gradient; 0: no limit.
    precision
        `bfloat16` multiplies matrices in bfloat16 (automatic mixed precision) and keeps weights in float32; recurrent
        cells stay in float32 on a CPU.
    """

    window: int = 20
    epochs: int = 20
    samples_per_epoch: int = 12_000
    valid_rows_per_epoch: int = 12_000
    batch_size: int = 256
    micro_batch_size: int = 128
    optimizer: Literal["adamw", "adam"] = "adamw"
    learning_rate: float = 1e-3
    weight_decay: float = 1e-2
    warmup_steps: int = 50
    schedule: Literal["constant", "cosine"] = "cosine"
    gradient_clip: float = 1.0
    precision: Literal["float32", "bfloat16"] = "float32"

    @classmethod
    def split(cls, hyperparameters: Mapping[str, Any]) -> "tuple[TrainerConfig, dict[str, Any]]":
        """Split hyper-parameters into the trainer's and the rest, which belong to the architecture."""
        own = {field.name for field in fields(cls)}
        trainer = {name: value for name, value in hyperparameters.items() if name in own}
        return cls(**trainer), {name: value for name, value in hyperparameters.items() if name not in own}


@dataclass
class Training:
    """A network in training; its state after an epoch is a function of problem, configuration and seed."""

    network: nn.Module
    optimizer: torch.optim.Optimizer
    config: TrainerConfig
    windows: PanelWindows
    label: Tensor
    rows: IntArray
    """The problem's rows that are learned from."""
    seed: int
    device: torch.device
    best: State
    epochs_done: int = 0

    @classmethod
    def begin(
        cls, problem: LearningProblem, build: Callable[[], nn.Module], config: TrainerConfig, seed: int
    ) -> "Training":
        """A new network, on the GPU if there is one."""
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        torch.manual_seed(seed)
        network = build().to(device)
        kind = torch.optim.AdamW if config.optimizer == "adamw" else torch.optim.Adam
        optimizer = kind(network.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay, fused=True)
        rows = problem.learned(problem.train)
        label = torch.tensor(problem.label, device=device)  # a copy, because pandas may give a read-only array
        windows = problem.windows(config.window)
        return cls(network, optimizer, config, windows, label, rows, seed, device, copied(network))

    def epoch(self) -> float:
        """Train one epoch; returns the mean loss of its rows, each before its step's update."""
        self.network.train()
        self.epochs_done += 1
        torch.manual_seed(_epoch_seed(self.seed, self.epochs_done))
        order = epoch_order(self.rows, self.seed, self.epochs_done, self.config.samples_per_epoch)
        steps = list(batches(order, self.config.batch_size))
        total = self.config.epochs * len(steps)
        losses = []
        for number, batch in enumerate(steps, (self.epochs_done - 1) * len(steps)):
            for group in self.optimizer.param_groups:
                group["lr"] = self.config.learning_rate * schedule(self.config, number, total)
            losses.append(self.step(batch))
        return float(np.average(losses, weights=[len(batch) for batch in steps]))

    def step(self, batch: IntArray) -> float:
        """Update the weights from the rows of a batch; returns the batch's loss before the update."""
        loss = self.gradient(batch)
        if self.config.gradient_clip:
            nn.utils.clip_grad_norm_(self.network.parameters(), self.config.gradient_clip)
        self.optimizer.step()
        return loss

    def gradient(self, batch: IntArray) -> float:
        """Replace the gradient by that of a batch's mean squared error; returns the error."""
        self.optimizer.zero_grad()
        loss = 0.0
        width = self._part_size(len(batch))
        for begin in range(0, len(batch), width):
            part = batch[begin : begin + width]
            error = self._forward(part) - self.label[torch.from_numpy(part).to(self.device)]
            part_loss = error.square().sum() / len(batch)
            part_loss.backward()
            loss += part_loss.item()
        return loss

    def score(self, rows: IntArray) -> FloatArray:
        """Scores of rows of the problem, float32."""
        self.network.eval()
        with torch.no_grad():
            parts = [
                self._forward(rows[begin : begin + SCORED_AT_ONCE]).cpu()
                for begin in range(0, len(rows), SCORED_AT_ONCE)
            ]
        return torch.cat(parts).numpy() if parts else np.empty(0, dtype=np.float32)

    def keep(self) -> None:
        """Keep the current weights as the best."""
        self.best = copied(self.network)

    def importance(self, rows: IntArray) -> list[float]:
        """Mean absolute gradient times input of each feature, summed over the window, on a seeded sample of rows.

        Shrikumar et al., "Learning important features through propagating activation differences", ICML 2017, discuss
        it. Robustly scaled features have similar sizes, so they can be compared.
        """
        sample = np.sort(epoch_order(rows, self.seed, 0, IMPORTANCE_SAMPLE))
        self.network.eval()
        total = np.zeros(self.windows.rows.shape[1])
        for begin in range(0, len(sample), SCORED_AT_ONCE):
            x = self._input(sample[begin : begin + SCORED_AT_ONCE]).requires_grad_()
            with torch.backends.cudnn.flags(enabled=False):  # recurrent kernels have no gradient in eval mode
                (gradient,) = torch.autograd.grad(self.network(x).sum(), x)
            total += (gradient * x).abs().flatten(0, -2).sum(0, dtype=torch.float64).detach().cpu().numpy()
        return [float(value) for value in total / max(1, len(sample))]

    def write(self, path: Path) -> None:
        """Write everything that the training needs to resume."""
        state = {"epochs_done": self.epochs_done, "network": self.network.state_dict(), "best": self.best}
        torch.save({**state, "optimizer": self.optimizer.state_dict()}, path)

    def read(self, path: Path) -> None:
        """Resume from a state that `write` wrote."""
        state = torch.load(path, map_location="cpu", weights_only=True)
        self.network.load_state_dict(state["network"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.best, self.epochs_done = state["best"], state["epochs_done"]

    def _part_size(self, batch: int) -> int:
        normalised = any(isinstance(each, nn.modules.batchnorm._BatchNorm) for each in self.network.modules())
        return batch if normalised or self.device.type != "cpu" else self.config.micro_batch_size or batch

    def _input(self, rows: IntArray) -> Tensor:
        windows = self.windows.gather(rows)
        return torch.from_numpy(windows[:, 0] if self.config.window == 1 else windows).to(self.device)

    def _forward(self, rows: IntArray) -> Tensor:
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.config.precision == "bfloat16"):
            scores: Tensor = self.network(self._input(rows))
        return scores.float()


def watched(problem: LearningProblem, rows: int, seed: int) -> LearningProblem:
    """The problem with labels on only about `rows` validation rows, a seeded sample with the same share of each day.

    Some names of every day say more about a mean of daily correlations than all names of some days. 0: all rows.
    """
    valid = problem.learned(problem.valid)
    if not rows or len(valid) <= rows:
        return problem
    _, start, count = np.unique(problem.day[valid], return_index=True, return_counts=True)
    place = np.arange(len(valid)) - np.repeat(start, count)
    kept = place < np.repeat(np.ceil(count * (rows / len(valid))), count)
    shuffled = valid[np.lexsort((np.random.default_rng(seed).random(len(valid)), problem.day[valid]))]
    label = problem.label.copy()
    label[shuffled[~kept]] = np.nan
    return replace(problem, label=label)


@contextmanager
def reproducible(threads: int) -> Iterator[None]:
    """Use deterministic kernels and this number of threads; afterwards, restore the random generators."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # without it cuBLAS refuses to be deterministic
    fill = torch.utils.deterministic.fill_uninitialized_memory
    before = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(True)
    torch.utils.deterministic.fill_uninitialized_memory = False  # nothing reads it
    try:
        with torch.random.fork_rng():
            yield
    finally:
        torch.set_num_threads(before[0])
        torch.use_deterministic_algorithms(before[1])
        torch.utils.deterministic.fill_uninitialized_memory = fill


def bfloat16_cost() -> float:
    """How many times longer a matrix product takes in bfloat16 than in float32 on this machine's CPU."""
    seconds = {}
    for precision in (torch.float32, torch.bfloat16):
        matrix, taken = torch.ones(256, 256, dtype=precision), []
        for _ in range(4):  # the first one sets up what the others use
            began = time.perf_counter()
            torch.mm(matrix, matrix)
            taken.append(time.perf_counter() - began)
        seconds[precision] = min(taken)
    return seconds[torch.bfloat16] / seconds[torch.float32]


def copied(network: nn.Module) -> State:
    """The weights as they are now, in the CPU's memory."""
    return {name: tensor.detach().cpu().clone() for name, tensor in network.state_dict().items()}


def schedule(config: TrainerConfig, step: int, total: int) -> float:
    """Share of the learning rate at a step of `total`, counted from 0."""
    warm = min(1.0, (step + 1) / config.warmup_steps) if config.warmup_steps else 1.0
    return warm * (0.5 * (1 + math.cos(math.pi * step / total)) if config.schedule == "cosine" else 1.0)


def _epoch_seed(seed: int, epoch: int) -> int:
    return int(np.random.SeedSequence([seed, epoch]).generate_state(1, np.uint64)[0] >> np.uint64(1))
