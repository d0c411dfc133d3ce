"""Days that were missed while the operation was down: which they are, and which model they belong to.

They are done in their order, before the newest day, and without look-ahead: by the model that would have served on the
day, on features of days up to it.
"""

import logging
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from datetime import date

from mlops_tasks.config import Settings
from mlops_tasks.data.vintages import Vintage, load_vintage
from mlops_tasks.errors import StoreError
from mlops_tasks.registry.approvals import load_recorded
from mlops_tasks.registry.models import LoadedModel
from mlops_tasks.state.model_history import tenures

log = logging.getLogger(__name__)

MOST_MISSED = 20
"""Market days that are made up for: what was missed before that is of no use to a daily strategy any more."""


def missed_days(vintage: Vintage, done: Collection[date]) -> list[date]:
    """Market days of a vintage that were to be done before its newest one and were not, oldest first.

    Only the last `MOST_MISSED` market days count, and of these the ones after the first day that was ever done.
    """
    days = [day.date() for day in vintage.calendar()[-MOST_MISSED - 1 : -1]]
    return [day for day in days if done and day > min(done) and day not in done]


@dataclass(frozen=True)
class MissedDay:
    """A missed day, and the champion that it belongs to."""

    date: date
    model: LoadedModel


def missed(settings: Settings, vintage: Vintage, done: Collection[date]) -> Iterator[MissedDay]:
    """The missed days for which there was a champion, oldest first.

    It is the last champion that was trained on a vintage which does not reach beyond the day. So a model that was
    trained after an outage, on what happened meanwhile, has no part in the days of the outage.

    Raises
    ------
    RegistryError, SignatureError, DigestMismatchError, ConfigError, IsolationError
        As `load_recorded`.
    """
    models: dict[int, LoadedModel] = {}
    ends: dict[int, date] = {}
    reigns = [each.version for each in reversed(tenures(settings))]
    for day in missed_days(vintage, done):
        for version in reigns:
            if version not in models:
                models[version] = load_recorded(settings, version)
                ends[version] = _known_until(settings, models[version])
            if ends[version] <= day:
                yield MissedDay(day, models[version])
                break
        else:
            log.warning("%s was missed, and stays so: no champion knew nothing of later days", day)


def _known_until(settings: Settings, model: LoadedModel) -> date:
    """The last day of the vintage that a model was trained on; of its segments, where that is gone."""
    manifest = model.artefact.manifest
    try:
        return date.fromisoformat(load_vintage(settings, manifest["data_version"]).last_date)
    except (StoreError, OSError):
        return max(date.fromisoformat(last) for _, last in manifest["segments"].values())
