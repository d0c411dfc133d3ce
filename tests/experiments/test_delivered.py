"""Promised against delivered: the gain of a promoted model on the days since."""

import pandas as pd
import pytest

from mlops_tasks.columns import DATETIME
from mlops_tasks.evaluation.ic import daily_rank_ic
from mlops_tasks.evaluation.significance import cosine_mean
from mlops_tasks.experiments.delivered import measure_delivered_gain
from mlops_tasks.experiments.tasks import compare_models_task
from mlops_tasks.features.labels import forward_return
from mlops_tasks.features.store import FeatureStore
from mlops_tasks.registry.models import load_version
from mlops_tasks.registry.tasks import gate_challenger_task
from mlops_tasks.state.history import latest_delivered_gain
from mlops_tasks.status import render_status
from tests.operation import make_champion, publish_vintage
from tests.registry.conftest import Operation
from tests.registry.trainings import DAYS, Spec


def test_the_delivered_gain_is_that_of_the_days_since(operation: Operation) -> None:
    """It equals the mean difference of rank ICs after the decision's newest bars, computed here, and is shown."""
    settings = operation.settings
    rival = operation.register(Spec(key="n" * 16, skill=0.0, seed=3))
    make_champion(settings, rival)
    assert measure_delivered_gain(settings, operation.vintage.data_version) is None  # a person's choice
    better = operation.register(Spec(key="b" * 16))
    decision = gate_challenger_task(challenger={"version": better})
    assert decision["rule"] == "superiority"
    make_champion(settings, better)
    assert measure_delivered_gain(settings, operation.vintage.data_version) is None  # no day since

    vintage, feature_version = publish_vintage(settings, pd.bdate_range(DAYS[0], periods=len(DAYS) + 25))
    row = measure_delivered_gain(settings, vintage.data_version)
    label = forward_return(vintage, 1).dropna()
    label = label[label.index.get_level_values(DATETIME) > DAYS[-1]]
    features = FeatureStore(settings).load(feature_version)
    ours, theirs = (
        daily_rank_ic(load_version(settings, version).artefact.predict(features).loc[label.index], label)
        for version in (better, rival)
    )
    expected = cosine_mean(ours - theirs)
    assert row is not None
    assert (row.model_version, row.rival_version, row.since) == (better, rival, DAYS[-1].date())
    assert row.promised == pytest.approx(decision["gain"]) and row.delivered == pytest.approx(expected.mean)
    assert row.result["n"] == expected.n == 23
    result = compare_models_task(data_version=vintage.data_version, gate=None)
    assert f"version {better} promised {row.promised:+.5f} rank IC a day over version {rival}" in result["delivered"]
    assert result["delivered"] in render_status(settings)
    latest = latest_delivered_gain(settings, better)
    assert latest is not None and latest.content_digest == row.content_digest
