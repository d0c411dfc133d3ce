"""A market made once a session; a test copies what it changes."""

import shutil
from pathlib import Path

import pytest

from mlops_tasks.config import Settings, load_settings
from mlops_tasks.data.vintages import Vintage, load_vintage
from tests.evaluation.market import write_market


@pytest.fixture(scope="session")
def market_template(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A home with a vintage and its Qlib store, and the data version."""
    home = tmp_path_factory.mktemp("market_template")
    return home, write_market(Settings(home=home)).data_version


@pytest.fixture
def settings(tmp_path: Path, market_template: tuple[Path, str], monkeypatch: pytest.MonkeyPatch) -> Settings:
    """Settings of a home of its own with the market in it; stage tasks find it too."""
    shutil.copytree(market_template[0] / "data", tmp_path / "data")
    monkeypatch.setenv("MLOPS_HOME", str(tmp_path))
    monkeypatch.setenv("MLOPS_PORTFOLIO__TOPK", "6")
    monkeypatch.setenv("MLOPS_PORTFOLIO__N_DROP", "2")
    return load_settings()


@pytest.fixture
def vintage(settings: Settings, market_template: tuple[Path, str]) -> Vintage:
    """The market's vintage."""
    return load_vintage(settings, market_template[1])
