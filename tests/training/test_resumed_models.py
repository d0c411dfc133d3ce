"""Models of the zoo that go on from a checkpoint are the undisturbed ones bit for bit: after SIGKILL, at any round."""

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from mlops_tasks.errors import StageError
from mlops_tasks.modeling.checkpoints import CheckpointFolder
from mlops_tasks.modeling.configuration import TrainingConfig, resolve_config
from mlops_tasks.modeling.model_zoo.family import FitResult, find_family
from mlops_tasks.modeling.overfitting import OverfittingConfig
from mlops_tasks.modeling.problem import LearningProblem, learning_problem
from mlops_tasks.modeling.processors import FittedProcessors
from mlops_tasks.modeling.session import Links, TrainingSession
from mlops_tasks.modeling.stopping import StoppingConfig
from mlops_tasks.training.events import read_events
from mlops_tasks.training.run_folder import RunFolder
from tests.planted import Shape, plant
from tests.training.descent import SmallMarket, contents, journal_reaches

BOOSTED = ("lightgbm", "xgboost")
TREES: dict[str, dict[str, Any]] = {
    "lightgbm": {"num_leaves": 15, "learning_rate": 0.01, "lambda_l1": 0.0, "lambda_l2": 1.0},
    "xgboost": {"max_depth": 3, "learning_rate": 0.01},
}
"""Small trees, on rows and columns that are drawn, so that a wrong random state shows."""

ROUNDS, KILLED_AT, EVERY = 300, 130, 50
"""Rounds of about a millisecond on the small market."""


def config(model: str, rounds: int, every: int, patience: int | None = None, **given: Any) -> TrainingConfig:
    made = resolve_config(model, {**TREES[model], "num_boost_round": rounds, **given}, seed=5)
    stopping = StoppingConfig(patience=patience or rounds)
    return made.model_copy(update={"checkpoint_every": every, "stopping": stopping})


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> SmallMarket:
    made = SmallMarket.make(tmp_path_factory.mktemp("made"))
    return made.copy(tmp_path_factory.mktemp("home"), threads=1)


def killed(market: SmallMarket, given: TrainingConfig, is_time: Callable[[str], bool]) -> None:
    """Train, and send SIGKILL to the training process when it is time for it; the argument is the run's id."""
    run, errors = market.start_config(given), []

    def supervise() -> None:
        try:
            run.supervise()
        except StageError as error:
            errors.append(error)

    thread = threading.Thread(target=supervise)
    thread.start()
    assert is_time(run.run_id)
    for child in psutil.Process().children():
        if str(market.settings.home) in " ".join(child.cmdline()):
            child.kill()
    thread.join()
    assert "SIGKILL" in str(errors[0])


@pytest.mark.parametrize("model", BOOSTED)
def test_a_killed_training_ends_in_the_same_bytes(base: SmallMarket, tmp_path: Path, model: str) -> None:
    """The second attempt goes on from the newest checkpoint; model, curves and predictions are the undisturbed ones."""
    given = config(model, ROUNDS, EVERY)
    calm = contents(base.start_config(given).supervise())
    market = base.copy(tmp_path / "home", threads=1)
    killed(market, given, lambda run_id: journal_reaches(market.settings, run_id, KILLED_AT, 300))
    again = market.start_config(given)
    assert contents(again.supervise()) == calm
    events = read_events(market.settings, again.run_id, limit=3 * ROUNDS)
    (restored,) = (event.payload["iteration"] for event in events if event.kind == "restored")
    assert restored >= KILLED_AT - EVERY
    iterations = [event.payload["iteration"] for event in events if event.kind == "iteration"]
    assert iterations == list(range(restored + 1, ROUNDS + 1))


def test_a_killed_linear_training_ends_in_the_same_bytes(base: SmallMarket, tmp_path: Path) -> None:
    """There is nothing to resume: it is solved again."""
    given = resolve_config("linear", seed=5)
    calm = contents(base.start_config(given).supervise())
    market = base.copy(tmp_path / "home", threads=1)

    def fits(run_id: str) -> bool:
        journal = RunFolder.of(market.settings, run_id).journal
        while '"stage": "fit"' not in (journal.read_text() if journal.is_file() else ""):
            time.sleep(0.02)
        return True

    killed(market, given, fits)
    assert contents(market.start_config(given).supervise()) == calm


@pytest.fixture(scope="module")
def problem() -> LearningProblem:
    """Twelve factors, one of them constant, one absent, some values missing."""
    planted = plant("interaction", Shape(days=60, instruments=30, features=12, snr=0.5, missing=0.05), seed=2)
    planted.data.features["F5"] = np.float32(3)
    planted.data.features["F7"] = np.float32(np.nan)
    return learning_problem(planted.data, FittedProcessors(), "CSZScoreNorm")


class Interrupted(BaseException):
    """The training process is gone."""


def attempt(
    given: TrainingConfig, problem: LearningProblem, folder: Path, ends_at: int = 0
) -> tuple[TrainingSession, FitResult, bytes]:
    """One attempt at a training, which may end in a round before that is checkpointed."""

    def observe(done: int, _: Any) -> None:
        if done == ends_at:
            raise Interrupted

    links = Links(checkpoints=CheckpointFolder(folder / "checkpoints"), observers=[observe])
    session, family = TrainingSession(given, links=links), find_family(given.family)()
    result = family.fit(problem, session)
    (folder / "model").mkdir(parents=True, exist_ok=True)
    family.save(folder / "model")
    (file,) = (folder / "model").iterdir()
    return session, result, file.read_bytes()


CUTS = {0.8: (7, (9, 16, 38)), 0.5: (1, (2, 3, 40)), 0.15: (10, (35,)), 0.05: (10, (35,)), 1.0: (10, (35,))}
"""Share of the columns that is drawn, to checkpoints and rounds in which the training ends."""


@pytest.mark.parametrize("model", BOOSTED)
@pytest.mark.parametrize("share", CUTS)
def test_a_training_may_be_interrupted_at_any_round(
    problem: LearningProblem, tmp_path: Path, model: str, share: float
) -> None:
    """Once or more often, whatever share of the columns is drawn: same model, gains, curves and best round."""
    every, ends = CUTS[share]
    given = config(model, 40, every, colsample_bytree=share, learning_rate=0.1)
    calm_session, calm_result, calm_model = attempt(given, problem, tmp_path / "calm")
    for end in ends:
        with pytest.raises(Interrupted):
            attempt(given, problem, tmp_path / "cut", end)
    session, result, model_bytes = attempt(given, problem, tmp_path / "cut")
    assert model_bytes == calm_model
    assert result == calm_result
    assert session.curves() == calm_session.curves()
    assert len(session.history) == 40


@pytest.mark.parametrize("model", BOOSTED)
@pytest.mark.parametrize("every", [1, 5])
def test_early_stopping_goes_across_checkpoints(
    problem: LearningProblem, tmp_path: Path, model: str, every: int
) -> None:
    """The best round may lie before the checkpoint; one that was written in the last round is followed by no other. The
    rank ICs of train are the same too."""
    given = config(model, 400, every, patience=12, learning_rate=0.3)
    compared = given.stopping.model_copy(update={"overfitting": OverfittingConfig(metric="rank_ic")})
    given = given.model_copy(update={"stopping": compared})
    calm_session, calm_result, calm_model = attempt(given, problem, tmp_path / "calm")
    last = len(calm_session.history)
    assert last == calm_result.best_iteration + 12 < 400
    with pytest.raises(Interrupted):
        attempt(given, problem, tmp_path / "cut", last - 2)
    for _ in range(2):  # the second time all rounds are done
        session, result, model_bytes = attempt(given, problem, tmp_path / "cut")
        assert (result, model_bytes) == (calm_result, calm_model)
        assert session.curves() == calm_session.curves()


@pytest.mark.parametrize("model", BOOSTED)
def test_a_training_that_finds_no_split_can_be_resumed(problem: LearningProblem, tmp_path: Path, model: str) -> None:
    """All rows score the same, round after round."""
    penalty = {"lightgbm": {"lambda_l1": 1e9}, "xgboost": {"gamma": 1e9}}[model]
    given = config(model, 20, 5, **penalty)
    calm_session, calm_result, calm_model = attempt(given, problem, tmp_path / "calm")
    with pytest.raises(Interrupted):
        attempt(given, problem, tmp_path / "cut", 13)
    session, result, model_bytes = attempt(given, problem, tmp_path / "cut")
    assert (result, model_bytes) == (calm_result, calm_model)
    assert session.curves() == calm_session.curves()
