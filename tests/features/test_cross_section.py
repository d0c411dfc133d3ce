"""Operators across the members of a day: what they are of, and what they give."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from mlops_tasks.columns import DATETIME, INSTRUMENT
from mlops_tasks.config import Settings
from mlops_tasks.data.vintages import Vintage
from mlops_tasks.errors import ConfigError
from mlops_tasks.features.expressions import dependencies, lookback, market_dependencies, parse_feature
from mlops_tasks.features.store import FeatureStore
from tests.features.market import awkward_bars, make_vintage
from tests.features.small_sets import feature_set

PLAIN = feature_set("plain", {"MOVE": "$close/Ref($close, 1)-1", "CLOSE": "$close", "VOLUME": "$volume"})
ACROSS = feature_set(
    "across",
    {
        "RANK": "CSRank($close/Ref($close, 1)-1)",
        "SCORE": "CSZscore($volume)",
        "SMOOTH": "Mean(CSRank($close), 5)",
        "TWICE": "CSRank(CSZscore($volume))",
    },
)


def members_of(bars: pd.DataFrame) -> pd.DataFrame:
    """Three names all the time, one that comes and goes, and the rest never."""
    days = pd.DatetimeIndex(np.unique(bars[DATETIME]))
    spells = [("I00", 0, -1), ("I02", 0, -1), ("I03", 0, -1), ("I04", 40, 90), ("I04", 200, 260), ("I05", 100, -1)]
    return pd.DataFrame(
        [(name, days[first], days[last]) for name, first, last in spells],
        columns=[INSTRUMENT, "first_date", "last_date"],
    )


@pytest.fixture(scope="module")
def vintage(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Vintage]:
    """Eight instruments with gaps and ties, of which some are members on some days."""
    home, bars = tmp_path_factory.mktemp("across"), awkward_bars()
    return home, make_vintage(home, bars, members_of(bars))


def features(home: Path, vintage: Vintage, definition: object) -> pd.DataFrame:
    """All rows of a set, float64."""
    store = FeatureStore(Settings(home=home))
    return store.load(store.compute(vintage, definition).feature_version).astype(np.float64)


def test_values_are_those_of_each_days_members(vintage: tuple[Path, Vintage]) -> None:
    """Against pandas, day by day: ranks of the mean place, z-scores with n - 1; who is no member has none, and counts
    for nothing."""
    home, bars = vintage
    plain, across = features(home, bars, PLAIN), features(home, bars, ACROSS)
    member = bars.membership_mask(plain.index)
    assert 0.2 < member.mean() < 0.8
    known = plain[member]

    def by_day(values: pd.Series) -> object:
        return values.groupby(level=DATETIME)

    rank = by_day(known["MOVE"]).rank(pct=True).reindex(plain.index)
    np.testing.assert_allclose(across["RANK"], rank, rtol=1e-6)
    assert rank.dropna().duplicated().any() and across["RANK"].notna().sum() > 500
    score = ((known["VOLUME"] - by_day(known["VOLUME"]).mean()) / by_day(known["VOLUME"]).std()).reindex(plain.index)
    np.testing.assert_allclose(across["SCORE"], score.where(np.isfinite(score)), rtol=1e-5)
    twice = by_day(score.where(np.isfinite(score))[member]).rank(pct=True).reindex(plain.index)
    np.testing.assert_allclose(across["TWICE"], twice, rtol=1e-6)
    closes = by_day(known["CLOSE"]).rank(pct=True).reindex(plain.index)
    for name, values in closes.groupby(level=INSTRUMENT):
        own = values.droplevel(INSTRUMENT)
        calendar = bars.calendar()[bars.calendar() >= own.index[0]]
        smooth = own.reindex(calendar).rolling(5, min_periods=1).mean().reindex(own.index)
        np.testing.assert_allclose(across["SMOOTH"].xs(name, level=INSTRUMENT), smooth, rtol=1e-6)


def test_what_they_depend_on_is_told() -> None:
    """All instruments' fields, as far back as windows inside and around reach; the own ones too."""
    node = parse_feature("Mean(CSRank($close/Ref($close, 3)), 5)+$volume")
    assert market_dependencies(node) == {"close": 7.0}
    assert dependencies(node) == {"close": 7.0, "volume": 0.0}
    assert lookback(node) == 7.0
    assert ACROSS.is_cross_sectional and ACROSS.market == {"close": 4.0, "volume": 0.0}
    assert not PLAIN.is_cross_sectional


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("CSRank(5)", "CSRank"),
        ("CSRank($close, 5)", r"CSRank takes 1 arguments \(series\), got 2"),
        ("CSRnk($close)", "unknown operator CSRnk; did you mean CSRank"),
        ("CSRank(Ref($close, -1))", "reads the future"),
    ],
)
def test_what_is_no_such_operator_is_refused(text: str, said: str) -> None:
    """With the place in the text; the future is the future inside too."""
    with pytest.raises(ConfigError, match=said):
        parse_feature(text)


def test_other_members_are_another_version_and_only_their_days_are_computed(tmp_path: Path) -> None:
    """Bars are the same, a name leaves for ten days: rows of those days, and of windows that see them, are new; all
    files are those of a full computation."""
    bars = awkward_bars()
    spells = members_of(bars)
    store = FeatureStore(Settings(home=tmp_path))
    before = store.compute(make_vintage(tmp_path, bars, spells), ACROSS)
    days = np.unique(bars[DATETIME])
    cut = spells.copy()
    cut.loc[1, "last_date"] = pd.Timestamp(days[-11])
    vintage = make_vintage(tmp_path, bars, cut)
    after = store.compute(vintage, ACROSS)
    assert after.feature_version != before.feature_version
    assert after.computed_rows == int((bars[DATETIME] > days[-11]).sum())
    elsewhere = tmp_path / "elsewhere"
    full = FeatureStore(Settings(home=elsewhere)).compute(make_vintage(elsewhere, bars, cut), ACROSS)
    assert full.feature_version == after.feature_version and full.computed_rows == len(bars)
    for each in full.partitions:
        for path in FeatureStore(Settings(home=elsewhere)).partitions.glob(f"{each.digest}.*"):
            assert path.read_bytes() == (store.partitions / path.name).read_bytes()
