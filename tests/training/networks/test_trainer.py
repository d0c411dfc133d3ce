"""A network's training: what it computes, what it learns, and that it goes on and repeats to the last bit."""

import json
import math
import subprocess
import sys
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file
from torch import nn

from mlops_tasks.config import PROJECT
from mlops_tasks.errors import ConfigError, TrainingError
from mlops_tasks.modeling.configuration import TrainingConfig, resolve_config
from mlops_tasks.modeling.metrics import DailyCorrelation
from mlops_tasks.modeling.model_zoo.network import Architecture, NetworkFamily
from mlops_tasks.modeling.model_zoo.zoo import model_zoo
from mlops_tasks.modeling.networks.trainer import (
    TrainerConfig,
    Training,
    bfloat16_cost,
    copied,
    reproducible,
    schedule,
    watched,
)
from mlops_tasks.modeling.overfitting import OverfittingConfig
from mlops_tasks.modeling.problem import LearningProblem
from mlops_tasks.modeling.session import Links, TrainingSession
from mlops_tasks.modeling.stopping import StoppingConfig

NETWORKS = [name for name, entry in model_zoo().items() if entry.family == "network"]
every_network = pytest.mark.parametrize("name", NETWORKS)
SMALL: dict[str, dict[str, Any]] = {
    "mlp": {"hidden_size": 16},
    "lstm": {"hidden_size": 8, "layers": 2},
    "gru": {"hidden_size": 8},
    "transformer": {"d_model": 8, "heads": 2, "feedforward": 16},
    "informer": {"d_model": 8, "heads": 2, "feedforward": 16},
    "timesnet": {"d_model": 8, "d_inner": 8},
    "patchtst": {"patch_length": 4, "stride": 4, "d_model": 8},
}
FEW = {"epochs": 4, "batch_size": 64, "micro_batch_size": 24, "warmup_steps": 3}


def small(name: str, **more: Any) -> TrainingConfig:
    """A narrow network, trained for some seconds at most; dropout is on."""
    window = {} if name == "mlp" else {"window": 8}
    given_ones = {**SMALL[name], **window, **FEW, "dropout": 0.2, **more}
    return resolve_config(name, given_ones, seed=5)


def problem(days: int = 40, instruments: int = 12, features: int = 4, seed: int = 0) -> LearningProblem:
    """Standard normal features; half of the label is yesterday's first and today's second one. Some bars are absent."""
    rng = np.random.default_rng(seed)
    panel = rng.standard_normal((days, instruments, features)).astype(np.float32)
    signal = (np.roll(panel[:, :, 0], 1, axis=0) + panel[:, :, 1]) / math.sqrt(2)
    label = ((signal + rng.standard_normal(signal.shape)) / math.sqrt(2)).astype(np.float32)
    kept = rng.random(days * instruments) > 0.05
    day, instrument = np.divmod(np.arange(days * instruments, dtype=np.int32)[kept], instruments)
    cut = int(np.searchsorted(day, days * 3 // 4))
    return LearningProblem(
        features=panel.reshape(-1, features)[kept],
        label=label.ravel()[kept],
        realised=label.ravel()[kept].astype(np.float64),
        day=day,
        instrument=instrument,
        train=slice(0, cut),
        valid=slice(cut, len(day)),
        names=[f"F{number}" for number in range(features)],
    )


PROBLEM = problem()


def begun(config: TrainingConfig, given_problem: LearningProblem = PROBLEM, seed: int | None = None) -> Training:
    """A training of a configuration's network."""
    trainer, hyperparameters = TrainerConfig.split(config.hyperparameters)
    assert config.class_path is not None
    architecture = Architecture(config.class_path, len(given_problem.names), trainer.window, hyperparameters)
    return Training.begin(given_problem, architecture.build, trainer, config.seed if seed is None else seed)


def weights(training: Training) -> dict[str, bytes]:
    """Every number of the network, as bytes."""
    return {name: tensor.numpy().tobytes() for name, tensor in copied(training.network).items()}


def trained(config: TrainingConfig, epochs: int = 2, seed: int | None = None) -> Training:
    """After some epochs."""
    training = begun(config, seed=seed)
    for _ in range(epochs):
        training.epoch()
    return training


@every_network
def test_equal_seeds_give_equal_bytes_and_others_do_not(name):
    """Whatever was drawn from the process's generators in between."""
    first = trained(small(name))
    torch.rand(7), np.random.default_rng().random()
    second, other = trained(small(name)), trained(small(name), seed=6)
    assert weights(first) == weights(second)
    assert weights(first) != weights(other)
    rows = PROBLEM.learned(PROBLEM.valid)
    assert first.score(rows).tobytes() == second.score(rows).tobytes()


@every_network
def test_goes_on_from_what_was_written_as_if_nothing_had_been(name, tmp_path):
    """Two epochs, another process's worth of state, two more: the bytes of four, the best weights too."""
    calm = trained(small(name), epochs=1)
    calm.keep()
    for _ in range(3):
        calm.epoch()
    first = trained(small(name), epochs=1)
    first.keep()
    first.epoch()
    first.write(tmp_path / "state.pt")
    second = begun(small(name), seed=99)
    second.seed = first.seed
    second.read(tmp_path / "state.pt")
    assert second.epochs_done == 2
    for _ in range(2):
        second.epoch()
    assert weights(second) == weights(calm)
    assert all(torch.equal(second.best[key], calm.best[key]) for key in calm.best)


@every_network
def test_no_score_of_a_day_changes_with_what_comes_after(name):
    """A trained network scores rows up to day t the same, bit for bit, whatever features later days have."""
    training = trained(small(name), epochs=1)
    day = 25
    rows = np.flatnonzero(PROBLEM.day <= day)
    features = PROBLEM.features.copy()
    features[day < PROBLEM.day] = 50.0
    changed = replace(PROBLEM, features=features)
    before = training.score(rows)
    training.windows = changed.windows(training.config.window)
    np.testing.assert_array_equal(training.score(rows), before)


@every_network
def test_a_batch_in_parts_has_the_batchs_gradient(name):
    """Without dropout, parts of 1, 7 or 24 rows add up to the gradient and the loss of the whole."""
    training = begun(small(name, dropout=0.0))
    batch = training.rows[:50]

    def gradient(size: int) -> tuple[float, list[torch.Tensor]]:
        training.config = replace(training.config, micro_batch_size=size)
        loss = training.gradient(batch)
        return loss, [p.grad.clone() for p in training.network.parameters() if p.grad is not None]

    loss, whole = gradient(0)
    for size in (1, 7, 24):
        parts_loss, parts = gradient(size)
        assert parts_loss == pytest.approx(loss, rel=1e-5)
        for a, b in zip(whole, parts, strict=True):
            torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-3)


class Normed(nn.Module):
    """A network with batch normalisation."""

    def __init__(self, features: int, window: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Flatten(), nn.Linear(features * window, 8), nn.BatchNorm1d(8), nn.Linear(8, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(batch, window, features) -> (batch,)."""
        return self.layers(x).squeeze(-1)


def test_batch_normalisation_gets_whole_batches():
    """Its statistics after an epoch do not depend on the size of the parts."""

    def variance(size: int) -> torch.Tensor:
        config = TrainerConfig(window=3, batch_size=64, micro_batch_size=size)
        training = Training.begin(PROBLEM, lambda: Normed(4, 3), config, 0)
        training.epoch()
        return training.network.state_dict()["layers.2.running_var"]

    assert torch.equal(variance(8), variance(0))


def test_a_step_is_adams_with_the_gradient_clipped():
    """A step by hand: PyTorch's Adam on the mean squared error, its gradient cut to a norm of 0.01."""
    training = begun(small("mlp", dropout=0.0, gradient_clip=0.01, optimizer="adam", learning_rate=0.003))
    twin = begun(small("mlp", dropout=0.0))
    batch = training.rows[:40]
    training.step(batch)
    found = [p.grad for p in training.network.parameters()]
    assert torch.cat([each.flatten() for each in found]).norm().item() == pytest.approx(0.01, rel=1e-4)
    optimizer = torch.optim.Adam(twin.network.parameters(), lr=0.003, weight_decay=0.01)
    x, y = torch.from_numpy(PROBLEM.features[batch]), torch.from_numpy(PROBLEM.label[batch])
    (twin.network(x) - y).square().mean().backward()
    raw = [p.grad for p in twin.network.parameters()]
    norm = torch.cat([each.flatten() for each in raw]).norm()
    assert norm > 0.1
    for each in raw:
        each.mul_(0.01 / norm)
    optimizer.step()
    for a, b in zip(training.network.parameters(), twin.network.parameters(), strict=True):
        torch.testing.assert_close(a, b, atol=2e-6, rtol=1e-4)


def test_schedule_rises_evenly_and_falls_as_a_cosine():
    """Closed form: step / warmup at first, a half of the rate in the middle, next to nothing at the end."""
    config = TrainerConfig(warmup_steps=10)
    assert schedule(replace(config, schedule="constant"), 4, 100) == pytest.approx(0.5)
    assert schedule(replace(config, schedule="constant"), 99, 100) == 1.0
    assert schedule(config, 50, 100) == pytest.approx(0.5)
    assert schedule(config, 99, 100) == pytest.approx(math.sin(math.pi / 200) ** 2)
    assert schedule(replace(config, warmup_steps=0), 0, 100) == 1.0


@every_network
def test_learns_in_mixed_precision(name):
    """Of a label that is half signal, half of the signal is found on other rows; weights stay float32."""
    training = begun(small(name, precision="bfloat16", epochs=5, dropout=0.0, learning_rate=0.02), problem(days=120))
    problem_rows = np.flatnonzero(training.windows.day >= 90)
    for _ in range(5):
        training.epoch()
    found = np.corrcoef(training.score(problem_rows), training.label.numpy()[problem_rows])[0, 1]
    seen = 0.5 if name == "mlp" else math.sqrt(0.5)
    assert found > 0.5 * seen
    assert {p.dtype for p in training.network.parameters()} == {torch.float32}


@pytest.mark.parametrize(
    ("precision", "cost", "warned"), [("bfloat16", 60.0, 1), ("bfloat16", 0.6, 0), ("float32", 60.0, 0)]
)
def test_a_cpu_that_is_slower_in_bfloat16_is_named(monkeypatch, precision, cost, warned):
    """With the measured factor and the setting to change."""
    monkeypatch.setattr("mlops_tasks.modeling.model_zoo.network.bfloat16_cost", lambda: cost)
    events: list[tuple[str, Any]] = []
    links = Links(events=lambda kind, payload: events.append((kind, payload)))
    NetworkFamily().fit(PROBLEM, TrainingSession(small("mlp", precision=precision, epochs=1), links=links))
    said = [payload["explanation"] for kind, payload in events if kind == "warning"]
    assert len(said) == warned
    assert all("60 times" in each and "hyperparameters.mlp.precision: float32" in each for each in said)


def test_the_cost_of_bfloat16_is_a_ratio_of_times():
    """Of some factor, whatever the processor."""
    assert 0.05 < bfloat16_cost() < 1000


@pytest.mark.parametrize("name", ["mlp", "lstm", "transformer"])
def test_an_absurd_learning_rate_ends_as_an_error(name):
    """Steps of ten thousand without clipping or warm-up diverge; the error says so and what to lower."""
    config = small(name, gradient_clip=0, warmup_steps=0, epochs=50, schedule="constant")
    absurd = config.model_copy(update={"hyperparameters": {**config.hyperparameters, "learning_rate": 1e4}})
    with pytest.raises(TrainingError, match=rf"{name}: (train|valid).loss is .* lower .*{name}.learning_rate"):
        NetworkFamily().fit(PROBLEM, TrainingSession(absurd))


def test_without_a_metric_the_last_epoch_is_kept():
    """One name a day has no IC: no epoch is the best, and the untrained weights are not what is saved."""
    alone = problem(instruments=1, days=200)
    family = NetworkFamily()
    family.fit(alone, TrainingSession(small("mlp")))
    training = begun(small("mlp"), alone)
    for _ in range(FEW["epochs"]):
        training.epoch()
    assert all(torch.equal(family.weights[key], tensor) for key, tensor in copied(training.network).items())


def test_a_detector_that_compares_ics_has_that_of_train_and_changes_no_weight():
    """After each epoch, of its network's scores; what is drawn in training is drawn as ever."""
    stopping = StoppingConfig(metric="ic", overfitting=OverfittingConfig(metric="rank_ic"))
    plain, compared = small("mlp"), small("mlp").model_copy(update={"stopping": stopping})
    family, other, session = NetworkFamily(), NetworkFamily(), TrainingSession(compared)
    family.fit(PROBLEM, session)
    other.fit(PROBLEM, TrainingSession(plain))
    assert all(torch.equal(family.weights[key], other.weights[key]) for key in family.weights)
    with reproducible(1):
        last = trained(plain, epochs=FEW["epochs"])
    rows = PROBLEM.learned(PROBLEM.train)
    expected = DailyCorrelation(PROBLEM.realised[rows], PROBLEM.day[rows]).rank_ic(last.score(rows))
    values = [metrics["train.rank_ic"] for _, metrics in session.history]
    assert len(values) == FEW["epochs"]
    assert values[-1] == pytest.approx(expected)


def test_the_best_epoch_is_what_is_saved_and_scores_as_it_did(tmp_path):
    """Weights on disk are those of the epoch with the best validation IC, and score the same from there."""
    config = small("gru", learning_rate=0.02, epochs=6)
    family, session = NetworkFamily(), TrainingSession(config)
    result = family.fit(PROBLEM, session)
    ics = [metrics["valid.ic"] for _, metrics in session.history]
    assert result.best_iteration == 1 + int(np.argmax(ics))
    with reproducible(1):
        training = trained(config, epochs=result.best_iteration)
    family.save(tmp_path)
    saved = load_file(tmp_path / "weights.safetensors")
    assert all(np.array_equal(saved[name], tensor.numpy()) for name, tensor in copied(training.network).items())
    rows = PROBLEM.learned(PROBLEM.valid)
    scores = NetworkFamily.load(tmp_path, {}, 1).predict(training.windows.gather(rows))
    np.testing.assert_allclose(scores, training.score(rows), atol=1e-6)
    assert set(result.importance) == set(PROBLEM.names)
    assert min(result.importance["F0"], result.importance["F1"]) > max(result.importance["F2"], result.importance["F3"])


@every_network
def test_a_row_scores_alike_to_the_last_bit_wherever_it_stands(name, tmp_path):
    """Alone, at another place, and among others: serving and backtest agree."""
    config = small(name)
    training = begun(config)
    family = NetworkFamily()
    trainer, hyperparameters = TrainerConfig.split(config.hyperparameters)
    family.architecture = Architecture(config.class_path or "", 4, trainer.window, hyperparameters)
    family.weights = copied(training.network)
    family.save(tmp_path)
    predictor = NetworkFamily.load(tmp_path, {}, 1)
    shape = (300, 4) if name == "mlp" else (300, trainer.window, 4)
    x = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    scores = predictor.predict(x)
    np.testing.assert_array_equal(predictor.predict(x[::-1])[::-1], scores)
    np.testing.assert_array_equal(predictor.predict(x[77:78]), scores[77:78])


@settings(max_examples=30, deadline=None)
@given(rows=st.integers(0, 200), seed=st.integers(0, 5))
def test_a_sample_of_validation_rows_has_of_each_day_the_same_share(rows, seed):
    """About as many as are asked for, at most one a day more; training rows and their labels stay."""
    sample = watched(PROBLEM, rows, seed)
    every, kept = PROBLEM.learned(PROBLEM.valid), sample.learned(sample.valid)
    np.testing.assert_array_equal(sample.learned(sample.train), PROBLEM.learned(PROBLEM.train))
    np.testing.assert_array_equal(sample.label[kept], PROBLEM.label[kept])
    if not rows or rows >= len(every):
        assert sample is PROBLEM
        return
    days, counts = np.unique(PROBLEM.day[every], return_counts=True)
    share = rows / len(every)
    expected = {int(day): math.ceil(count * share) for day, count in zip(days, counts, strict=True)}
    found_days, found = np.unique(PROBLEM.day[kept], return_counts=True)
    assert dict(zip(found_days.tolist(), found.tolist(), strict=True)) == expected
    np.testing.assert_array_equal(watched(PROBLEM, rows, seed).label, sample.label)


def test_missing_values_are_refused_with_the_remedy():
    """The error names the processor to set."""
    features = PROBLEM.features.copy()
    features[3, 1] = np.nan
    with pytest.raises(ConfigError, match=r"mlp: a network cannot take missing values; set feature_processors"):
        NetworkFamily().fit(replace(PROBLEM, features=features), TrainingSession(small("mlp")))


@pytest.mark.parametrize(
    ("class_path", "reason"),
    [
        ("no_such_module:Net", "cannot be imported"),
        ("torch.nn:NoSuchNet", "cannot be imported"),
        ("math:pi", "is not a torch.nn.Module"),
        ("torch.nn:Linear", "cannot be made with features, window"),
    ],
)
def test_a_class_path_that_names_no_network_is_refused(class_path, reason):
    """Before any training."""
    with pytest.raises(ConfigError, match=reason):
        Architecture(class_path, 4, 8, {}).build()


def test_the_generators_are_left_as_they_were():
    """Training neither takes from nor sets what others draw from; threads and determinism are put back."""
    torch.manual_seed(3)
    state, threads = torch.get_rng_state(), torch.get_num_threads()
    with reproducible(2):
        torch.rand(10)
        assert torch.are_deterministic_algorithms_enabled()
        assert torch.get_num_threads() == 2
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.get_num_threads() == threads


def test_memory_is_estimated_from_above_within_reason():
    """A process grows to the peak of an epoch, with 158 features, by a third of the estimate or more, not beyond it."""
    command = [sys.executable, "-W", "ignore", "-m", "tests.training.networks.peak", *NETWORKS]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, cwd=PROJECT)
    for name, (grown, estimate) in json.loads(done.stdout.splitlines()[-1]).items():
        assert grown < estimate < 3 * grown, name
