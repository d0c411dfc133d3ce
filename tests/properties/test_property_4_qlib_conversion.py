"""Property 4 of the plan, Qlib data conversion correctness: what Qlib reads is the vintage, however its store came."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from mlops_tasks.columns import BAR_FIELDS, CLOSE, DATETIME, FACTOR, INSTRUMENT, KEY, VWAP
from mlops_tasks.config import DataSettings, Settings
from mlops_tasks.data.qlib.data_provider import QlibDataProvider
from mlops_tasks.data.qlib.store import init_qlib, prune_stores, qlib_store_path, write_qlib_store
from mlops_tasks.data.revisions.diff import diff_vintages
from mlops_tasks.data.sources import read_source
from mlops_tasks.data.validation.rules import load_rules, validate
from mlops_tasks.data.vintages import Vintage, canonical_bars, current_version, publish
from tests.data.market import make_bars, save, tree
from tests.properties.markets import DAYS, cells, markets, restated, written

STANDARD = ["datetime", "instrument", "open", "high", "low", "close", "volume"]
TYPES = {"datetime": "datetime64[ns]"}

properties = hypothesis_settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])


def follow(settings: Settings, bars: pd.DataFrame) -> Vintage:
    """What a sync does with accepted bars: a vintage, compared with the one in use, its store, in use."""
    vintage, current = written(settings, bars), current_version(settings)
    if current not in (None, vintage.data_version):
        diff_vintages(settings, current, vintage.data_version)
    write_qlib_store(settings, vintage)
    publish(settings, vintage.data_version)
    prune_stores(settings)
    return vintage


def rebuilt(folder: Path, vintage: Vintage) -> dict[str, bytes]:
    """The files of the store that is written from nothing."""
    settings = Settings(home=folder)
    return tree(write_qlib_store(settings, written(settings, vintage.bars(), vintage.members())))


def read_back(settings: Settings, vintage: Vintage) -> pd.DataFrame:
    """Qlib's own reading of the whole store, by instrument and datetime."""
    from qlib.data import D

    init_qlib(settings, vintage.data_version)
    fields = [field for field in BAR_FIELDS if field != VWAP or vintage.bars([VWAP])[VWAP].notna().any()]
    return D.features(D.instruments("all"), [f"${field}" for field in fields]).set_axis(fields, axis=1)


def assert_is_vintage(features: pd.DataFrame, vintage: Vintage) -> None:
    """Every bar is there to the last bit of float32, and NaN on every other day of an instrument's span."""
    truth = vintage.adjusted_bars(fields=features.columns).set_index([INSTRUMENT, DATETIME]).astype("float32")
    calendar = vintage.calendar()
    spans = truth.reset_index(DATETIME).groupby(INSTRUMENT)[DATETIME].agg(["min", "max"])
    pairs = [(name, day) for name, (a, b) in spans.iterrows() for day in calendar[(calendar >= a) & (calendar <= b)]]
    assert sorted(features.index) == pairs
    index = pd.MultiIndex.from_tuples(pairs, names=truth.index.names)
    np.testing.assert_array_equal(features.sort_index().to_numpy(), truth.reindex(index).to_numpy())


@hypothesis_settings(properties, max_examples=16)
@given(
    bars=markets(min_days=4),
    cuts=st.sets(st.integers(3, 23), min_size=3, max_size=6),
    restatement=st.none() | cells,
    since=st.integers(1, 6),
)
def test_qlib_reads_the_vintage_and_an_appended_store_is_a_rebuilt_one(
    tmp_path_factory: pytest.TempPathFactory,
    bars: pd.DataFrame,
    cuts: set[int],
    restatement: tuple[int, str] | None,
    since: int,
) -> None:
    """However bars come, day by day or many days at once, with new instruments, delistings, suspensions over the
    boundary, a first vwap or restated history, each store equals a rebuild's, and Qlib reads the newest vintage from
    it, NaN positions included."""
    folder = tmp_path_factory.mktemp("homes")
    settings = Settings(home=folder / "grown")
    changed = bars
    if restatement is not None:
        changed = restated(bars, restatement[0] % len(bars), restatement[1], lambda old: 2 * old)
    for number, cut in enumerate([*sorted(cuts), len(DAYS) - 1]):
        known = changed if number >= since else bars
        known = known[known[DATETIME] <= DAYS[cut]].reset_index(drop=True)
        if len(known):
            vintage = follow(settings, known)
            store = tree(qlib_store_path(settings, vintage.data_version))
            assert store == rebuilt(folder / str(cut), vintage)
    assert_is_vintage(read_back(settings, vintage), vintage)


def test_day_after_day_an_older_store_is_used_again(tmp_path: Path) -> None:
    """From the third day on a store is the last but one's with a day added, and the one in use is never touched."""
    settings = Settings(home=tmp_path / "grown")
    bars = canonical_bars(make_bars(days=8).set_axis(STANDARD, axis=1).assign(vwap=np.nan, factor=1.0).astype(TYPES))
    days = np.unique(bars[DATETIME])
    bins, kept = [], {}
    for day in days:
        vintage = follow(settings, bars[bars[DATETIME] <= day].reset_index(drop=True))
        store = qlib_store_path(settings, vintage.data_version)
        assert tree(store) == rebuilt(tmp_path / str(day), vintage)
        bins.append((store / "features" / "s00" / "close.day.bin").stat().st_ino)
        assert kept.items() <= {p: p.stat().st_mtime_ns for p in kept}.items()
        kept = {p: p.stat().st_mtime_ns for p in store.rglob("*") if p.is_file()}
    assert bins[2:] == bins[:-2] and bins[0] != bins[1]
    assert len(list(store.parent.iterdir())) == 2
    assert_is_vintage(read_back(settings, vintage), vintage)


@properties
@given(
    repeated=st.sets(st.integers(0, 119), max_size=2),
    seed=st.integers(0, 2**16),
    parts=st.integers(1, 3),
    suffix=st.sampled_from([".csv", ".csv.gz", ".parquet"]),
)
def test_repeated_rows_are_rejected_and_counted_and_order_does_not_matter(
    tmp_path_factory: pytest.TempPathFactory, repeated: set[int], seed: int, parts: int, suffix: str
) -> None:
    """Of a shuffled delivery in several files, every row with a repeated key is rejected and counted, and Qlib reads
    exactly the others: NaN on the days of the rejected ones."""
    folder = tmp_path_factory.mktemp("delivery")
    bars = make_bars()
    twice = bars.iloc[sorted(repeated)].assign(Close=lambda rows: rows["Low"])
    delivered = pd.concat([bars, twice]).sample(frac=1, random_state=seed, ignore_index=True)
    for part in range(parts):
        save(delivered.iloc[part::parts], folder / "source" / f"{part}{suffix}")
    settings = Settings(home=folder / "home", data=DataSettings(source=str(folder / "source")))
    parsed = read_source(settings, str(folder / "source"), None)
    found = validate(parsed.frame, load_rules(settings))
    assert (found.received, found.quarantined) == (120 + len(repeated), 2 * len(repeated))
    assert found.rules.get("unique_keys", 0) == 2 * len(repeated)
    vintage = follow(settings, canonical_bars(parsed.frame[found.accepted]))
    assert vintage.rows == found.received - found.quarantined
    assert_is_vintage(read_back(settings, vintage), vintage)


@properties
@given(bars=markets(), first=st.integers(0, 24), last=st.integers(0, 24), field=st.sampled_from([CLOSE, VWAP, FACTOR]))
def test_the_provider_gives_what_qlib_reads(
    tmp_path_factory: pytest.TempPathFactory, bars: pd.DataFrame, first: int, last: int, field: str
) -> None:
    """Adjusted frames are Qlib's features of the bars in float32, raw ones the bars to the last bit, for any days and
    fields; both are sorted by (datetime, instrument), without rows that are no bars."""
    settings = Settings(home=tmp_path_factory.mktemp("home"))
    vintage = follow(settings, bars)
    provider = QlibDataProvider(vintage)
    keyed = bars.set_index(list(KEY)).sort_index()
    raw, adjusted = provider.raw(), provider.adjusted()
    pd.testing.assert_frame_equal(raw, keyed, check_exact=True, check_index_type=False)
    assert list(adjusted.index) == list(keyed.index) and list(adjusted.columns) == list(BAR_FIELDS)
    features = read_back(settings, vintage).swaplevel().reindex(adjusted.index)
    np.testing.assert_array_equal(adjusted[features.columns].astype("float32"), features)
    part = provider.adjusted([field], DAYS[first], DAYS[last])
    within = adjusted.index.get_level_values(DATETIME)
    pd.testing.assert_frame_equal(part, adjusted.loc[(within >= DAYS[first]) & (within <= DAYS[last]), [field]])
