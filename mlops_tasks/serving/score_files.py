"""The daily score files: `scores/<date>/<version>.parquet` with instrument, score and the model's standing."""

import logging
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import pandas as pd

from mlops_tasks.columns import INSTRUMENT, SCORE
from mlops_tasks.config import Settings
from mlops_tasks.data.vintages import Vintage
from mlops_tasks.errors import MlopsError, RegistryError, excerpt, first_few
from mlops_tasks.features.store import FeatureStore
from mlops_tasks.files import digest_of, new_file
from mlops_tasks.registry.approvals import load_champion, standing_of
from mlops_tasks.registry.client import CHALLENGER, CHAMPION
from mlops_tasks.registry.model_features import features_of
from mlops_tasks.registry.models import LoadedModel, get_alias_version, load_version
from mlops_tasks.serving.catch_up import missed
from mlops_tasks.serving.client import ScoringClient, ScoringServiceError, scores_of
from mlops_tasks.serving.model_day import ModelDay
from mlops_tasks.state.deployments import recorded_champion
from mlops_tasks.state.history import record_score_batch, scored_days
from mlops_tasks.state.tables import ScoreBatch

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ScoreFile:
    """A written file."""

    date: date
    version: int
    path: Path
    instruments: int
    standing: str
    """As `Batch.standing`."""


def newest_day(settings: Settings, model: LoadedModel, vintage: Vintage) -> ModelDay:
    """Members that have a bar on the newest date of a vintage; missing features are computed."""
    day = date.fromisoformat(vintage.last_date)
    return ModelDay.read(FeatureStore(settings), (vintage, features_of(settings, model, vintage)), model, day)


def score_champion(settings: Settings, vintage: Vintage) -> ScoreFile | None:
    """Score the newest day's members through the scoring service and write the scores; None if there is no champion.

    A service that has not adopted the vintage yet is sent the features; those of a window model are too many to send,
    so it is scored here, by the same artefact.

    Raises
    ------
    ScoringServiceError
        The service does not answer, or lacks a member.
    """
    model = load_champion(settings)
    if model is None:
        return None
    champion, day = model.version, newest_day(settings, model, vintage)
    with ScoringClient(settings) as client:
        client.refresh()
        answer = client.score(list(day.features.index), day.date)
        if answer["feature_version"] != day.feature_version:
            log.warning("the service is at feature version %s, not %s", answer["feature_version"], day.feature_version)
            if model.artefact.window > 1:
                return write_scores(settings, Batch(day.date, champion, CHAMPION, model.standing), day.scores())
            answer = client.score_features(day.features)
    if answer["missing"] or answer["model_version"] != champion:
        missing = answer["missing"]
        without = f" and without {len(missing)} members ({first_few(map(excerpt, missing))})" if missing else ""
        raise ScoringServiceError(
            f"the service answered with version {answer['model_version']} (champion is {champion}){without}; see its "
            "/health"
        )
    return write_scores(settings, Batch(day.date, champion, CHAMPION, model.standing), scores_of(answer))


def score_missed_days(settings: Settings, vintage: Vintage) -> list[ScoreFile]:
    """Score the days that were missed, oldest first, and write the scores; each is recorded as soon as it is done.

    Nobody was answered on these days: the log of predictions has nothing of them. An error is logged and ends it: the
    newest day must not wait for an old one, and the next run tries again.
    """
    written: list[ScoreFile] = []
    try:
        for each in missed(settings, vintage, scored_days(settings, CHAMPION)):
            data = (vintage, features_of(settings, each.model, vintage))
            day = ModelDay.read(FeatureStore(settings), data, each.model, each.date)
            if day.is_empty:
                continue
            version = each.model.version
            batch = Batch(each.date, version, CHAMPION, standing_of(settings, version) or CHAMPION)
            log.warning("%s was missed: it is scored now, by version %d", each.date, version)
            written.append(write_scores(settings, batch, day.scores()))
    except MlopsError as error:
        log.error("not all missed days were scored, the next run tries again: %s", error)
    return written


def score_challenger(settings: Settings, vintage: Vintage) -> ScoreFile | None:
    """Score the newest day's members with the challenger, in this process, if it is not the champion itself."""
    challenger = get_alias_version(settings, CHALLENGER)
    if challenger is None or challenger == recorded_champion(settings):
        return None
    model = load_version(settings, challenger)
    day = newest_day(settings, model, vintage)
    return write_scores(settings, Batch(day.date, challenger, CHALLENGER, CHALLENGER), day.scores())


@dataclass(frozen=True)
class Batch:
    """The content of a score file."""

    date: date
    version: int
    alias: str
    standing: str
    """`champion`, `challenger`, or `provisional`: it serves without proven skill."""


def write_scores(settings: Settings, batch: Batch, scores: pd.Series) -> ScoreFile:
    """Write a score file in one step and record it; equal scores are an equal file."""
    if scores.isna().any():
        raise RegistryError(f"version {batch.version} leaves {int(scores.isna().sum())} scores of {batch.date} empty")
    path = settings.scores_dir / batch.date.isoformat() / f"{batch.version}.parquet"
    frame = scores.rename(SCORE).rename_axis(INSTRUMENT).sort_index().reset_index().assign(standing=batch.standing)
    path.parent.mkdir(parents=True, exist_ok=True)
    with new_file(path) as beside:
        frame.to_parquet(beside, index=False)
    digest = digest_of([[name, float(score)] for name, score in zip(frame[INSTRUMENT], frame[SCORE], strict=True)])
    row = ScoreBatch(
        date=batch.date, model_version=batch.version, alias=batch.alias, instruments=len(frame), digest=digest
    )
    record_score_batch(settings, row)
    log.info(
        "%s: %d scores of %s by version %d (%s)",
        settings.relative(path),
        len(frame),
        batch.date,
        batch.version,
        batch.standing,
    )
    return ScoreFile(batch.date, batch.version, path, len(frame), batch.standing)
