"""LightGBM through our engine against bare lightgbm.train: same matrix, parameters, threads and rounds.

Ours is a run as in operation: a supervised process of its own, events carried into a database, losses and ICs of every
round, checkpoints, the kept model as text. Compared is its fit stage, from the processed matrix to the model, against
binning and `lightgbm.train` with the same two segments evaluated, also in a process of its own. Both take turns.

A side's time is that of its fastest parts (`parts.py`): all before the end of the first round, each further round, all
after the last one. Ratio: bare / ours; 0.95 is the least that is allowed. `whole_ratio` compares the fastest whole
fits, `cpu_ratio` their processor seconds.
"""

import json
import shutil
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightgbm
import numpy as np

from mlops_tasks.config import Settings, SyntheticSettings, TrainingSettings
from mlops_tasks.data.sources.synthetic import synthetic_bars
from mlops_tasks.data.vintages import write_vintage
from mlops_tasks.features.store import FeatureStore
from mlops_tasks.files import read_json, write_json
from mlops_tasks.modeling.configuration import TrainingConfig, resolve_config
from mlops_tasks.modeling.dataset import fit_processors, load_learning_data
from mlops_tasks.modeling.model_zoo.lightgbm import LightGBMFamily
from mlops_tasks.modeling.problem import LearningProblem, learning_problem
from mlops_tasks.modeling.session import TrainingSession
from mlops_tasks.training import fit, supervision
from mlops_tasks.training.engine import UnifiedQlibTrainingEngine
from mlops_tasks.training.events import read_events
from mlops_tasks.training.plan import RunPlan, make_plan
from tests.benchmarks.parts import PartsClock, compared
from tests.benchmarks.processes import in_process

MODULE = "tests.benchmarks.bench_train_gbdt"
MARKET = SyntheticSettings(instruments=300, days=1120, signal_strength=0.1)
"""A little more than 200,000 rows to learn from, 158 factors."""
ROUNDS = 120
THREADS = 1
REPEATS = 6
TIMES = "fit_seconds.json"


def run() -> dict[str, Any]:
    """Both sides in turns."""
    with tempfile.TemporaryDirectory() as home:
        rows = in_process(MODULE, "prepare", home)
        ours, bare = [], []
        for _ in range(REPEATS):
            bare.append(in_process(MODULE, "bare", home))
            ours.append(in_process(MODULE, "ours", home))
    return {
        "name": "train_gbdt",
        **compared(ours, bare, ROUNDS + 1),
        "rounds": ROUNDS,
        "threads": THREADS,
        "repetitions": REPEATS,
        **rows,
        "events": ours[0]["events"],
        "max_abs_diff": abs(ours[0]["valid_loss"] - bare[0]["valid_loss"]),
    }


def settings_of(home: Path) -> Settings:
    """Of all sides."""
    return Settings(home=home, training=TrainingSettings(threads=THREADS))


def configuration() -> TrainingConfig:
    """The zoo's, of so many rounds, none of which is the last one before its time."""
    made = resolve_config("lightgbm", {"num_boost_round": ROUNDS}, seed=1)
    return made.model_copy(update={"stopping": made.stopping.model_copy(update={"patience": ROUNDS})})


def prepare(home: Path) -> dict[str, int]:
    """A vintage, its features, a plan, and the matrix of its run for the bare side."""
    settings = settings_of(home)
    vintage = write_vintage(settings, synthetic_bars(MARKET), None, {})
    feature_version = FeatureStore(settings).compute(vintage, "alpha158").feature_version
    plan = make_plan(settings, vintage.data_version, vintage.calendar(), {"models": ["lightgbm"]})
    write_json(home / "request.json", {"plan": plan.model_dump(mode="json"), "feature_version": feature_version})
    data = load_learning_data(settings, plan.learning_spec(feature_version))
    problem = learning_problem(data, fit_processors(data, ()), configuration().label_processor)
    for name, segment in (("train", problem.train), ("valid", problem.valid)):
        rows = problem.learned(segment)
        np.savez(home / f"{name}.npz", features=problem.features[rows], label=problem.label[rows])
    train, valid = len(problem.learned(problem.train)), len(problem.learned(problem.valid))
    return {"train_rows": train, "valid_rows": valid, "features": problem.features.shape[1]}


def bare(home: Path) -> dict[str, Any]:
    """`lightgbm.train` with the parameters that our side gives it."""
    (features, label), (valid, valid_label) = (_matrix(home, name) for name in ("train", "valid"))
    params = dict(configuration().hyperparameters)
    del params["num_boost_round"]
    params |= {"objective": params.pop("loss"), "seed": 1, "num_threads": THREADS, "verbosity": -1}
    params |= {"deterministic": True, "force_row_wise": True}
    clock = PartsClock()
    learn = lightgbm.Dataset(features, label)
    watch = lightgbm.Dataset(valid, valid_label, reference=learn)
    segments = {"valid_sets": [learn, watch], "valid_names": ["train", "valid"]}
    booster = lightgbm.train(params, learn, ROUNDS, **segments, callbacks=[lambda _: clock.mark()])
    return {**clock.read(), "valid_loss": booster.best_score["valid"]["l2"]}


def _matrix(home: Path, name: str) -> tuple[np.ndarray, np.ndarray]:
    with np.load(home / f"{name}.npz") as content:
        return content["features"], content["label"]


def ours(home: Path) -> dict[str, Any]:
    """A run through the engine; its folder is removed, so that the next one trains again."""
    settings, request = settings_of(home), read_json(home / "request.json")
    supervision.FIT_STAGE = f"{MODULE}:timed_fit_stage"
    engine = UnifiedQlibTrainingEngine(settings)
    handle = engine.start(RunPlan.model_validate(request["plan"]), request["feature_version"], configuration())
    folder = handle.supervise()
    loss = read_json(folder / "curves.json")["loss"]["valid"][-1]
    shutil.rmtree(folder)
    events = len(read_events(settings, handle.run_id, limit=10 * ROUNDS))
    return {**read_json(home / TIMES), "valid_loss": loss, "events": events}


def timed_fit_stage(*, folder: str) -> dict[str, Any]:
    """The training process, which also writes how long its fit took."""

    class Timed(LightGBMFamily):
        def fit(self, problem: LearningProblem, session: TrainingSession) -> Any:
            clock, end_round = PartsClock(), session.checkpoint

            def end_part(done: int, write: Callable[[Path], None]) -> None:
                end_round(done, write)
                clock.mark()

            session.checkpoint = end_part  # type: ignore[method-assign]
            result = super().fit(problem, session)
            write_json(settings.home / TIMES, clock.read())
            return result

    settings, _ = fit.RunFolder(Path(folder)).read()
    fit.find_family = lambda _: Timed  # type: ignore[assignment]
    return fit.fit_stage(folder=folder)


if __name__ == "__main__":
    side = {"prepare": prepare, "bare": bare, "ours": ours}[sys.argv[1]]
    print(json.dumps(side(Path(sys.argv[2]))))
