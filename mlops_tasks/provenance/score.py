"""The score itself: as the daily chain published it, or as the scoring service answered a request."""

from dataclasses import dataclass
from datetime import date, datetime

import pandas as pd

from mlops_tasks.columns import INSTRUMENT, SCORE
from mlops_tasks.config import Settings
from mlops_tasks.errors import LineageError
from mlops_tasks.files import digest_of
from mlops_tasks.provenance.evidence import EvidenceBook
from mlops_tasks.registry.client import CHALLENGER, CHAMPION
from mlops_tasks.state.history import latest_score_batch, publication_at
from mlops_tasks.state.predictions import Answered, PredictionFilter, predictions
from mlops_tasks.state.tables import ScoreBatch
from mlops_tasks.states import Arm

ANSWERS_LOOKED_AT = 1000
"""Newest answers of a day among which a score is looked for."""


@dataclass(frozen=True)
class TracedScore:
    """One score of one instrument on one day."""

    instrument: str
    date: date
    score: float
    version: int
    made_at: datetime
    """When it was published, or answered."""
    file: str | None
    """The score file, relative to the home; None: it was only served by request."""
    alias: str | None
    """Of the file: `champion`, `challenger`; None as above."""
    request_id: str | None
    """Of the answer; None: no answer with it is in the log of predictions."""
    slot: str | None
    arm: str | None
    data_version: str | None
    """Vintage that it was made on; None: not known."""
    feature_version: str | None


def find_score(settings: Settings, instrument: str, day: date, version: int | None, book: EvidenceBook) -> TracedScore:
    """The champion's published score of a day, else the newest that was served, else the challenger's published one.

    Parameters
    ----------
    version
        None: whichever it is.

    Raises
    ------
    LineageError
        There is none, or its file is not what was published.
    """
    for alias in (CHAMPION, None, CHALLENGER):
        if alias is None:
            found = _served(settings, instrument, day, version, book)
        else:
            batch = latest_score_batch(settings, day, version, alias)
            found = None if batch is None else _published(settings, instrument, batch, book)
        if found is not None:
            return found
    whose = "any version" if version is None else f"version {version}"
    raise LineageError(
        f"{instrument} on {day}: no score by {whose} was published or is in the log of predictions; "
        "`alphaops predictions` lists what was served, scores/<date>/ what was published"
    )


def _published(settings: Settings, instrument: str, batch: ScoreBatch, book: EvidenceBook) -> TracedScore | None:
    """The score in a file of the daily chain; None where the file has no such instrument."""
    path = settings.scores_dir / batch.date.isoformat() / f"{batch.model_version}.parquet"
    if not path.is_file():
        raise LineageError(
            f"{path}: the scores that were published are gone; bring the file back from a backup, or name another "
            "version with --version"
        )
    scores = pd.read_parquet(path).set_index(INSTRUMENT)[SCORE]
    found = digest_of([[name, float(score)] for name, score in scores.items()])
    if found != batch.digest:
        raise LineageError(
            f"{path}: not what was published: its content has digest {found}, and {batch.digest} was recorded; bring "
            "it back from a backup, or clear score_newest_date of that run to write it again"
        )
    if instrument not in scores.index:
        return None
    book.proven("score", f"the content of {settings.relative(path)} has the digest that was recorded, {found}")
    score = float(scores[instrument])
    answer = _answer(settings, batch, instrument, score)
    if answer is None and batch.alias == CHAMPION:
        book.unproven(
            "slot",
            "no answer with this score is in the log of predictions: it was removed since, or is not there yet "
            "(`predictions.ship_s`), or the service was sent the features",
        )
    publication = publication_at(settings, batch.recorded_at)
    row = None if answer is None else answer.prediction
    return TracedScore(
        instrument=instrument,
        date=batch.date,
        score=score,
        version=batch.model_version,
        made_at=batch.recorded_at,
        file=settings.relative(path),
        alias=batch.alias,
        request_id=None if row is None else row.request_id,
        slot=None if row is None else row.slot,
        arm=None if row is None else row.arm,
        data_version=(None if publication is None else publication.data_version) if row is None else row.data_version,
        feature_version=None if row is None else row.feature_version,
    )


def _answer(settings: Settings, batch: ScoreBatch, instrument: str, score: float) -> Answered | None:
    """The newest answer with this very score by then, by which the file came about."""
    wanted = PredictionFilter(batch.date, batch.model_version, instrument)
    answers = predictions(settings, wanted, ANSWERS_LOOKED_AT)
    same = [each for each in answers if each.score == score and each.prediction.arm != Arm.FAILED]
    before = [each for each in same if each.prediction.at <= batch.recorded_at]
    return next(iter(before or same), None)


def _served(
    settings: Settings, instrument: str, day: date, version: int | None, book: EvidenceBook
) -> TracedScore | None:
    """The newest answer to a request for a day."""
    answers = predictions(settings, PredictionFilter(day, version, instrument), ANSWERS_LOOKED_AT)
    given = [each for each in answers if each.prediction.arm not in (Arm.FAILED, Arm.SHADOW)]
    if not given:
        return None
    row, score = given[0].prediction, given[0].score
    assert score is not None
    book.proven("score", f"answered to {row.key_name} as request {row.request_id}, in the log of predictions")
    return TracedScore(
        instrument=instrument,
        date=day,
        score=score,
        version=row.model_version,
        made_at=row.at,
        file=None,
        alias=None,
        request_id=row.request_id,
        slot=row.slot,
        arm=row.arm,
        data_version=row.data_version,
        feature_version=row.feature_version,
    )
