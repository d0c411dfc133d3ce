"""The result table: the newest run's candidates and the champion, what each is, and what the headings mean."""

from collections.abc import Mapping, Sequence
from typing import Any

from mlops_tasks.config import Settings
from mlops_tasks.files import read_json
from mlops_tasks.registry.client import CHALLENGER, CHAMPION
from mlops_tasks.registry.tasks import LATEST_CANDIDATES, SELECTION_METRIC
from mlops_tasks.shared_store import pull
from mlops_tasks.training_folder import TrainingFolder

COLUMNS = {
    "model": "model",
    "role": "is",
    SELECTION_METRIC: "valid rank IC",
    "test_ic_mean": "IC",
    "test_icir": "ICIR",
    "test_rank_ic_mean": "rank IC",
    "test_rank_icir": "rank ICIR",
    "test_excess_return_after_cost": "excess return p.a. (sum)",
    "test_information_ratio": "IR",
    "test_max_drawdown": "max drawdown (sum)",
    "train_seconds": "training s",
}
"""Metric to heading; on the test segment but for the one that chose the challenger."""
TERMS = {
    "valid rank IC": "rank IC on the validation days: the candidate with the highest became challenger",
    "IC, rank IC": "mean over the test days of the correlation of scores, or their ranks, with the returns after",
    "ICIR, rank ICIR": "that mean divided by the standard deviation from day to day",
    "excess return": "of the names held, after costs, over the universe's equal-weight return; days are summed",
    "IR": "the excess return's mean divided by its standard deviation, a year",
    "max drawdown": "largest fall of the summed excess return",
}
"""Heading to what it means, in a line."""

PERCENT = {"test_excess_return_after_cost", "test_max_drawdown"}


def newest_trainings(settings: Settings) -> list[str]:
    """Training keys of the newest run's candidates."""
    pointer = settings.home / LATEST_CANDIDATES
    pull(settings, pointer)
    return list(read_json(pointer)["training_keys"]) if pointer.is_file() else []


def candidates(settings: Settings, roles: Mapping[str, str | None]) -> list[dict[str, Any]]:
    """The newest candidates with their metrics and what each is, and the champion where it is none of them.

    Parameters
    ----------
    roles
        `champion` and `challenger` to their training keys; None: not known.
    """
    keys = newest_trainings(settings)
    champion = roles.get(CHAMPION)
    if keys and champion and champion not in keys and TrainingFolder.of(settings, champion).find_manifest():
        keys = [champion, *keys]
    return [_row(settings, key, roles) for key in keys]


def _row(settings: Settings, key: str, roles: Mapping[str, str | None]) -> dict[str, Any]:
    folder = TrainingFolder.of(settings, key)
    trained, evaluation = folder.manifest(), folder.evaluation.find()
    return {
        "model": trained.model,
        "role": ", ".join(role for role in (CHAMPION, CHALLENGER) if roles.get(role) == key),
        "training_key": key,
        "segments": {name: list(days) for name, days in trained.segments.items()},
        **folder.metrics().to_json(),
        **({} if evaluation is None else evaluation.metrics),
    }


def render_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """The candidates' metrics as a Markdown table that is aligned for a terminal too."""
    cells = [list(COLUMNS.values())] + [[_cell(name, row.get(name)) for name in COLUMNS] for row in rows]
    widths = [max(len(row[i]) for row in cells) for i in range(len(COLUMNS))]
    text = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |" for row in cells
    ]
    rule = "|" + "|".join("-" * (width + 2) for width in widths) + "|"
    return "\n".join([text[0], rule, *text[1:]])


def render_terms(rows: Sequence[Mapping[str, Any]]) -> str:
    """A line for each term of the table, and for a champion that was measured on other days than the candidates."""
    lines = [f"{term:<16}{meaning}" for term, meaning in TERMS.items()]
    tests = {tuple(row["segments"]["test"]) for row in rows if CHAMPION not in row["role"].split(", ")}
    for row in rows:
        own = tuple(row["segments"]["test"])
        if row["role"] == CHAMPION and tests and own not in tests:
            lines.append(f"{'champion':<16}measured on the test days of its own training, {own[0]} to {own[1]}")
    return "\n".join(lines)


def _cell(name: str, value: Any) -> str:
    if value is None or value == "":
        return "-"
    if isinstance(value, str):
        return value
    if name in PERCENT:
        return f"{value:.1%}"
    return f"{value:.1f}" if name == "train_seconds" else f"{value:.4f}"
