"""Downwards: the versions that were made from a file, a factor, a commit or a lock, and those that used a bar."""

from datetime import date

import numpy as np
import pytest

from mlops_tasks.config import Settings
from mlops_tasks.data.vintages import Vintage, write_vintage
from mlops_tasks.errors import ConfigError
from mlops_tasks.features.labels import forward_return
from mlops_tasks.features.store import FeatureStore
from mlops_tasks.modeling.environment import lock_digest
from mlops_tasks.registry.bar_use import EVALUATED, LEARNED, Bars, uses_of_bars
from mlops_tasks.registry.client import connect
from mlops_tasks.registry.models import get_run_id
from mlops_tasks.registry.origins import record_missing, search_origins
from mlops_tasks.state.version_origins import OriginSearch, find_origins
from tests.operation import bars, define_own_set, register_model
from tests.registry.conftest import Operation
from tests.registry.trainings import DAYS, INSTRUMENTS, SEGMENTS, Spec

NAME = INSTRUMENTS[3]


def found(settings: Settings, **wanted: str) -> list[int]:
    """Versions that meet the conditions."""
    return [each.version for each in search_origins(settings, OriginSearch(**wanted))]


def test_versions_are_found_by_what_they_were_made_of(operation: Operation) -> None:
    """Factor, definition, commit, lock and vintage, alone and together; also after a run is deleted."""
    settings = operation.settings
    define_own_set(settings)
    first, second = operation.register(Spec(key="a" * 16)), operation.register(Spec(key="b" * 16), "mine")
    assert found(settings, data_version=operation.vintage.data_version) == [first, second]
    assert found(settings, factor="ROC5") == [first, second]
    assert found(settings, factor="KMID") == [first]
    assert found(settings, factor="GAP") == [second]
    assert found(settings, factor="NO_SUCH") == []
    assert found(settings, code="3ec27c8a") == [first, second]
    assert found(settings, code="4") == []
    assert found(settings, lock=str(lock_digest())[:12], factor="KMID") == [first]
    (origin,) = find_origins(settings, OriginSearch(factor="KMID"))
    assert found(settings, definition=origin.definition) == [first]
    connect(settings).delete_run(get_run_id(settings, first))
    assert found(settings, factor="KMID") == [first]


def test_a_version_whose_run_was_deleted_before_it_was_recorded_is_named(operation: Operation) -> None:
    """The others are found all the same."""
    settings = operation.settings
    first, second = operation.register(Spec(key="a" * 16)), operation.register(Spec(key="b" * 16, seed=2))
    run_id = get_run_id(settings, first)
    connect(settings).delete_run(run_id)
    lost = record_missing(settings)
    assert list(lost) == [first]
    assert f"mlflow runs restore --run-id {run_id}" in lost[first]
    assert found(settings, factor="ROC5") == [second]


def restated(operation: Operation, day: int, key: str) -> tuple[Vintage, int]:
    """A vintage with one other close, and a version that was trained on it."""
    frame = bars()
    row = (frame["instrument"] == NAME) & (frame["datetime"] == DAYS[day])
    frame.loc[row, "close"] *= 1.01
    vintage = write_vintage(operation.settings, frame, None, {"source": "restated"})
    feature_version = FeatureStore(operation.settings).compute(vintage).feature_version
    return vintage, register_model(operation.settings, Spec(key=key * 16), vintage, feature_version)


def changed(operation: Operation, vintage: Vintage, segments: tuple[str, ...]) -> bool:
    """Whether any feature or label of these segments differs from those of the operation's vintage: the brute force."""
    store = FeatureStore(operation.settings)
    features = [store.load(store.find(each.data_version) or "") for each in (operation.vintage, vintage)]
    labels = [forward_return(each, 1) for each in (operation.vintage, vintage)]
    for name in segments:
        days = SEGMENTS[name]
        one, other = (each.loc[days[0] : days[-1]].to_numpy() for each in features)
        counted = days if name == "test" else days[:-2]
        first, second = (each.loc[counted[0] : counted[-1]].to_numpy() for each in labels)
        if not (np.array_equal(one, other, equal_nan=True) and np.array_equal(first, second, equal_nan=True)):
            return True
    return False


@pytest.mark.parametrize("day", [20, 89, 90, 129])
def test_a_restated_bar_leads_to_the_versions_that_used_it(operation: Operation, day: int) -> None:
    """Learned or evaluated as a recomputation of all features and labels shows, each version with its own value."""
    vintage, second = restated(operation, day, "b")
    first = operation.register(Spec(key="a" * 16))
    record_missing(operation.settings)
    where = DAYS[day].date()
    uses = uses_of_bars(operation.settings, Bars(NAME, where, where, "close"))
    assert uses.unknown == {}
    assert [each.version for each in uses.uses] == sorted((first, second))
    use = LEARNED if changed(operation, vintage, ("train", "valid")) else EVALUATED
    assert changed(operation, vintage, ("train", "valid", "test"))
    assert {each.use for each in uses.uses} == {use}
    closes = {each.version: each.values[str(where)]["close"] for each in uses.uses}
    assert closes[second] == pytest.approx(1.01 * closes[first])
    for each in uses.uses:
        assert "KMID" in each.factors
        assert "VSTD5" not in each.factors  # it reads volumes only


def test_what_no_version_used_is_not_told_as_used(operation: Operation) -> None:
    """A bar of another instrument, or none; a vintage that is gone is told as not known."""
    settings = operation.settings
    version = operation.register(Spec(key="a" * 16))
    record_missing(settings)
    outside = date(2019, 12, 31)
    assert uses_of_bars(settings, Bars(NAME, outside, outside)).uses == ()
    assert uses_of_bars(settings, Bars("S999", DAYS[20].date(), DAYS[20].date())).uses == ()
    (each,) = uses_of_bars(settings, Bars(NAME, DAYS[20].date(), DAYS[20].date(), "volume")).uses
    assert "VSTD5" in each.factors and "KMID" not in each.factors and not each.label
    with pytest.raises(ConfigError, match="did you mean close"):
        uses_of_bars(settings, Bars(NAME, outside, outside, "closes"))
    (operation.vintage.path / "manifest.json").unlink()
    found = uses_of_bars(settings, Bars(NAME, DAYS[20].date(), DAYS[20].date()))
    assert "alphaops checkout" in found.unknown[version]
