"""The drift report: the champion's training segment against the newest trading days, features and scores.

It has one verdict per day over all columns (`bands.py`); PSI, KS, Wasserstein and chi-square are shown beside it.
"""

import logging
from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import pandas as pd

from mlops_tasks.columns import SCORE
from mlops_tasks.config import DriftSettings, Settings
from mlops_tasks.data.vintages import Vintage, load_vintage
from mlops_tasks.errors import ExplanationError
from mlops_tasks.explain.engine import explain, is_exact
from mlops_tasks.features.store import FeatureStore
from mlops_tasks.files import digest_of, finite_or_none, folder_lock, new_folder, read_json, write_json
from mlops_tasks.modeling.scoring import FeatureSource, ScoringRows
from mlops_tasks.monitoring.bands import Bands, reference_bands
from mlops_tasks.monitoring.drift import drift
from mlops_tasks.monitoring.profile import Profile, histogram_of, reference_profile, sorted_finite
from mlops_tasks.monitoring.severity import Importance, Stake, with_cost
from mlops_tasks.monitoring.summaries import DailySummaries, daily_summaries
from mlops_tasks.plots.drift import ScoreHistogram, drift_info, plot_drift
from mlops_tasks.plots.figure import write_png
from mlops_tasks.registry.model_features import features_of
from mlops_tasks.registry.models import LoadedModel
from mlops_tasks.training_folder import TrainingFolder

log = logging.getLogger(__name__)

MAX_REFERENCE_ROWS = 200_000
IMPORTANCE_ROWS = 2000
"""Rows of the training segment whose Shapley values make the importance."""
REPORT = "report.json"
REFERENCE_LAYOUT = 7
"""Part of the name of a cached reference: a change of its content creates new ones."""
NEAR = 0.75
"""Columns at or above this share of the limit count as near it."""
NAMED_COLUMNS = 20
_PROFILE, _DAYS, _IMPORTANCE = "profile.npz", "days.npz", "column_importance.json"


@dataclass(frozen=True)
class DriftInput:
    """The subject of a report: a model, and the newest days of a vintage in features of the same set."""

    champion: LoadedModel
    vintage: Vintage
    feature_version: str
    days: pd.DatetimeIndex
    limits: DriftSettings

    @property
    def digest(self) -> str:
        """Equal inputs have equal reports."""
        identity = [self.champion.training_key, self.vintage.data_version, self.feature_version, REFERENCE_LAYOUT]
        return digest_of([*identity, self.limits.model_dump(exclude={"retraining"})], length=8)

    @property
    def last_date(self) -> pd.Timestamp:
        """Newest trading day."""
        return self.days[-1]


def drift_input(settings: Settings, champion: LoadedModel, vintage: Vintage, day: date | None = None) -> DriftInput:
    """The last `drift.current_days` trading days of a vintage up to a day (None: its newest), for a model; missing
    features are computed."""
    days = vintage.calendar()
    days = (days if day is None else days[days <= pd.Timestamp(day)])[-settings.drift.current_days :]
    return DriftInput(champion, vintage, features_of(settings, champion, vintage), days, settings.drift)


@dataclass(frozen=True)
class Reference:
    """Reference of a model's train segment, features and scores, over all rows and by day."""

    profile: Profile
    days: DailySummaries
    importance: Importance

    def bands(self, limits: DriftSettings) -> Bands:
        """Bands for windows of the newest day and of all current days."""
        return reference_bands(self.days, (1, limits.current_days), limits.error_rate)

    def save(self, folder: Path) -> None:
        """Write three files into a folder."""
        self.profile.save(folder / _PROFILE)
        self.days.save(folder / _DAYS)
        write_json(folder / _IMPORTANCE, vars(self.importance))

    @classmethod
    def load(cls, folder: Path) -> "Reference":
        """Read what `save` has written."""
        importance = Importance(**read_json(folder / _IMPORTANCE))
        return cls(Profile.load(folder / _PROFILE), DailySummaries.load(folder / _DAYS), importance)


def make_reference(settings: Settings, model: LoadedModel) -> Path:
    """The folder of a model's reference, which is computed once per training; another process's is waited for.

    If there are more than 200,000 rows, that many at equal distances are used (rows are sorted by day and instrument).
    """
    path = settings.reports_dir / "drift" / "references" / f"{model.training_key}-{REFERENCE_LAYOUT}"
    with folder_lock(path.parent):
        if not path.is_dir():
            found = _reference_rows(settings, model)
            rows = _with_scores(model, found)
            importance = _importance(settings, model, found)
            with new_folder(path) as folder:
                Reference(reference_profile(rows), daily_summaries(rows), importance).save(folder)
    return path


def _importance(settings: Settings, champion: LoadedModel, rows: ScoringRows) -> Importance:
    """By exact Shapley values of some of the rows; of a model that has none, what its training has recorded."""
    if is_exact(champion.artefact):
        sample = rows.at_most(IMPORTANCE_ROWS)
        try:
            sizes = explain(champion.artefact, sample, sample).importance().table["mean_abs"]
        except ExplanationError as error:  # trees of another kind
            log.info("the importance of version %d is its training's: %s", champion.version, error)
        else:
            told = f"mean absolute Shapley value on {sample.wanted.sum():,} rows of the training segment"
            return Importance(sizes.to_dict(), told)
    recorded = TrainingFolder.of(settings, champion.training_key).importance()
    return Importance(recorded, "what the training recorded" if recorded else "not known")


def _reference_rows(settings: Settings, champion: LoadedModel) -> ScoringRows:
    manifest = champion.artefact.manifest
    first, last = manifest["segments"]["train"]
    vintage = load_vintage(settings, manifest["data_version"])
    rows = _rows(settings, champion, manifest["feature_version"], (first, last), vintage)
    return rows.at_most(MAX_REFERENCE_ROWS)


def write_drift_report(folder: Path, settings: Settings, given: DriftInput) -> dict[str, Any]:
    """Compute drift and write report.json, drift.parquet and drift.png into `folder`; returns the report.

    Raises
    ------
    StoreError
        The features of the champion's training, or the current ones, are not in the store.
    """
    champion = given.champion
    reference = Reference.load(make_reference(settings, champion))
    span = (str(given.days[0].date()), str(given.last_date.date()))
    current = _with_scores(champion, _rows(settings, champion, given.feature_version, span, given.vintage))
    bands = reference.bands(given.limits)
    table = _table(reference, bands, current)
    report = _summary(given, bands, table, len(current)) | {"importance_by": reference.importance.measured_by}
    table.reset_index().to_parquet(folder / "drift.parquet", index=False)
    scores = reference.profile.columns[SCORE]
    shares = histogram_of(sorted_finite(current[SCORE]), scores.histogram_edges)
    histogram = ScoreHistogram(scores.histogram_edges, scores.histogram, shares)
    title = f"Drift on {span[1]}, version {champion.version}"
    write_png(plot_drift(drift_info(table, NEAR, histogram, title)), folder / "drift.png")
    write_json(folder / REPORT, report)
    return report


def _table(reference: Reference, bands: Bands, current: pd.DataFrame) -> pd.DataFrame:
    """Table by column, in the order of `with_cost`: exceedance, the distances of `drift`, and what it may cost."""
    summaries = daily_summaries(current[list(bands.columns)], bands.norms)
    return with_cost(bands.exceedance(summaries).join(drift(reference.profile, current)), reference.importance)


def _summary(given: DriftInput, bands: Bands, table: pd.DataFrame, rows: int) -> dict[str, Any]:
    beyond, stake = table[table["exceedance"] >= 1], Stake.of(table)
    psi = table["psi"].sort_values(ascending=False, kind="stable")
    return {
        "date": str(given.last_date.date()),
        "model_version": given.champion.version,
        "training_key": given.champion.training_key,
        "data_version": given.vintage.data_version,
        "feature_version": given.feature_version,
        "current_days": len(given.days),
        "current_rows": rows,
        "columns": len(table),
        "verdict": "drift" if len(beyond) else "quiet",
        "error_rate": bands.error_rate,
        "reference_windows": bands.windows,
        "n_alert": len(beyond),
        "n_warn": int(((table["exceedance"] >= NEAR) & (table["exceedance"] < 1)).sum()),
        "exceedance_max": float(table["exceedance"].max()),
        "scores_beyond": stake.scores,
        "importance_beyond": finite_or_none(stake.importance),
        "importance_unknown": stake.unknown,
        "cost": finite_or_none(stake.cost),
        "beyond": [_column_beyond(row) for row in beyond.head(NAMED_COLUMNS).reset_index().to_dict("records")],
        "psi_max": finite_or_none(psi.max()),
        "score_psi": finite_or_none(psi[SCORE]),
        "score_ks_statistic": finite_or_none(table.loc[SCORE, "ks_statistic"]),
        "score_wasserstein": finite_or_none(table.loc[SCORE, "wasserstein"]),
        "worst": {str(name): float(value) for name, value in psi.dropna().head(10).items()},
    }


def _column_beyond(row: Mapping[Hashable, Any]) -> dict[str, Any]:
    return {
        "column": row["column"],
        "statistic": row["statistic"],
        "days": int(row["days"]),
        "exceedance": float(row["exceedance"]),
        "rows_outside": finite_or_none(row["rows_outside"]),
        "nan_share_current": finite_or_none(row["nan_share_current"]),
        "wasserstein": finite_or_none(row["wasserstein"]),
        "cramers_v": finite_or_none(row["cramers_v"]),
        "importance_share": finite_or_none(row["importance_share"]),
        "cost": finite_or_none(row["cost"]),
    }


def drift_message(report: Mapping[str, Any]) -> str:
    """Message of an alert: the columns that may cost most, how far they are beyond the limit, and what is at stake."""
    named = "; ".join(_in_words(column) for column in report["beyond"][:5])
    return f"{report['n_alert']} columns drift on {report['date']} ({at_stake(report)}): {named}; see {report['path']}"


def at_stake(report: Mapping[str, Any]) -> str:
    """What the drift of a report may cost, in words."""
    share, unknown = report["importance_beyond"], report["importance_unknown"]
    parts = ["the scores themselves"] if report["scores_beyond"] else []
    if share is None:
        parts.append(f"the importance of {'these columns' if unknown > 1 else 'this column'} is not known")
    elif share or not parts:
        parts.append(f"{share:.0%} of the score's importance" + (f" (not known for {unknown} more)" if unknown else ""))
    return "; ".join(parts)


def _in_words(column: Mapping[str, Any]) -> str:
    days = "the newest day" if column["days"] == 1 else f"{column['days']} days"
    share, outside = column["importance_share"], column["rows_outside"]
    weight = f"{share:.1%} of the importance" if share is not None else "importance not known"
    parts = [f"{column['column']}, {column['statistic']} of {days} {column['exceedance']:.1f} times the limit"]
    parts += [] if column["column"] == SCORE else [weight]
    parts += [] if outside is None else [f"{outside:.0%} of rows outside training's central 99%"]
    return ", ".join(parts)


def _rows(
    settings: Settings, champion: LoadedModel, feature_version: str, span: tuple[str, str], vintage: Vintage
) -> ScoringRows:
    artefact = champion.artefact
    source = FeatureSource(FeatureStore(settings), vintage, feature_version, artefact.feature_names)
    return source.rows(*span, artefact.window)


def _with_scores(champion: LoadedModel, rows: ScoringRows) -> pd.DataFrame:
    return rows.scored_features().assign(**{SCORE: champion.artefact.score(rows)})
