"""Measured properties of learning data, from which an algorithm is chosen.

Most of them are landmarks: the skill of quick learners shows what kind of structure the data have (Pfahringer, Bensusan
and Giraud-Carrier, Meta-Learning by Landmarking Various Learning Algorithms, ICML 2000). Each landmark is scored out of
fold within the training segment, on four blocks of consecutive days. Days on both sides of a block whose labels overlap
it are left out. Errors allow for folds that train each other's models (`evaluation/fold_inference.py`). Nothing of the
validation and test segments is read.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from mlops_tasks.columns import DATETIME, INSTRUMENT
from mlops_tasks.errors import TrainingError
from mlops_tasks.evaluation.fold_inference import inflated, variance_inflation
from mlops_tasks.evaluation.ic import daily_rank_ic
from mlops_tasks.evaluation.significance import MeanTest, cosine_mean
from mlops_tasks.evaluation.splits import Split
from mlops_tasks.modeling.dataset import LearningData
from mlops_tasks.modeling.processors import FittedProcessors

Floats = npt.NDArray[np.floating[Any]]
Ints = npt.NDArray[np.int64]

FOLDS = 4
MIN_DAYS = 40
"""With fewer labelled training days, the mean of a fold says nothing."""
HISTORY_DAYS = 10
HISTORY_COLUMNS = 200
"""Lags times columns, at most; wider data are represented by their leading principal components."""
RIDGE_PENALTIES = (1e-3, 1e-2, 1e-1, 1.0)
"""Ridge penalties divided by the number of rows, for features of unit scale."""
TREE_PENALTIES = (10.0, 100.0, 580.9768)
"""L2 penalties of a leaf; the last one is that of Qlib's published configuration."""
LINEAR, TREES, HISTORY_LINEAR, HISTORY_TREES = "linear", "trees", "history_linear", "history_trees"


@dataclass(frozen=True)
class ProfileConfig:
    """How much is measured."""

    horizon: int = 1
    """Trading days of the label; `horizon + 1` days are left out on both sides of a fold."""
    max_rows: int = 60_000
    """The most rows that the tree landmarks learn from: whole days, drawn by the seed."""
    seed: int = 0
    threads: int = 1


@dataclass(frozen=True)
class Skill:
    """Mean daily rank IC out of fold, or the difference between two, with an error that is robust to autocorrelation
    and allows for folds that train each other's models."""

    rank_ic: float
    standard_error: float
    p_value: float
    """One-sided, against a mean above zero."""

    @classmethod
    def of(cls, test: MeanTest) -> "Skill":
        """From the test of a daily series."""
        return cls(test.mean, test.standard_error, test.p_one_sided)


@dataclass(frozen=True)
class DataProfile:
    """What was measured on the training segment; plain JSON by `to_json`.

    Attributes
    ----------
    rows, days, instruments, features
        Labelled rows of the training segment, and how many distinct days, instruments and columns they have.
    instruments_per_day
        Median.
    missing_share
        Of the feature values, in [0, 1].
    effective_rank
        Exponential of the entropy of the feature correlation's eigenvalues (Roy and Vetterli, 2007): 1 when all columns
        are the same, `features` when they are uncorrelated.
    label_kurtosis
        Excess kurtosis of the labels less their day's mean; 0 for a normal distribution.
    label_autocorrelation, feature_autocorrelation
        Correlation with the same instrument's value one trading day before; the median over the columns for features.
    landmarks
        Skill by landmark: `linear` and `trees` see the row's own day, `history_*` the days before it too.
    nonlinearity_gain
        Trees minus linear, by day.
    history_gain
        The better history landmark minus the better landmark of the row's own day, by day.
    settings
        The setting that did best for each landmark: `penalty_per_row` or `penalty`.
    history_days
        Fewest days of history within one standard error of the best (linear).
    """

    rows: int
    days: int
    instruments: int
    features: int
    instruments_per_day: float
    missing_share: float
    effective_rank: float
    label_kurtosis: float
    label_autocorrelation: float
    feature_autocorrelation: float
    landmarks: Mapping[str, Skill]
    nonlinearity_gain: Skill
    history_gain: Skill
    settings: Mapping[str, float] = field(default_factory=dict)
    history_days: int = 1

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)


def profile_data(data: LearningData, config: ProfileConfig | None = None) -> DataProfile:
    """Measure the training segment of learning data (raw features, NaN included).

    Raises
    ------
    TrainingError
        Fewer than `MIN_DAYS` days have labels to rank.
    """
    config = config or ProfileConfig()
    sample = _Sample.of(data, config)
    skills = {name: sample.daily(scores) for name, scores in sample.landmarks().items()}
    best_own = max((LINEAR, TREES), key=lambda name: skills[name].mean())
    best_history = max((HISTORY_LINEAR, HISTORY_TREES), key=lambda name: skills[name].mean())
    correlation = _correlation(sample.own)
    deviations = sample.label - pd.Series(sample.label).groupby(sample.day).transform("mean").to_numpy()
    raw = data.features.iloc[data.rows("train")]
    return DataProfile(
        rows=len(sample.label),
        days=len(np.unique(sample.day)),
        instruments=len(np.unique(sample.instrument)),
        features=raw.shape[1],
        instruments_per_day=float(np.median(np.unique(sample.day, return_counts=True)[1])),
        missing_share=float(np.mean([raw[name].isna().mean() for name in raw])),
        effective_rank=_effective_rank(correlation),
        label_kurtosis=float(pd.Series(deviations).kurt()),
        label_autocorrelation=_pair_correlation(deviations, sample.lag(deviations[:, None], 1)[:, 0]),
        feature_autocorrelation=_feature_autocorrelation(sample),
        landmarks={name: sample.skill(daily) for name, daily in skills.items()},
        nonlinearity_gain=sample.skill(skills[TREES] - skills[LINEAR]),
        history_gain=sample.skill(skills[best_history] - skills[best_own]),
        settings=sample.settings,
        history_days=sample.history_days,
    )


@dataclass
class _Sample:
    """Labelled training rows, robustly scaled."""

    own: Floats
    """Shape (n, features), float32, NaN filled by 0."""
    label: Floats
    target: Floats
    """Per day, the label's rank scaled to variance one, shape (n,)."""
    day: Ints
    instrument: Ints
    config: ProfileConfig
    settings: dict[str, float] = field(default_factory=dict)
    history_days: int = 1

    @classmethod
    def of(cls, data: LearningData, config: ProfileConfig) -> "_Sample":
        rows = data.rows("train")
        index = data.features.index[rows]
        label = data.label.iloc[rows].to_numpy(np.float64)
        kept = np.isfinite(label)
        day = pd.factorize(index.get_level_values(DATETIME))[0][kept].astype(np.int64)
        if len(np.unique(day)) < MIN_DAYS:
            raise TrainingError(
                f"segment train has {len(np.unique(day))} days with labels, and choosing an algorithm needs {MIN_DAYS} "
                "or more; choose an earlier first day of train, or name the model"
            )
        matrix = data.features.iloc[rows].to_numpy(dtype=np.float32)
        # The scale comes from the whole training segment: it uses no label, and nothing after the segment.
        own = FittedProcessors.fit(["robust_zscore_fill_zero"], matrix).transform(matrix)[kept]
        ranks = pd.Series(label[kept]).groupby(day).rank(pct=True).to_numpy()
        return cls(
            own=own,
            label=label[kept],
            target=(ranks - 0.5) * np.sqrt(12),
            day=day,
            instrument=pd.factorize(index.get_level_values(INSTRUMENT))[0][kept].astype(np.int64),
            config=config,
        )

    def landmarks(self) -> dict[str, Floats]:
        """Out-of-fold scores by landmark, each at its best penalty; NaN for rows that were not scored."""
        base = _components(self.own, HISTORY_COLUMNS // HISTORY_DAYS)
        history = np.hstack([self.lag(base, lag) for lag in range(1, HISTORY_DAYS)])
        history[np.isnan(history)] = 0.0
        scores = {
            LINEAR: self._best(LINEAR, RIDGE_PENALTIES, lambda p: self._out_of_fold(self.own, _ridge(p))),
            TREES: self._best(TREES, TREE_PENALTIES, lambda p: self._out_of_fold(self.own, self._trees(p), True)),
        }
        scores[HISTORY_LINEAR] = self._history(base, history)
        both = np.hstack([base, history])
        penalty = self.settings[TREES]
        scores[HISTORY_TREES] = self._out_of_fold(both, self._trees(penalty), True)
        return scores

    def daily(self, scores: Floats) -> pd.Series:
        """Rank IC by day, over the days that were scored."""
        index = pd.MultiIndex.from_arrays([self.day, self.instrument], names=[DATETIME, INSTRUMENT])
        # Positions stand for the days: only their order matters here.
        index = index.set_levels(pd.to_datetime(index.levels[0], unit="D"), level=0)
        return daily_rank_ic(pd.Series(scores, index), pd.Series(self.label, index)).dropna()

    def skill(self, daily: pd.Series) -> Skill:
        """The skill that a daily rank IC, or a difference of two, shows."""
        return Skill.of(inflated(cosine_mean(daily), self._inflation))

    @cached_property
    def _splits(self) -> list[Split]:
        """Each block of days, tested by a model of the days that are far enough from it."""
        gap, days = self.config.horizon + 1, np.unique(self.day)
        blocks = np.array_split(days, FOLDS)
        return [Split(days[(days < b[0] - gap) | (days > b[-1] + gap)], days[:0], b) for b in blocks]

    @cached_property
    def _inflation(self) -> float:
        return variance_inflation(self._splits, int(self.day[-1]) + 1)

    def lag(self, values: Floats, days: int) -> Floats:
        """The same instrument's values `days` trading days earlier, shaped as `values`; NaN where it has none."""
        table = np.full((self.day[-1] + 1, self.instrument.max() + 1), -1)
        table[self.day, self.instrument] = np.arange(len(self.day))
        before = self.day - days
        position = np.where(before >= 0, table[np.maximum(before, 0), self.instrument], -1)
        result: Floats = values[position].astype(np.float32)
        result[position < 0] = np.nan
        return result

    def _best(self, name: str, penalties: Sequence[float], score: Callable[[float], Floats]) -> Floats:
        found = {penalty: score(penalty) for penalty in penalties}
        means = {penalty: self.daily(scores).mean() for penalty, scores in found.items()}
        best = max(penalties, key=lambda penalty: means[penalty] if np.isfinite(means[penalty]) else -np.inf)
        self.settings[name] = best
        return found[best]

    def _history(self, base: Floats, history: Floats) -> Floats:
        """Ridge over the days of the window; remembers the shortest window within one standard error of the best."""
        width, found = base.shape[1], {}
        for days in (2, 5, HISTORY_DAYS):
            columns = np.hstack([base, history[:, : (days - 1) * width]])
            found[days] = self._out_of_fold(columns, _ridge(1e-2))
        skills = {days: self.skill(self.daily(scores)) for days, scores in found.items()}
        best = max(skills, key=lambda days: skills[days].rank_ic)
        floor = skills[best].rank_ic - skills[best].standard_error
        self.history_days = min(days for days in skills if skills[days].rank_ic >= floor)
        return found[best]

    def _out_of_fold(self, columns: Floats, learner: "Learner", sampled: bool = False) -> Floats:
        scores = np.full(len(self.day), np.nan)
        random = np.random.default_rng(self.config.seed)
        for split in self._splits:
            held, learned = np.isin(self.day, split.test), np.isin(self.day, split.train)
            if sampled and learned.sum() > self.config.max_rows:
                days = np.unique(self.day[learned])
                few = max(MIN_DAYS // 2, int(len(days) * self.config.max_rows / learned.sum()))
                learned &= np.isin(self.day, random.choice(days, few, replace=False))
            scores[held] = learner(columns[learned], self.target[learned], columns[held])
        return scores

    def _trees(self, penalty: float) -> "Learner":
        import lightgbm

        parameters = {
            "objective": "mse",
            "learning_rate": 0.1,
            "num_leaves": 31,
            "max_depth": 6,
            "colsample_bytree": 0.9,
            "lambda_l2": penalty,
            "verbosity": -1,
            "seed": self.config.seed,
            "num_threads": self.config.threads,
            "deterministic": True,
            "force_row_wise": True,
        }

        def learn(columns: Floats, target: Floats, held: Floats) -> Floats:
            booster = lightgbm.train(parameters, lightgbm.Dataset(columns, target), num_boost_round=60)
            return booster.predict(held, num_threads=self.config.threads)

        return learn


Learner = Callable[[Floats, Floats, Floats], Floats]
"""Learns from columns and target, and scores other rows' columns."""


def _ridge(penalty: float) -> Learner:
    def learn(columns: Floats, target: Floats, held: Floats) -> Floats:
        gram = (columns.T @ columns).astype(np.float64) / len(columns)
        moment = (columns.T @ target.astype(np.float32)).astype(np.float64) / len(columns)
        weights = np.linalg.solve(gram + penalty * np.eye(len(gram)), moment)
        return held @ weights.astype(np.float32)

    return learn


def _components(own: Floats, count: int) -> Floats:
    """The columns themselves if they are few, else their leading principal components, scaled to unit variance."""
    if own.shape[1] <= count:
        return own
    values, vectors = np.linalg.eigh((own.T @ own).astype(np.float64) / len(own))
    leading = vectors[:, ::-1][:, :count] / np.sqrt(np.maximum(values[::-1][:count], 1e-12))
    return own @ leading.astype(np.float32)


def _correlation(own: Floats) -> Floats:
    covariance = np.cov(own, rowvar=False, dtype=np.float64).reshape(own.shape[1], -1)
    spread = np.sqrt(np.diag(covariance))
    spread[spread == 0] = 1.0
    scaled: Floats = covariance / np.outer(spread, spread)
    return scaled


def _effective_rank(correlation: Floats) -> float:
    shares = np.maximum(np.linalg.eigvalsh(correlation), 0.0)
    shares = shares[shares > 0] / shares.sum()
    return float(np.exp(-(shares * np.log(shares)).sum()))


def _feature_autocorrelation(sample: _Sample) -> float:
    before = sample.lag(sample.own, 1)
    columns = range(sample.own.shape[1])
    return float(np.nanmedian([_pair_correlation(sample.own[:, k], before[:, k]) for k in columns]))


def _pair_correlation(now: Floats, before: Floats) -> float:
    """Correlation over the pairs without missing values; 0 where one side does not vary."""
    both = np.isfinite(now) & np.isfinite(before)
    if both.sum() < 2 or now[both].std() == 0 or before[both].std() == 0:
        return 0.0
    return float(np.corrcoef(now[both], before[both])[0, 1])
