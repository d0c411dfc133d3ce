"""Every model learns the planted signals that it can see, none of those that it cannot, and reports no skill on noise.

Skill is the mean daily rank IC on untouched test days, as a share of the oracle's, which knows the signal. Markets are
small and signals strong (`SHAPE`), hyper-parameters small (`SMALL`), so a training takes seconds on a core.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, cached_property
from typing import Any

import numpy as np
import pandas as pd
import pytest

from mlops_tasks.columns import DATETIME, LABEL, SCORE
from mlops_tasks.evaluation.ic import daily_rank_ic
from mlops_tasks.evaluation.significance import MeanTest, cosine_mean
from mlops_tasks.modeling.configuration import resolve_config
from mlops_tasks.modeling.dataset import fit_processors
from mlops_tasks.modeling.fitting import Prepared
from mlops_tasks.modeling.model_zoo.zoo import model_zoo, zoo_entry
from mlops_tasks.modeling.problem import learning_problem
from mlops_tasks.tuning.selector import kind_of
from mlops_tasks.tuning.trial import fit_and_score
from tests.planted import ONE_THREAD, SIGNALS, VOLATILITY, Planted, Shape, plant

SHAPE = Shape(days=200, instruments=30, features=4, snr=0.3)
SEED = 1

NETWORK = {"batch_size": 128, "learning_rate": 0.005, "warmup_steps": 10, "dropout": 0.0, "epochs": 8}
WINDOW = {**NETWORK, "window": 10}
ATTENTION = {**WINDOW, "d_model": 16, "heads": 2, "layers": 1, "feedforward": 32}
SMALL: Mapping[str, Mapping[str, Any]] = {
    "lightgbm": {"learning_rate": 0.1, "num_leaves": 15, "lambda_l1": 0.0, "lambda_l2": 1.0, "num_boost_round": 80},
    "xgboost": {"learning_rate": 0.1, "max_depth": 4, "min_child_weight": 10.0, "num_boost_round": 80},
    "mlp": {**NETWORK, "hidden_size": 32, "layers": 1},
    "lstm": {**WINDOW, "hidden_size": 24},
    "gru": {**WINDOW, "hidden_size": 24},
    "transformer": ATTENTION,
    "informer": {**ATTENTION, "epochs": 6},
    "timesnet": {**WINDOW, "d_model": 8, "layers": 1, "epochs": 4},
    "patchtst": {**WINDOW, "d_model": 16, "patch_length": 2, "stride": 1, "epochs": 4},
}
"""Overrides of the zoo's defaults, which suit thousands of names; what is not named here trains with the defaults."""

OWN_DAY = {"linear": 0.75, "interaction": 0.6, "threshold": 0.5}
LEAST: Mapping[str, Mapping[str, float]] = {
    "linear": {"linear": 0.9},
    "trees": OWN_DAY,
    "network": OWN_DAY,
    "window_network": {"linear": 0.75, "window_sum": 0.75, "periodic": 0.4},
    "other": {"linear": 0.6},
}
"""By kind of model: the signals that it sees, and the share of the oracle's skill that it has to reach."""
BLIND: Mapping[str, tuple[str, ...]] = {
    "linear": ("interaction", "window_sum"),
    "trees": ("window_sum",),
    "network": ("window_sum",),
}
"""Signals of which nothing can be learned."""

SEEN = [(name, kind) for name, entry in model_zoo().items() for kind in LEAST[kind_of(entry)]]
UNSEEN = [(name, kind) for name, entry in model_zoo().items() for kind in BLIND.get(kind_of(entry), ())]


THOROUGH = Shape(days=500, instruments=40, features=4, snr=0.3)
LONG = {"epochs": 20, "batch_size": 256}
NOISE = Shape(days=150, instruments=60, features=4)
NOISE_SPLIT = (0.1, 0.2)
"""Little to learn from, which is nothing anyway, and many days on which a leak would show."""
NOISE_MARKETS = (4, 3)
"""Of models that are no networks, and of networks."""
LEAK = 0.035
"""A rank IC that a single market of `SHAPE` cannot tell from chance: 1.2 errors over its 40 test days."""
THOROUGH_LEAST = {"trees": ("xor", "sparse"), "network": ("xor", "sparse"), "window_network": ("interaction", "xor")}


@dataclass(frozen=True)
class Market:
    """A planted market, and what a model reaches on its test days."""

    kind: str
    shape: Shape = SHAPE
    seed: int = SEED
    split: tuple[float, float] = (0.6, 0.8)
    """Shares of the days before valid and before test."""

    @cached_property
    def planted(self) -> Planted:
        """Equal markets are equal bytes."""
        made = plant(self.kind, self.shape, self.seed)
        days = made.data.features.index.unique(DATETIME).date
        valid, test = (int(share * len(days)) for share in self.split)
        parts = {"train": days[:valid], "valid": days[valid:test], "test": days[test:]}
        segments = {name: (part[0], part[-1]) for name, part in parts.items()}
        return replace(made, data=replace(made.data, segments=segments))

    def skill(self, model: str, more: Mapping[str, Any] | None = None) -> MeanTest:
        """Rank IC on the test days, with its error."""
        return cosine_mean(self.daily_skill(model, more))

    def daily_skill(self, model: str, more: Mapping[str, Any] | None = None) -> pd.Series:
        """Rank IC of each test day; 0 where all scores are the same."""
        allowed = zoo_entry(model).hyperparameters
        overrides = {**SMALL.get(model, {}), **{k: v for k, v in (more or {}).items() if k in allowed}}
        config = resolve_config(model, overrides, seed=SEED)
        fold = _fold(self, config.feature_processors, config.label_processor)
        scored = fit_and_score(fold, config, ONE_THREAD)
        first = pd.Timestamp(self.planted.data.segments["test"][0])
        scored = scored[scored.index.get_level_values(DATETIME) >= first]
        return daily_rank_ic(scored[SCORE], scored[LABEL]).fillna(0.0)


@cache
def _fold(market: Market, processors: tuple[str, ...], label_processor: str) -> Prepared:
    data = market.planted.data
    fitted = fit_processors(data, processors)
    return Prepared(data, fitted, learning_problem(data, fitted, label_processor))


@pytest.fixture(scope="module")
def markets() -> dict[str, Market]:
    """One of each kind."""
    return {kind: Market(kind) for kind in SIGNALS}


@pytest.mark.parametrize(("model", "kind"), SEEN)
def test_a_model_learns_the_signals_that_it_can_see(markets, model, kind):
    """Its share of the oracle's rank IC on untouched days is at least that of `LEAST`."""
    oracle = markets[kind].planted.oracle
    skill = markets[kind].skill(model)
    assert oracle > 0.4
    assert skill.mean >= LEAST[kind_of(zoo_entry(model))][kind] * oracle


@pytest.mark.parametrize(("model", "kind"), UNSEEN)
def test_a_model_finds_nothing_where_it_can_see_nothing(markets, model, kind):
    """A linear model no interaction, a model of the own day nothing that lies in the days before."""
    daily = markets[kind].daily_skill(model)
    assert abs(chance([daily], SHAPE.instruments)) < 4
    assert daily.mean() < 0.25 * markets[kind].planted.oracle


@cache
def noise(number: int) -> Market:
    """A market in which there is nothing to learn."""
    return Market("noise", NOISE, 200 + number, NOISE_SPLIT)


def chance(daily: Sequence[pd.Series], names: int) -> float:
    """The mean of all days' rank ICs over its error; standard normal of scores that know nothing.

    Of n names in random order the rank IC has mean 0 and variance 1 / (n - 1) (Kendall, Rank Correlation Methods).
    """
    pooled = pd.concat(daily)
    return float(pooled.mean() * np.sqrt((names - 1) * len(pooled)))


@pytest.mark.parametrize("model", model_zoo())
def test_no_model_reports_skill_on_noise(model):
    """Over several markets the mean rank IC is within three errors of zero, above and below."""
    markets = NOISE_MARKETS[zoo_entry(model).family == "network"]
    daily = [noise(number).daily_skill(model, {"epochs": 1}) for number in range(markets)]
    assert abs(chance(daily, NOISE.instruments)) <= 3


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("markets", NOISE_MARKETS)
def test_a_small_leak_would_show_in_so_many_days(sign, markets):
    """Scores that know `LEAK` of the label, or the contrary, are beyond three errors."""
    daily = []
    for number in range(markets):
        label = noise(number).planted.data.label.loc[pd.Timestamp(noise(number).planted.data.segments["test"][0]) :]
        chaff = np.random.default_rng(number).standard_normal(len(label))
        daily.append(daily_rank_ic(sign * LEAK * label / VOLATILITY + chaff, label))
    assert sign * chance(daily, NOISE.instruments) > 3


@pytest.mark.slow
@pytest.mark.parametrize("model", model_zoo())
def test_with_more_data_a_model_comes_close_to_the_oracle(model):
    """On every kind that it can see: 70% of the oracle's rank IC, half of it where two days are multiplied."""
    kind = kind_of(zoo_entry(model))
    for signal in (*LEAST[kind], *THOROUGH_LEAST.get(kind, ())):
        found = Market(signal, THOROUGH, SEED)
        assert found.skill(model, LONG).mean >= 0.7 * found.planted.oracle, signal


@pytest.mark.slow
def test_some_window_model_learns_the_product_of_two_days():
    """The hardest of the planted signals: nothing of it is linear, nor on one day."""
    found = Market("lag_product", THOROUGH, SEED)
    windows = [name for name, entry in model_zoo().items() if kind_of(entry) == "window_network"]
    assert max(found.skill(model, LONG).mean for model in windows) >= 0.6 * found.planted.oracle


@pytest.mark.slow
@pytest.mark.parametrize("model", model_zoo())
def test_a_model_finds_skill_in_noise_as_often_as_chance_does(model):
    """Over eight more markets, with more epochs, the mean rank IC is within three errors of zero, and each in 3.5."""
    daily = [noise(number).daily_skill(model, {"epochs": 3}) for number in range(10, 18)]
    assert abs(chance(daily, NOISE.instruments)) < 3
    assert max(abs(chance([each], NOISE.instruments)) for each in daily) < 3.5
