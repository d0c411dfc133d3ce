"""Is what a search finds skill or luck? Studies of planted markets and of noise, judged on untouched test days.

There are two opponents. Qlib's defaults for Alpha158 of whole markets (the zoo's) get the same budget: as many seeds,
of which the best on validation days is taken; they are too much regularised for panels as small as these, so beating
them shows little. LightGBM's own defaults suit such panels; they draw nothing at random, so one training is all that
they can make of any budget.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import date
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd

from mlops_tasks.columns import DATETIME, LABEL, SCORE
from mlops_tasks.config import GateSettings, Settings, TrainingSettings
from mlops_tasks.evaluation import looks
from mlops_tasks.evaluation.backtest_overfitting import SearchEvidence, search_evidence
from mlops_tasks.evaluation.gate import BOOTSTRAP, CandidateEvidence, Champion, evidence, should_promote
from mlops_tasks.evaluation.ic import daily_rank_ic
from mlops_tasks.evaluation.significance import cosine_mean
from mlops_tasks.modeling.configuration import resolve_config
from mlops_tasks.modeling.fitting import Prepared
from mlops_tasks.state.trials import daily_rank_ics, trials_of
from mlops_tasks.tuning.optimizer import HyperparameterOptimizer, StudySubject
from mlops_tasks.tuning.study import StudyConfig
from mlops_tasks.tuning.trial import fit_and_score
from tests.planted import Planted

MODEL = "lightgbm"
ROUNDS = {"num_boost_round": 100}
ZOO: Mapping[str, Any] = ROUNDS
LIBRARY: Mapping[str, Any] = {
    **ROUNDS,
    "learning_rate": 0.1,
    "num_leaves": 31,
    "max_depth": -1,
    "colsample_bytree": 1.0,
    "subsample": 1.0,
    "lambda_l1": 0.0,
    "lambda_l2": 0.0,
}
HORIZON = 1
SEARCH_RULES = ("deflated_sharpe_ratio", "backtest_overfitting")


@dataclass(frozen=True)
class Scored:
    """A model's scores and labels on validation and test days."""

    valid: pd.DataFrame
    test: pd.DataFrame

    def rank_ic(self, segment: str) -> pd.Series:
        """Daily, of `valid` or `test`."""
        rows = getattr(self, segment)
        return daily_rank_ic(rows[SCORE], rows[LABEL]).fillna(0.0)


@dataclass(frozen=True)
class Market:
    """A planted market and a folder for its study."""

    planted: Planted
    home: Path
    model: str = MODEL
    first: Mapping[str, Any] | None = field(default_factory=lambda: LIBRARY)
    """What a search tries right after the zoo's defaults; None: nothing."""

    @cached_property
    def settings(self) -> Settings:
        """One thread, all in the folder."""
        return Settings(home=self.home, training=TrainingSettings(threads=1))

    @cached_property
    def _fold(self) -> Prepared:
        """What every configuration learns from."""
        return Prepared.of(self.planted.data, resolve_config(self.model, seed=0))

    def train(self, overrides: Mapping[str, Any], seed: int, stopping: Mapping[str, Any] | None = None) -> Scored:
        """Train one configuration; the only place where test rows are scored."""
        config = resolve_config(self.model, overrides, seed=seed, stopping=stopping)
        fold = self._fold if stopping is None else Prepared.of(self.planted.data, config)
        scored = fit_and_score(fold, config, self.settings)
        first = pd.Timestamp(self.planted.data.segments["test"][0])
        is_test = scored.index.get_level_values(DATETIME) >= first
        return Scored(scored[~is_test], scored[is_test])

    def search(self, trials: int, seed: int) -> HyperparameterOptimizer:
        """A finished study by TPE; its first trial is the zoo's defaults."""
        first = () if self.first is None else (self.first,)
        config = StudyConfig(model=self.model, trials=trials, seed=seed, fixed=ROUNDS, first=first, pruner="none")
        found = HyperparameterOptimizer(
            self.settings, config, StudySubject("v", "f", HORIZON, self.planted.data.segments)
        )
        found.run(self.planted.data)
        return found

    def best_of_seeds(self, defaults: Mapping[str, Any], count: int) -> Scored:
        """The best of so many seeds by its mean rank IC on validation days."""
        return max((self.train(defaults, seed) for seed in range(count)), key=lambda each: each.rank_ic("valid").mean())

    def chosen(self, study: HyperparameterOptimizer) -> Scored:
        """The study's best trial, trained once more as the engine would."""
        return self.train(study.hyperparameters(study.best()[0]), study.config.seed, study.config.stopping)

    def search_passes(self, study: HyperparameterOptimizer, chosen: Scored) -> bool:
        """Whether the gate's checks of a search let its best trial pass, whatever becomes of it on the test days."""
        ours = replace(self._evidence("tuned", chosen), studies=(study.name,), search=_search(study, chosen))
        subject, market = looks.LookSubject("tuned", date(2024, 1, 2), 1), looks.MarketDays([])
        look = looks.plan_look(subject, "skill", [], market, GateSettings())
        return should_promote(ours, None, GateSettings(), look).rule not in SEARCH_RULES

    def decisions(self, study: HyperparameterOptimizer, chosen: Scored, champion: Scored) -> tuple[bool, bool, bool]:
        """Whether the gate promotes the chosen model without a champion, and against one; and whether taking the best
        validation result at face value does, at the gate's own level."""
        ours = replace(self._evidence("tuned", chosen), studies=(study.name,), search=_search(study, chosen))
        policy = GateSettings(looks="daily")
        subject, market = looks.LookSubject("tuned", date(2024, 1, 2), 1), looks.MarketDays([])
        skill, gain = (looks.plan_look(subject, kind, [], market, policy) for kind in ("skill", "gain"))
        against = Champion("champion", self._evidence("champion", champion), age_days=0)
        first = should_promote(ours, None, policy, skill).rule == BOOTSTRAP
        later = should_promote(ours, against, policy, gain).promotes
        naive = cosine_mean(chosen.rank_ic("valid"))
        return first, later, naive.mean > 0 and naive.p_one_sided <= policy.alpha

    def _evidence(self, key: str, scored: Scored) -> CandidateEvidence:
        return evidence(key, scored.test[SCORE], scored.test[LABEL])


def _search(study: HyperparameterOptimizer, chosen: Scored) -> SearchEvidence:
    rows = trials_of(study.settings, study.name)
    return search_evidence(chosen.rank_ic("valid"), daily_rank_ics(rows), len(rows), HORIZON)
