"""A new champion that is worse is rolled back by itself, and a candidate rejected: real service, registry, database."""

import json
import shutil
from datetime import date
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from mlops_tasks.cli import main
from mlops_tasks.config import Settings
from mlops_tasks.data.vintages import Vintage, canonical_bars, publish, write_vintage
from mlops_tasks.errors import DeploymentError, StageError
from mlops_tasks.evaluation.ic import daily_rank_ic
from mlops_tasks.evaluation.significance import cosine_mean
from mlops_tasks.features.labels import forward_return
from mlops_tasks.features.store import FeatureStore
from mlops_tasks.monitoring import monitor as monitor_module
from mlops_tasks.monitoring.tasks import monitor_task
from mlops_tasks.registry.approvals import is_withdrawn
from mlops_tasks.registry.models import LoadedModel, claim_of, load_version
from mlops_tasks.serving import probation as probation_module
from mlops_tasks.serving.client import ScoringClient, ScoringServiceError
from mlops_tasks.serving.deployment import roll_back
from mlops_tasks.serving.market import Market, ModelError
from mlops_tasks.serving.strategies import Wanted, deploy
from mlops_tasks.stage_results import Monitored, check_result
from mlops_tasks.state.alerts.journal import newest_events
from mlops_tasks.state.approvals import latest_revocation
from mlops_tasks.state.deployments import recorded_champion
from mlops_tasks.state.history import latest_deployment, record_publication
from mlops_tasks.state.predictions import count_of_arm, record_predictions
from mlops_tasks.state.quality_looks import quality_looks
from mlops_tasks.state.rollouts import latest_rollout, rollout_at_work
from mlops_tasks.state.tables import Publication, now
from mlops_tasks.states import Basis, RolloutState, Strategy
from tests.monitoring.test_performance import answer
from tests.operation import certify_data
from tests.registry.conftest import Operation
from tests.registry.trainings import DAYS, INSTRUMENTS, Spec
from tests.serving.conftest import RunningService
from tests.waiting import wait_for

FIRST = len(DAYS)
"""Days of the vintage with which both models were trained and deployed."""


def reverting_bars(count: int) -> pd.DataFrame:
    """Prices that go back to where they were: who has fallen in five days (ROC5) rises. The first ones never change."""
    frames, days = [], pd.bdate_range(DAYS[0], periods=count)
    for number, instrument in enumerate(INSTRUMENTS):
        steps, level, path = np.random.default_rng(number).standard_normal(count), 0.0, []
        for step in steps:
            level = 0.75 * level + 0.02 * step
            path.append(level)
        close = 50 * np.exp(np.array(path))
        prices = {"open": close * 0.999, "high": close * 1.01, "low": close * 0.99, "close": close}
        other = {"volume": 1e5 + steps, "vwap": close, "factor": 1.0}
        frames.append(pd.DataFrame({"datetime": days, "instrument": instrument, **prices, **other}))
    return canonical_bars(pd.concat(frames))


def prepared(settings: Settings, count: int) -> tuple[Vintage, str]:
    """A vintage of so many days, with its features."""
    vintage = write_vintage(settings, reverting_bars(count), None, {"source": "planted bars", "quarantined": 0})
    return vintage, FeatureStore(settings).compute(vintage).feature_version


def published(settings: Settings, count: int) -> tuple[Vintage, str]:
    """The same, in use."""
    vintage, feature_version = prepared(settings, count)
    publish(settings, vintage.data_version)
    record_publication(settings, Publication(data_version=vintage.data_version))
    return vintage, feature_version


@pytest.fixture(scope="module")
def market(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home with all vintages of these tests, made once; the first one is certified."""
    settings = Settings(home=tmp_path_factory.mktemp("reverting"))
    first, feature_version = prepared(settings, FIRST)
    certify_data(settings, Spec(data_version=first.data_version, feature_version=feature_version))
    for days in (21, 25, 36, 60):
        prepared(settings, FIRST + days)
    return settings.home


@pytest.fixture
def operation(settings: Settings, market: Path) -> Operation:
    """A market in which the features tell something."""
    for name in ("data", "features", "certificates"):
        shutil.copytree(market / name, settings.home / name)
    return Operation(settings, *published(settings, FIRST))


@pytest.fixture
def versions(operation: Operation) -> tuple[int, int]:
    """A model that has learned what the features tell, and one that has learned the opposite; both may serve."""
    good, bad = Spec(key="a" * 16, seed=1), Spec(key="b" * 16, seed=2, skill=-1.0)
    return operation.register(good), operation.register(bad)


def deployed(settings: Settings, *versions: int) -> None:
    for version in versions:
        assert deploy(settings, Wanted(version, Strategy.DIRECT))["deployed"]


def kinds(settings: Settings) -> list[str]:
    return [event.kind for event in newest_events(settings, 50)]


def monitored() -> Monitored:
    """A run of the stage, of the type that it declares."""
    found = monitor_task()
    check_result("monitoring.monitor", Monitored, json.loads(json.dumps(found)))
    return found


def test_a_champion_that_proves_worse_is_rolled_back_to_the_one_before(
    operation: Operation,
    versions: tuple[int, int],
    client: ScoringClient,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Not before twenty labels exist; on the very days since; killed in between, the next run does it; told once."""
    (good, bad), settings = versions, operation.settings
    monkeypatch.setenv("MLOPS_DEPLOYMENT__WATCH_H", "0")
    deployed(settings, good, bad)
    published(settings, FIRST + 21)  # the last two days have no label
    calm = monitored()
    assert (calm["looks"], calm["rolled_back"]) == ([], None)
    assert f"version {bad} replaced version {good} on" in (calm["probation"] or "")
    assert recorded_champion(settings) == bad

    vintage, feature_version = published(settings, FIRST + 25)

    def killed(*given: object, **named: object) -> None:
        raise OSError("the process ends here")

    with monkeypatch.context() as at, pytest.raises(StageError, match="the champion: OSError: the process ends here"):
        at.setattr(probation_module, "roll_back", killed)
        monitor_task()
    assert recorded_champion(settings) == bad
    attempt = latest_deployment(settings, bad, "serving").attempt
    (look,) = quality_looks(settings, attempt)
    label = forward_return(vintage, 1).dropna()
    label = label[label.index.get_level_values("datetime") > DAYS[-1]]
    features = FeatureStore(settings).load(feature_version)
    theirs, ours = (
        daily_rank_ic(load_version(settings, version).artefact.predict(features).loc[label.index], label)
        for version in versions
    )
    expected = cosine_mean(theirs - ours)
    assert (look.number, look.worse, look.result["n_days"]) == (1, True, 23)
    assert look.result["loss"] == pytest.approx(expected.mean)
    assert look.result["p_value"] == pytest.approx(expected.p_one_sided)
    assert look.result["first_day"] == str(pd.bdate_range(DAYS[-1], periods=2)[-1].date())

    done = monitored()
    assert done["looks"] == [] and look.said in (done["rolled_back"] or "")
    assert recorded_champion(settings) == client.health()["model_version"] == good
    assert client.score()["model_version"] == good
    assert look.said in latest_deployment(settings, good, "serving").reason
    revoked = latest_revocation(settings, claim_of(settings, bad).training_key)
    assert revoked is not None and (revoked.basis, revoked.revoked_by) == (Basis.RULE, "probation")
    assert is_withdrawn(settings, claim_of(settings, bad))
    assert kinds(settings).count("champion_rolled_back") == 1

    capsys.readouterr()
    assert main(["monitor"]) == 0
    told = capsys.readouterr().out
    assert told.startswith("the champion stays\n") and f"champion_rolled_back, version {bad} ({attempt}): " in told
    assert main(["monitor", "--json"]) == 0
    again = json.loads(capsys.readouterr().out)
    assert (again["rolled_back"], again["probation"], again["looks"]) == (None, None, [])
    assert kinds(settings).count("champion_rolled_back") == 1
    assert len(quality_looks(settings, attempt)) == 1
    with pytest.raises(DeploymentError, match=f"it was to replace version {bad}; version {good} serves by now"):
        roll_back(settings, good, "too late", condemned=bad)
    assert recorded_champion(settings) == good


def test_a_better_champion_stands_its_probation(
    operation: Operation, versions: tuple[int, int], client: ScoringClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each look is recorded once; a late run takes the newest one that is due; after the last one it is over."""
    (good, bad), settings = versions, operation.settings
    monkeypatch.setenv("MLOPS_DEPLOYMENT__WATCH_H", "0")
    monkeypatch.setenv("MLOPS_DEPLOYMENT__PROBATION_DAYS", "40")
    deployed(settings, bad, good)
    for days, taken, over in ((25, 1, False), (36, 2, False), (60, 3, True)):
        published(settings, FIRST + days)
        first, second = monitored(), monitored()
        assert len(first["looks"]) == 1 and second["looks"] == []
        looks = quality_looks(settings, latest_deployment(settings, good, "serving").attempt)
        assert [row.number for row in looks] == list(range(1, taken + 1)) and not any(row.worse for row in looks)
        assert (second["probation"] is None) == over
    assert looks[-1].result["n_days"] == 40
    assert recorded_champion(settings) == good


def test_a_candidate_that_proves_worse_is_rejected(
    operation: Operation, versions: tuple[int, int], client: ScoringClient
) -> None:
    """A shadow, by the labels of the days since it began; the champion serves on."""
    (good, bad), settings = versions, operation.settings
    rules = "{min_rank_correlation: null, max_psi: null}"
    (settings.home / "settings.yaml").write_text(f"deployment:\n  rules: {rules}\n")
    deployed(settings, good)
    deploy(settings, Wanted(bad, Strategy.SHADOW))
    assert rollout_at_work(settings) is not None
    published(settings, FIRST + 25)
    done = monitored()
    assert done["rolled_back"] is None and len(done["looks"]) == len(done["steps"]) == 1
    last = latest_rollout(settings)
    assert last is not None and (last.version, last.state) == (bad, RolloutState.REJECTED)
    assert f"below that of version {good} on 23 days" in last.reason
    assert kinds(settings).count("rollout_rejected") == 1
    assert recorded_champion(settings) == good
    assert monitored()["steps"] == []


def test_the_fast_rules_hold_for_a_new_champion_for_a_while(
    operation: Operation, versions: tuple[int, int], client: ScoringClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Scores with the opposite order are out at the next run; not once the hours are over, nor where the one before has
    proven nothing."""
    (good, bad), settings = versions, operation.settings
    deployed(settings, good, bad)
    with monkeypatch.context() as at:
        at.setattr(probation_module, "standing_of", lambda *given: "provisional")
        assert monitored()["rolled_back"] is None
    monkeypatch.setenv("MLOPS_DEPLOYMENT__WATCH_H", "0")
    assert monitored()["rolled_back"] is None
    monkeypatch.setenv("MLOPS_DEPLOYMENT__WATCH_H", "24")
    done = monitored()
    assert "the rank correlation with the previous champion's scores is -" in (done["rolled_back"] or "")
    assert recorded_champion(settings) == good
    assert monitored()["rolled_back"] is None, "a rollback has no probation: the one before it is withdrawn"


def test_a_champion_is_too_slow_only_where_it_is_so_here_too(
    operation: Operation, client: ScoringClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the log says may be the machine's fault; a model that takes longer side by side, as the clock is planted
    here, is out."""
    settings = operation.settings
    rules = "{min_rank_correlation: null, max_psi: null}"
    (settings.home / "settings.yaml").write_text(f"deployment:\n  rules: {rules}\n")
    slow, quick, slower = (operation.register(Spec(key=letter * 16, seed=seed)) for seed, letter in enumerate("abc"))
    takes_s = {slow: 0.02, quick: 0.01, slower: 0.05}
    monkeypatch.setattr(probation_module, "seconds_to_score", lambda day: takes_s[day.model.version])

    def answered(version: int, latency_ms: float) -> None:
        scores = pd.Series(1.0, INSTRUMENTS)
        about = {"model_version": version, "latency_ms": latency_ms, "at": now(), "writer": f"w{version}"}
        rows = [answer(operation.vintage, scores, number, **about) for number in range(120)]
        record_predictions(settings, [row for row, _ in rows], [table for _, table in rows])

    deployed(settings, slow)
    answered(slow, 1.0)
    deployed(settings, quick)
    answered(quick, 30.0)
    assert monitored()["rolled_back"] is None
    deployed(settings, slower)
    answered(slower, 200.0)
    said = "answers take up to 200.0 ms, of the previous champion's 30.0 ms: 6.7 times as long, limit 3"
    assert said in (monitored()["rolled_back"] or "")
    assert recorded_champion(settings) == quick


def test_a_champion_that_fails_on_too_many_requests_is_out(
    operation: Operation,
    versions: tuple[int, int],
    service: RunningService,
    client: ScoringClient,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """By the limit that holds for a candidate, of all requests since it serves: 1 of 100 is not more than it, 2 are."""
    (bad, good), settings = versions, operation.settings
    (settings.home / "settings.yaml").write_text("deployment: {rules: {min_rank_correlation: null, max_psi: null}}\n")
    deployed(settings, bad, good)
    honest = service.scoring.market_view.score

    def fails_on_old_days(model: LoadedModel, market: Market, wanted: date) -> pd.Series:
        if wanted == market.newest_date:
            return honest(model, market, wanted)
        raise ModelError(model, ZeroDivisionError("broken"))

    monkeypatch.setattr(service.scoring.market_view, "score", fails_on_old_days)
    since = latest_deployment(settings, good, "serving").at

    def ask(answers: int, failures: int) -> None:
        for _ in range(answers):
            client.score()
        for number in range(failures):
            with pytest.raises(ScoringServiceError, match="status 500"):
                client.score(day=DAYS[90 + number].date())

    def logged() -> tuple[int, int]:
        champion, failed = (count_of_arm(settings, good, arm, since) for arm in ("champion", "failed"))
        return champion, failed

    ask(99, 1)
    wait_for(lambda: logged()[1] == 1 and logged()[0] >= 99)
    assert monitored()["rolled_back"] is None
    ask(0, 2)
    wait_for(lambda: logged()[1] == 3)
    answers = logged()[0]
    said = f"the new champion failed on {3 / (answers + 3):.2%} of {answers + 3} requests, limit 1.00%"
    assert said in (monitored()["rolled_back"] or "")
    assert recorded_champion(settings) == bad
    assert monitored()["rolled_back"] is None


def test_a_part_that_fails_keeps_no_other_from_its_work(
    operation: Operation, versions: tuple[int, int], client: ScoringClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The champion is judged where the looks fail, and the error comes at the end, with the part's name."""
    (good, bad), settings = versions, operation.settings
    deployed(settings, good, bad)

    def broken(*given: object) -> None:
        raise ZeroDivisionError("broken")

    monkeypatch.setattr(monitor_module, "take_looks", broken)
    with pytest.raises(StageError, match="rank ICs: ZeroDivisionError: broken; all else was done"):
        monitor_task()
    assert recorded_champion(settings) == good
