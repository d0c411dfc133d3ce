"""A network that goes on from a checkpoint is the undisturbed one bit for bit: after SIGKILL, at any epoch."""

from pathlib import Path
from typing import Any

import pytest

from mlops_tasks.modeling.checkpoints import CheckpointFolder
from mlops_tasks.modeling.configuration import TrainingConfig, resolve_config
from mlops_tasks.modeling.model_zoo.family import FitResult
from mlops_tasks.modeling.model_zoo.network import NetworkFamily
from mlops_tasks.modeling.session import Links, TrainingSession
from mlops_tasks.modeling.stopping import StoppingConfig
from mlops_tasks.training.events import read_events
from tests.training.descent import SmallMarket, contents, journal_reaches
from tests.training.networks.test_trainer import PROBLEM, small
from tests.training.test_resumed_models import killed

EPOCHS, KILLED_AT = 24, 11


def with_patience(config: TrainingConfig, patience: int) -> TrainingConfig:
    """Stops on the validation loss."""
    return config.model_copy(update={"stopping": StoppingConfig(metric="loss", patience=patience)})


def test_a_killed_network_ends_in_the_same_bytes(tmp_path: Path) -> None:
    """A Transformer with dropout: the second attempt goes on from the newest checkpoint; every file is the same."""
    shape = {"window": 8, "d_model": 16, "heads": 2, "dropout": 0.3}
    given = with_patience(resolve_config("transformer", {**shape, "epochs": EPOCHS}, seed=5), EPOCHS)
    made = SmallMarket.make(tmp_path / "made")
    calm = contents(made.copy(tmp_path / "calm", threads=1).start_config(given).supervise())
    market = made.copy(tmp_path / "home", threads=1)
    killed(market, given, lambda run_id: journal_reaches(market.settings, run_id, KILLED_AT, 300))
    again = market.start_config(given)
    assert contents(again.supervise()) == calm
    events = read_events(market.settings, again.run_id, limit=10 * EPOCHS)
    (restored,) = (event.payload["iteration"] for event in events if event.kind == "restored")
    assert KILLED_AT - given.checkpoint_every <= restored < EPOCHS
    iterations = [event.payload["iteration"] for event in events if event.kind == "iteration"]
    assert iterations == list(range(restored + 1, EPOCHS + 1))


class Interrupted(BaseException):
    """The training process is gone."""


def attempt(given: TrainingConfig, folder: Path, ends_at: int = 0) -> tuple[TrainingSession, FitResult, list[bytes]]:
    """One attempt at a training, which may end in an epoch before that is checkpointed."""

    def observe(done: int, _: Any) -> None:
        if done == ends_at:
            raise Interrupted

    links = Links(checkpoints=CheckpointFolder(folder / "checkpoints"), observers=[observe])
    session, family = TrainingSession(given, links=links), NetworkFamily()
    result = family.fit(PROBLEM, session)
    (folder / "model").mkdir(parents=True, exist_ok=True)
    family.save(folder / "model")
    return session, result, [file.read_bytes() for file in sorted((folder / "model").iterdir())]


@pytest.mark.parametrize("name", ["mlp", "gru", "patchtst"])
@pytest.mark.parametrize("every", [1, 2])
def test_a_training_may_be_interrupted_at_any_epoch(tmp_path: Path, name: str, every: int) -> None:
    """In the first epoch, in the last, or in several: same weights, importance, curves and best epoch."""
    given = with_patience(small(name), 9).model_copy(update={"checkpoint_every": every})
    calm_session, calm_result, calm_files = attempt(given, tmp_path / "calm")
    for end in (1, 3, 4):
        with pytest.raises(Interrupted):
            attempt(given, tmp_path / "cut", end)
    session, result, files = attempt(given, tmp_path / "cut")
    assert (result, files) == (calm_result, calm_files)
    assert session.curves() == calm_session.curves()
    assert len(session.history) == 4


def test_a_training_that_had_stopped_is_not_trained_further(tmp_path: Path) -> None:
    """The checkpoint of the epoch that stopped it is followed by no other epoch."""
    given = with_patience(small("mlp", epochs=40, learning_rate=0.05), 2)
    calm_session, calm_result, calm_files = attempt(given, tmp_path)
    assert len(calm_session.history) == calm_result.best_iteration + 2 < 40
    session, result, files = attempt(given, tmp_path)
    assert (result, files) == (calm_result, calm_files)
    assert session.curves() == calm_session.curves()
