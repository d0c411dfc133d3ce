"""What an evaluation's figures depend on: when any of it changes, the evaluation is made again."""

from functools import cache
from importlib.metadata import version as package_version
from pathlib import Path
from typing import Any

from mlops_tasks.config import PortfolioSettings, Settings
from mlops_tasks.files import digest_of, digest_of_file

_CODE = (
    *(f"evaluation/{name}.py" for name in ("ic", "portfolio", "qlib_market", "report", "significance")),
    "training_folder.py",
    *(f"data/exchanges/{name}.py" for name in ("price_limits", "calendars", "ticker_suffixes")),
    *("plots/evaluation.py", "plots/figure.py"),
)
"""The files of this package that lead from predictions to an evaluation's files."""


def evaluation_identity(settings: Settings, data_version: str, predictions: Path, portfolio: PortfolioSettings) -> str:
    """Digest of predictions, vintage, portfolio, the calendar that price limits follow, and the code that evaluates."""
    return digest_of(
        {
            "predictions": digest_of_file(predictions),
            "data_version": data_version,
            "portfolio": portfolio.model_dump(mode="json"),
            "calendar": settings.calendar.name,
            "code": _code(),
        }
    )


@cache
def _code() -> dict[str, Any]:
    package = Path(__file__).resolve().parents[1]
    files = {name: digest_of_file(package / name) for name in _CODE}
    return files | {name: package_version(name) for name in ("numpy", "pandas", "pyqlib", "matplotlib")}
