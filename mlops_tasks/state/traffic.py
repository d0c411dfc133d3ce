"""Who has answered lately: the log of predictions by version, slot and arm."""

from dataclasses import dataclass
from datetime import datetime

import numpy as np
from sqlalchemy import func, select

from mlops_tasks.config import Settings
from mlops_tasks.state.database import reading
from mlops_tasks.state.predictions import latencies_of_arm
from mlops_tasks.state.tables import Prediction

MOST_COUNTED = 20_000
"""Newest answers that are counted, so that a busy service's page comes as soon as a calm one's."""


@dataclass(frozen=True)
class Traffic:
    """What a version has answered on an arm from a slot."""

    version: int
    slot: str
    arm: str
    answers: int
    newest: datetime
    p50_ms: float
    p99_ms: float
    """Of the version's newest latencies on the arm, as many as `predictions.MOST_LATENCIES`."""


def traffic_since(settings: Settings, moment: datetime) -> list[Traffic]:
    """What was answered since a time (aware), of the newest `MOST_COUNTED`: most answers first."""
    columns = (Prediction.model_version, Prediction.slot, Prediction.arm, Prediction.at)
    recent = select(*columns).where(Prediction.at >= moment).order_by(Prediction.at.desc()).limit(MOST_COUNTED)
    newest = recent.subquery().c
    by = (newest.model_version, newest.slot, newest.arm)
    query = select(*by, func.count(), func.max(newest.at)).group_by(*by)
    with reading(settings) as active:
        rows = active.execute(query.order_by(func.count().desc(), *by)).all()
    found = []
    for version, slot, arm, answers, newest in rows:
        latencies = latencies_of_arm(settings, version, arm, moment)
        if len(latencies):  # the log forgets old answers
            p50, p99 = map(float, np.quantile(latencies, (0.5, 0.99)))
            found.append(Traffic(version, slot, arm, answers, newest, p50, p99))
    return found
