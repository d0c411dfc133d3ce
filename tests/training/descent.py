"""A small market, and trainings of the family of `descent_family.py` on it.

`DESCENT`, a program of `tests/programs.py`, trains once, as a caller that may be killed; `<market>` is
`SmallMarket.to_json`, the first line of output is the run's id.
"""

import json
import shutil
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from mlops_tasks.config import Settings, TrainingSettings
from mlops_tasks.features.store import FeatureStore
from mlops_tasks.modeling.configuration import TrainingConfig
from mlops_tasks.modeling.stopping import StoppingConfig
from mlops_tasks.signing import ensure_signing_key
from mlops_tasks.training import supervision
from mlops_tasks.training.engine import TrainingHandle, UnifiedQlibTrainingEngine
from mlops_tasks.training.plan import RunPlan, make_plan
from mlops_tasks.training.run_folder import RunFolder
from tests import programs
from tests.features.market import awkward_bars, make_vintage
from tests.features.small_sets import SETS
from tests.shared_stages import serve
from tests.training.descent_family import NAME, known_families

DESCENT = programs.module("tests.training.descent")
FIT_STAGE = "tests.training.descent_family:fit_stage"
CHECKPOINT_EVERY = 7


def config(**hyperparameters: Any) -> TrainingConfig:
    """A training of 40 steps of some milliseconds each; `learning_rate`, `steps` and `step_s` may be changed."""
    return TrainingConfig(
        model=NAME,
        family=NAME,
        hyperparameters={"learning_rate": 0.01, "steps": 40, "step_s": 0.004, **hyperparameters},
        feature_processors=("robust_zscore_fill_zero",),
        label_processor="CSZScoreNorm",
        stopping=StoppingConfig(patience=30),
        checkpoint_every=CHECKPOINT_EVERY,
        seed=3,
    )


@dataclass(frozen=True)
class SmallMarket:
    """A home with a vintage of 8 instruments and 150 days, and features of it."""

    settings: Settings
    plan: RunPlan
    feature_version: str

    @classmethod
    def make(cls, home: Path) -> "SmallMarket":
        """Write it below `home`."""
        settings = Settings(home=home)
        ensure_signing_key(settings)  # copies have the same one: equal trainings leave equal bytes
        vintage = make_vintage(home, awkward_bars(instruments=8, days=150))
        plan = make_plan(settings, vintage.data_version, vintage.calendar(), {"models": ["linear"]})
        return cls(settings, plan, FeatureStore(settings).compute(vintage, SETS["windows"]).feature_version)

    def to_json(self) -> str:
        """For another process."""
        return json.dumps([str(self.settings.home), self.plan.model_dump(mode="json"), self.feature_version])

    @classmethod
    def from_json(cls, content: str) -> "SmallMarket":
        """The inverse of `to_json`."""
        home, plan, feature_version = json.loads(content)
        return cls(Settings(home=Path(home)), RunPlan.model_validate(plan), feature_version)

    def copy(self, home: Path, **training: Any) -> "SmallMarket":
        """The same in another home, with other settings of section `training`."""
        for name in ("data", "features", "secrets"):
            shutil.copytree(self.settings.home / name, home / name)
        serve(home)
        settings = Settings(home=home, training=TrainingSettings(**training))
        return SmallMarket(settings, self.plan, self.feature_version)

    def start(self, **hyperparameters: Any) -> TrainingHandle:
        """A run of the small family."""
        return self.start_config(config(**hyperparameters))

    def start_config(self, given: TrainingConfig, **claim: Any) -> TrainingHandle:
        """A run of a configuration; `claim` is its owner and priority."""
        with known_families():
            return UnifiedQlibTrainingEngine(self.settings).start(self.plan, self.feature_version, given, **claim)


def contents(folder: Path) -> dict[str, bytes]:
    """Every file of a training folder but metrics.json, which holds the run's id and how long it took."""
    files = (path for path in sorted(folder.rglob("*")) if path.is_file() and path.name != "metrics.json")
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def journal_reaches(settings: Settings, run_id: str, iteration: int, timeout_s: float = 60) -> bool:
    """Wait for an iteration in a run's journal, less closely for the first; False when the run is over before."""
    journal, wanted = RunFolder.of(settings, run_id).journal, f'"iteration": {iteration},'
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        try:
            written = journal.read_text()
        except FileNotFoundError:
            return False
        if wanted in written:
            return True
        time.sleep(0.002 if '"iteration": ' in written else 0.01)
    raise AssertionError(f"{journal}: iteration {iteration} did not come in {timeout_s:.0f} s")


@pytest.fixture
def descending(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the engine of this process start `FIT_STAGE`, and look more often."""
    monkeypatch.setattr(supervision, "FIT_STAGE", FIT_STAGE)
    monkeypatch.setattr(supervision, "TICK_S", 0.05)


if __name__ == "__main__":
    supervision.FIT_STAGE = FIT_STAGE
    started = SmallMarket.from_json(sys.argv[1]).start()
    print(started.run_id, flush=True)
    started.supervise()
