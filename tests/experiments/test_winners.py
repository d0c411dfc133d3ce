"""Experiments with models and the gate share one ledger of looks; a winner is judged once, and not deployed."""

import threading
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pytest
from sqlalchemy import select

from mlops_tasks.cli import main
from mlops_tasks.config import GateSettings, Settings
from mlops_tasks.errors import ExperimentError
from mlops_tasks.experiments.daily_task import analyze_experiments_task
from mlops_tasks.experiments.judging_task import judge_winners_task
from mlops_tasks.experiments.lifecycle import (
    Experiment,
    create_experiment,
    create_layer,
    decide_experiment,
    experiments,
    history_of,
    move_experiment,
    running_traffic,
)
from mlops_tasks.experiments.metric_events import ingest_events
from mlops_tasks.experiments.winners import judge_winner, unjudged_winners
from mlops_tasks.registry import gating
from mlops_tasks.registry.approvals import candidate_permit
from mlops_tasks.registry.client import CHAMPION
from mlops_tasks.registry.gating import ExperimentWinner, gate
from mlops_tasks.registry.models import get_alias_version
from mlops_tasks.state.alerts.handling import open_episodes
from mlops_tasks.state.database import reading
from mlops_tasks.state.deployments import recorded_champion
from mlops_tasks.state.history import gate_decisions
from mlops_tasks.state.tables import Base, Deployment, ModelApproval, RolloutStep
from mlops_tasks.states import Basis, ExperimentState, UnitKind
from tests.experiments.designs import design
from tests.operation import make_champion, register_model
from tests.postgres import DATABASES, settings_on
from tests.registry.conftest import Operation
from tests.registry.trainings import Spec

LEVEL = 0.05 / 12
ONE_LOOK = GateSettings(look_every_days=252)
"""A year has one look."""


@pytest.fixture
def noise_champion(operation: Operation) -> int:
    """A champion that has learned noise."""
    version = operation.register(Spec(key="n" * 16, skill=0.0, seed=3))
    make_champion(operation.settings, version)
    return version


def better(operation: Operation) -> int:
    """A version that follows the planted signal, and that nobody has approved."""
    spec = Spec(key="b" * 16)
    return register_model(operation.settings, spec, operation.vintage, operation.feature_version)


def noise(operation: Operation, key: str = "c", seed: int = 4) -> int:
    """A version that has learned noise."""
    return operation.register(Spec(key=key * 16, skill=0.0, seed=seed))


def create(settings: Settings, models: dict[str, int], name: str = "models", **changes: Any) -> None:
    """Register an experiment with models, in a layer of its own."""
    create_layer(settings, name, UnitKind.ACCOUNT)
    arms = dict(zip(models, SHARES[len(models)], strict=True))
    create_experiment(settings, design(name=name, layer=name, arms=arms, models=models, **changes))


SHARES = {2: ("0.5", "0.5"), 3: ("0.4", "0.3", "0.3")}


def rows_of(settings: Settings, table: type[Base]) -> list[Any]:
    with reading(settings) as active:
        return list(active.scalars(select(table)))


def start(settings: Settings, name: str = "models") -> Experiment:
    return move_experiment(settings, name, ExperimentState.RUNNING, "go")


def decided(settings: Settings, winner: str, name: str = "models") -> None:
    """Started, stopped and decided by a person."""
    start(settings, name)
    move_experiment(settings, name, ExperimentState.STOPPED, "planned end")
    decide_experiment(settings, name, winner, "better")


def test_a_start_reserves_a_look_once(operation: Operation, noise_champion: int) -> None:
    """At the level of a daily look, before the first event; a pause and another start reserve nothing more."""
    settings = operation.settings
    create(settings, {"control": noise_champion, "treatment": better(operation)})
    assert experiments(settings)["models"].look is None
    look = start(settings).look
    assert look is not None and look.ended is None
    assert (look.experiment, look.level, look.day.isoformat()) == ("models", LEVEL, operation.vintage.last_date)
    move_experiment(settings, "models", ExperimentState.PAUSED, "holiday")
    assert start(settings).look == look
    daily = gate(settings, noise(operation)).decision.look
    assert daily is not None, "the daily looks keep their days"
    assert (daily.number, daily.level, daily.spent) == (2, LEVEL, pytest.approx(2 * LEVEL))
    move_experiment(settings, "models", ExperimentState.STOPPED, "enough")
    ended = move_experiment(settings, "models", ExperimentState.DECIDED, "no difference").look
    assert ended is not None and ended.ended is not None and ended.verdict == ""


def test_neither_takes_what_the_other_has(operation: Operation, noise_champion: int) -> None:
    """A year of one look: where the gate has it, an experiment is refused, with when; where an experiment has it, the
    gate waits."""
    settings = operation.settings.model_copy(update={"gate": ONE_LOOK})
    models = {"control": noise_champion, "treatment": better(operation)}
    create(settings, models)
    create(settings, models, "other")
    start(settings)
    waiting = gate(settings, noise(operation)).decision
    assert (waiting.rule, waiting.look) == ("between_looks", None)
    assert waiting.wait is not None and (waiting.wait.days, waiting.wait.left) == (252, 0)
    with pytest.raises(ExperimentError, match=r"of which 0\.0500 is spent or reserved; start it in 192 market days"):
        start(settings, "other")
    assert experiments(settings)["other"].state == ExperimentState.DRAFT


def test_the_gates_looks_count_against_experiments(operation: Operation, noise_champion: int) -> None:
    """Sixty days before the look expires is soon enough: then it is free at the experiment's only look."""
    settings = operation.settings.model_copy(update={"gate": ONE_LOOK})
    assert gate(settings, noise(operation)).decision.look is not None
    create(settings, {"control": noise_champion, "treatment": better(operation)}, planned_days=120)
    with pytest.raises(ExperimentError, match=r"start it in 132 market days"):
        start(settings)


def test_a_judgement_is_made_anew_where_its_look_was_taken_meanwhile(
    operation: Operation, noise_champion: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An experiment starts while the gate compares: the year's one look is the experiment's, and the gate waits."""
    settings = operation.settings.model_copy(update={"gate": ONE_LOOK})
    create(settings, {"control": noise_champion, "treatment": better(operation)})
    compare, compared = gating._anchor_evidence, []

    def interrupted(*arguments: Any) -> Any:
        if not compared:
            start(settings)
        compared.append(arguments)
        return compare(*arguments)

    monkeypatch.setattr(gating, "_anchor_evidence", interrupted)
    found = gate(settings, noise(operation)).decision
    assert (found.rule, len(compared)) == ("between_looks", 1)
    assert [row.decision["rule"] for row in gate_decisions(settings)] == ["between_looks"]


@pytest.mark.parametrize("database", DATABASES)
def test_two_that_start_at_once_do_not_overspend(operation: Operation, noise_champion: int, database: str) -> None:
    """Six starts, room for two: two have begun, four were refused."""
    version = better(operation)
    policy = GateSettings(look_every_days=126)
    with settings_on(database, operation.settings.home, gate=policy) as settings:
        names = [f"e{number}" for number in range(6)]
        for name in names:
            create(settings, {"control": noise_champion, "treatment": version}, name)
        refused = []

        def begin(name: str) -> None:
            try:
                start(settings, name)
            except ExperimentError as error:
                refused.append(str(error))

        threads = [threading.Thread(target=begin, args=(name,)) for name in names]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        found = experiments(settings).values()
        assert sorted(each.state for each in found) == ["draft"] * 4 + ["running"] * 2
        assert sum(each.look.level for each in found if each.look) == pytest.approx(0.05)
        assert len(refused) == 4 and all("has to reserve a look" in each for each in refused)


def test_a_winner_is_judged_at_its_share_of_the_look(operation: Operation, noise_champion: int) -> None:
    """Two arms could have won; the decision is recorded with the experiment's name, and nothing is deployed."""
    settings = operation.settings
    version = better(operation)
    create(settings, {"control": noise_champion, "a": noise(operation), "b": version})
    decided(settings, "b")
    (told,) = judge_winners_task()["judged"]
    assert (told["version"], told["decision"], told["rule"]) == (version, "promote", "superiority")
    (row,) = gate_decisions(settings)
    look = row.decision["look"]
    assert (look["level"], look["spent"]) == pytest.approx((LEVEL / 2, LEVEL))
    assert (look["subject"]["experiment"], look["subject"]["arms"]) == ("models", 2)
    assert any("the look of experiment models, look 1 of 12" in each for each in row.decision["reasons"])
    last = history_of(settings, "models")[-1]
    assert last.look is not None and last.look.verdict == "promote by rule superiority"
    assert (last.state, last.winner) == ("decided", "b") and f"version {version}" in last.reason

    assert candidate_permit(settings, version).claim.version == version
    (approval,) = [row for row in rows_of(settings, ModelApproval) if row.basis == Basis.GATE]
    assert approval.approved_by == "superiority"
    assert recorded_champion(settings) == get_alias_version(settings, CHAMPION) == noise_champion
    assert len(rows_of(settings, Deployment)) == 1 and rows_of(settings, RolloutStep) == []
    (episode,) = open_episodes(settings)
    assert (episode.key.kind, episode.severity) == ("experiment_judged", "info")
    assert f"is not deployed: alphaops deploy {version}" in episode.message


def test_a_winner_takes_one_look_however_often_it_is_judged(operation: Operation, noise_champion: int) -> None:
    """Killed between the gate's record and the experiment's: the next run finds the decision, whoever is champion by
    then, and judges nothing anew."""
    settings = operation.settings
    version = better(operation)
    create(settings, {"control": noise_champion, "treatment": version})
    decided(settings, "treatment")
    gate(settings, version, ExperimentWinner("models", 1))
    make_champion(settings, noise(operation))
    assert unjudged_winners(settings) == ["models"]
    for judged in (1, 0):
        assert len(judge_winners_task()["judged"]) == judged
    verdict = judge_winner(settings, "models")
    assert (verdict.decision, verdict.rule) == ("promote", "superiority")
    assert len(gate_decisions(settings)) == 1
    assert len(history_of(settings, "models")) == 5


def test_an_experiment_refreshes_nobody(operation: Operation, noise_champion: int) -> None:
    """A winner that the gate cannot tell from the champion stays a challenger, where a daily look would refresh."""
    wide = GateSettings(non_inferiority_margin=1)
    settings = operation.settings.model_copy(update={"gate": wide})
    version = noise(operation)
    create(settings, {"control": noise_champion, "treatment": version})
    decided(settings, "treatment")
    verdict = judge_winner(settings, "models")
    assert (verdict.decision, verdict.rule) == ("keep", "no_proven_gain")
    assert gate(settings, version).decision.rule == "refresh"


def test_without_a_proven_champion_a_winner_needs_proof(operation: Operation) -> None:
    """No winner serves as provisional."""
    settings = operation.settings
    create(settings, {"control": noise(operation, "n", 3), "treatment": better(operation)})
    decided(settings, "treatment")
    verdict = judge_winner(settings, "models")
    assert (verdict.decision, verdict.rule) == ("keep", "no_proven_gain")
    assert "an experiment lets no model serve without proof" in verdict.said


def test_the_analysis_decides_and_the_gate_judges(
    operation: Operation, noise_champion: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Events of sixty days in which the treatment is better; both tasks again find nothing to do."""
    settings, version = operation.settings, better(operation)
    began = datetime(2024, 1, 1, tzinfo=UTC)
    primary = {"name": "rank_ic", "smallest_effect": 0.01}
    with ExitStack() as stack:
        patch = stack.enter_context(pytest.MonkeyPatch.context())
        patch.setattr("mlops_tasks.experiments.lifecycle.now", lambda: began)
        models = {"control": noise_champion, "treatment": version}
        create(settings, models, primary=primary, guards=[], planned_days=120, looks="weekly")
        start(settings)
    units = [f"account-{number}" for number in range(40)]
    arms, draw = running_traffic(settings).assign("models", units), np.random.default_rng(3)

    def events() -> Iterator[dict[str, Any]]:
        for day in range(60):
            at = (began + timedelta(days=day, hours=10)).isoformat()
            for row, unit in enumerate(units):
                value = draw.normal(0, 0.1) + 0.05 * (arms.arm_of(row) == "treatment")
                yield {"event_id": f"{day}-{row}", "unit": unit, "metric": "rank_ic", "value": value, "at": at}

    assert ingest_events(settings, "models", events()).refused == 0
    found = analyze_experiments_task()
    assert (found["advice"], found["decided"]) == ({"models": "stop_winner"}, ["models"])
    assert (found["stopped"], found["paused"], list(found["runs"])) == ([], [], ["models"])
    assert [step.state for step in history_of(settings, "models")] == ["draft", "running", "stopped", "decided"]
    assert "The treatment is better" in history_of(settings, "models")[-1].reason
    told = judge_winners_task()
    assert [each["decision"] for each in told["judged"]] == ["promote"]
    assert f"version {version}" in told["run_note"]
    assert analyze_experiments_task()["advice"] == {} and judge_winners_task() == {"judged": []}


def test_a_person_decides_and_has_it_judged(
    operation: Operation, noise_champion: int, capsys: pytest.CaptureFixture[str]
) -> None:
    """The decision says what is next; judging it does the same as the DAG."""
    settings = operation.settings
    create(settings, {"control": noise_champion, "treatment": better(operation)})
    start(settings)
    move_experiment(settings, "models", ExperimentState.STOPPED, "enough")
    assert main(["experiments", "judge", "models"]) == 1
    assert "it is stopped; the gate judges the winner of a decided experiment" in capsys.readouterr().out
    assert main(["experiments", "decide", "models", "--winner", "treatment", "--reason", "better"]) == 0
    assert "the gate: not yet, analyze_ab_test hands it over, or: alphaops experiments judge models" in (
        capsys.readouterr().out
    )
    assert main(["experiments", "judge", "models"]) == 0
    assert "is promoted by rule superiority" in capsys.readouterr().out
    assert main(["experiments", "history", "models"]) == 0
    assert "the gate: promote by rule superiority" in capsys.readouterr().out


def test_what_is_not_registered_or_no_model_is_refused(operation: Operation, noise_champion: int) -> None:
    """Before anything is recorded, with what there is."""
    settings = operation.settings
    with pytest.raises(ExperimentError, match=r"arm treatment is version 9, which is not registered \(registered: 1\)"):
        create(settings, {"control": noise_champion, "treatment": 9})
    assert experiments(settings) == {}
    create_layer(settings, "accounts", UnitKind.ACCOUNT)
    create_experiment(settings, design())
    decided(settings, "treatment", "orders")
    assert experiments(settings)["orders"].look is None and unjudged_winners(settings) == []
    with pytest.raises(ExperimentError, match="its arms are no models"):
        judge_winner(settings, "orders")
    create(settings, {"control": noise_champion, "treatment": better(operation)})
    decided(settings, "control")
    with pytest.raises(ExperimentError, match="it was decided for control; there is no model for the gate to judge"):
        judge_winner(settings, "models")
