"""What the gate makes of recorded trials and seeds: through registry, state and prediction files."""

import numpy as np
import pandas as pd
import pytest

from mlops_tasks.evaluation.backtest_overfitting import (
    deflated_sharpe_ratio,
    effective_trials,
    mean_correlation,
    trials_variance,
)
from mlops_tasks.evaluation.ic import daily_rank_ic
from mlops_tasks.evaluation.seed_noise import configuration_key
from mlops_tasks.files import read_json, write_json
from mlops_tasks.registry.client import connect
from mlops_tasks.registry.runs import log_run
from mlops_tasks.registry.tasks import gate_challenger_task
from mlops_tasks.registry.trial_evidence import search_evidence_of, seed_noise_of
from mlops_tasks.state.history import latest_gate_decision, record_seed_noise
from mlops_tasks.state.tables import SeedNoise, TrainingRun, Trial
from mlops_tasks.state.training_runs import end_run, record_training_run
from mlops_tasks.state.trials import record_trial
from mlops_tasks.training_folder import TrainingFolder
from tests.registry.conftest import Operation
from tests.registry.trainings import Spec, make_training

KEY = "b" * 16


def own_rank_ic(operation: Operation) -> pd.Series:
    valid = TrainingFolder.of(operation.settings, KEY).segment("valid")
    return daily_rank_ic(valid["score"], valid["label"])


def say_study(operation: Operation, study: str | None) -> None:
    """Record a run that ended in the training, on a plan of this search."""
    settings, run_id = operation.settings, f"run-of-{study}"
    run = TrainingRun(
        run_id=run_id,
        model="lightgbm",
        data_version=operation.vintage.data_version,
        owner="daily",
        priority=0,
        request={"plan": {"study": study}},
    )
    record_training_run(settings, run)
    end_run(settings, run_id, "finished", {"training_key": KEY})


def record(operation: Operation, study: str, series: list[pd.Series], state: str = "complete", first: int = 0) -> None:
    """Trials of a study on a vintage of its own, numbered from `first` on."""
    for number, values in enumerate(series, first):
        daily = {str(day.date()): float(value) for day, value in values.items()}
        row = Trial(
            study=study,
            number=number,
            model="lightgbm",
            state=state,
            configuration={},
            result={"daily": daily} if state == "complete" else {},
            data_version=f"of {study}",
            horizon=1,
        )
        record_trial(operation.settings, row)


def weaker(series: pd.Series, seed: int) -> pd.Series:
    """A trial on the same days that is worse than the one given."""
    return series - 0.1 - 0.05 * np.random.default_rng(seed).random(len(series))


def test_a_skilled_choice_of_a_search_becomes_champion(operation: Operation, monkeypatch: pytest.MonkeyPatch) -> None:
    """The planted signal survives deflation by the trials of all studies of its days, as the decision tells."""
    monkeypatch.setenv("MLOPS_GATE__MIN_SKILL_DAYS", "30")
    version = operation.register(Spec(key=KEY))
    own = own_rank_ic(operation)
    record(operation, "s", [own, *(weaker(own, seed) for seed in range(9))])
    record(operation, "other", [weaker(own, seed) for seed in range(20, 24)])
    record(operation, "s", [own] * 3, "pruned", first=10)
    record(operation, "other", [own] * 2, "failed", first=4)
    say_study(operation, "s")
    decision = gate_challenger_task(challenger={"version": version})
    assert (decision["decision"], decision["rule"]) == ("promote", "bootstrap")
    columns = [own, *(weaker(own, seed) for seed in (*range(9), *range(20, 24)))]
    trials = pd.concat(columns, axis=1)
    variance = trials_variance((trials.mean() / trials.std()).to_numpy())
    expected = deflated_sharpe_ratio(own.to_numpy(), 17, mean_correlation(trials), variance)
    assert decision["search"]["trials"] == 17
    assert decision["search"]["deflated_sharpe_ratio"] == pytest.approx(expected.probability)
    assert decision["search"]["overfitting_probability"] == 0.0
    recorded = latest_gate_decision(operation.settings)
    assert recorded is not None and recorded.decision["search"] == decision["search"]


def test_a_lucky_choice_is_rejected(operation: Operation) -> None:
    """A model of noise, chosen among trials of noise, does not become the first champion."""
    version = operation.register(Spec(key=KEY, skill=0.0, seed=0))
    own, random = own_rank_ic(operation), np.random.default_rng(0)
    record(operation, "s", [own, *(own * 0 + random.normal(0, own.std(), len(own)) for _ in range(20))])
    say_study(operation, "s")
    decision = gate_challenger_task(challenger={"version": version})
    assert (decision["decision"], decision["rule"]) == ("reject", "deflated_sharpe_ratio")


@pytest.mark.parametrize("order", [(None, "s"), ("s", None)])
def test_who_trained_first_does_not_matter(operation: Operation, order: tuple[str | None, ...]) -> None:
    """A search that chooses what was trained without one is deflated, and so is its choice when trained again."""
    version = operation.register(Spec(key=KEY))
    own = own_rank_ic(operation)
    record(operation, "s", [own, *(weaker(own, seed) for seed in range(9))])
    for study in order:
        say_study(operation, study)
    assert gate_challenger_task(challenger={"version": version})["search"]["trials"] == 10


def test_a_search_repeated_day_after_day_is_one_search(operation: Operation) -> None:
    """Studies on ten vintages, each a day older, are all behind the newest; those that share few days are not compared.

    What shares less than half of the days does not count.
    """
    operation.register(Spec(key=KEY))
    own = own_rank_ic(operation)
    for age in range(10):
        earlier = own.set_axis(own.index - pd.offsets.BDay(age))
        record(operation, f"s{age}", [earlier, weaker(earlier, age)])
    long_ago = own.set_axis(own.index - pd.offsets.BDay(len(own) // 2 + 1))
    record(operation, "long ago", [long_ago] * 5)
    found = search_evidence_of(operation.settings, KEY, ["s0"])
    assert found is not None and found.deflated.trials == 20
    close = [own.set_axis(own.index - pd.offsets.BDay(age)) for age in range(4)]
    series = [each for age, line in enumerate(close) for each in (line, weaker(line, age))]
    expected = mean_correlation(pd.concat(series, axis=1, sort=True).reindex(own.index).fillna(0.0))
    assert found.deflated.effective_trials == pytest.approx(effective_trials(20, expected))


def test_a_searched_model_that_learned_nothing_is_rejected(operation: Operation) -> None:
    """Scores that are the same on all validation days have no ratio; the gate says so instead of failing."""
    version = operation.register(Spec(key=KEY))
    own = own_rank_ic(operation)
    record(operation, "s", [own * 0, *(weaker(own, seed) for seed in range(4))])
    say_study(operation, "s")
    path = operation.settings.training_dir / KEY / "predictions.parquet"
    predictions = pd.read_parquet(path)
    predictions.loc[predictions["segment"] == "valid", "score"] = 0.5
    predictions.to_parquet(path, index=False)
    decision = gate_challenger_task(challenger={"version": version})
    assert (decision["rule"], decision["search"]["deflated_sharpe_ratio"]) == ("deflated_sharpe_ratio", None)


def test_a_study_without_trials_is_not_believed(operation: Operation) -> None:
    """A plan that names a study of which nothing is recorded, or whose trials all failed, is rejected.

    So is one that names a study of other days."""
    version = operation.register(Spec(key=KEY))
    say_study(operation, "s")
    assert gate_challenger_task(challenger={"version": version})["rule"] == "unknown_trials"
    own = own_rank_ic(operation)
    record(operation, "s", [own], "failed")
    record(operation, "old", [own.set_axis(own.index - pd.Timedelta(days=700))])
    assert search_evidence_of(operation.settings, KEY, ["s", "old"]) is None


def test_seed_noise_is_found_by_the_configuration(operation: Operation) -> None:
    """Seeds of the same configuration on an earlier vintage count; one seed, or another configuration, does not."""
    operation.register(Spec(key=KEY))
    trained = TrainingFolder.of(operation.settings, KEY).manifest()
    assert seed_noise_of(operation.settings, KEY) is None
    for configuration, values in (("other", [0.1, 0.9]), (configuration_key(trained), [0.02, 0.04])):
        result = {"test_rank_ic_mean": {str(seed): value for seed, value in enumerate(values)}}
        row = SeedNoise(configuration=configuration, model="lightgbm", data_version="earlier", result=result)
        record_seed_noise(operation.settings, row)
    band = seed_noise_of(operation.settings, KEY)
    assert band is not None and (band.mean, band.n) == (pytest.approx(0.03), 2)
    assert seed_noise_of(operation.settings, "gone") is None


def test_a_training_that_overfits_is_warned_of_and_tagged(operation: Operation) -> None:
    """Its verdict reaches the decision's reasons and the run's tags; a healthy one is tagged only."""
    settings = operation.settings
    version = operation.register(Spec(key=KEY))
    path = settings.training_dir / KEY / "metrics.json"
    plain = gate_challenger_task(challenger={"version": version})
    fit = {"verdict": "overfitting", "explanation": "overfitting: gap 31%", "kept_iteration": 3, "kept_gap": 0.31}
    write_json(path, read_json(path) | {"fit": fit})
    warned = gate_challenger_task(challenger={"version": version})
    assert set(warned["reasons"]) - set(plain["reasons"]) == {"warning: overfitting: gap 31%"}
    assert warned["decision"] == plain["decision"]
    write_json(path, read_json(path) | {"fit": fit | {"verdict": "healthy", "kept_gap": None}})
    assert gate_challenger_task(challenger={"version": version})["reasons"] == plain["reasons"]


def test_how_a_training_went_is_in_its_run(operation: Operation) -> None:
    """Verdict and explanation as tags, the gap of the kept iteration as a metric."""
    folder = make_training(operation.settings, Spec(key=KEY))
    fit = {"verdict": "healthy", "explanation": "healthy: " + "x" * 6000, "kept_iteration": 20, "kept_gap": 0.04}
    write_json(folder / "metrics.json", read_json(folder / "metrics.json") | {"fit": fit})
    run = connect(operation.settings).get_run(log_run(operation.settings, KEY))
    assert run.data.tags["fit_verdict"] == "healthy" and run.data.tags["fit_explanation"] == fit["explanation"][:5000]
    assert run.data.metrics["fit_gap"] == 0.04
