"""A synced synthetic market with a strong planted signal, made once."""

from dataclasses import dataclass
from pathlib import Path

import pytest

from mlops_tasks.config import Settings, load_settings
from mlops_tasks.data.vintages import Vintage, current_vintage
from mlops_tasks.process import stage_function
from tests.training.descent import descending  # noqa: F401  a fixture


@dataclass(frozen=True)
class Market:
    """A home folder with a published vintage and its features."""

    settings: Settings
    vintage: Vintage
    feature_version: str


@pytest.fixture(scope="session")
def market(tmp_path_factory) -> Market:
    """40 instruments, 360 days, label predictable with correlation 0.3."""
    home: Path = tmp_path_factory.mktemp("training_home")
    environ = {
        "MLOPS_HOME": str(home),
        "MLOPS_DATA__SUITE_PAGES": "false",
        "MLOPS_SYNTHETIC__INSTRUMENTS": "40",
        "MLOPS_SYNTHETIC__DAYS": "360",
        "MLOPS_SYNTHETIC__SIGNAL_STRENGTH": "0.3",
    }
    with pytest.MonkeyPatch.context() as patch:
        for name, value in environ.items():
            patch.setenv(name, value)
        staging = stage_function("data.read_source")()["staging"]
        stage_function("data.validate_bars")(staging=staging)
        version = stage_function("data.version_snapshot")(staging=staging)["data_version"]
        stage_function("data.write_qlib_store")(data_version=version)
        stage_function("data.publish_vintage")(data_version=version)
        features = stage_function("features.compute")(data_version=version)
        settings = load_settings()
    return Market(settings, current_vintage(settings), features["feature_version"])
