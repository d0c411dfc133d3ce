"""The checks: on data that are cut off at a day, every part of a pipeline must give what it gives on all data."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd

from mlops_tasks.columns import DATETIME, INSTRUMENT, LABEL
from mlops_tasks.data.vintages import Vintage
from mlops_tasks.modeling.dataset import LEARNING_SEGMENTS, LearningData
from mlops_tasks.modeling.learning_spec import LearningSpec
from mlops_tasks.modeling.processors import FittedProcessors
from mlops_tasks.training.leaks.comparison import Comparison, Difference, Leak, fingerprint
from mlops_tasks.training.leaks.known import KnownVintage, known_on, last_labelled_day, rescaled
from mlops_tasks.training.leaks.pipeline import Pipeline

SPAN_VALUES = 1 << 26
"""Values held at once of each of the two tables that are compared: 256 MiB of float32."""

UNIVERSE, FEATURES, LABELS, PURGING = "universe", "features", "labels", "purging"
PROCESSORS, LEARNING, INFERENCE, LABEL_INDEPENDENCE = "processors", "learning", "inference", "label_independence"
LEVELS, SCORES = "levels", "scores"

SAME_LEVEL = 0.02
"""Share of a value, or of its column's median size: what changes less in other units is no level. Ratios change a
little, because of the small numbers that keep their denominators from zero, and so do correlations with
Log($volume+1), because of the 1."""
LEVEL_DAYS = 60
"""Trading days that are compared in other units; a level shows on each of them."""
LEVEL_ROWS = 0.2
"""Share of a column's values beyond `SAME_LEVEL` from which on the column is a level; smaller shares come from
thresholds in absolute units."""


@dataclass(frozen=True)
class Check:
    """What was compared, and what came out.

    Attributes
    ----------
    name, subject
        Which part of the pipeline, and which processors where there is a choice.
    cut
        The day after whose close the data of the compared table end; None where only labels were removed.
    digest
        Of the keys and values that were compared.
    """

    name: str
    subject: str | None
    cut: str | None
    rows: int
    columns: int
    values: int
    digest: str
    difference: Difference | None

    @property
    def passed(self) -> bool:
        """Whether there was something to compare, and all of it is equal."""
        return self.values > 0 and self.difference is None

    def to_json(self) -> dict[str, Any]:
        """As a plain dict."""
        found = None if self.difference is None else self.difference.to_json()
        return {**vars(self), "difference": found, "passed": self.passed}

    def __str__(self) -> str:
        what = " ".join(filter(None, (self.name, self.subject and f"({self.subject})", self.cut and f"at {self.cut}")))
        if self.passed:
            return f"{what}: {self.rows} rows x {self.columns} columns are equal"
        if self.difference is None:
            return f"{what}: there was nothing to compare; choose segments in which the vintage has rows and labels"
        return f"{what}: {self.difference}"


@dataclass(frozen=True)
class Processing:
    """Processors of the models that are to be trained: the distinct ones."""

    features: tuple[tuple[str, ...], ...]
    label: tuple[str, ...]


@dataclass(frozen=True)
class CheckedPipeline:
    """A pipeline, and what it is checked on.

    Each part is given what the parts before it gave with all data, as far as it was known on the day of the cut. Their
    own checks show that they give the same without later data. So a leak shows in the part that causes it.

    Attributes
    ----------
    cuts
        Trading days, ascending, none before the last day of train; later days of the vintage are what may leak.
    """

    pipeline: Pipeline
    vintage: Vintage
    spec: LearningSpec
    processing: Processing
    cuts: Sequence[pd.Timestamp]

    def find_leaks(self) -> Iterator[Check]:
        """Check all parts."""
        for day in self.cuts:
            yield from self.check_rows(day)
            yield self.check_labels(day)
        yield self.check_levels()
        yield self.check_purging()
        for names in self.processing.features:
            fitted = self.pipeline.fit(self.data, names)
            if names:
                yield self.check_processors(names, fitted)
            yield from self.check_inference(names, fitted)
        for name in self.processing.label:
            yield from self.check_learning(name)

    @cached_property
    def calendar(self) -> pd.DatetimeIndex:
        return self.vintage.calendar()

    @cached_property
    def label(self) -> pd.Series:
        return self.pipeline.label(self.vintage)

    @cached_property
    def data(self) -> LearningData:
        """What the models will learn from."""
        first, last = (pd.Timestamp(self.spec.segments[n][i]) for n, i in (("train", 0), ("test", 1)))
        features = self.pipeline.stored(first, last)
        members = self.pipeline.universe(self.vintage, features.index)
        if members.all():
            self._held.append(features)
        else:
            features = features[members]
        return self.pipeline.learning_data(features, self.label, self.spec, self.calendar)

    @cached_property
    def vintages(self) -> dict[pd.Timestamp, KnownVintage]:
        """The vintage as it was known at each cut."""
        return {day: known_on(self.vintage, day) for day in self.cuts}

    @cached_property
    def known(self) -> dict[pd.Timestamp, LearningData]:
        """The learning data at each cut, from data up to that cut only."""
        return {
            day: self.pipeline.learning_data(
                self.data.features.iloc[: self._rows_until(day)],
                self._known_label(day),
                self.spec,
                self._known_days(day),
            )
            for day in self.cuts
        }

    @cached_property
    def _held(self) -> list[pd.DataFrame]:
        """All stored rows of the days that are learned from, if all of them are; they are in memory anyway."""
        return []

    @cached_property
    def contents(self) -> dict[tuple[pd.Timestamp, pd.Timestamp], str]:
        """Fingerprints of the stored features of the spans that were compared."""
        return {}

    def check_rows(self, day: pd.Timestamp) -> tuple[Check, Check]:
        """Universe and features of all rows up to a cut, span after span.

        A panel of all bars is held only while its cut is checked: stored rows that are not learned from are read again
        at each cut.
        """
        computed = self.pipeline.features(self.vintages[day])
        universe, features = Comparison(), Comparison()
        for span in self._spans():
            if span[1] > day:
                break
            stored = self._stored(*span)
            if span not in self.contents:
                self.contents[span] = fingerprint(stored)
            features.add(stored, computed(*span), self.contents[span])
            universe.add(self._members(self.vintage, stored.index), self._members(self.vintages[day], stored.index))
        return (
            check_of(UNIVERSE, day, universe, Leak.SURVIVORSHIP),
            check_of(FEATURES, day, features, features.guess(self._known_days(day))),
        )

    def check_labels(self, day: pd.Timestamp) -> Check:
        """The labels whose closes are known at a cut, and no others."""
        found = Comparison()
        label = self.pipeline.label(self.vintages[day])
        found.add(self._known_label(day).to_frame(LABEL), label.to_frame(LABEL))
        return check_of(LABELS, day, found, Leak.LABEL_REACH)

    def check_levels(self) -> Check:
        """Features of the last days up to the first cut, as they are and with each instrument in units of its own."""
        day, found = self.cuts[0], Comparison()
        first = self._known_days(day)[-LEVEL_DAYS:][0]
        vintages = self.vintages[day], rescaled(self.vintages[day])
        computed, again = (self.pipeline.features(vintage)(first, day) for vintage in vintages)
        found.add(computed, _levels(computed, again))
        return check_of(LEVELS, day, found, Leak.LEVEL)

    def check_purging(self) -> Check:
        """No label of train or valid needs a close after its segment."""
        found = Comparison()
        for name in LEARNING_SEGMENTS:
            label = self.data.label.iloc[self.data.rows(name)]
            last = last_labelled_day(self.calendar, pd.Timestamp(self.data.segments[name][1]), self.spec.horizon)
            may = label.where(label.index.get_level_values(DATETIME) <= last)
            found.add(label.to_frame(LABEL), may.to_frame(LABEL))
        return check_of(PURGING, None, found, Leak.UNPURGED)

    def check_processors(self, names: Sequence[str], fitted: FittedProcessors) -> Check:
        """Fitted numbers at the first cut: if they are the same there, they need no later day."""
        found, day = Comparison(), self.cuts[0]
        again = self.pipeline.fit(self.known[day], names)
        found.add(*(_parameters(each, self.data.features.columns, day) for each in (fitted, again)))
        return check_of(PROCESSORS, day, found, Leak.FULL_SAMPLE, _subject(names))

    def check_inference(self, names: Sequence[str], fitted: FittedProcessors) -> Iterator[Check]:
        """The inputs of a model's predictions, with other labels and at each cut."""
        independent, at_cut = Comparison(), {day: Comparison() for day in self.cuts}
        noise = np.random.default_rng(0).standard_normal(len(self.data.label))
        other = replace(self.data, label=pd.Series(noise, self.data.label.index, name=LABEL))
        for rows in self._slices():
            whole = self.pipeline.seen(self.data, fitted, rows)
            content = fingerprint(whole)
            independent.add(whole, self.pipeline.seen(other, fitted, rows), content)
            for day, known in self.known.items():
                if rows.stop <= len(known.label):
                    at_cut[day].add(whole, self.pipeline.seen(known, fitted, rows), content)
        yield check_of(LABEL_INDEPENDENCE, None, independent, Leak.LABEL_AT_INFERENCE, _subject(names))
        for day, found in at_cut.items():
            leak = found.guess(self._known_days(day)) if independent.equal else Leak.LABEL_AT_INFERENCE
            yield check_of(INFERENCE, day, found, leak, _subject(names))

    def check_learning(self, label_processor: str) -> Iterator[Check]:
        """The rows and labels that a model learns from, as far as they are known at a cut of train or valid."""
        whole = self.pipeline.learned(self.data, label_processor)
        for day in self.cuts[: len(LEARNING_SEGMENTS)]:
            found = Comparison()
            last = last_labelled_day(self.calendar, day, self.spec.horizon)
            found.add(
                whole[whole.index.get_level_values(DATETIME) <= last],
                self.pipeline.learned(self.known[day], label_processor),
            )
            yield check_of(LEARNING, day, found, Leak.FULL_SAMPLE, label_processor)

    def _stored(self, first: pd.Timestamp, last: pd.Timestamp) -> pd.DataFrame:
        """The stored features of some days, read unless they are held."""
        for held in self._held:
            days = held.index.get_level_values(DATETIME)
            if len(days) and days[0] <= first and last <= days[-1]:
                return held.iloc[days.searchsorted(first) : days.searchsorted(last, "right")]
        return self.pipeline.stored(first, last)

    def _known_days(self, day: pd.Timestamp) -> pd.DatetimeIndex:
        return self.calendar[: self.calendar.searchsorted(day, "right")]

    def _known_label(self, day: pd.Timestamp) -> pd.Series:
        label = self.label.iloc[: self.label.index.get_level_values(DATETIME).searchsorted(day, "right")]
        last = last_labelled_day(self.calendar, day, self.spec.horizon)
        return label.where(label.index.get_level_values(DATETIME) <= last)

    def _rows_until(self, day: pd.Timestamp) -> int:
        return int(self.data.features.index.get_level_values(DATETIME).searchsorted(day, "right"))

    def _members(self, vintage: Vintage, index: pd.MultiIndex) -> pd.DataFrame:
        return pd.DataFrame({"member": self.pipeline.universe(vintage, index)}, index, dtype=np.float32)

    def _spans(self) -> Iterator[tuple[pd.Timestamp, pd.Timestamp]]:
        """Ranges of days up to the last cut that hold about `SPAN_VALUES` values each, in pieces that end at cuts."""
        begin, rows = 0, 0
        for day, known in self.vintages.items():
            days = self._known_days(day)[begin:]
            values = (known.rows - rows) * len(self.data.features.columns)
            for part in np.array_split(np.arange(len(days)), min(len(days), max(1, math.ceil(values / SPAN_VALUES)))):
                yield days[part[0]], days[part[-1]]
            begin, rows = begin + len(days), known.rows

    def _slices(self) -> Iterator[slice]:
        """Positions of the learning data, in pieces that end at the cuts."""
        width = max(1, SPAN_VALUES // self.data.features.shape[1])
        ends = [0, *(self._rows_until(day) for day in self.cuts), len(self.data.features)]
        for first, last in pairwise(ends):
            for begin in range(first, last, width):
                yield slice(begin, min(begin + width, last))


def _levels(features: pd.DataFrame, rescaled: pd.DataFrame) -> pd.DataFrame:
    """The features, with the columns that are levels replaced by their rescaled values; shaped as `features`."""
    rescaled = rescaled.reindex(index=features.index, columns=features.columns)
    columns = {}
    for name in features.columns:
        a, b = (frame[name].to_numpy(np.float64) for frame in (features, rescaled))
        known = np.isfinite(a) | np.isfinite(b)
        size = np.median(np.abs(a[np.isfinite(a)])) if np.isfinite(a).any() else 0.0
        same = np.isclose(a, b, rtol=SAME_LEVEL, atol=SAME_LEVEL * size, equal_nan=True)
        is_level = (known & ~same).sum() > LEVEL_ROWS * known.sum()
        columns[name] = rescaled[name].where(~same, features[name]) if is_level else features[name]
    return pd.DataFrame(columns, index=features.index)


def check_of(name: str, day: pd.Timestamp | None, found: Comparison, leak: Leak, subject: str | None = None) -> Check:
    """The check that a comparison results in; `leak` is what a difference looks like."""
    return Check(
        name=name,
        subject=subject,
        cut=None if day is None else str(day.date()),
        rows=found.rows,
        columns=found.columns,
        values=found.values,
        digest=found.digest,
        difference=found.difference(leak),
    )


def _parameters(fitted: FittedProcessors, columns: pd.Index, day: pd.Timestamp) -> pd.DataFrame:
    """Fitted numbers as a table that is known on a day: one row per kind, one column per feature."""
    numbers = {"centre": fitted.centre, "scale": fitted.scale}
    found = {name: values for name, values in numbers.items() if values is not None}
    index = pd.MultiIndex.from_product([[day], list(found)], names=[DATETIME, INSTRUMENT])
    return pd.DataFrame(list(found.values()), index, columns, np.float64)


def _subject(names: Sequence[str]) -> str:
    return ", ".join(names) or "no processor"
