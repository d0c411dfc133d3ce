"""The life of experiments, on SQLite and on PostgreSQL."""

import threading
from collections.abc import Iterator
from decimal import Decimal
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from mlops_tasks.cli import main
from mlops_tasks.config import Settings
from mlops_tasks.errors import ExperimentError
from mlops_tasks.experiments.assignment import Reason
from mlops_tasks.experiments.lifecycle import (
    create_experiment,
    create_layer,
    decide_experiment,
    experiments,
    history_of,
    move_experiment,
    override_units,
    ramp_experiment,
    running_traffic,
)
from mlops_tasks.state.database import session
from mlops_tasks.state.tables import ExperimentStep
from mlops_tasks.states import EXPERIMENT_TRANSITIONS, ExperimentState, UnitKind
from tests.experiments.designs import design, running
from tests.postgres import DATABASES, settings_on

UNITS = [f"account-{number}" for number in range(500)]


@pytest.fixture(params=DATABASES)
def settings(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Settings]:
    """Settings of an empty database of its own."""
    with settings_on(request.param, tmp_path) as made:
        yield made


def test_units_keep_their_arms_through_the_whole_life(settings: Settings) -> None:
    """Ramped up, paused and resumed; nobody is assigned before, in a pause, or after."""
    create_layer(settings, "accounts", UnitKind.ACCOUNT)
    create_experiment(settings, design())
    with pytest.raises(ExperimentError, match="no experiment 'orders'"):
        running_traffic(settings).assign("orders", UNITS)
    ramp_experiment(settings, "orders", Decimal(1), "all of them")
    move_experiment(settings, "orders", ExperimentState.RUNNING, "go")
    whole = running_traffic(settings).assign("orders", UNITS)
    assert sum(whole.counts().values()) == len(UNITS)
    move_experiment(settings, "orders", ExperimentState.PAUSED, "holiday")
    with pytest.raises(ExperimentError, match="no experiment 'orders'"):
        running_traffic(settings).assign("orders", UNITS)
    move_experiment(settings, "orders", ExperimentState.RUNNING, "back")
    assert (running_traffic(settings).assign("orders", UNITS).codes == whole.codes).all()
    move_experiment(settings, "orders", ExperimentState.STOPPED, "planned end")
    with pytest.raises(ExperimentError, match="has no arm 'tretment'; did you mean treatment"):
        decide_experiment(settings, "orders", "tretment", "cheaper")
    decide_experiment(settings, "orders", "treatment", "cheaper")
    steps = history_of(settings, "orders")
    assert [step.state for step in steps] == ["draft", "draft", "running", "paused", "running", "stopped", "decided"]
    assert steps[-1].winner == "treatment" and steps[-1].reason == "cheaper" and steps[-1].by
    assert [step.at for step in steps] == sorted(step.at for step in steps)


def test_experiments_of_a_layer_take_free_ranges(settings: Settings) -> None:
    """Side by side while they last; a stopped one makes room."""
    create_layer(settings, "accounts", UnitKind.ACCOUNT)
    create_experiment(settings, design(name="one", share="0.6"))
    create_experiment(settings, design(name="two", share="0.4"))
    with pytest.raises(ExperimentError, match="no free range"):
        create_experiment(settings, design(name="three", share="0.1"))
    move_experiment(settings, "one", ExperimentState.STOPPED, "not needed")
    three = create_experiment(settings, design(name="three", share="0.1"))
    assert (three.enrolment.first, three.enrolment.end) == (0, 100_000)
    salts = {each.enrolment.salt for each in experiments(settings).values()}
    assert len(salts) == 3, "each is drawn anew"


def test_two_that_register_at_once_do_not_overlap(settings: Settings) -> None:
    """Eight of a fifth each: five are registered, three are refused."""
    create_layer(settings, "accounts", UnitKind.ACCOUNT)
    refused = []

    def register(number: int) -> None:
        try:
            create_experiment(settings, design(name=f"e{number}", share="0.2"))
        except ExperimentError as error:
            refused.append(error)

    threads = [threading.Thread(target=register, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    ranges = sorted((each.enrolment.first, each.enrolment.end) for each in experiments(settings).values())
    assert ranges == [(first, first + 200_000) for first in range(0, 1_000_000, 200_000)]
    assert len(refused) == 3


WAYS: dict[ExperimentState, tuple[ExperimentState, ...]] = {
    ExperimentState.DRAFT: (),
    ExperimentState.RUNNING: (ExperimentState.RUNNING,),
    ExperimentState.PAUSED: (ExperimentState.RUNNING, ExperimentState.PAUSED),
    ExperimentState.STOPPED: (ExperimentState.STOPPED,),
    ExperimentState.DECIDED: (ExperimentState.STOPPED, ExperimentState.DECIDED),
}
"""How an experiment comes to a state from its draft."""


def test_only_legal_transitions(tmp_path: Path) -> None:
    """From each state to each: the illegal ones are refused, say what is possible, and record nothing."""
    settings = Settings(home=tmp_path)
    create_layer(settings, "accounts", UnitKind.ACCOUNT)
    for before, to in product(ExperimentState, ExperimentState):
        name = f"{before}-{to}"
        create_experiment(settings, design(name=name, share="0.01"))
        for state in WAYS[before]:
            move_experiment(settings, name, state, "on its way")
        steps = len(history_of(settings, name))
        if to in EXPERIMENT_TRANSITIONS[before]:
            assert move_experiment(settings, name, to, "on").state == to
            continue
        with pytest.raises(ExperimentError, match=f"is {before}, and can become"):
            move_experiment(settings, name, to, "on")
        assert len(history_of(settings, name)) == steps


def test_overridden_units_are_told_apart(settings: Settings) -> None:
    """They have the arm that a person chose; an arm that there is not is refused."""
    running(settings)
    override_units(settings, "orders", {"account-1": "treatment"}, "the desk's own")
    found = running_traffic(settings).assign("orders", ["account-1"])
    assert (found.arm_of(0), found.reason_of(0)) == ("treatment", Reason.OVERRIDDEN)
    with pytest.raises(ExperimentError, match="overridden to 'other'; known: control, treatment"):
        override_units(settings, "orders", {"account-1": "other"}, "typed wrongly")


def test_steps_are_not_changed_or_removed(settings: Settings) -> None:
    """The database itself refuses it."""
    running(settings)
    for statement in (sa.update(ExperimentStep).values(reason="x"), sa.delete(ExperimentStep)):
        with pytest.raises(sa.exc.DatabaseError, match="append-only"), session(settings) as active:
            active.execute(statement)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"arms": {"a": "0.5", "b": "0.4"}}, r"shares sum to 0\.9, not to 1"),
        ({"hypothesis": ""}, r"hypothesis: String should have at least 10 characters"),
        ({"guards": [{"name": "cost_bps", "smallest_effect": 1}]}, r"metric cost_bps is named twice"),
        ({"models": {"control": 1}}, r"models: treatment; name a registered version for every arm"),
        ({"models": {"control": 1, "treatment": 2, "other": 3}}, r"models: other; name a registered version"),
        ({"models": {"control": 1, "treatment": 1}}, r"two arms have the same version"),
        ({"primary": {"name": "cost_bps", "smallest_effect": 0}}, r"primary\.smallest_effect: .*greater than 0"),
        ({"planned_days": 1}, r"planned_days"),
        ({"method": "student"}, r"method: student finds an effect where there is none in .* use "),
        ({"method": "welch"}, r"method: welch"),
        ({"method": "best"}, r"method: Input should be"),
        ({"planed_days": 9}, r"planed_days: Extra inputs are not permitted"),
        ({"name": "../x"}, r"name: String should match pattern"),
        ({"layer": "acounts"}, r"no layer acounts; did you mean accounts\?"),
    ],
)
def test_wrong_designs_are_refused(tmp_path: Path, changes: dict[str, Any], said: str) -> None:
    """With the field, the rule and the remedy."""
    settings = Settings(home=tmp_path)
    create_layer(settings, "accounts", UnitKind.ACCOUNT)
    with pytest.raises(ExperimentError, match=said):
        create_experiment(settings, design(**changes))


def test_layers_do_not_change_what_is_assigned(settings: Settings) -> None:
    """A holdout grows only, and the kind of unit stays; the salt does too."""
    first = create_layer(settings, "accounts", UnitKind.ACCOUNT, Decimal("0.1"))
    assert create_layer(settings, "accounts", UnitKind.ACCOUNT, Decimal("0.2")).salt == first.salt
    with pytest.raises(ExperimentError, match=r"holds out 0\.2; a smaller holdout"):
        create_layer(settings, "accounts", UnitKind.ACCOUNT, Decimal("0.1"))
    with pytest.raises(ExperimentError, match="has units of the kind account"):
        create_layer(settings, "accounts", UnitKind.DAY, Decimal("0.2"))


def test_command_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """From a YAML file to the sums, as a person does it."""
    monkeypatch.setenv("MLOPS_HOME", str(tmp_path))
    file = tmp_path / "orders.yaml"
    file.write_text(
        "name: orders\nowner: desk\nhypothesis: Orders sized by the new scores cost less.\nlayer: accounts\n"
        "arms: {control: 0.5, treatment: 0.5}\nprimary: {name: cost_bps, better: lower, smallest_effect: 0.5}\n"
        "planned_days: 60\n"
    )

    def run(*arguments: str, status: int = 0) -> str:
        assert main(["experiments", *arguments]) == status
        out = capsys.readouterr()
        return out.out + out.err

    assert "layer accounts of account units" in run("layer", "accounts", "--unit", "account")
    assert "orders: draft since" in run("create", str(file))
    assert "orders: running since" in run("start", "orders", "--reason", "go")
    arm = run("assign", "orders", "account-1").split()[1]
    assert arm in {"control", "treatment"}
    events = tmp_path / "events.jsonl"
    at = history_of(Settings(home=tmp_path), "orders")[-1].at.isoformat()
    event = f'{{"event_id": "1", "unit": "account-1", "metric": "cost_bps", "value": 2.5, "at": "{at}"}}'
    events.write_text(f"{event}\n\n{event.replace('cost_bps', 'cost')}\n")
    told = run("record", "orders", str(events), status=1)
    assert "1 new, 0 known already, 1 refused" in told
    assert "event 2: no metric 'cost'; did you mean cost_bps?" in told
    assert f"cost_bps  {arm}  {at[:10]}  n 1  mean 2.5  variance nan" in run("sums", "orders")
    assert "no metric 'cost'" in run("refused", "orders")
    run("stop", "orders", "--reason", "enough")
    assert "winner: none;" in run("decide", "orders", "--no-winner", "--reason", "no difference")
    assert "is decided, and can become nothing else" in run("start", "orders", "--reason", "again", status=1)
    assert run("history", "orders").count("\n") == 4
