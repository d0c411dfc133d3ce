"""The columns of the table of models, and its cells as text."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Column:
    """One metric of the table."""

    metric: str
    title: str
    pattern: str
    compared: float | None = None
    """If given, the metric is compared with Qlib's own classes. Differences up to this are rounding: the last bit of a
    score moves an IC of few names in the last digit shown, and can change which share is the last of the top k."""


COLUMNS = (
    Column("test_ic_mean", "IC", ".4f", compared=1e-4),
    Column("test_icir", "ICIR", ".3f"),
    Column("test_rank_ic_mean", "rank IC", ".4f", compared=1e-4),
    Column("test_rank_icir", "rank ICIR", ".3f"),
    Column("test_excess_return_after_cost", "excess return p.a. (sum)", ".1%", compared=1e-2),
    Column("test_information_ratio", "IR", ".2f"),
    Column("test_max_drawdown", "max drawdown (sum)", ".1%"),
    Column("test_turnover", "turnover", ".1%"),
    Column("train_seconds", "training s", ".1f"),
)


def table_cells(content: Mapping[str, Any]) -> tuple[list[str], list[tuple[str, list[str]]]]:
    """A table's headings except the first, and each model's name and cells: mean ± standard deviation over seeds."""
    rows = [
        (row["name"], [_band_text(row["metrics"].get(column.metric), column.pattern) for column in COLUMNS])
        for row in content["rows"]
    ]
    return [column.title for column in COLUMNS], rows


def _band_text(band: Mapping[str, Any] | None, pattern: str) -> str:
    if band is None:
        return "–"
    spread = band["standard_deviation"]
    return format(band["mean"], pattern) + ("" if spread is None else f" ± {format(spread, pattern)}")
