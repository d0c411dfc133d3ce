"""Record facts and read the newest ones. Recording the same fact twice leaves one row."""

from collections.abc import Callable
from datetime import date, datetime
from typing import Any, TypeVar

from sqlalchemy import Select, func, select

from mlops_tasks.config import Settings
from mlops_tasks.state.database import reading, session
from mlops_tasks.state.looks import LookRows, locked_look_rows
from mlops_tasks.state.model_history import Model, move
from mlops_tasks.state.rows import insert_row, record_row, record_step
from mlops_tasks.state.tables import (
    AlertEvent,
    Base,
    DeliveredGain,
    Deployment,
    DriftReport,
    GateDecision,
    ModelComparison,
    Publication,
    ScoreBatch,
    SeedNoise,
)
from mlops_tasks.states import Basis, ModelState, Outcome

Row = TypeVar("Row", bound=Base)


def record_gate_decision(
    settings: Settings,
    row: GateDecision,
    version: int | None = None,
    check: Callable[[LookRows], None] | None = None,
) -> bool:
    """Add a gate decision; False if there is an equal one. A rejected version moves to that state with it.

    Parameters
    ----------
    check
        Sees the looks as they stand in the transaction that adds the row. An error that it raises is passed on, and
        nothing is recorded.

    Raises
    ------
    TransitionError
        As `model_history.move`.
    """
    row.champion_key = row.champion_version or 0
    with session(settings) as active:
        if check is not None:
            check(locked_look_rows(active))
        added = insert_row(active, row)
        if version is not None and row.decision["decision"] == Outcome.REJECT:
            reason = f"rule {row.decision['rule']}: {'; '.join(row.decision['reasons'])}"
            move(active, Model(row.training_key, version), ModelState.REJECTED, reason, Basis.GATE)
    return added


def record_publication(settings: Settings, row: Publication) -> bool:
    """Add a vintage that came into use; False if the newest row is of the same one."""
    return record_step(settings, row)


def record_score_batch(settings: Settings, row: ScoreBatch) -> bool:
    """Add a batch of scores; False if there is an equal one."""
    return record_row(settings, row)


def record_drift_report(settings: Settings, row: DriftReport) -> bool:
    """Add a drift report; False if there is an equal one."""
    return record_row(settings, row)


def record_model_comparison(settings: Settings, row: ModelComparison) -> bool:
    """Add a comparison; False if there is an equal one."""
    return record_row(settings, row)


def record_delivered_gain(settings: Settings, row: DeliveredGain) -> bool:
    """Add the gain that a promotion has delivered; False if there is an equal row."""
    return record_row(settings, row)


def record_seed_noise(settings: Settings, row: SeedNoise) -> bool:
    """Add the results of several seeds of one configuration; False if there is an equal row."""
    return record_row(settings, row)


def latest_gate_decision(settings: Settings, training_key: str | None = None) -> GateDecision | None:
    """The newest decision, for one challenger if `training_key` is given."""
    return _latest(settings, GateDecision, training_key=training_key)


def gate_decisions(settings: Settings, training_key: str | None = None) -> list[GateDecision]:
    """All decisions in the order in which they were recorded, for one challenger if `training_key` is given."""
    query = select(GateDecision).order_by(GateDecision.id)
    if training_key is not None:
        query = query.where(GateDecision.training_key == training_key)
    with reading(settings) as active:
        return list(active.scalars(query))


def latest_deployment(
    settings: Settings, model_version: int | None = None, state: str | None = None
) -> Deployment | None:
    """The newest step, of one version or one state if given."""
    return _latest(settings, Deployment, model_version=model_version, state=state)


def latest_score_batch(
    settings: Settings, day: date | None = None, model_version: int | None = None, alias: str | None = None
) -> ScoreBatch | None:
    """The newest batch, of one date, version or alias if given."""
    return _latest(settings, ScoreBatch, date=day, model_version=model_version, alias=alias)


def scored_days(settings: Settings, alias: str) -> set[date]:
    """Days of which there are scores of an alias."""
    with reading(settings) as active:
        return set(active.scalars(select(ScoreBatch.date).where(ScoreBatch.alias == alias).distinct()))


def drift_checked_days(settings: Settings) -> set[date]:
    """Days of which there is a drift report, of whatever version."""
    with reading(settings) as active:
        return set(active.scalars(select(DriftReport.date).distinct()))


def latest_drift_report(settings: Settings, model_version: int | None = None) -> DriftReport | None:
    """The newest drift report, of one version if given."""
    return _latest(settings, DriftReport, model_version=model_version)


def drift_reports(settings: Settings, model_version: int, since: date) -> list[DriftReport]:
    """A version's drift reports of `since` and later days, in the order in which they were recorded."""
    query = select(DriftReport).where(DriftReport.model_version == model_version, DriftReport.date >= since)
    with reading(settings) as active:
        return list(active.scalars(query.order_by(DriftReport.id)))


def newest_drift_reports(settings: Settings, model_version: int | None, first: int, count: int) -> list[DriftReport]:
    """Some drift reports, of one version if given, the last recorded ones first."""
    query = _drift_reports(select(DriftReport), model_version).order_by(DriftReport.id.desc())
    with reading(settings) as active:
        return list(active.scalars(query.offset(first).limit(count)))


def count_drift_reports(settings: Settings, model_version: int | None = None) -> int:
    """The number of drift reports, of one version if given."""
    with reading(settings) as active:
        return active.scalar(_drift_reports(select(func.count()).select_from(DriftReport), model_version)) or 0


def _drift_reports(query: Select[Any], model_version: int | None) -> Select[Any]:
    return query if model_version is None else query.where(DriftReport.model_version == model_version)


def latest_seed_noise(settings: Settings, configuration: str) -> SeedNoise | None:
    """The newest seed results of a configuration, by `evaluation.seed_noise.configuration_key`."""
    return _latest(settings, SeedNoise, configuration=configuration)


def latest_model_comparison(settings: Settings, challenger_version: int | None = None) -> ModelComparison | None:
    """The newest comparison, for one challenger if given."""
    return _latest(settings, ModelComparison, challenger_version=challenger_version)


def latest_delivered_gain(settings: Settings, model_version: int | None = None) -> DeliveredGain | None:
    """The newest delivered gain, of one version if given."""
    return _latest(settings, DeliveredGain, model_version=model_version)


def publication_at(settings: Settings, moment: datetime) -> Publication | None:
    """The newest publication at a given time (aware); None before the first recorded one."""
    query = select(Publication).where(Publication.at <= moment).order_by(Publication.id.desc()).limit(1)
    with reading(settings) as active:
        return active.scalars(query).first()


def latest_publication(settings: Settings) -> Publication | None:
    """The newest publication of a vintage; None before the first recorded one."""
    return _latest(settings, Publication)


def publications(settings: Settings) -> list[str]:
    """The data versions that came into use, oldest first; one that came back appears again."""
    with reading(settings) as active:
        return list(active.scalars(select(Publication.data_version).order_by(Publication.id)))


def newest_alerts(settings: Settings, limit: int) -> list[AlertEvent]:
    """The last alerts that were reported to people, newest first."""
    query = select(AlertEvent).where(AlertEvent.step.in_(("opened", "updated")))
    with reading(settings) as active:
        return list(active.scalars(query.order_by(AlertEvent.id.desc()).limit(limit)))


def _latest(settings: Settings, table: type[Row], **equal: object) -> Row | None:
    query = select(table).order_by(table.id.desc()).limit(1)
    for name, value in equal.items():
        if value is not None:
            query = query.where(getattr(table, name) == value)
    with reading(settings) as active:
        return active.scalars(query).first()
