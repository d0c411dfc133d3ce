"""What the event stream costs a training: LightGBM with every iteration recorded, against the same without events.

Both sides learn the same matrix with the zoo's parameters, each in a process of its own, in turns; a side's time is
that of its fastest parts (`parts.py`), one of which is everything before the end of the first round. The recorded side
has the journal, the look for commands, and, as in operation, a second process that carries the journal into a database.
Ratio: time without / time with; 0.98 is the least that is allowed.
"""

import json
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from mlops_tasks.config import Settings
from mlops_tasks.modeling.configuration import resolve_config
from mlops_tasks.modeling.model_zoo.family import find_family
from mlops_tasks.modeling.problem import LearningProblem
from mlops_tasks.modeling.session import Links, TrainingSession
from mlops_tasks.state.tables import TrainingRun
from mlops_tasks.state.training_runs import record_training_run
from mlops_tasks.training.control import CommandRelay, FileControl
from mlops_tasks.training.events import JournalReader, Recorder, read_events
from mlops_tasks.training.journal import Journal
from mlops_tasks.training.supervision import COPY_S
from tests.benchmarks.parts import PartsClock, compared
from tests.benchmarks.processes import in_process

MODULE = "tests.benchmarks.bench_training_events"
DAYS, INSTRUMENTS, FEATURES = 400, 300, 158
ROUNDS = 300
REPEATS = 5


def run() -> dict[str, Any]:
    """Both sides in turns."""
    silent, recorded = [], []
    for _ in range(REPEATS):
        silent.append(in_process(MODULE, "silent"))
        recorded.append(in_process(MODULE, "recorded"))
    return {
        "name": "training_events",
        **compared(recorded, silent, ROUNDS + 1),
        "iterations": recorded[0]["iterations"],
        "events": recorded[0]["events"],
        "us_per_iteration": round(min(each["us_per_iteration"] for each in recorded), 1),
    }


def problem() -> LearningProblem:
    """Standard normal features of which some matter, over train (3/4 of the days) and valid."""
    rng = np.random.default_rng(0)
    rows = DAYS * INSTRUMENTS
    features = rng.standard_normal((rows, FEATURES), dtype=np.float32)
    signal = features[:, :20].sum(axis=1) + features[:, 20] * features[:, 21]
    label = (0.1 * signal / signal.std() + rng.standard_normal(rows)).astype(np.float32)
    cut = DAYS * 3 // 4 * INSTRUMENTS
    return LearningProblem(
        features=features,
        label=label,
        realised=label.astype(np.float64),
        day=np.repeat(np.arange(DAYS, dtype=np.int32), INSTRUMENTS),
        instrument=np.tile(np.arange(INSTRUMENTS, dtype=np.int32), DAYS),
        train=slice(0, cut),
        valid=slice(cut, rows),
        names=[f"F{number}" for number in range(FEATURES)],
    )


def fit(links: Links) -> dict[str, Any]:
    """A fit's parts, and how many iterations it had."""
    config = resolve_config("lightgbm", {"num_boost_round": ROUNDS}, seed=1)
    config = config.model_copy(update={"stopping": config.stopping.model_copy(update={"patience": ROUNDS})})
    learned, family = problem(), find_family(config.family)()
    clock = PartsClock()
    links = replace(links, observers=[lambda _, __: clock.mark()])
    session = TrainingSession(config, threads=1, links=links)
    family.fit(learned, session)
    return {**clock.read(), "iterations": len(session.history)}


def recorded_fit() -> dict[str, Any]:
    """A fit with everything that a run has; and the cost of one report, measured alone."""
    with tempfile.TemporaryDirectory() as name:
        home = Path(name)
        settings = Settings(home=home)
        row = TrainingRun(run_id="r", model="lightgbm", data_version="d", owner="o", priority=0, request={})
        record_training_run(settings, row)
        journal = Journal(home / "events.jsonl")
        links = Links(journal.append, FileControl(home / "command"))
        command = [sys.executable, "-W", "ignore", "-m", MODULE, "record", name]
        with subprocess.Popen(command) as recorder:
            result = fit(links)
            journal.append("finished", {})
            recorder.wait()
        events = len(read_events(settings, "r", limit=10 * ROUNDS))
        config = resolve_config("lightgbm", seed=1)
        session, started = TrainingSession(config, links=links), time.perf_counter()
        for done in range(1, 20_001):
            session.iteration(done, {"train.loss": 1 / done, "valid.loss": 1 / done, "valid.rank_ic": 0.02})
        return {**result, "events": events, "us_per_iteration": (time.perf_counter() - started) / 20_000 * 1e6}


def record(home: Path) -> None:
    """The parent's part, until the terminal event."""
    settings = Settings(home=home)
    reader = JournalReader(home / "events.jsonl")
    recorder, relay = Recorder(settings, "r", reader), CommandRelay(settings, "r", home / "command")
    while not reader.ended:
        time.sleep(COPY_S)
        recorder.record()
        relay.relay()


if __name__ == "__main__":
    if sys.argv[1] == "record":
        record(Path(sys.argv[2]))
    else:
        print(json.dumps(recorded_fit() if sys.argv[1] == "recorded" else fit(Links())))
