"""Keeps what registered versions were made of in the state database, where it is searched."""

import logging
from collections.abc import Iterator

from mlops_tasks.config import Settings
from mlops_tasks.errors import LineageError
from mlops_tasks.registry.lineage import Lineage, LineageTracker
from mlops_tasks.registry.lineage_document import ALL_ROWS
from mlops_tasks.registry.models import versions
from mlops_tasks.state.tables import FactorInput, VersionOrigin, VintageInput
from mlops_tasks.state.version_origins import (
    EVERY,
    OWN,
    WHOLE,
    OriginSearch,
    find_origins,
    record_origin,
    versions_with_origin,
)

log = logging.getLogger(__name__)


def search_origins(settings: Settings, wanted: OriginSearch) -> list[VersionOrigin]:
    """The versions that meet all conditions, ascending; those that are not recorded yet are, first."""
    record_missing(settings)
    return find_origins(settings, wanted)


def record_missing(settings: Settings) -> dict[int, str]:
    """Record the origins of the registered versions that have none; returns those that have lost it, with the reason.

    Raises
    ------
    RegistryError
        MLflow does not answer.
    """
    tracker, lost = LineageTracker(settings), {}
    for version in sorted(set(versions(settings)) - versions_with_origin(settings)):
        try:
            record_lineage(settings, tracker.trace(version))
        except LineageError as error:
            log.warning("%s", error)
            lost[version] = str(error)
    return lost


def record_lineage(settings: Settings, lineage: Lineage) -> None:
    """Record what a version was made of."""
    origin = VersionOrigin(
        version=lineage.version,
        training_key=lineage.training_key,
        data_version=lineage.data_version,
        feature_version=lineage.feature_version,
        definition=lineage.definition or "",
        code="" if lineage.code is None else lineage.code.commit or "",
        dirty=None if lineage.code is None else lineage.code.dirty,
        lock="" if lineage.environment is None else lineage.environment.lock or "",
        horizon=lineage.horizon or 0,
        segments={name: list(days) for name, days in lineage.segments.items()},
    )
    files = [
        VintageInput(data_version=lineage.data_version, sha256=each["sha256"], name=each["name"], rows=each["rows"])
        for each in lineage.raw
    ]
    record_origin(settings, origin, files, list(_inputs(lineage)) if lineage.definition else [])


def _inputs(lineage: Lineage) -> Iterator[FactorInput]:
    """What each factor reads, a row for each field of each instrument."""
    for factor, made in lineage.depends_on.items():
        reads = {OWN: made["rows_back"], EVERY: made.get("all_instruments", {}), **made.get("other_instruments", {})}
        for instrument, fields in reads.items():
            for field, rows in fields.items():
                yield FactorInput(
                    definition=lineage.definition or "",
                    factor=factor,
                    field=field,
                    instrument=instrument,
                    rows_back=WHOLE if rows == ALL_ROWS else int(rows),
                    expression=made.get("expression") or str(made.get("indicator")),
                )
