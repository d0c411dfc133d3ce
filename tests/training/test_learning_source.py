"""What a training learns from is known by what it follows from."""

from dataclasses import replace
from pathlib import Path

import pytest

from mlops_tasks.errors import StoreError
from mlops_tasks.modeling.dataset import load_learning_data
from mlops_tasks.training import learning_source
from mlops_tasks.training.learning_source import LearningSource
from tests.training.descent import SmallMarket


def test_it_is_hashed_once_and_then_known_without_reading_a_feature(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the features gone; other dates, windows, and other code are another question."""
    market = SmallMarket.make(tmp_path)
    spec = market.plan.learning_spec(market.feature_version)
    digest = LearningSource(market.settings, spec, 1).digest
    assert digest == load_learning_data(market.settings, spec, 1).digest()
    for path in (market.settings.features_dir / "partitions").glob("*.parquet"):
        path.unlink()
    assert LearningSource(market.settings, spec, 1).digest == digest
    for other in (
        LearningSource(market.settings, spec, 5),
        LearningSource(market.settings, replace(spec, horizon=2), 1),
    ):
        with pytest.raises(StoreError, match="partition"):
            _ = other.digest
    monkeypatch.setattr(learning_source, "certified_code", lambda: "other")
    with pytest.raises(StoreError, match="partition"):
        _ = LearningSource(market.settings, spec, 1).digest
