"""A model that brings code runs only where the settings name its family, in a process with nothing to give away."""

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from mlops_tasks.config import ModelSettings, Settings, load_settings
from mlops_tasks.errors import ConfigError, IsolationError, TrainingError
from mlops_tasks.modeling.artefact import ModelArtefact
from mlops_tasks.modeling.isolation import IsolatedPredictor
from mlops_tasks.modeling.model_zoo.sklearn_family import MODEL_FILE, SklearnFamily
from mlops_tasks.modeling.seal import seal
from mlops_tasks.modeling.trust import Trust
from mlops_tasks.signing import SigningKey
from tests.security.registry.hostile import NAMES, Payload, write_pickle
from tests.security.registry.probing import DIE, FLOOD, PRINT, REFUSED, Prober, probes

ALLOWING = ModelSettings(unpickling_families=("qlib",), isolated_memory_mb=1500)


def test_a_pickling_family_is_off_unless_the_settings_name_it(tmp_path: Path) -> None:
    """A signed pickle is not unpickled; the error names the setting and its variable."""
    settings, mark = Settings(home=tmp_path), tmp_path / "mark"
    seal(tmp_path / "model", write_pickle(tmp_path / "model", Payload(mark)), SigningKey.of(settings))
    with pytest.raises(ConfigError, match=r"models\.unpickling_families .*MLOPS_MODELS__UNPICKLING_FAMILIES=qlib"):
        ModelArtefact.load(tmp_path / "model", Trust.of(settings))
    assert not mark.exists()


def test_the_setting_is_read_from_a_variable(tmp_path: Path) -> None:
    """Families with commas between them; another name is refused."""
    environ = {"MLOPS_HOME": str(tmp_path), "MLOPS_MODELS__UNPICKLING_FAMILIES": "qlib,sklearn"}
    assert load_settings(environ).models.unpickling_families == ("qlib", "sklearn")
    with pytest.raises(ConfigError, match="unpickling_families"):
        load_settings({**environ, "MLOPS_MODELS__UNPICKLING_FAMILIES": "lightgbm"})


def test_an_estimator_of_scikit_learn_is_data_and_one_of_an_own_class_is_code(tmp_path: Path) -> None:
    """skops files are looked at before they are loaded: more than scikit-learn's plain types needs the switch."""
    import skops.io
    from sklearn.ensemble import HistGradientBoostingRegressor, RandomForestRegressor

    from tests.training.own_models import Centred, scaled_ridge

    x, y = np.random.default_rng(0).standard_normal((50, 3)), np.arange(50.0)
    made = [RandomForestRegressor(3), HistGradientBoostingRegressor(max_iter=3), scaled_ridge(1.0), Centred()]
    runs = []
    for estimator in made:
        (tmp_path / MODEL_FILE).write_bytes(skops.io.dumps(estimator.fit(x, y)))
        runs.append(SklearnFamily.runs_code(tmp_path))
    assert runs == [False, False, False, True]


@pytest.fixture(scope="module")
def probed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[ModelArtefact, list[str]]]:
    """A signed model that tries everything where it is unpickled, loaded; and the names of what it tries."""
    settings = Settings(home=tmp_path_factory.mktemp("home"), models=ALLOWING)
    folder, key = settings.home / "model", SigningKey.of(settings)
    (settings.home / "state").mkdir()
    (settings.home / "state" / "state.db").write_text("rows")
    seal(folder, write_pickle(folder, Prober(settings.home, os.getpid())), key)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLOPS_SCORING_TOKEN", "token-of-the-tests")
        yield ModelArtefact.load(folder, Trust.of(settings)), list(probes(settings.home, 0))


def rows(count: int, first: float = 0.0) -> pd.DataFrame:
    return pd.DataFrame(np.full((count, 3), first, dtype=np.float32), columns=NAMES)


def test_its_process_reaches_no_secret_no_file_no_process_and_no_network(
    probed: tuple[ModelArtefact, list[str]],
) -> None:
    """Each thing that a stranger's code would try is refused there."""
    artefact, names = probed
    could = dict(zip(names, artefact.predict(rows(len(names))), strict=True))
    assert {name for name, score in could.items() if score != REFUSED} == set()
    assert not Path("/tmp/mark-of-a-model").exists()


def test_a_process_that_dies_is_started_again(probed: tuple[ModelArtefact, list[str]]) -> None:
    """What it prints is no answer; rows that kill it twice are an error, and the next ones are scored; memory ends."""
    artefact, names = probed
    expected = artefact.predict(rows(len(names)))
    assert artefact.predict(rows(len(names), PRINT)).equals(expected)
    with pytest.raises(TrainingError, match="MemoryError"):
        artefact.predict(rows(1, FLOOD))
    with pytest.raises(IsolationError, match=r"ended \(status 3\)"):
        artefact.predict(rows(1, DIE))
    assert isinstance(artefact.predictor, IsolatedPredictor)
    assert artefact.predict(rows(len(names))).equals(expected)
