"""How much memory a training will take at most, from the numbers of rows in the stores: no feature is read for it."""

from collections.abc import Sequence
from datetime import date, timedelta
from typing import TYPE_CHECKING

from mlops_tasks.config import Settings
from mlops_tasks.machine.memory_need import MemoryNeed
from mlops_tasks.modeling.model_zoo.memory import BASE_MB, PLAIN_BASE_MB, model_bytes

if TYPE_CHECKING:
    from mlops_tasks.data.vintages import Day, Vintage
    from mlops_tasks.features.partitions import Partition
    from mlops_tasks.modeling.configuration import TrainingConfig
    from mlops_tasks.training.run_folder import FitRequest

_MB = 1e6
_VALUE = 4
"""Bytes of a feature's value, float32."""
_ROW = 96
"""Bytes of a row's keys, codes, label and score."""
_PASSED_OVER = 40
"""Bytes of the keys of a non-member's row, while the members' rows are found."""
_DAYS_OF_TRADING_DAY = 1.6
"""Calendar days per trading day, weekends and holidays included."""
_MARGIN = 1.05
"""For years whose rows are not spread evenly."""


def memory_need(settings: Settings, request: "FitRequest") -> MemoryNeed:
    """Estimate what a training will take.

    Raises
    ------
    StoreError
        There is no such feature version, or no such vintage.
    """
    from mlops_tasks.data.vintages import load_vintage
    from mlops_tasks.features.store import FeatureStore

    version = FeatureStore(settings).get(request.feature_version)
    vintage = load_vintage(settings, request.plan.data_version)
    known = date.fromisoformat(vintage.first_date), date.fromisoformat(vintage.last_date)
    segments, config = request.plan.segments, request.config
    since = segments["train"][0]
    if config.window > 1:
        since -= timedelta(days=int(config.window * _DAYS_OF_TRADING_DAY) + 7)
    stored, learnable = (
        int(_MARGIN * _rows(version.partitions, since, segments[name][1], known)) for name in ("test", "valid")
    )
    rows = _loaded(stored, vintage, config, (since, segments["test"][1]))
    learned = _loaded(learnable, vintage, config, (since, segments["valid"][1]))
    features = len(version.names)
    processed = learned * features * _VALUE / _MB if config.feature_processors else 0.0
    return MemoryNeed(
        rows=rows,
        features=features,
        base_mb=BASE_MB.get(config.family, PLAIN_BASE_MB),
        data_mb=_read_mb(rows, features, stored) + processed,
        model_mb=model_bytes(config.family, config.hyperparameters, learned, features) / _MB,
    )


def fold_need(
    settings: Settings, vintage: "Vintage", feature_version: str, config: "TrainingConfig", *, is_loaded: bool
) -> MemoryNeed:
    """Estimate what a fold of a cross-validation takes beyond its process, and beyond the panel where that is loaded.

    Raises
    ------
    StoreError
        There is no such feature version.
    """
    from mlops_tasks.features.store import FeatureStore

    version = FeatureStore(settings).get(feature_version)
    stored = sum(each.rows for each in version.partitions)
    return panel_need(vintage, stored, len(version.names), config, is_loaded=is_loaded)


def panel_need(
    vintage: "Vintage", stored: int, features: int, config: "TrainingConfig", *, is_loaded: bool = False
) -> MemoryNeed:
    """Estimate what a training on all days of a vintage takes beyond its process, and beyond a loaded panel.

    Parameters
    ----------
    stored
        Rows of the features.
    features
        Columns.
    """
    rows = _loaded(stored, vintage, config, (vintage.first_date, vintage.last_date))
    processed = rows * features * _VALUE / _MB if config.feature_processors else 0.0
    return MemoryNeed(
        rows=rows,
        features=features,
        base_mb=0.0,
        data_mb=processed + (0.0 if is_loaded else _read_mb(rows, features, stored)),
        model_mb=model_bytes(config.family, config.hyperparameters, rows, features) / _MB,
    )


def _loaded(stored: int, vintage: "Vintage", config: "TrainingConfig", days: "tuple[Day, Day]") -> int:
    """How many of the stored rows of a range of days are loaded: the members' rows.

    Windows need all rows: they look back on days before an instrument was a member.
    """
    return stored if config.window > 1 else min(stored, vintage.member_days(*days))


def _read_mb(rows: int, features: int, stored: int) -> float:
    """A frame with its keys and labels, selected from what is stored."""
    return (rows * (features * _VALUE + _ROW) + (stored - rows) * _PASSED_OVER) / _MB


def _rows(partitions: "Sequence[Partition]", first: date, last: date, known: tuple[date, date]) -> float:
    """Rows of a range of days, as if each year's rows were spread evenly over its known days."""
    count = 0.0
    for each in partitions:
        year = max(known[0], date(each.year, 1, 1)), min(known[1], date(each.year, 12, 31))
        count += each.rows * _days(max(first, year[0]), min(last, year[1])) / max(1, _days(*year))
    return count


def _days(first: date, last: date) -> int:
    return max(0, (last - first).days + 1)
