"""The stages of `tune_models`, one after the other, in a real home folder with a real registry."""

import json

import numpy as np
import pandas as pd
import pytest

from mlops_tasks.cli import main
from mlops_tasks.config import load_settings
from mlops_tasks.errors import CapacityError, ConfigError, RegistryError
from mlops_tasks.evaluation.ic import daily_rank_ic
from mlops_tasks.files import read_json
from mlops_tasks.modeling.dataset import load_learning_data
from mlops_tasks.process import stage_function
from mlops_tasks.registry.client import TUNING_EXPERIMENT, connect
from mlops_tasks.state.trials import trials_of
from mlops_tasks.training.certificate import certificate_of, certificate_path
from mlops_tasks.training.plan import RunPlan
from mlops_tasks.training_folder import TrainingFolder
from mlops_tasks.tuning.data_profile import ProfileConfig, profile_data
from mlops_tasks.tuning.optimizer import HyperparameterOptimizer
from tests.operation import define_own_set, publish_vintage

TRIALS = 4
FIXED = {"num_boost_round": 20, "lambda_l1": 0.0, "lambda_l2": 1.0}


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A published vintage of random walks, with its features and Qlib store."""
    folder = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLOPS_HOME", str(folder))
        patch.setenv("MLOPS_TRAINING__THREADS", "1")
        vintage, feature_version = publish_vintage(load_settings())
        stage_function("data.write_qlib_store")(data_version=vintage.data_version)
        yield folder, {"feature_version": feature_version}


def searched(features, **form):
    """The stages up to the plan of the best trial."""
    asked = stage_function("tuning.plan")(**{"trials": TRIALS, **form})
    given = {"plan": asked["plan"], "features": features}
    choice = stage_function("tuning.choose_algorithm")(**given, search=asked["search"])
    study = stage_function("tuning.create_study")(**given, search=asked["search"], choice=choice)
    for worker in study["workers"]:
        stage_function("tuning.run_worker")(**given, study=study["study"], worker=worker)
    return given, choice, stage_function("tuning.finish_study")(plan=asked["plan"], study=study["study"])


@pytest.fixture(scope="module")
def tuned(home):
    """A study of LightGBM."""
    return searched(home[1], model="lightgbm", fixed=FIXED, seed=7)


def test_the_best_trial_becomes_the_plan_that_is_trained(home, tuned):
    """Its hyper-parameters, seed and study; trained by the engine it reaches the trial's own validation rank IC on the
    very same days, to the last bit. The search's certificate, of all models that it might have chosen, is the
    training's."""
    given, choice, finished = tuned
    settings = load_settings()
    report = read_json(settings.home / finished["path"] / "report.json")
    assert (choice["model"], finished["model"]) == ("lightgbm", "lightgbm")
    assert finished["plan"]["hyperparameters"] == {"lightgbm": finished["hyperparameters"]}
    assert finished["plan"]["study"] == finished["study"] == report["study"]
    assert finished["plan"]["seed"] == 7 and FIXED.items() <= finished["hyperparameters"].items()
    features, several = given["features"], {**given["plan"], "models": ["lightgbm", "linear"]}
    certificate = stage_function("training.certify")(plan=several, features=features)
    asked = {"plan": finished["plan"], "features": features, "model": "lightgbm"}
    trained = stage_function("training.train")(**asked, certificate=certificate)
    assert certificate_of(settings, trained["training_key"]).key == certificate["key"]
    assert finished["plan"]["stopping"] == {"lightgbm": {"valid_share": 0.33}}
    stage_function("evaluation.evaluate")(training_key=trained["training_key"])
    best = trials_of(settings, finished["study"])[finished["best"]]
    daily = valid_rank_ics(settings, trained["training_key"])
    compared = pd.Series(best.result["daily"]).set_axis(pd.DatetimeIndex(best.result["daily"]))
    np.testing.assert_allclose(compared, daily[compared.index], atol=1e-12)
    assert compared.index[0] == daily.index[len(daily) - len(compared)] and len(compared) < 0.6 * len(daily)
    assert best.result["rank_ic"] == pytest.approx(compared.mean())
    logged = stage_function("registry.log_run")(training_key=trained["training_key"])
    registered = stage_function("registry.register_challenger")(candidates=logged)
    gate = stage_function("registry.gate_challenger")(challenger=registered)
    assert gate["search"]["trials"] == TRIALS
    assert gate["decision"] == "reject", "random walks foretell nothing"
    assert gate["rule"] != "leak_certificate"
    path = certificate_path(settings, certificate["key"])
    path.rename(path.with_suffix(".away"))
    with pytest.raises(RegistryError, match=r"recorded under leak certificate .* clear certify_learning_data"):
        stage_function("registry.log_run")(training_key=trained["training_key"])
    path.with_suffix(".away").rename(path)


def valid_rank_ics(settings, training_key):
    """Daily, of a training of the engine."""
    valid = TrainingFolder.of(settings, training_key).segment("valid").dropna()
    return daily_rank_ic(valid["score"], valid["label"])


def trained_rank_ic(given, finished, days):
    """Mean rank IC on these validation days of the best configuration, trained by the engine."""
    stage_function("training.certify")(**given)
    trained = stage_function("training.train")(
        plan=finished["plan"], features=given["features"], model=finished["model"]
    )
    return valid_rank_ics(load_settings(), trained["training_key"])[pd.DatetimeIndex(days)].mean()


def test_a_model_that_looks_back_on_a_window_is_searched_as_it_is_trained(home):
    """What its trials see of the days before train is what the engine's training sees: the same rank IC."""
    small = {"window": 5, "hidden_size": 8, "epochs": 1, "batch_size": 256}
    given, _, finished = searched(home[1], model="gru", fixed=small, trials=2, pruner="none")
    best = trials_of(load_settings(), finished["study"])[finished["best"]]
    assert finished["plan"]["hyperparameters"]["gru"]["window"] == 5
    assert best.result["rank_ic"] != 0
    found = trained_rank_ic(given, finished, list(best.result["daily"]))
    assert found == pytest.approx(best.result["rank_ic"], abs=1e-12)


def test_a_search_that_cannot_fit_is_refused_before_its_data_are_loaded(tuned, monkeypatch):
    """With the numbers, as a training is."""
    given, _, finished = tuned
    monkeypatch.setenv("MLOPS_TRAINING__MEMORY_LIMIT_MB", "100")
    monkeypatch.setattr("mlops_tasks.tuning.tasks.load_learning_data", None)
    with pytest.raises(CapacityError, match=r"needs [\d,]+ MB .* allows 100 MB; raise training\.memory_limit_mb"):
        stage_function("tuning.run_worker")(**given, study=finished["study"], worker=0)


def test_what_the_selector_says_of_a_window_holds_for_every_trial(home):
    """The days of a window are not searched, so they are fixed; what the form fixes comes first."""
    given = {"plan": stage_function("tuning.plan")(model="gru")["plan"], "features": home[1]}
    choice = {"model": "gru", "first": [{"hidden_size": 32}], "fixed": {"window": 10}, "reasons": []}
    create = stage_function("tuning.create_study")
    mine, advised = (
        HyperparameterOptimizer.load(load_settings(), create(**given, search=search, choice=choice)["study"])
        for search in ({"fixed": {"window": 7}}, {})
    )
    assert (mine.window, advised.window) == (7, 10)
    waiting = [trial.system_attrs["fixed_params"]["hidden_size"] for trial in advised.study.trials]
    assert waiting == [64, 32]


def test_a_study_is_logged_once_with_a_run_for_each_trial(tuned):
    """A parent with the best metrics, importance, plots and the report; children with their parameters."""
    name = tuned[2]["study"]
    run_id = stage_function("registry.log_study")(study=name)["run_id"]
    assert stage_function("registry.log_study")(study=name)["run_id"] == run_id
    client = connect(load_settings())
    experiment = client.get_experiment_by_name(TUNING_EXPERIMENT).experiment_id
    runs = client.search_runs([experiment], f"tags.study = '{name}'")
    parent = next(run for run in runs if run.info.run_id == run_id)
    children = {run.data.tags["trial"]: run for run in runs if run.info.run_id != run_id}
    rows = trials_of(load_settings(), name)
    assert set(children) == {str(row.number) for row in rows} and len(rows) == TRIALS
    best = rows[tuned[2]["best"]]
    assert parent.data.metrics["best_rank_ic"] == best.result["rank_ic"]
    assert parent.data.metrics["trials_complete"] == sum(row.state == "complete" for row in rows)
    child = children[str(best.number)]
    assert child.data.tags["mlflow.parentRunId"] == run_id and child.info.status == "FINISHED"
    assert float(child.data.params["learning_rate"]) == best.configuration["learning_rate"]
    files = {each.path for each in client.list_artifacts(run_id)}
    assert {"report.json", "plots"} <= files
    plots = {each.path for each in client.list_artifacts(run_id, "plots")}
    assert plots == {"plots/history.png", "plots/importance.png", "plots/parallel.png"}


def test_a_study_without_a_report_is_not_logged(home):
    """The error names the stage that writes it."""
    with pytest.raises(RegistryError, match=r"run the stage tuning\.finish_study"):
        stage_function("registry.log_study")(study="none")


def test_auto_asks_the_selector_about_the_plan_and_takes_its_advice(home):
    """The recommended model is searched; what is measured is of the plan's horizon and seed."""
    settings = load_settings()
    define_own_set(settings)  # of three columns, since measuring takes time with each
    asked = stage_function("tuning.plan")(model="auto", trials=2, horizon=5, seed=3, feature_set="mine")
    assert set(asked["plan"]["models"]) >= {"lightgbm", "linear"}
    features = stage_function("features.compute")(data_version=asked["plan"]["data_version"], feature_set="mine")
    choice = stage_function("tuning.choose_algorithm")(plan=asked["plan"], features=features, search=asked["search"])
    assert choice["model"] in asked["plan"]["models"] and choice["reasons"]
    (path,) = (settings.tuning_dir / "recommendations").glob("*.json")
    found = read_json(path)
    assert found["recommendation"]["ranking"][0]["model"] == choice["model"]
    data = load_learning_data(
        settings, RunPlan.model_validate(asked["plan"]).learning_spec(features["feature_version"])
    )
    assert found["profile"] == profile_data(data, ProfileConfig(horizon=5, seed=3)).to_json()


def test_a_bad_search_is_refused_before_anything_is_loaded(home):
    """With the key and the remedy."""
    with pytest.raises(ConfigError, match="pruner"):
        stage_function("tuning.plan")(model="lightgbm", objectives=["ic", "turnover"], pruner="median")


def test_the_command_line_shows_what_the_stages_found(tuned, capsys):
    """`tune list` and `tune show`."""
    name = tuned[2]["study"]
    assert main(["tune", "list", "--json"]) == 0
    (row,) = (each for each in json.loads(capsys.readouterr().out) if each["study"] == name)
    assert (row["trials"], row["budget"], row["model"]) == (TRIALS, TRIALS, "lightgbm")
    assert main(["tune", "show", name, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["best"] == tuned[2]["best"]
    assert main(["tune", "show", "nothing"]) == 1
    assert "StoreError: no study nothing" in capsys.readouterr().out
