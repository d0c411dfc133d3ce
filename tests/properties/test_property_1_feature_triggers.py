"""Property 1 of the plan, feature computation trigger correctness: whatever syncs come, in whatever order and however
they fail, exactly the rows that a change reaches are computed, once a version."""

import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from mlops_tasks.columns import BAR_FIELDS, CLOSE, DATETIME, INSTRUMENT
from mlops_tasks.config import Settings
from mlops_tasks.data.callbacks import FinishedSync, forget, on_finished_sync, tell_callbacks
from mlops_tasks.data.vintages import Vintage, canonical_bars, current_vintage, load_vintage, publish
from mlops_tasks.features.computation import Computation
from mlops_tasks.features.sets import FeatureSet, find_feature_set
from mlops_tasks.features.store import FeatureStore
from mlops_tasks.files import read_json, write_text
from mlops_tasks.state.database import upgrade
from tests.data.disk_changes import changes_of
from tests.features.market import awkward_bars
from tests.properties.markets import DAYS, cells, markets, next_float, restated, written

INDEX = "SH600000"
"""Whose closes the set `relative` reads, for every instrument."""

SETS: dict[str, dict[str, Any]] = {
    "windows": {
        "factors": {
            "RETURN": "$close/Ref($close, 2)",
            "VOLUME": "$volume/Mean($volume, 3)",
            "RANGE": "Max($high, 4)-$low",
            "VWAP": "$vwap/$open",
        }
    },
    "relative": {"factors": {"OWN": "$close/Ref($close, 1)", "OTHER": f"Ref(ChangeInstrument('{INDEX}', $close), 2)"}},
    "smoothed": {"indicators": [{"indicator": "ema", "window": 3, "name": "EMA3"}]},
}
ALWAYS = 10**6
OWN: dict[str, dict[str, int]] = {
    "windows": {"open": 0, "high": 3, "low": 0, "close": 2, "volume": 2, "vwap": 0},
    "relative": {"close": 1},
    "smoothed": {"close": ALWAYS},
    "alpha158": {"open": 0, "high": 59, "low": 59, "close": 60, "volume": 60, "vwap": 0},
}
"""What each set reads of a bar's own instrument: field to the calendar rows that it reaches back."""

FOREIGN: dict[str, dict[str, int]] = {"windows": {}, "relative": {"close": 2}, "smoothed": {}, "alpha158": {}}
"""The same of the index."""

Row = tuple[str, str]
"""Day and instrument."""


class Killed(BaseException):
    """The process is gone."""


@dataclass
class Killer:
    """Lets the n-th change of the file system, and every later one, fail as if the process had been killed before."""

    left: float = np.inf
    home: Path = Path("/")

    def __post_init__(self) -> None:
        sys.addaudithook(self.watch)

    def watch(self, event: str, arguments: tuple[object, ...]) -> None:
        """Audit hook; there is no taking it back."""
        if self.left < np.inf and changes_of(event, arguments, self.home):
            self.left -= 1
            if self.left <= 0:
                raise Killed


killer = Killer()


@dataclass(frozen=True)
class Failure:
    """How a sync fails: `anywhere` and `computing` are killed before their n-th change of the file system, the latter
    counted from the callback on; `raising` lets the callback raise after the n-th partition."""

    how: str
    at: int


@dataclass(frozen=True)
class Source:
    """What a vendor shows of a market: up to a day, without some instruments and bars, some cells restated."""

    market: pd.DataFrame = field(repr=False)
    last: int
    omitted: frozenset[str] = frozenset()
    removed: frozenset[int] = frozenset()
    changed: tuple[tuple[int, str, Callable[[float], float]], ...] = ()

    def shown(self) -> pd.Index:
        """Rows of the market that can be seen; at least the first one of the index."""
        first = self.market.index[self.market[INSTRUMENT] == INDEX][0]
        shown = (self.market[DATETIME] <= DAYS[self.last]) & ~self.market[INSTRUMENT].isin(self.omitted)
        return self.market.index[shown & ~self.market.index.isin(self.removed) | (self.market.index == first)]

    def bars(self) -> pd.DataFrame:
        """What is seen, restated."""
        bars = self.market
        for row, name, change in self.changed:
            bars = restated(bars, row, name, change)
        return bars.loc[self.shown()].reset_index(drop=True)

    def after(self, kind: str, number: int, cell: tuple[int, str], change: Callable[[float], float]) -> "Source":
        """What it shows after an event."""
        shown, names = self.shown(), sorted(set(self.market[INSTRUMENT]) - {INDEX})
        row = int(shown[cell[0] % len(shown)])
        if kind == "append":
            return replace(self, last=min(self.last + number, len(DAYS) - 1))
        if kind == "restate":
            return replace(self, changed=(*self.changed, (row, cell[1], change)))
        if kind == "remove":
            return replace(self, removed=self.removed | {row})
        if kind == "fill":
            return replace(self, removed=frozenset())
        if kind == "list" and names:
            return replace(self, omitted=self.omitted ^ {names[number % len(names)]})
        return self


events = st.tuples(
    st.sampled_from(["restate", "append", "restate", "list", "remove", "restate", "fill", "go back", "repeat"]),
    st.integers(1, 4),
    cells,
    st.sampled_from([lambda old: 2 * old, lambda old: 2 * old, next_float]),
)
"""Days more, a cell restated, a bar or an instrument gone or back, an older state, or the same again."""

failures = (
    st.none()
    | st.none()
    | st.builds(Failure, st.sampled_from(["computing", "raising", "anywhere"]), st.integers(1, 40))
)


@dataclass
class Operation:
    """A home whose syncs trigger the computation of one feature set, and what has to be true of it."""

    settings: Settings
    feature_set: str
    definition: FeatureSet
    fresh: Path
    failure: Failure | None = None
    computed: list[set[Row]] = field(default_factory=list)
    """Rows that the present sync computed, partition by partition."""
    succeeded: bool = False
    known: set[Any] = field(default_factory=set)
    """What partitions were made of so far, also in syncs that failed."""
    truth: dict[str, pd.DataFrame] = field(default_factory=dict)
    """Features by data version."""

    @property
    def store(self) -> FeatureStore:
        """Its store."""
        return FeatureStore(self.settings)

    def on_sync(self, finished: FinishedSync) -> None:
        """The callback: compute the features of what came into use."""
        if self.failure and self.failure.how == "computing":
            killer.left = self.failure.at
        self.store.compute(finished.vintage(), self.definition, self.on_computed)
        self.succeeded = True

    def on_computed(self, index: pd.MultiIndex) -> None:
        """Note the rows of a partition; raise where that is planned."""
        self.computed.append({(str(day.date()), str(name)) for day, name in index})
        if self.failure and self.failure.how == "raising" and len(self.computed) == 1 + self.failure.at // 21:
            raise RuntimeError("the consumer is out of order")

    def sync(self, bars: pd.DataFrame, failure: Failure | None = None) -> None:
        """One sync, from accepted bars on, and the check of what it computed and left."""
        self.failure, self.computed, self.succeeded = failure, [], False
        stored, vintage = self._stored_vintages(), None
        with self._killed_as_planned():
            vintage = written(self.settings, bars)
            publish(self.settings, vintage.data_version)
            tell_callbacks(self.settings)
        if vintage is not None:
            self._check_computed(vintage, stored)
        self._check_whole()

    @contextmanager
    def _killed_as_planned(self) -> Iterator[None]:
        killer.home = self.settings.home
        killer.left = self.failure.at if self.failure and self.failure.how == "anywhere" else np.inf
        try:
            yield
        except Killed:
            pass
        finally:
            killer.left = np.inf

    def _stored_vintages(self) -> list[Vintage]:
        """Those whose features are stored, the last computed or found last."""
        found = self.store.root.glob(f"by_vintage/*.{self.definition.digest}.json")
        pointers = sorted(found, key=lambda path: path.stat().st_mtime_ns)
        return [load_vintage(self.settings, path.name.partition(".")[0]) for path in pointers]

    def _check_computed(self, vintage: Vintage, stored: list[Vintage]) -> None:
        """Year by year: all that the change reaches and nothing else, or nothing where the sync failed before it."""
        computed = set().union(*self.computed)
        assert sum(map(len, self.computed)) == len(computed)
        job = Computation(self.definition, vintage)
        for year in job.years:
            of_year = {row for row in computed if row[0].startswith(str(year))}
            made_of = ingredients(vintage, year, self.feature_set)
            expected = set() if made_of in self.known else different_rows(vintage, year, stored, self.feature_set)
            there = (self.store.partitions / f"{job.partition(year).digest}.parquet").is_file()
            assert of_year == (expected if there else set())
            assert there or self.failure
            self.known |= {made_of} if there else set()

    def _check_whole(self) -> None:
        """Every version that can be seen is that of a full computation in a store of its own, bit for bit."""
        seen = {path.parent.name for path in self.store.root.glob("[!.]*/manifest.json")}
        for name in seen:
            found, truth = self.store.load(name), self._truth(self.store.get(name).data_version)
            assert found.index.equals(truth.index) and list(found.columns) == list(truth.columns)
            assert found.to_numpy().tobytes() == truth.to_numpy().tobytes()
        assert {read_json(path)["feature_version"] for path in self.store.root.glob("by_vintage/[!.]*.json")} <= seen

    def _truth(self, data_version: str) -> pd.DataFrame:
        if data_version not in self.truth:
            store = FeatureStore(Settings(home=self.fresh / data_version))
            version = store.compute(load_vintage(self.settings, data_version), self.definition)
            self.truth[data_version] = store.load(version.feature_version)
        return self.truth[data_version]


def different_rows(vintage: Vintage, year: int, stored: list[Vintage], feature_set: str) -> set[Row]:
    """The rows of a year that show something else than in the stored vintage that shares most years with this one, the
    newest of several; without one, all of them."""
    years = vintage.manifest["years"]
    usable = [each for each in stored if str(year) in each.manifest["years"]]
    usable.sort(key=lambda each: sum(each.manifest["years"].get(name) == content for name, content in years.items()))
    before = windows(usable[-1], feature_set) if usable else {}
    now = windows(vintage, feature_set)
    return {row for row in now if row[0].startswith(str(year)) and now[row] != before.get(row)}


def windows(vintage: Vintage, feature_set: str) -> dict[Row, Any]:
    """What the features of each row are a function of: the calendar rows back to their reach, or to the first bar,
    which of them have a bar, and the fields' values there, rounded to float32."""
    frame = vintage.adjusted_bars()
    values = frame[list(BAR_FIELDS)].to_numpy(np.float32).view(np.uint32).tolist()
    bars: dict[str, dict[str, dict[str, int]]] = {}
    for day, name, row in zip(frame[DATETIME].astype(str), frame[INSTRUMENT], values, strict=True):
        bars.setdefault(name, {})[day] = dict(zip(BAR_FIELDS, row, strict=True))
    days = sorted({day for own in bars.values() for day in own})

    def seen(name: str, number: int, reaches: dict[str, int]) -> Any:
        own, longest = bars.get(name, {}), max(reaches.values(), default=-1)
        rows = [day for day in days[max(number - longest, 0) : number + 1] if own and day >= min(own)]
        fields = [[own[day][each] for day in rows[-reach - 1 :] if day in own] for each, reach in reaches.items()]
        return [(day, day in own) for day in rows], fields

    return {
        (day, name): (seen(name, days.index(day), OWN[feature_set]), seen(INDEX, days.index(day), FOREIGN[feature_set]))
        for name, own in bars.items()
        for day in own
    }


def ingredients(vintage: Vintage, year: int, feature_set: str) -> Any:
    """What the partition of a year is made of: the bars of the years that its windows reach into, the trading days
    of that range, and the instruments that begin in it."""
    bars = vintage.bars(fields=())
    days = sorted(set(bars[DATETIME]))
    first = next(number for number, day in enumerate(days) if day.year == year)
    longest = max([*OWN[feature_set].values(), *FOREIGN[feature_set].values()])
    days = [day for day in days[max(first - longest, 0) :] if day.year <= year]
    begins = bars.groupby(INSTRUMENT)[DATETIME].min()
    years = {name: each["digest"] for name, each in vintage.manifest["years"].items()}
    return (
        tuple(days),
        tuple(digest for name, digest in sorted(years.items()) if days[0].year <= int(name) <= year),
        frozenset(item for item in begins.items() if days[0] < item[1] <= days[-1]),
    )


@pytest.fixture(scope="module")
def migrated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home with an empty state database."""
    home = tmp_path_factory.mktemp("state")
    upgrade(Settings(home=home))
    return home


@contextmanager
def operation(migrated: Path, folder: Path, feature_set: str) -> Iterator[Operation]:
    """A home with the callback registered."""
    settings = Settings(home=folder / "home")
    shutil.copytree(migrated, settings.home)
    entries = {name: {"version": 1, "owner": "test", "description": name} | entry for name, entry in SETS.items()}
    write_text(settings.home / "feature_sets.yaml", yaml.safe_dump(entries))
    made = Operation(settings, feature_set, find_feature_set(feature_set, settings), folder / "fresh")
    on_finished_sync(made.on_sync)
    try:
        yield made
    finally:
        forget(made.on_sync)


@hypothesis_settings(max_examples=25)
@given(
    market=markets(min_days=12),
    feature_set=st.sampled_from(list(SETS)),
    begin=st.integers(12, 23),
    steps=st.lists(st.tuples(events, failures), min_size=3, max_size=6),
)
def test_exactly_what_a_sync_changes_is_computed_once(  # noqa: PLR0917  hypothesis gives them by name
    migrated: Path,
    tmp_path_factory: pytest.TempPathFactory,
    market: pd.DataFrame,
    feature_set: str,
    begin: int,
    steps: list[tuple[Any, Failure | None]],
) -> None:
    """For syncs that append, restate, remove, list and delist, come again or go back, and fail anywhere: each computes
    the rows that see a change, in no partition twice; what a failed one left undone the next one does; and what can be
    seen is at all times what a full computation gives."""
    names = sorted(set(market[INSTRUMENT]))
    if INDEX not in names:
        market = canonical_bars(market.replace({INSTRUMENT: {names[0]: INDEX}}))
    source = Source(market, begin)
    past = [source]
    with operation(migrated, tmp_path_factory.mktemp("operation"), feature_set) as made:
        for (kind, number, cell, change), failure in steps:
            source = past[number % len(past)] if kind == "go back" else source.after(kind, number, cell, change)
            past.append(source)
            made.sync(source.bars(), failure)
        made.sync(source.bars())
        version = current_vintage(made.settings)
        assert made.store.find(version.data_version, made.definition.digest) is not None
        made.sync(source.bars())
        assert made.computed == [] and not made.succeeded
        assert made.store.compute(version, made.definition).computed_rows == 0


def test_alpha158_after_a_restated_close(migrated: Path, tmp_path: Path) -> None:
    """Of Qlib's set, a restated close computes its instrument's rows from that day on as far as 60 rows reach back, in
    both calendar years; one more day computes that day's rows; a return to the first bars computes nothing."""
    bars = awkward_bars(seed=1, instruments=3, days=150, start="2019-10-01")
    days = [str(day.date()) for day in bars.loc[bars[INSTRUMENT] == "I00", DATETIME]]
    row = int(bars.index[(bars[INSTRUMENT] == "I00") & (bars[DATETIME] == days[40])][0])
    changed = restated(bars, row, CLOSE, lambda old: 1.01 * old)
    with operation(migrated, tmp_path, "alpha158") as made:
        for known, computed in [
            (bars[bars[DATETIME] < days[-1]], {row for row in rows_of(bars) if row[0] < days[-1]}),
            (changed[changed[DATETIME] < days[-1]], {(day, "I00") for day in days[40:101]}),
            (changed, {row for row in rows_of(bars) if row[0] == days[-1]}),
            (bars[bars[DATETIME] < days[-1]], set()),
        ]:
            made.sync(known.reset_index(drop=True))
            assert set().union(*made.computed) == computed


def rows_of(bars: pd.DataFrame) -> set[Row]:
    """Keys of bars."""
    return set(zip(bars[DATETIME].astype(str), bars[INSTRUMENT], strict=True))
