"""Every model learns the planted signals that it can see, none of those that it cannot, and reports no skill on noise.

Skill is the mean daily rank IC on untouched test days, as a share of the oracle's, which knows the signal. Markets are
small and signals strong (`SHAPE`), hyper-parameters small (`SMALL`), so a training takes seconds on a core.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Any

import pandas as pd
import pytest

from mlops_tasks.columns import DATETIME, LABEL, SCORE
from mlops_tasks.evaluation.ic import daily_rank_ic
from mlops_tasks.evaluation.significance import MeanTest, newey_west_mean
from mlops_tasks.training.configuration import resolve_config
from mlops_tasks.training.dataset import fit_processors
from mlops_tasks.training.model_zoo.catalogue import model_zoo, zoo_entry
from mlops_tasks.training.problem import learning_problem
from mlops_tasks.tuning.selector import kind_of
from mlops_tasks.tuning.trial import Fold, fit_and_score
from tests.planted import SIGNALS, Planted, Shape, plant

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
THOROUGH_LEAST = {"trees": ("xor", "sparse"), "network": ("xor", "sparse"), "window_network": ("interaction", "xor")}
NOISE_MARKETS = 6


@dataclass(frozen=True)
class Market:
    """A planted market, and what a model reaches on its test days."""

    kind: str
    shape: Shape = SHAPE
    seed: int = SEED

    @cached_property
    def planted(self) -> Planted:
        """Equal markets are equal bytes."""
        return plant(self.kind, self.shape, self.seed)

    def skill(self, model: str, more: Mapping[str, Any] | None = None) -> MeanTest:
        """Rank IC on the test days, with its error."""
        allowed = zoo_entry(model).hyperparameters
        overrides = {**SMALL.get(model, {}), **{k: v for k, v in (more or {}).items() if k in allowed}}
        config = resolve_config(model, overrides, seed=SEED)
        fold = _fold(self, config.feature_processors, config.label_processor)
        scored = fit_and_score(fold, config, threads=1)
        first = pd.Timestamp(self.planted.data.segments["test"][0])
        scored = scored[scored.index.get_level_values(DATETIME) >= first]
        return newey_west_mean(daily_rank_ic(scored[SCORE], scored[LABEL]).fillna(0.0))


@cache
def _fold(market: Market, processors: tuple[str, ...], label_processor: str) -> Fold:
    data = market.planted.data
    fitted = fit_processors(data, processors)
    return Fold(data, fitted, learning_problem(data, fitted, label_processor))


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
    skill = markets[kind].skill(model)
    assert abs(skill.mean) < 4 * skill.standard_error
    assert skill.mean < 0.25 * markets[kind].planted.oracle


@pytest.mark.parametrize("model", model_zoo())
def test_no_model_reports_skill_on_noise(markets, model):
    """The mean daily rank IC is within three of its errors of zero, and its test, at 5% over all models, agrees."""
    skill = markets["noise"].skill(model, {"epochs": 2})
    assert abs(skill.mean) <= 3 * skill.standard_error
    assert skill.p_one_sided > 0.05 / len(model_zoo())


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
    """Over six markets of noise, the mean of the test statistics is that of a normal one, and none is beyond 3.5."""
    t = [Market("noise", SHAPE, 100 + seed).skill(model, {"epochs": 3}).t for seed in range(NOISE_MARKETS)]
    assert abs(sum(t)) / NOISE_MARKETS**0.5 < 3
    assert max(map(abs, t)) < 3.5
