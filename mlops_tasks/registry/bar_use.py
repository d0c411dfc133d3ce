"""Which registered versions used a bar: in their features, through which factors, and in their labels."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import date
from typing import Any

import numpy as np
import pandas as pd

from mlops_tasks.columns import BAR_FIELDS, CLOSE, DATETIME, FACTOR, INSTRUMENT
from mlops_tasks.config import Settings
from mlops_tasks.data.vintages import Vintage, load_vintage
from mlops_tasks.errors import ConfigError, StoreError, first_few, hint
from mlops_tasks.features.labels import TRADABLE_AFTER
from mlops_tasks.files import finite_or_none
from mlops_tasks.state.tables import FactorInput, VersionOrigin
from mlops_tasks.state.version_origins import EVERY, OWN, WHOLE, OriginSearch, find_origins, inputs_of

LEARNED, EVALUATED = "learned", "evaluated"
"""How a version used a bar: it was trained or stopped on what depends on it, or only measured on it."""
_SEGMENTS_OF = {LEARNED: ("train", "valid"), EVALUATED: ("test",)}
_FOREVER = 1 << 30
"""More rows than any calendar has."""


@dataclass(frozen=True)
class Bars:
    """Bars of one instrument."""

    instrument: str
    first: date
    last: date
    field: str | None = None
    """None: any of them."""


@dataclass(frozen=True)
class BarUse:
    """How a version used some bars."""

    version: int
    data_version: str
    use: str
    """`LEARNED` or `EVALUATED`."""
    factors: tuple[str, ...]
    """That read them in the rows concerned, sorted."""
    label: bool
    """Whether labels depend on them."""
    values: dict[str, dict[str, float | None]]
    """Day to field to its value in the version's vintage, raw; None: the bar has none."""

    def to_json(self) -> dict[str, Any]:
        """Plain JSON."""
        return asdict(self)


@dataclass(frozen=True)
class UsesFound:
    """What a search for uses came to."""

    uses: tuple[BarUse, ...]
    unknown: dict[int, str]
    """Version to why it cannot be told of it."""


def uses_of_bars(settings: Settings, bars: Bars, wanted: OriginSearch | None = None) -> UsesFound:
    """The versions that used any of these bars, ascending, as their vintages have them.

    Raises
    ------
    ConfigError
        There is no such field, or the days are the wrong way round.
    """
    if bars.field is not None and bars.field not in BAR_FIELDS:
        raise ConfigError(f"field {bars.field}: {hint(bars.field, BAR_FIELDS)}")
    if bars.last < bars.first:
        raise ConfigError(f"{bars.first} to {bars.last}: the last day is before the first; swap them")
    origins = find_origins(settings, wanted or OriginSearch())
    inputs = inputs_of(settings, (each.definition for each in origins))
    vintages: dict[str, Vintage | str] = {}
    uses, unknown = [], {}
    for origin in origins:
        if origin.data_version not in vintages:
            vintages[origin.data_version] = _vintage(settings, origin.data_version)
        vintage = vintages[origin.data_version]
        if isinstance(vintage, str):
            unknown[origin.version] = vintage
        elif not inputs[origin.definition]:
            unknown[origin.version] = "what its factors read was not recorded"
        elif (use := _use(origin, inputs[origin.definition], vintage, bars)) is not None:
            uses.append(use)
    return UsesFound(tuple(uses), unknown)


def _vintage(settings: Settings, data_version: str) -> Vintage | str:
    try:
        return load_vintage(settings, data_version)
    except StoreError as error:
        return str(error)


def _use(origin: VersionOrigin, inputs: Sequence[FactorInput], vintage: Vintage, bars: Bars) -> BarUse | None:
    fields = BAR_FIELDS if bars.field is None else (bars.field,)
    held = vintage.bars(fields, bars.first, bars.last)
    held = held[held[INSTRUMENT] == bars.instrument]
    if held.empty:
        return None
    places = vintage.calendar().get_indexer(pd.DatetimeIndex(held[DATETIME]))
    for use, segments in _SEGMENTS_OF.items():
        spans = [origin.segments[name] for name in segments if name in origin.segments]
        days = _Rows.of(vintage, bars.instrument, spans, 0 if use == EVALUATED else origin.horizon + TRADABLE_AFTER)
        factors = {
            each.factor for each in inputs if _reads(each, fields, bars.instrument) and days.reached(each, places)
        }
        label = bool({CLOSE, FACTOR} & set(fields)) and days.labelled(places, origin.horizon)
        if factors or label:
            values = {
                str(pd.Timestamp(row[DATETIME]).date()): {name: finite_or_none(row[name]) for name in fields}
                for row in held.to_dict("records")
            }
            return BarUse(origin.version, origin.data_version, use, tuple(sorted(factors)), label, values)
    return None


def _reads(each: FactorInput, fields: Sequence[str], instrument: str) -> bool:
    """Whether a factor reads one of these fields of an instrument; all prices and volumes are read with the factor."""
    return (each.field in fields or FACTOR in fields) and each.instrument in (OWN, EVERY, instrument)


@dataclass(frozen=True)
class _Rows:
    """The rows of a span of days that a model saw, as places in the calendar; ascending."""

    own: np.ndarray
    """Of one instrument, on its days as a member."""
    every: np.ndarray
    """Of all of them."""
    with_label: np.ndarray
    """The instrument's own whose labels count."""

    @classmethod
    def of(cls, vintage: Vintage, instrument: str, spans: Sequence[Sequence[str]], purged: int) -> "_Rows":
        """The rows of segments, given by their first and last days; labels of their last `purged` days do not count."""
        calendar, nothing = vintage.calendar(), np.empty(0, dtype=np.int64)
        parts = [
            np.flatnonzero((calendar >= pd.Timestamp(first)) & (calendar <= pd.Timestamp(last)))
            for first, last in spans
        ]
        every = np.concatenate([nothing, *parts])
        index = pd.MultiIndex.from_product([calendar[every], [instrument]], names=[DATETIME, INSTRUMENT])
        own = every[vintage.membership_mask(index)]
        labelled = np.concatenate([nothing, *(part[: len(part) - purged] for part in parts)])
        return cls(own, every, own[np.isin(own, labelled)])

    def reached(self, read: FactorInput, places: np.ndarray) -> bool:
        """Whether a factor's value in any row depends on a bar at one of these places."""
        rows = self.own if read.instrument == OWN else self.every
        reach = _FOREVER if read.rows_back == WHOLE else read.rows_back
        return _any_between(rows, places, places + reach)

    def labelled(self, places: np.ndarray, horizon: int) -> bool:
        """Whether the label of any own row begins or ends at one of these places."""
        begins, ends = places - TRADABLE_AFTER, places - TRADABLE_AFTER - horizon
        return bool(np.isin(self.with_label, [*begins, *ends]).any())


def _any_between(rows: np.ndarray, first: np.ndarray, last: np.ndarray) -> bool:
    return bool((np.searchsorted(rows, last, "right") > np.searchsorted(rows, first, "left")).any())


def described(uses: UsesFound) -> Iterator[str]:
    """In words, a line for each version."""
    for each in uses.uses:
        through = [f"through {first_few(each.factors)}"] if each.factors else []
        through += ["in labels"] if each.label else []
        yield f"version {each.version} {each.use} it {' and '.join(through)} (vintage {each.data_version})"
        for day, values in each.values.items():
            yield f"  {day}: " + ", ".join(f"{name} {value}" for name, value in values.items())
    for version, why in uses.unknown.items():
        yield f"version {version}: not known: {why}"
