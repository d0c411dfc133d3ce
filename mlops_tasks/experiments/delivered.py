"""Promised and delivered gain: what the model in service has gained on the days since the gate promoted it."""

import logging

import pandas as pd

from mlops_tasks.config import Settings
from mlops_tasks.evaluation.significance import cosine_mean
from mlops_tasks.experiments.comparison import MIN_DAYS
from mlops_tasks.monitoring.contest import contest_of, paired_rank_ic
from mlops_tasks.registry.approvals import load_champion, load_recorded
from mlops_tasks.registry.gating import reign_of
from mlops_tasks.state.history import record_delivered_gain
from mlops_tasks.state.tables import DeliveredGain

log = logging.getLogger(__name__)


def measure_delivered_gain(settings: Settings, data_version: str) -> DeliveredGain | None:
    """Measure and record the gain of the model in service over the one that it was compared with.

    The days are the labelled days of a vintage after the newest bars of the gate's decision: none of them was in its
    evidence.

    Returns
    -------
    None if the gate promised no gain (nothing serves, a first champion, a person's choice), or if there are fewer than
    two such days.

    Raises
    ------
    StoreError, RegistryError
        The vintage or a version is missing, or a model's feature set is gone.
    """
    model = load_champion(settings)
    reign = None if model is None else reign_of(settings, model)
    if model is None or reign is None or reign.promotion is None or reign.since is None:
        return None
    decision = reign.promotion.decision
    if decision["gain"] is None or decision["anchor_version"] is None:
        return None
    rival = load_recorded(settings, int(decision["anchor_version"]))
    contest = contest_of(settings, rival, model, data_version)
    daily = paired_rank_ic(settings, contest, after=pd.Timestamp(reign.since))
    if len(daily) < MIN_DAYS:
        log.info("version %d: %d labelled days since its promotion, wait for more", model.version, len(daily))
        return None
    test = cosine_mean(daily["difference"])
    row = DeliveredGain(
        model_version=model.version,
        rival_version=rival.version,
        rule=decision["rule"],
        since=reign.since,
        last_date=daily.index[-1].date(),
        promised=float(decision["gain"]),
        delivered=test.mean,
        result=test.to_json(),
    )
    record_delivered_gain(settings, row)
    log.info("%s", said(row))
    return row


def said(row: DeliveredGain) -> str:
    """One sentence for people."""
    result = row.result
    return (
        f"version {row.model_version} promised {row.promised:+.5f} rank IC a day over version {row.rival_version} "
        f"({row.rule}), and delivered {row.delivered:+.5f} on {result['n']} days since {row.since} "
        f"({result['confidence']:.0%} interval {result['lower']:+.5f} to {result['upper']:+.5f})"
    )
