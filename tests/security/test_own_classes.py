"""A user's own class reaches the store in no trial of a search and no fold of a cross-validation."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mlops_tasks.config import ModelSettings, Settings, TrainingSettings
from mlops_tasks.errors import TrainingError
from mlops_tasks.evaluation.splits import Gap, WalkForward
from mlops_tasks.files import digest_of_file
from mlops_tasks.modeling.configuration import TrainingConfig
from mlops_tasks.modeling.cross_validation import cross_validate
from mlops_tasks.modeling.fitting import Prepared
from mlops_tasks.modeling.model_zoo.zoo import model_zoo
from mlops_tasks.tuning.optimizer import HyperparameterOptimizer, StudySubject
from mlops_tasks.tuning.study import study_config
from mlops_tasks.tuning.trial import fit_and_score
from tests.planted import Planted, Shape, plant

LEAKING, OWN = "tests.training.leaking_models", "tests.training.own_models"
WEIGHT = "weight: {type: number, default: 1.0, search: log, low: 0.1, high: 10.0}"
ENTRY = """\
mine:
  family: sklearn
  class_path: {class_path}
  description: d
  recommended_for: [Tests.]
  feature_processors: [robust_zscore_fill_zero]
  label_processor: CSRankNorm
  hyperparameters:
    {parameter}
"""


@pytest.fixture(scope="module")
def planted() -> Planted:
    return plant("linear", Shape(days=120, instruments=20, features=3, snr=0.5), seed=1)


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """A home with a vintage, and a place for the marks of whoever gets through."""
    (tmp_path / "home" / "data" / "vintages" / "v1").mkdir(parents=True)
    models = ModelSettings(isolated_memory_mb=2000)
    return Settings(home=tmp_path / "home", training=TrainingSettings(threads=1), models=models)


def config(family: str, class_path: str, **hyperparameters: Any) -> TrainingConfig:
    about = {"model": "mine", "family": family, "class_path": class_path, "hyperparameters": hyperparameters}
    processors = {"feature_processors": ("robust_zscore_fill_zero",), "label_processor": "CSRankNorm"}
    return TrainingConfig.model_validate({**about, **processors, "seed": 1})


def trial(planted: Planted, asked: TrainingConfig, settings: Settings) -> None:
    fit_and_score(Prepared.of(planted.data, asked), asked, settings)


def fold(planted: Planted, asked: TrainingConfig, settings: Settings) -> None:
    splits = WalkForward(60, 30, valid_days=20, gap=Gap(1, 1)).splits(120)
    list(cross_validate(planted.data, splits, asked, settings))


@pytest.mark.parametrize("measure", [trial, fold])
def test_an_own_estimator_reads_nothing_of_the_store_while_it_learns(
    planted: Planted, settings: Settings, measure: Callable[..., None]
) -> None:
    """Its `fit` looks for vintages: refused, with what it may read."""
    asked = config("sklearn", f"{LEAKING}:Student", home=str(settings.home))
    with pytest.raises(TrainingError, match=r"own class may read only .*Permission denied: .*vintages"):
        measure(planted, asked, settings)


@pytest.mark.parametrize("measure", [trial, fold])
def test_an_own_estimator_has_a_process_of_its_own_while_it_scores(
    planted: Planted, settings: Settings, measure: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where its scores count it has no variable of the process that asks; one that looks for it is found out."""
    monkeypatch.setenv("MLOPS_STATE_URL", "postgresql://user:password@example.org/state")
    asked = config("sklearn", f"{LEAKING}:Thief")
    with pytest.raises(TrainingError, match=r"this model's own code, in its process: .*KeyError.*MLOPS_STATE_URL"):
        measure(planted, asked, settings)


@pytest.fixture
def study(planted: Planted, settings: Settings) -> Iterator[Callable[[str, str], HyperparameterOptimizer]]:
    """A study of an own class of the home's models.yaml, in SQLite, with a pruner that reports each iteration."""

    def made(class_path: str, parameter: str) -> HyperparameterOptimizer:
        (settings.home / "models.yaml").write_text(ENTRY.format(class_path=class_path, parameter=parameter))
        assert "mine" in model_zoo(settings)
        form = {"model": "mine", "trials": 1, "startup_trials": 2, "pruner": "median", "topk": 5}
        asked = study_config(settings, form)
        return HyperparameterOptimizer(settings, asked, StudySubject("v1", "f1", 1, planted.data.segments))

    yield made
    assert not list(settings.home.rglob("*.skops"))


def test_a_search_over_an_honest_own_class_writes_its_study(
    planted: Planted, study: Callable[[str, str], HyperparameterOptimizer]
) -> None:
    """What the closed-off training reports arrives in the study's database; the planted signal is found."""
    found = study(f"{OWN}:scaled_ridge", WEIGHT.replace("weight", "alpha"))
    assert found.run(planted.data) == 1
    (only,) = found.study.trials
    assert only.state.name == "COMPLETE" and list(only.intermediate_values) == [1]
    assert only.values[0] > 0.2


def test_a_search_over_a_class_that_looks_finds_nothing(
    planted: Planted, study: Callable[[str, str], HyperparameterOptimizer], settings: Settings
) -> None:
    """Each trial fails with the reason; the store and the study's own file are out of its reach."""
    before = digest_of_file(_marked(settings.home))
    found = study(f"{LEAKING}:Student", f"home: {{type: string, default: {settings.home}}}\n    {WEIGHT}")
    assert found.run(planted.data) == 1
    reasons = {str(each.user_attrs.get("reason")) for each in found.study.trials}
    assert all("own class may read only the libraries and what it is given" in reason for reason in reasons)
    assert digest_of_file(_marked(settings.home)) == before


def _marked(home: Path) -> Path:
    path = home / "data" / "vintages" / "v1" / "bars"
    path.write_bytes(np.arange(10).tobytes())
    return path
