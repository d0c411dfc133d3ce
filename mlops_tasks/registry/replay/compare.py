"""Compares what was recorded of a training with what its replay has made; to the last bit, and in the scores' units."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd

from mlops_tasks.columns import DATETIME, INSTRUMENT, LABEL, SCORE
from mlops_tasks.errors import StoreError
from mlops_tasks.features.store import FeatureStore
from mlops_tasks.files import digest_of_file, finite_or_none
from mlops_tasks.registry.replay.report import Compared, FirstDifference, Part, Standing
from mlops_tasks.states import ReplayVerdict
from mlops_tasks.training.leaks.comparison import Comparison


def compare_features(stored: FeatureStore, recorded: str, rebuilt: FeatureStore, version: str) -> Compared:
    """Compare stored features with those that were rebuilt, all rows and columns, a year at a time.

    Not compared where the stored ones are gone, or not what was written.
    """
    found = Comparison()
    for partition in rebuilt.get(version).partitions:
        first, last = f"{partition.year}-01-01", f"{partition.year}-12-31"
        try:
            before = stored.load(recorded, first, last)
        except StoreError as error:
            return Compared(Part.FEATURES, Standing.NOT_COMPARED, f"the stored ones cannot be read: {error}")
        found.add(before, rebuilt.load(version, first, last))
    said = "" if version == recorded else f"they are of version {version}, not {recorded}"
    return _compared(Part.FEATURES, found, said)


def compare_learning_data(recorded: pd.DataFrame, replayed: pd.DataFrame, *, same: bool) -> Compared:
    """Say whether the learning data are the same, by their digest; where not, whether labels of valid and test differ.

    Parameters
    ----------
    recorded, replayed
        Predictions, with the columns of `PREDICTION_COLUMNS`.
    same
        Whether the digests are equal.
    """
    if same:
        return Compared(Part.LEARNING_DATA, Standing.EQUAL, "by their digest")
    found = Comparison()
    found.add(_table(recorded, LABEL), _table(replayed, LABEL))
    if found.first is not None:
        return _compared(Part.LEARNING_DATA, found, "their digests differ, too")
    said = "their digests differ; labels of valid and test are equal, so features, membership or labels of train differ"
    return Compared(Part.LEARNING_DATA, Standing.DIFFERENT, said)


def compare_model(folder: Path, files: Mapping[str, str]) -> Compared:
    """Compare a model's files with what was signed, except the manifest and its signature.

    Parameters
    ----------
    folder
        The artefact of the replay.
    files
        Name to SHA-256.
    """
    found = {name: digest_of_file(folder / name) if (folder / name).is_file() else None for name in files}
    differing = [name for name, expected in files.items() if found[name] != expected]
    if not differing:
        return Compared(Part.MODEL, Standing.EQUAL, f"{', '.join(files)} have the same bytes")
    return Compared(Part.MODEL, Standing.DIFFERENT, f"the bytes of {', '.join(differing)} differ")


def compare_scores(recorded: pd.DataFrame, replayed: pd.DataFrame) -> Compared:
    """Compare the scores of valid and test; both with the columns of `PREDICTION_COLUMNS`.

    There is no relative difference where a score is not finite, or where all recorded ones are equal.
    """
    found, before, after = Comparison(), _table(recorded, SCORE), _table(replayed, SCORE)
    found.add(before, after)
    finite = all(np.isfinite(each.to_numpy()).all() for each in (before, after))
    return _compared(Part.SCORES, found, "", float(np.std(before.to_numpy())) if finite else None)


def verdict_on(scores: Compared, tolerance: float) -> ReplayVerdict:
    """The verdict that compared scores stand for; what has no relative difference is beyond every tolerance."""
    if scores.standing is Standing.EQUAL:
        return ReplayVerdict.EQUAL
    within = scores.relative is not None and scores.relative <= tolerance
    return ReplayVerdict.WITHIN_TOLERANCE if within else ReplayVerdict.DIFFERENT


def _table(predictions: pd.DataFrame, column: str) -> pd.DataFrame:
    """One column, float64, by (datetime, instrument), sorted; of whatever file or frame it comes from."""
    keys = [pd.DatetimeIndex(predictions[DATETIME]).as_unit("ns"), predictions[INSTRUMENT].astype(str)]
    index = pd.MultiIndex.from_arrays(keys, names=[DATETIME, INSTRUMENT])
    return pd.DataFrame({column: predictions[column].to_numpy(np.float64)}, index).sort_index()


def _compared(part: Part, found: Comparison, said: str, spread: float | None = None) -> Compared:
    if found.first is None:
        standing = Standing.EQUAL if found.values else Standing.DIFFERENT
        return Compared(part, standing, said or ("" if found.values else "there is nothing to compare"), found.values)
    first = found.first
    return Compared(
        part=part,
        standing=Standing.DIFFERENT,
        said=said,
        values=found.values,
        differing=sum(found.differing.values()) + found.lone_rows,
        first=FirstDifference(
            date=str(first.date.date()),
            instrument=first.instrument,
            column=first.column,
            recorded=finite_or_none(first.with_future),
            replayed=finite_or_none(first.without),
        ),
        largest=found.largest,
        relative=None if spread is None or found.lone_rows else _relative(found.largest, spread),
    )


def _relative(largest: float, spread: float) -> float | None:
    return largest / spread if spread > 0 else None
