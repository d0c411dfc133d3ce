"""Daily metrics of an experiment's models from the log of predictions, once their outcome is known.

The scores of an arm are those that the scoring service returned for its version: as champion, canary, shadow or
fallback. As in `monitoring/performance.py`, a day's scores count only if they were computed while that day was the
newest one, and outcomes come from a vintage, usually today's, so a restated price counts as it is known now. Two arms
are compared on the names that both have scored on a day, and on days at whose end (UTC) the experiment was running.

`ic`, `rank_ic`, `hit_rate` and `top_return` are those of `daily_performance`, indexed by the scored day t. The label is
the return from the close of t + 1 to that of t + 1 + h, where h is the horizon of both versions; before that close
there is no value. With h above 1 the labels of neighbouring days overlap, which is said to the choice of the method.

`portfolio_return`, `portfolio_cost` and `turnover` are those of a top-k dropout portfolio by Qlib's backtest
(`evaluation/portfolio.py`), with the costs, price limits and sizes of the settings' `portfolio`. They are indexed by
the trading day d, from the market day after the first score to the last scored day that is followed by another day
with bars. Scores of day t are traded at the close of t + 1, so the return of d is that of the names bought by the close
of the day before, one day's return whatever the horizon. `portfolio_return` is after costs; all are shares of the
account. The first day has the costs of buying, of both arms alike. `topk` is capped at a third of the names of the
first day; later days do not change it. The portfolio goes on while an experiment is paused, but these days have no
value. A day on which a metric is undefined (fewer than three names, all scores equal) is left out.

No value depends on bars after its outcome, with one exception: an instrument without a bar on the vintage's last day
counts as delisted, and is paid out at `portfolio.delisting_return`, until it trades again.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property

import numpy as np
import pandas as pd

from mlops_tasks.columns import DATETIME, INSTRUMENT, SCORE
from mlops_tasks.config import Settings
from mlops_tasks.data.vintages import Vintage, current_vintage
from mlops_tasks.errors import ExperimentError, StoreError
from mlops_tasks.evaluation.portfolio import capped_sizes, daily_account, portfolio_metrics, tradable_scores
from mlops_tasks.experiments.design import ExperimentDesign, PredictionMetric
from mlops_tasks.experiments.inference.offers import OVERLAP, Data
from mlops_tasks.experiments.lifecycle import Experiment
from mlops_tasks.experiments.paired_days import CONTROL, TREATMENT, PairedDays, PairedPortfolios
from mlops_tasks.features.labels import forward_return, label_dates
from mlops_tasks.monitoring.performance import daily_performance, label_horizon, live_scores
from mlops_tasks.state.predictions import PredictionFilter, served_scores
from mlops_tasks.states import ExperimentState

_OF_ACCOUNT: Mapping[PredictionMetric, Callable[[pd.DataFrame], pd.Series]] = {
    PredictionMetric.PORTFOLIO_RETURN: lambda daily: daily["return"] - daily["cost"],
    PredictionMetric.PORTFOLIO_COST: lambda daily: daily["cost"],
    PredictionMetric.TURNOVER: lambda daily: daily["turnover"],
}


class ArmScores:
    """The scores of an experiment's arms that count, and what became of them by the labels of a vintage."""

    def __init__(self, settings: Settings, history: Sequence[Experiment], vintage: Vintage | None = None) -> None:
        self._settings, self._history = settings, history
        self._vintage = vintage
        self._scores: dict[str, pd.Series] = {}
        self._accounts: dict[str, tuple[pd.DataFrame, pd.DataFrame]] = {}
        self._labels: dict[int, pd.Series] = {}

    @cached_property
    def _bars(self) -> Vintage:
        return current_vintage(self._settings) if self._vintage is None else self._vintage

    @property
    def _design(self) -> ExperimentDesign:
        return self._history[-1].design

    def paired(self, metric: PredictionMetric, arm: str) -> PairedDays:
        """The daily values of the control and of another arm; days without a value of both are left out.

        Raises
        ------
        ExperimentError
            An arm has no scores, no outcome is known yet, or the arms' labels cannot be compared.
        StoreError
            No vintage is in use, or it is gone.
        """
        if metric in _OF_ACCOUNT:
            accounts = self._both_accounts(arm)
            both = {
                name: _OF_ACCOUNT[metric](daily) for name, daily in zip((CONTROL, TREATMENT), accounts, strict=True)
            }
            return PairedDays(self._by_day(both), None)
        horizon = self._common_horizon(arm)
        control, treatment = self._common_scores(arm)
        days = control.index.get_level_values(DATETIME)
        mature = days.isin(label_dates(self._bars.calendar(), horizon)["known"].dropna().index)
        if not mature.any():
            raise ExperimentError(
                f"{arm}: the outcome of no scored day is known yet; the first is known {horizon + 1} market days after "
                "its scores: wait"
            )
        label = self._label(horizon)
        both = {
            name: daily_performance(scores[mature], label)[metric.value]
            for name, scores in ((CONTROL, control), (TREATMENT, treatment))
        }
        return PairedDays(self._by_day(both), Data.OVERLAPPING_LABELS if horizon > 1 else None)

    def portfolios(self, arm: str) -> PairedPortfolios:
        """The portfolios of the control and of another arm. Errors as for `paired`."""
        control, treatment = (daily[self._counts(daily.index)] for daily in self._both_accounts(arm))
        return PairedPortfolios(arm, len(control), portfolio_metrics(control), portfolio_metrics(treatment))

    def _common_horizon(self, arm: str) -> int:
        arms = (self._design.control, arm)
        horizons = {each: label_horizon(self._settings, self._design.models[each]) for each in arms}
        for each, horizon in horizons.items():
            if horizon is None:
                raise ExperimentError(
                    f"{each}: the label of version {self._design.models[each]} is not known, since the registry does "
                    "not have the version any more, or does not answer; see the log"
                )
        first, second = horizons.values()
        if first != second:
            raise ExperimentError(
                f"the labels of {arms[0]} and {arm} have different horizons ({first} and {second} days) and cannot be "
                "compared; compare portfolio_return"
            )
        assert first is not None
        if first > OVERLAP:
            raise ExperimentError(
                f"labels of {first} days overlap on more days than the {OVERLAP} for which methods were measured; "
                "compare portfolio_return, whose days do not overlap"
            )
        return first

    def _common_scores(self, arm: str) -> tuple[pd.Series, pd.Series]:
        """The scores of the control and of another arm, on the days and names that both have."""
        control, treatment = self._scores_of(self._design.control), self._scores_of(arm)
        common = control.index.intersection(treatment.index).sort_values()
        if common.empty:
            raise ExperimentError(
                f"{self._design.control} and {arm} have scored no name on the same day; let one of them score beside "
                "the other: trigger deploy_model with its version and the strategy shadow"
            )
        return control.loc[common], treatment.loc[common]

    def _scores_of(self, arm: str) -> pd.Series:
        """Finite scores by datetime and instrument, on days that count."""
        if arm not in self._scores:
            version = self._design.models[arm]
            served = served_scores(self._settings, PredictionFilter(model_version=version))
            live = live_scores(self._settings, served.assign(arm=""))
            scores = live.set_index([DATETIME, INSTRUMENT])[SCORE].astype(np.float64).sort_index()
            counted = self._counts(scores.index.get_level_values(DATETIME))
            scores = scores[counted & np.isfinite(scores.to_numpy())]
            if scores.empty:
                raise ExperimentError(
                    f"arm {arm}: version {version} has no scores in the log of a day on which the experiment ran; let "
                    "it serve, or score beside the champion: trigger deploy_model with this version and the strategy "
                    "shadow"
                )
            self._scores[arm] = scores
        return self._scores[arm]

    def _both_accounts(self, arm: str) -> tuple[pd.DataFrame, pd.DataFrame]:
        if arm not in self._accounts:
            control, treatment = (tradable_scores(each, self._bars) for each in self._common_scores(arm))
            days = control.index.get_level_values(DATETIME)
            portfolio = self._settings.portfolio
            sizes = portfolio.holding(*capped_sizes(control[days == days.min()], portfolio))
            try:
                accounts = [daily_account(each, self._settings, self._bars, sizes) for each in (control, treatment)]
            except StoreError as error:
                raise ExperimentError(f"{arm}: {error}; or wait for more days") from error
            self._accounts[arm] = accounts[0], accounts[1]
        return self._accounts[arm]

    def _label(self, horizon: int) -> pd.Series:
        if horizon not in self._labels:
            self._labels[horizon] = forward_return(self._bars, horizon)
        return self._labels[horizon]

    def _counts(self, days: pd.Index) -> np.ndarray:
        """Of each day, whether the experiment was running at its end, in UTC."""
        ends = pd.DatetimeIndex(days) + pd.Timedelta(days=1)
        times = pd.DatetimeIndex([step.at for step in self._history]).tz_convert("UTC").tz_localize(None)
        running = np.array([False, *(step.state == ExperimentState.RUNNING for step in self._history)])
        counted: np.ndarray = running[times.searchsorted(ends)]
        return counted

    def _by_day(self, both: dict[str, pd.Series]) -> pd.DataFrame:
        table = pd.DataFrame(both).dropna()
        table = table[self._counts(table.index)]
        return table.set_axis(pd.DatetimeIndex(table.index).strftime("%Y-%m-%d"))
