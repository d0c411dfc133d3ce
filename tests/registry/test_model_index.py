"""The index of versions and what MLflow says of them, on a real MLflow on SQLite."""

import pytest

from mlops_tasks.cli.verbs import main
from mlops_tasks.config import Settings
from mlops_tasks.registry.client import MODEL_NAME, connect
from mlops_tasks.registry.lifecycle import ModelLifecycleManager
from mlops_tasks.registry.model_index import index_models, search_models, tag_model
from mlops_tasks.registry.models import get_run_id, get_tags, set_tags
from mlops_tasks.registry.runs import log_run
from mlops_tasks.state.model_index import find_version
from mlops_tasks.state.version_search import VersionSearch
from mlops_tasks.states import ModelState
from tests.operation import make_champion
from tests.registry.trainings import Spec, make_training


def registered(settings: Settings, key: str, **changes: object) -> int:
    make_training(settings, Spec(key=key * 16, **changes))  # type: ignore[arg-type]
    return ModelLifecycleManager(settings).challenge(key * 16, log_run(settings, key * 16))


def test_versions_are_indexed_as_mlflow_has_them(settings: Settings, capsys: pytest.CaptureFixture[str]) -> None:
    """At the first search, and as they come and go; with their present states and people's tags, which MLflow gets."""
    a = registered(settings, "a", metrics={"test_rank_ic_mean": 0.03})
    b = registered(settings, "b", model="linear", data_version="d2")
    found = search_models(settings, VersionSearch(sort="version", ascending=True)).versions
    assert [(each.version, each.family, each.data_version) for each in found] == [
        (a, "lightgbm", "data0"),
        (b, "linear", "d2"),
    ]
    assert (found[0].metrics["test_rank_ic_mean"], found[0].run_id) == (0.03, get_run_id(settings, a))
    assert found[0].tags.items() <= get_tags(settings, a).items()
    make_champion(settings, a)
    assert search_models(settings, VersionSearch(state=ModelState.CHAMPION)).versions[0].version == a

    c = registered(settings, "c")
    tag_model(settings, c, {"desk": "asia"}, "ann")
    assert get_tags(settings, c)["user.desk"] == "asia"
    assert main(["models", "tag", str(b), "desk=", "note=for the review"]) == 0
    assert get_tags(settings, b)["user.note"] == "for the review"
    set_tags(settings, a, {"elsewhere": "yes"})
    connect(settings).delete_model_version(MODEL_NAME, str(b))
    connect(settings).delete_run(get_run_id(settings, c))
    assert index_models(settings) == 0
    assert [each.version for each in search_models(settings, VersionSearch()).versions] == [c, a]
    assert "elsewhere" not in find_version(settings, a).tags
    capsys.readouterr()
    assert main(["models", "index"]) == 0
    assert main(["models", "search", "lightgbm", "--tag", "elsewhere=yes", "--metric", "test_rank_ic_mean=0.01:"]) == 0
    assert main(["models", "search", "--tag", "user.desk=asia"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "2 versions are indexed"
    assert [lines[1].split()[:3], lines[1].split()[-2:]] == [
        [str(a), "champion", "lightgbm"],
        ["test_rank_ic_mean", "0.03"],
    ]
    assert lines[3].split()[-1] == "user.desk=asia" and [lines[2], lines[4]] == ["1 to 1 of 1"] * 2
    assert main(["models", "search", "--metric", "x"]) == 1
    assert "NAME=LOW:HIGH" in capsys.readouterr().out
