"""Sets, columns and values of features, as pages and the API show them."""

from datetime import date, timedelta
from pathlib import Path

import pandas as pd
import pytest

from mlops_tasks.config import Settings
from mlops_tasks.data.vintages import current_vintage
from mlops_tasks.errors import ConfigError
from mlops_tasks.features.query import (
    MOST_CELLS,
    MOST_DAYS,
    FeatureQuery,
    NoFeatureVersionError,
    query_features,
)
from mlops_tasks.features.set_list import (
    NoFeatureSetError,
    feature_set_detail,
    feature_sets,
    feature_version_of,
)
from mlops_tasks.features.store import FeatureStore
from mlops_tasks.features.tasks import compute_features_task
from tests.operation import define_own_set
from tests.overview import desk

FIRST, LAST = desk.DAYS[0].date(), desk.LAST


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """A home with bars and a set of its own."""
    made = Settings(home=tmp_path)
    monkeypatch.setenv("MLOPS_HOME", str(tmp_path))
    define_own_set(made)
    desk.publish_bars(made)
    return made


def test_values_are_those_of_the_store(settings: Settings) -> None:
    """Of the vintage in use unless another one is named; in order, a missing value is None."""
    version = compute_features_task(feature_set="mine")["feature_version"]
    data_version = current_vintage(settings).data_version
    assert feature_version_of(settings, data_version, "mine") == version
    names = ("S001", "S000", "NONE")
    found = query_features(settings, FeatureQuery(version, names, FIRST, LAST, ("GAP", "ROC5")))
    stored = FeatureStore(settings).load(version, columns=("GAP", "ROC5"), instruments=["S000", "S001"])
    assert [(row.date, row.instrument) for row in found.rows] == [(day.date(), name) for day, name in stored.index]
    given = pd.DataFrame(
        [row.values for row in found.rows], index=stored.index, columns=stored.columns, dtype="float32"
    )
    pd.testing.assert_frame_equal(given, stored)
    assert found.rows[0].values[0] is None, "there is no close before the first"
    whole = query_features(settings, FeatureQuery(version, ("S000",), FIRST, FIRST))
    assert list(whole.columns) == ["ROC5", "GAP", "RSI"] and len(whole.rows) == 1


def test_more_than_an_answer_holds_is_refused(settings: Settings) -> None:
    """Before anything is read: days, values, columns, versions that are not there."""
    version = compute_features_task(feature_set="mine")["feature_version"]
    late = FIRST + timedelta(MOST_DAYS)
    many = tuple(f"N{number}" for number in range(MOST_CELLS // 3 + 1))
    for wanted, said in (
        (FeatureQuery(version, ("S000",), FIRST, late), "370 days"),
        (FeatureQuery(version, ("S000",), LAST, FIRST), "370 days"),
        (FeatureQuery(version, ("S000",), date.min, date.max), "370 days"),
        (FeatureQuery(version, many, FIRST, FIRST), "at most 20,000"),
        (FeatureQuery(version, ("S000",), FIRST, LAST, ("NONE",)), "has no NONE"),
    ):
        with pytest.raises(ConfigError, match=said):
            query_features(settings, wanted)
    with pytest.raises(NoFeatureVersionError):
        query_features(settings, FeatureQuery("0" * 16, ("S000",), FIRST, LAST))
    for data_version, name in (("0" * 16, "mine"), (current_vintage(settings).data_version, "none")):
        with pytest.raises(NoFeatureSetError):
            feature_version_of(settings, data_version, name)


def test_sets_are_listed_right_or_wrong(settings: Settings) -> None:
    """A wrong one with what is wrong; a column with what it reads and how far back."""
    with (settings.home / "feature_sets.yaml").open("a") as file:
        file.write("bad:\n  version: 1\n  owner: A\n  description: B.\n  factors: {X: 'Ref($close, -1)'}\n")
    listed = {each.name: each for each in feature_sets(settings)}
    assert (listed["alpha158"].columns, listed["alpha158"].is_default, listed["mine"].owner) == (158, True, "Desk A")
    assert listed["bad"].columns == 0 and "reads the future" in listed["bad"].error
    columns = {each.name: each for each in feature_set_detail(settings, "mine").columns}
    assert (columns["ROC5"].rows_back, list(columns["ROC5"].inputs)) == (5, ["close"])
    assert (columns["RSI"].expression, columns["RSI"].rows_back) == ("", None)
    with pytest.raises(NoFeatureSetError, match="did you mean mine"):
        feature_set_detail(settings, "mien")
    with pytest.raises(ConfigError, match="reads the future"):
        feature_set_detail(settings, "bad")
