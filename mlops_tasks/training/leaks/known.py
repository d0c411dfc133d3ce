"""A vintage as it was known on a day of its past, and the days on which to look."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from dataclasses import fields as fields_of

import numpy as np
import pandas as pd
import pyarrow as pa

from mlops_tasks.columns import BAR_FIELDS, FACTOR, INSTRUMENT, PRICES, VOLUME, VWAP
from mlops_tasks.data.bar_files import instrument_codes
from mlops_tasks.data.sources.membership import FIRST_DATE, LAST_DATE
from mlops_tasks.data.vintages import Day, Vintage
from mlops_tasks.modeling.learning_spec import LearningSpec


@dataclass(frozen=True)
class KnownVintage(Vintage):
    """A vintage without what came after the close of `last_date`.

    Later bars are removed, and so are instruments that have no earlier ones. Of the membership, spells that begin later
    are removed, and one that ends later continues until `last_date`: that it would end was not known.
    """

    def tables(
        self, fields: Sequence[str] = BAR_FIELDS, start: Day | None = None, end: Day | None = None
    ) -> Iterator[pa.Table]:
        """As `Vintage.tables`, through which all bars are read, but never beyond `last_date`."""
        last = pd.Timestamp(self.last_date)
        return super().tables(fields, start, last if end is None else min(pd.Timestamp(end), last))

    def members(self) -> pd.DataFrame:
        """As `Vintage.members`, as far as known."""
        spells, last = super().members(), pd.Timestamp(self.last_date)
        begun = spells[spells[FIRST_DATE] <= last].reset_index(drop=True)
        return begun.assign(**{LAST_DATE: begun[LAST_DATE].clip(upper=last)})

    def instrument_names(self) -> list[str]:
        """Instruments that have bars up to `last_date`, sorted."""
        return _names(self.tables(()))


def known_on(vintage: Vintage, day: pd.Timestamp) -> KnownVintage:
    """What a vintage would have been after the close of `day`, one of its trading days."""
    keys = list(vintage.tables((), end=day))
    years: dict[str, dict[str, str]] = {year: {} for year in vintage.manifest["years"] if int(year) <= day.year}
    return KnownVintage(
        data_version=f"{vintage.data_version}@{day.date()}",
        path=vintage.path,
        rows=sum(map(len, keys)),
        instruments=len(_names(keys)),
        first_date=vintage.first_date,
        last_date=str(day.date()),
        manifest={**vintage.manifest, "years": years},
        files=vintage.files,
    )


@dataclass(frozen=True)
class RescaledVintage(KnownVintage):
    """A known vintage as it would be after later splits and dividends.

    Each instrument's raw prices are multiplied by one power of two and its factor by another. Its volume is divided so
    that turnover, adjusted price times adjusted volume, stays the same. Neighbours in the alphabet get other powers.
    """

    def tables(
        self, fields: Sequence[str] = BAR_FIELDS, start: Day | None = None, end: Day | None = None
    ) -> Iterator[pa.Table]:
        """As `Vintage.tables`, in other units."""
        place = {name: number for number, name in enumerate(Vintage.instrument_names(self))}
        for table in super().tables(fields, start, end):
            codes, names = instrument_codes(table)
            number = np.array([place[name] for name in names], dtype=np.int64)[codes]
            raw, factor = 2.0 ** (1 + number % 3), 2.0 ** (1 + number % 2)
            scales = {**dict.fromkeys((*PRICES, VWAP), raw), FACTOR: factor, VOLUME: 1 / raw}
            for name in set(scales) & set(fields):
                values = table.column(name).to_numpy() * scales[name]
                table = table.set_column(table.schema.get_field_index(name), name, pa.array(values))  # noqa: PLW2901
            yield table


def rescaled(known: KnownVintage) -> RescaledVintage:
    """A known vintage, each instrument in units of its own."""
    return RescaledVintage(**{field.name: getattr(known, field.name) for field in fields_of(known)})


def _names(tables: Iterable[pa.Table]) -> list[str]:
    """The instruments of tables of bars, sorted."""
    return sorted(set().union(*(table.unify_dictionaries()[INSTRUMENT].unique().to_pylist() for table in tables)))


def cut_days(spec: LearningSpec, calendar: pd.DatetimeIndex, count: int) -> pd.DatetimeIndex:
    """The days at which to cut a spec's data, ascending: `count` of them if the test segment has enough days.

    They are the last days of train and valid, where a model's knowledge must end, then days spread evenly over test.
    The last one is the day before the newest, because a leak shows only where it reaches across a cut.
    """
    until = {name: calendar.searchsorted(pd.Timestamp(last), "right") for name, (_, last) in spec.segments.items()}
    first, last = int(until["valid"]), min(int(until["test"]), len(calendar) - 1)
    spread = np.linspace(first, last, max(count - 1, 1)).round().astype(int)[1:]
    chosen = [until["train"], until["valid"], *spread][:count]
    return calendar[np.unique(chosen) - 1]


def last_labelled_day(calendar: pd.DatetimeIndex, day: pd.Timestamp, horizon: int) -> pd.Timestamp:
    """The newest day whose label, the return from the close of t+1 to that of t+1+horizon, is known after `day`."""
    place = int(calendar.searchsorted(day, "right")) - 1 - (horizon + 1)
    return calendar[place] if place >= 0 else pd.Timestamp.min
