"""Versions, aliases and verified loading on a real MLflow on SQLite."""

from pathlib import Path

import mlflow
import numpy as np
import pytest

from mlops_tasks.config import Settings
from mlops_tasks.errors import DigestMismatchError, RegistryError
from mlops_tasks.registry.client import connect
from mlops_tasks.registry.lifecycle import STATE_TAG, ModelLifecycleManager
from mlops_tasks.registry.lineage import LineageTracker
from mlops_tasks.registry.models import (
    get_alias_version,
    get_tags,
    load_alias,
    load_version,
    register,
    set_alias,
    tags_of_versions,
    versions,
)
from mlops_tasks.registry.runs import log_run
from mlops_tasks.state.model_history import Model, history_of, record_transition
from mlops_tasks.states import ModelState
from tests.operation import make_champion
from tests.registry.trainings import Spec, load_training, make_training, market


def registered(settings: Settings, spec: Spec) -> int:
    make_training(settings, spec)
    return register(settings, spec.key, log_run(settings, spec.key))


def stored_file(settings: Settings, name: str) -> Path:
    (found,) = (settings.home / "mlflow" / "artifacts").rglob(name)
    return found


def flip_one_byte(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(bytes(content))


@pytest.mark.parametrize("model", ["lightgbm", "linear"])
def test_every_way_of_loading_scores_alike(settings: Settings, model: str) -> None:
    """Training folder, registry and MLflow's own pyfunc give equal scores, bit for bit."""
    spec = Spec(model=model)
    version = registered(settings, spec)
    set_alias(settings, "champion", version)
    features, _ = market()
    expected = load_training(settings, spec.key).predict(features)
    loaded = load_alias(settings, "champion")
    assert loaded is not None
    assert (loaded.version, loaded.training_key) == (version, spec.key)
    assert loaded.artefact.predict(features).equals(expected)
    connect(settings)
    by_mlflow = mlflow.pyfunc.load_model("models:/alphaops@champion").predict(features)
    assert np.array_equal(by_mlflow["score"].to_numpy(), expected.to_numpy())


def test_registering_twice_is_one_version(settings: Settings) -> None:
    """A version is found again by its training key; another training is the next version."""
    first = registered(settings, Spec())
    run_id = log_run(settings, Spec().key)
    assert register(settings, Spec().key, run_id) == first
    assert registered(settings, Spec(key="b" * 16, seed=2)) == first + 1
    assert versions(settings) == [first, first + 1]


def test_aliases_name_versions(settings: Settings) -> None:
    """An alias that is not there is None; one that is there names its version."""
    assert get_alias_version(settings, "champion") is None
    assert load_alias(settings, "champion") is None
    version = registered(settings, Spec())
    assert get_alias_version(settings, "champion") is None
    set_alias(settings, "champion", version)
    assert get_alias_version(settings, "champion") == version


def test_an_unknown_version_is_named(settings: Settings) -> None:
    """The error says which versions there are."""
    registered(settings, Spec())
    with pytest.raises(RegistryError, match=r"no version 9; registered: \[1\]"):
        load_version(settings, 9)


@pytest.mark.parametrize("name", ["model.txt", "model.json", "processors.json"])
def test_one_changed_byte_in_the_store_is_refused(settings: Settings, name: str) -> None:
    """A tampered artefact is not loaded, and no copy of it is kept."""
    version = registered(settings, Spec())
    flip_one_byte(stored_file(settings, name))
    with pytest.raises(DigestMismatchError, match="restore MLflow's artefact store"):
        load_version(settings, version)
    with pytest.raises(DigestMismatchError):
        load_version(settings, version)


def test_a_changed_local_copy_is_fetched_again(settings: Settings) -> None:
    """The local copy is hashed at every load; a damaged one is replaced from the registry."""
    version = registered(settings, Spec())
    copy = load_version(settings, version).artefact.folder
    assert copy == settings.home / "mlflow" / "cache" / load_version(settings, version).digest
    flip_one_byte(copy / "model.txt")
    features, _ = market()
    expected = load_training(settings, Spec().key).predict(features)
    assert load_version(settings, version).artefact.predict(features).equals(expected)


def test_states_follow_the_record_and_tags_follow_the_states(settings: Settings) -> None:
    """From its evaluation to its end, by whatever is recorded; an interrupted change of tags is made up for."""
    manager = ModelLifecycleManager(settings)
    make_training(settings, Spec())
    make_training(settings, Spec(key="b" * 16, seed=2))
    a, b = (manager.challenge(key, log_run(settings, key)) for key in ("a" * 16, "b" * 16))
    assert get_alias_version(settings, "challenger") == b
    assert (manager.state(a), manager.state(b)) == (ModelState.CHALLENGER, ModelState.CHALLENGER)
    for champion, other in ((a, b), (b, a), (a, b)):
        for _ in range(2):
            make_champion(settings, champion)
        expected = {champion: ModelState.CHAMPION, other: manager.state(other)}
        assert {version: manager.state(version) for version in (a, b)} == expected
        assert {each: tags[STATE_TAG] for each, tags in tags_of_versions(settings).items()} == expected
    record_transition(settings, Model("b" * 16, b), ModelState.REJECTED, "rule skill")
    assert get_tags(settings, b)[STATE_TAG] == ModelState.RETIRED
    for _ in range(2):
        manager.show_history()
        assert get_tags(settings, b)[STATE_TAG] == manager.state(b) == ModelState.REJECTED
    assert [(each.before, each.after) for each in history_of(settings, b)] == [
        (ModelState.TRAINED, ModelState.VALIDATED),
        (ModelState.VALIDATED, ModelState.CHALLENGER),
        (ModelState.CHALLENGER, ModelState.CHAMPION),
        (ModelState.CHAMPION, ModelState.RETIRED),
        (ModelState.RETIRED, ModelState.REJECTED),
    ]


def test_restoring_the_first_champion_leaves_none(settings: Settings) -> None:
    """Before the first champion there was none, and so there is after its promotion is undone."""
    manager = ModelLifecycleManager(settings)
    version = registered(settings, Spec())
    set_alias(settings, "champion", version)
    for _ in range(2):
        manager.restore(None)
        assert get_alias_version(settings, "champion") is None


def test_lineage_leads_back_to_the_data(settings: Settings) -> None:
    """Version, run, training, features and data are one chain; a vintage that is gone has no source to name."""
    version = registered(settings, Spec())
    lineage = LineageTracker(settings).trace(version).to_json()
    assert lineage["run_id"] == log_run(settings, Spec().key)
    assert (lineage["feature_version"], lineage["data_version"], lineage["source"]) == ("features0", "data0", None)
