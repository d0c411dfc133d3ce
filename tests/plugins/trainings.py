"""A finished training with all that its report shows: a small real artefact, and figures and records beside it."""

from dataclasses import dataclass, replace
from datetime import UTC, datetime

import numpy as np
import pandas as pd

from mlops_tasks.config import Settings
from mlops_tasks.files import write_json
from mlops_tasks.plots.figure import draw, write_png
from mlops_tasks.signing import ensure_signing_key
from mlops_tasks.state.history import record_gate_decision
from mlops_tasks.state.model_index import RegisteredVersion, index_versions
from mlops_tasks.state.tables import GateDecision
from mlops_tasks.training.certificate import Certificate, CertificateSubject, certificate_path
from mlops_tasks.training_folder import EvaluationRecord, ModelCertificate, TrainingFolder
from tests.plugins.runs import FINISHED, Runs
from tests.registry.trainings import DAYS, SEGMENTS, Spec, make_training

EVIL = "<img src=x onerror=alert(1)>"
VERSION = 7001
ITERATIONS = 3000
METRICS = {
    "valid_ic_mean": 0.03,
    "valid_rank_ic_mean": 0.035,
    "test_ic_mean": 0.02,
    "test_rank_ic_mean": 0.025,
    "test_information_ratio": 1.25,
    "test_max_drawdown": -0.08,
    "test_turnover": None,
}


@dataclass(frozen=True)
class Finished:
    """A run, and the training that it has made."""

    run_id: str
    key: str


def bare_training(runs: Runs, key: str) -> Finished:
    """A training of which nothing is known but its own folder, as an earlier version wrote it."""
    ensure_signing_key(runs.settings)
    make_training(runs.settings, Spec(key=key))
    run = runs.open("lightgbm")
    run.add(("finished", {**FINISHED, "training_key": key, "path": f"training/{key}"}))
    return Finished(run.run_id, key)


def whole_training(runs: Runs, key: str) -> Finished:
    """One that is evaluated, certified, registered, judged and explained; its texts would be markup."""
    found, settings = bare_training(runs, key), runs.settings
    folder = TrainingFolder.of(settings, key)
    folder.write_curves(
        {"loss": {"train": _falling(1.0), "valid": _falling(0.9)}, "rank_ic": {"valid": _every_fifth()}}
    )
    names = [f"F{number}" for number in range(60)] + [EVIL]
    folder.write_importance({name: 100.0 / (number + 1) for number, name in enumerate(names)})
    _evaluate(folder)
    _certify(settings, folder)
    _judge(settings, key)
    _register(settings, key)
    _explain(settings, key)
    return found


def _falling(top: float) -> list[float | None]:
    return [None if number == 2 else top * float(np.exp(-number / 500)) for number in range(ITERATIONS)]


def _every_fifth() -> list[float | None]:
    return [0.03 if number % 5 == 4 else None for number in range(ITERATIONS)]


def _evaluate(folder: TrainingFolder) -> None:
    days, random = SEGMENTS["test"], np.random.default_rng(3)
    columns = {name: random.normal(0.02, 0.1, len(days)) for name in ("ic", "rank_ic")}
    columns |= {name: random.normal(0.001, 0.01, len(days)) for name in ("return", "bench")}
    daily = pd.DataFrame({**columns, "cost": 0.0005, "turnover": 0.2}, index=days.rename("datetime"))
    daily.iloc[3, 0] = np.nan
    record = EvaluationRecord(folder.key, "lightgbm", "data0", "i", METRICS, {"topk": 5, "n_drop": 1}, ["equity.png"])
    folder.evaluation.write(record, daily)
    for plot in folder.evaluation.plot_files():
        plot.unlink()
    figure, _ = draw()
    write_png(figure, folder.evaluation.plots / "equity.png")


def _certify(settings: Settings, folder: TrainingFolder) -> None:
    subject = CertificateSubject(
        data_version="data0",
        feature_version="features0",
        feature_set="alpha158",
        definition="d",
        horizon=1,
        segments={},
        models=("lightgbm",),
        feature_processors=(),
        label_processors=(),
        cuts=(str(DAYS[-1].date()),),
        versions={},
    )
    check = {"name": "features", "subject": None, "cut": str(DAYS[-1].date()), "values": 123_456, "passed": True}
    made = Certificate(subject, (check,), datetime.now(UTC).isoformat(), 1.0, (f"who was a member {EVIL}",))
    path = certificate_path(settings, made.key)
    path.parent.mkdir(exist_ok=True)
    write_json(path, made.to_json())
    folder.write_certificate(ModelCertificate(made.key, [{**check, "name": "scores"}], "a" * 64))


def _judge(settings: Settings, key: str) -> None:
    decision = {"decision": "promote", "rule": "superiority", "reasons": [f"it gains 0.01 a day {EVIL}"], "n_days": 40}
    numbers = {"gain": 0.0123, "p_value": 0.004, "lower_bound": 0.001}
    row = GateDecision(training_key=key, decision=decision | numbers, champion_version=3, model_name="lightgbm")
    record_gate_decision(settings, row)


def _register(settings: Settings, key: str) -> None:
    version = RegisteredVersion(
        version=VERSION,
        training_key=key,
        family="lightgbm",
        data_version="data0",
        feature_version="features0",
        run_id="r",
        description="",
        registered_at=datetime(2026, 3, 2, tzinfo=UTC),
        metrics={},
        tags={},
    )
    index_versions(settings, [version, replace(version, version=VERSION + 1, training_key="b" * 16)])


def _explain(settings: Settings, key: str) -> None:
    folder = settings.reports_dir / "explanation" / f"2026-02-27-v{VERSION}-0"
    folder.mkdir(parents=True)
    write_json(
        folder / "report.json",
        {
            **{"date": "2026-02-27", "model_version": VERSION, "training_key": key, "data_version": "data0"},
            "method": "tree_shap",
            "sample": {"rows": 6000, "days": 120, "span": ["2025-01-02", "2026-02-27"]},
            "features": {EVIL: 0.31, "VSUMD60": 0.12, "KMID": None},
            "groups": {"momentum": {"share": 0.6, "ic_part": 0.01}, "volume": {"share": 0.4, "ic_part": None}},
        },
    )
