"""What registered models need of the feature store is known from the registry itself, or nothing is removed."""

import json
import os
import shutil
from pathlib import Path

import pytest

from mlops_tasks.config import Settings
from mlops_tasks.data.vintages import write_vintage
from mlops_tasks.errors import RegistryError
from mlops_tasks.features.store import FeatureStore
from mlops_tasks.registry.client import MODEL_NAME, connect
from mlops_tasks.registry.features_in_use import FEATURE_VERSION_TAG, needed_feature_versions
from mlops_tasks.registry.lifecycle import ModelLifecycleManager
from mlops_tasks.registry.runs import log_run
from mlops_tasks.registry.tasks import prune_features_task
from tests.data.market import tree
from tests.operation import bars
from tests.registry.conftest import Operation
from tests.registry.trainings import DAYS, Spec, make_training


def register(settings: Settings, key: str, feature_version: str) -> int:
    """Log and register a training on a feature version."""
    make_training(settings, Spec(key=key * 16, feature_version=feature_version))
    return ModelLifecycleManager(settings).challenge(key * 16, log_run(settings, key * 16))


def test_every_registered_version_needs_its_features(settings: Settings) -> None:
    """Champion, challenger, rejected and archived ones alike; a version that is deleted in MLflow needs nothing."""
    manager = ModelLifecycleManager(settings)
    first, second, third = (register(settings, key, f"f{key}") for key in "abc")
    again = register(settings, "d", "fb")
    manager.promote(first)
    manager.reject(second)
    manager.archive(third)
    name = f"{MODEL_NAME} version"
    assert needed_feature_versions(settings) == {
        "fa": (f"{name} {first}",),
        "fb": (f"{name} {second}", f"{name} {again}"),
        "fc": (f"{name} {third}",),
    }
    connect(settings).delete_model_version(MODEL_NAME, str(third))
    assert set(needed_feature_versions(settings)) == {"fa", "fb"}


def test_models_of_other_names_count_too(settings: Settings) -> None:
    """A user's own model in the same registry needs what its tag says; without the tag it says nothing."""
    client = connect(settings)
    for name, tags in {"own": {FEATURE_VERSION_TAG: "fo"}, "foreign": {}}.items():
        client.create_registered_model(name)
        client.create_model_version(name, source="file:///nowhere", tags=tags)
    assert needed_feature_versions(settings) == {"fo": ("own version 1",)}


def test_all_pages_are_read(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """A registry that answers in pages is read to its end."""
    client = connect(settings)
    client.create_registered_model("own")
    for number in range(7):
        client.create_model_version("own", source="file:///nowhere", tags={FEATURE_VERSION_TAG: f"f{number}"})
    search = type(client).search_model_versions
    monkeypatch.setattr(
        type(client), "search_model_versions", lambda *args, **options: search(*args, **options, max_results=3)
    )
    assert sorted(needed_feature_versions(settings)) == [f"f{number}" for number in range(7)]


def test_the_stage_removes_what_no_model_needs(operation: Operation) -> None:
    """The version of the registered model stays, an old one of other bars goes with all its files."""
    settings, store = operation.settings, FeatureStore(operation.settings)
    operation.register(Spec())
    before = tree(settings.features_dir)
    older = write_vintage(settings, bars(DAYS[:100]), None, {})
    unneeded = store.compute(older).feature_version
    for path in [store.root / unneeded / "manifest.json", *store.root.glob(f"by_vintage/{older.data_version}*")]:
        os.utime(path, (0, 0))
    result = prune_features_task()
    assert json.loads(json.dumps(result)) == result
    assert result["removed"] == [unneeded] and result["bytes_freed"] > 0
    assert result["kept"] == {operation.feature_version: f"{MODEL_NAME} version 1 needs it"}
    assert tree(settings.features_dir) == before


@pytest.mark.parametrize("trouble", ["no database", "no server", "no tag", "no database file"])
def test_without_an_answer_nothing_is_removed(
    trouble: str, operation: Operation, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A registry that is gone, does not answer or does not say what a model needs: an error, and every file stays."""
    settings = operation.settings
    garbage = settings.features_dir / "partitions" / f"{'0' * 16}.parquet"
    garbage.write_text("nobody names it")
    said = "check the address"
    if trouble == "no database":
        monkeypatch.setenv("MLOPS_MLFLOW_TRACKING_URI", f"sqlite:///{settings.home / 'elsewhere' / 'mlflow.db'}")
    elif trouble == "no database file":
        shutil.rmtree(settings.home / "mlflow")
    elif trouble == "no server":
        monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
        monkeypatch.setenv("MLOPS_MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
        said = "check that the server is up"
    else:
        connect(settings).create_registered_model(MODEL_NAME)
        connect(settings).create_model_version(MODEL_NAME, source="file:///nowhere")
        said = f"{MODEL_NAME} version 1 has no tag 'feature_version'"
    before = tree(settings.features_dir)
    with pytest.raises(RegistryError, match=said):
        prune_features_task()
    assert tree(settings.features_dir) == before and garbage.is_file()
    assert not Path(settings.home / "elsewhere").exists()
