"""The drift report: the champion's training segment against the newest trading days, features and scores."""

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from mlops_tasks.columns import SCORE
from mlops_tasks.config import DriftSettings, Settings
from mlops_tasks.data.vintages import Vintage, load_vintage
from mlops_tasks.features.store import FeatureStore
from mlops_tasks.files import digest_of, finite_or_none, folder_lock, new_file, write_json
from mlops_tasks.monitoring.drift import Profile, drift, histogram_shares, reference_profile
from mlops_tasks.plots.drift import ScoreHistogram, drift_info, plot_drift
from mlops_tasks.plots.figure import write_png
from mlops_tasks.registry.model_features import features_of
from mlops_tasks.registry.models import LoadedModel
from mlops_tasks.training.scoring import FeatureSource, ScoringRows

log = logging.getLogger(__name__)

MAX_REFERENCE_ROWS = 200_000
REPORT = "report.json"
PROFILE_LAYOUT = 1
"""Part of a cached profile's name: a change of what a profile holds makes new ones."""


@dataclass(frozen=True)
class DriftInput:
    """What is compared: a model, and the newest days of a vintage in features of the same set."""

    champion: LoadedModel
    vintage: Vintage
    feature_version: str
    days: pd.DatetimeIndex
    thresholds: DriftSettings

    @property
    def digest(self) -> str:
        """Equal inputs have equal reports."""
        identity = [self.champion.training_key, self.vintage.data_version, self.feature_version, PROFILE_LAYOUT]
        return digest_of([*identity, self.thresholds.model_dump()], length=8)

    @property
    def last_date(self) -> pd.Timestamp:
        """Newest trading day."""
        return self.days[-1]


def drift_input(settings: Settings, champion: LoadedModel, data_version: str) -> DriftInput:
    """The newest `drift.current_days` trading days of a vintage, for a model; features not there yet are computed."""
    vintage = load_vintage(settings, data_version)
    days = vintage.calendar()[-settings.drift.current_days :]
    return DriftInput(champion, vintage, features_of(settings, champion, vintage), days, settings.drift)


def champion_profile(settings: Settings, champion: LoadedModel) -> Profile:
    """Profile of the features and scores of a model's train segment, computed once a training.

    Of more than 200,000 rows, that many at equal distances are taken (the rows are sorted by day and instrument).
    """
    path = settings.reports_dir / "drift" / "profiles" / f"{champion.training_key}-{PROFILE_LAYOUT}.npz"
    with folder_lock(path.parent):
        if not path.is_file():
            with new_file(path) as beside:
                reference_profile(_reference_rows(settings, champion)).save(beside)
    return Profile.load(path)


def _reference_rows(settings: Settings, champion: LoadedModel) -> pd.DataFrame:
    manifest = champion.artefact.manifest
    first, last = manifest["segments"]["train"]
    vintage = load_vintage(settings, manifest["data_version"])
    rows = _rows(settings, champion, manifest["feature_version"], (first, last), vintage)
    return _with_scores(champion, rows.at_most(MAX_REFERENCE_ROWS))


def write_drift_report(folder: Path, settings: Settings, given: DriftInput) -> dict[str, Any]:
    """Compute drift and write report.json, drift.parquet and drift.png into `folder`; returns the report.

    Raises
    ------
    StoreError
        The features of the champion's training, or the current ones, are not in the store.
    """
    champion = given.champion
    profile = champion_profile(settings, champion)
    span = (str(given.days[0].date()), str(given.last_date.date()))
    current = _with_scores(champion, _rows(settings, champion, given.feature_version, span, given.vintage))
    table = drift(profile, current)
    report = _summary(given, table, len(current))
    table.reset_index().to_parquet(folder / "drift.parquet", index=False)
    scores = profile.columns[SCORE]
    histogram = ScoreHistogram(scores.histogram_edges, scores.histogram, histogram_shares(scores, current[SCORE]))
    title = f"Drift on {span[1]}, version {champion.version}"
    thresholds = (given.thresholds.psi_warn, given.thresholds.psi_alert)
    write_png(plot_drift(drift_info(table, thresholds, histogram, title)), folder / "drift.png")
    write_json(folder / REPORT, report)
    return report


def _summary(given: DriftInput, table: pd.DataFrame, rows: int) -> dict[str, Any]:
    psi, limits = table["psi"], given.thresholds
    worst = psi.dropna().head(10)
    return {
        "date": str(given.last_date.date()),
        "model_version": given.champion.version,
        "training_key": given.champion.training_key,
        "data_version": given.vintage.data_version,
        "feature_version": given.feature_version,
        "current_days": len(given.days),
        "current_rows": rows,
        "columns": len(table),
        "psi_warn": limits.psi_warn,
        "psi_alert": limits.psi_alert,
        "n_warn": int(((psi >= limits.psi_warn) & (psi < limits.psi_alert)).sum()),
        "n_alert": int((psi >= limits.psi_alert).sum()),
        "psi_max": finite_or_none(psi.max()),
        "score_psi": finite_or_none(psi[SCORE]),
        "score_ks_statistic": finite_or_none(table.loc[SCORE, "ks_statistic"]),
        "worst": {str(name): float(value) for name, value in worst.items()},
    }


def _rows(
    settings: Settings, champion: LoadedModel, feature_version: str, span: tuple[str, str], vintage: Vintage
) -> ScoringRows:
    artefact = champion.artefact
    source = FeatureSource(FeatureStore(settings), vintage, feature_version, artefact.feature_names)
    return source.rows(*span, artefact.window)


def _with_scores(champion: LoadedModel, rows: ScoringRows) -> pd.DataFrame:
    return rows.scored_features().assign(**{SCORE: champion.artefact.score(rows)})
