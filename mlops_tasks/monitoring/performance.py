"""How served scores have turned out, by version and arm, once the label's horizon has passed.

The scores evaluated are those that the scoring service returned for a day while it was the newest one, when the outcome
was unknown. Labels come from a vintage, usually today's, so that a restated price counts as it is known now. A day is
mature when its label exists; before that, it is not evaluated.
"""

import logging
from dataclasses import dataclass
from datetime import date
from typing import Any

import numpy as np
import pandas as pd

from mlops_tasks.columns import DATETIME, INSTRUMENT, SCORE
from mlops_tasks.config import Settings
from mlops_tasks.data.vintages import Vintage, load_vintage
from mlops_tasks.errors import MlopsError, StoreError, first_few
from mlops_tasks.evaluation.ic import daily_ic, daily_rank_ic
from mlops_tasks.evaluation.significance import cosine_mean
from mlops_tasks.features.labels import forward_return, label_dates
from mlops_tasks.files import finite_or_none, read_json, write_json
from mlops_tasks.monitoring.performance_files import DAYS, performance_path
from mlops_tasks.registry.models import load_version
from mlops_tasks.stage_results import MaturePerformance
from mlops_tasks.state.history import publications
from mlops_tasks.state.predictions import PredictionFilter, served_scores

log = logging.getLogger(__name__)

TOP_SHARE = 0.1
"""Share of a day's names, best scores first, that form the top group; at least one name."""
LEAST_DAYS = 20
"""With fewer days there is no interval."""
DAILY = ("ic", "rank_ic", "hit_rate", "top_return", "slope")


@dataclass(frozen=True)
class Performance:
    """Performance of a version in an arm, over its mature days; None for what is unknown.

    Attributes
    ----------
    horizon
        Horizon of the version's label, in trading days from the first tradable one, the day after the scored one.
    pending_days
        Scored days whose label does not exist yet; they are in none of the other numbers.
    ic_mean, rank_ic_mean
        Mean of the daily correlations with the label.
    rank_ic_lower, rank_ic_upper
        95% interval of the mean, robust to autocorrelation (`cosine_mean`), for a single look; None below 20 days.
    hit_rate
        Share of names on the same side of the day's median by score and by label; 0.5 is chance.
    top_return
        Mean daily label of the best tenth less the mean of all names; a return over the horizon.
    slope
        Label gained per unit of score, mean over days; 1 if scores are unbiased forecasts of returns.
    daily
        By datetime: names, ic, rank_ic, hit_rate, top_return, slope; mature days only.
    """

    model_version: int
    arm: str
    horizon: int
    pending_days: tuple[date, ...]
    daily: pd.DataFrame
    ic_mean: float | None
    rank_ic_mean: float | None
    rank_ic_lower: float | None
    rank_ic_upper: float | None
    hit_rate: float | None
    top_return: float | None
    slope: float | None

    def to_json(self) -> dict[str, Any]:
        """Plain values, days as text."""
        numbers = {name: value for name, value in vars(self).items() if name not in ("daily", "pending_days")}
        pending = [day.isoformat() for day in self.pending_days]
        return {**numbers, "mature_days": len(self.daily), "pending_days": pending, "daily": _plain(self.daily)}


def _plain(daily: pd.DataFrame) -> list[dict[str, Any]]:
    return [
        {"date": str(day.date()), "names": int(row.pop("names"))}
        | {name: finite_or_none(value) for name, value in row.items()}
        for day, row in zip(daily.index, daily.to_dict("records"), strict=True)
    ]


def performance(settings: Settings, vintage: Vintage) -> list[Performance]:
    """Performance of every version and arm that has answered, by the labels of a vintage; newest version first.

    A version that is no longer in the registry has no known horizon and is left out, with a warning.
    """
    live = live_scores(settings, served_scores(settings, PredictionFilter()))
    horizons = {int(version): label_horizon(settings, int(version)) for version in live["model_version"].unique()}
    labels = {each: forward_return(vintage, each) for each in set(horizons.values()) if each is not None}
    calendar = vintage.calendar()
    found = []
    for (version, arm), part in live.groupby(["model_version", "arm"], sort=True):
        horizon = horizons[int(version)]
        if horizon is not None:
            scores = part.set_index([DATETIME, INSTRUMENT])[SCORE].sort_index()
            known = label_dates(calendar, horizon)["known"].dropna().index
            judged = LabelledScores(scores, labels[horizon], known, horizon)
            found.append(arm_performance(int(version), str(arm), judged))
    return sorted(found, key=lambda each: (-each.model_version, each.arm))


def mature_performance(settings: Settings, vintage: Vintage) -> list[MaturePerformance]:
    """The figures of versions and arms that have mature days by the labels of a vintage.

    They are computed once a vintage and kept below `reports/performance`, with every day: what is answered while it is
    in use is not mature by it.
    """
    path = performance_path(settings, vintage.last_date, vintage.data_version)
    if not path.is_file():
        found = [each for each in performance(settings, vintage) if len(each.daily)]
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, {"performance": list(map(_figures, found)), DAYS: [_plain(each.daily) for each in found]})
    kept: list[MaturePerformance] = read_json(path)["performance"]
    return kept


def _figures(found: Performance) -> MaturePerformance:
    return {
        "model_version": found.model_version,
        "arm": found.arm,
        "mature_days": len(found.daily),
        "last_mature_day": str(found.daily.index[-1].date()),
        "rank_ic_mean": found.rank_ic_mean,
        "rank_ic_lower": found.rank_ic_lower,
        "rank_ic_upper": found.rank_ic_upper,
        "hit_rate": found.hit_rate,
    }


def live_scores(settings: Settings, served: pd.DataFrame) -> pd.DataFrame:
    """Select from served scores (`served_scores`) those of the newest day of the data from which they were computed.

    If the same day was served on several vintages in succession, the first one in use counts. Answers on vintages that
    no longer exist are left out, with a warning.
    """
    order = {name: place for place, name in enumerate(dict.fromkeys(publications(settings)))}
    versions = [str(name) for name in served["data_version"].unique()]
    newest = {name: day for name in versions if (day := last_date(settings, name)) is not None}
    gone = sorted(set(versions) - set(newest))
    if gone:
        log.warning("answers on vintages that no longer exist are not evaluated: %s", first_few(gone))
    live = served[served[DATETIME] == served["data_version"].map(newest)]
    place = live["data_version"].map(lambda name: order.get(name, len(order)))
    keys = ["model_version", "arm", DATETIME]
    first = place.groupby([live[key] for key in keys]).transform("min")
    kept = live[place == first].sort_values([*keys, INSTRUMENT, "data_version"])
    return kept.drop_duplicates([*keys, INSTRUMENT]).reset_index(drop=True)


def last_date(settings: Settings, data_version: str) -> pd.Timestamp | None:
    """Newest day of a vintage; None where it is gone."""
    try:
        return pd.Timestamp(load_vintage(settings, data_version).last_date)
    except (StoreError, OSError):
        return None


def label_horizon(settings: Settings, version: int) -> int | None:
    """Horizon of a version's label in trading days; None, with a warning, where it cannot be read."""
    try:
        return int(load_version(settings, version).artefact.manifest["horizon"])
    except MlopsError as error:
        log.warning("version %d is not evaluated, as its horizon is unknown: %s", version, error)
        return None


@dataclass(frozen=True)
class LabelledScores:
    """Live scores of one arm and their labels, both indexed by (datetime, instrument)."""

    scores: pd.Series
    label: pd.Series
    known: pd.DatetimeIndex
    """Days whose label exists."""
    horizon: int


def arm_performance(version: int, arm: str, judged: LabelledScores) -> Performance:
    """Performance of a version in an arm."""
    days = judged.scores.index.get_level_values(DATETIME)
    mature = days.isin(judged.known)
    daily = daily_performance(judged.scores[mature], judged.label)
    rank_ic = daily["rank_ic"].dropna()
    test = cosine_mean(rank_ic) if len(rank_ic) >= LEAST_DAYS else None
    means = {name: finite_or_none(daily[name].mean()) for name in DAILY}
    return Performance(
        model_version=version,
        arm=arm,
        horizon=judged.horizon,
        pending_days=tuple(day.date() for day in days[~mature].unique()),
        daily=daily,
        ic_mean=means["ic"],
        rank_ic_mean=means["rank_ic"],
        rank_ic_lower=None if test is None else test.lower,
        rank_ic_upper=None if test is None else test.upper,
        hit_rate=means["hit_rate"],
        top_return=means["top_return"],
        slope=means["slope"],
    )


def daily_performance(scores: pd.Series, label: pd.Series) -> pd.DataFrame:
    """Each day's measures of scores against labels, both indexed by (datetime, instrument).

    Returns
    -------
    Frame by datetime, a row for each day with a label: `names` with both values, and the columns of `DAILY` as in
    `Performance`. NaN if a day has fewer than three names, or if all scores or all labels are equal.
    """
    pairs = pd.DataFrame({SCORE: scores, "label": label.reindex(scores.index)}).dropna()
    if pairs.empty:
        return pd.DataFrame(columns=["names", *DAILY], index=pd.DatetimeIndex([], name=DATETIME), dtype=float)
    by_day = pairs.groupby(level=DATETIME)
    frame = by_day.apply(_day_measures)
    ics = {"ic": daily_ic(pairs[SCORE], pairs["label"]), "rank_ic": daily_rank_ic(pairs[SCORE], pairs["label"])}
    return pd.DataFrame({"names": by_day.size(), **ics, **frame})[["names", *DAILY]]


def _day_measures(day: pd.DataFrame) -> pd.Series:
    score, label = day[SCORE].to_numpy(np.float64), day["label"].to_numpy(np.float64)
    sides = np.sign(score - np.median(score)) * np.sign(label - np.median(label))
    told = sides[sides != 0]
    top = np.argsort(-score, kind="stable")[: max(1, int(len(score) * TOP_SHARE))]
    spread = score.var()
    usable = len(score) >= 3 and spread > 0
    return pd.Series({
        "hit_rate": float((told > 0).mean()) if usable and len(told) else np.nan,
        "top_return": float(label[top].mean() - label.mean()) if usable else np.nan,
        "slope": float(np.cov(score, label, ddof=0)[0, 1] / spread) if usable else np.nan,
    })  # fmt: skip
