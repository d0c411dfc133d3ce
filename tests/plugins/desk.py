"""A day of a desk in the home of the API server's tests, with texts that would be markup, and taken back afterwards."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import pandas as pd

from mlops_tasks.config import Settings
from mlops_tasks.data.revisions.diff import diff_vintages
from mlops_tasks.data.vintages import Vintage, write_vintage
from mlops_tasks.files import write_json
from mlops_tasks.monitoring.performance_files import DAYS, performance_path
from mlops_tasks.state.alerts import raise_alert
from mlops_tasks.state.alerts.handling import open_episodes, resolve
from mlops_tasks.state.experiments import steps_of
from mlops_tasks.state.predictions import record_predictions
from mlops_tasks.state.tables import Prediction, PredictionScores, now
from mlops_tasks.states import ExperimentState
from tests.operation import bars
from tests.overview import desk
from tests.plugins.reports import EVIL

CHAMPION = 72
"""Numbers that no other test gives."""
RESTATED = 59
"""The number of the last row whose close is another one in the blocked vintage."""


@dataclass(frozen=True)
class Day:
    """What happened."""

    vintage: Vintage
    blocked: str
    """The data version that waits for an approval."""
    champion: int


@contextmanager
def happened(settings: Settings) -> Iterator[Day]:
    """A vintage, scores, a champion, the gate, drift, alerts and experiments, until the block ends."""
    vintage = desk.publish_bars(settings, source=f"vendor/{EVIL.replace('/', '')}")
    for version in (CHAMPION - 1, CHAMPION):
        desk.serve(settings, version, indexed=False)
    desk.score(settings, CHAMPION)
    desk.keep(settings, "k73", CHAMPION, f"its gain is not proven {EVIL}", wait={"days": 4, "next_day": "2026-02-06"})
    for number in range(4):
        _report_drift(settings, number)
    _keep_performance(settings)
    _answer(settings)
    for name, state in (("desk_orders", ExperimentState.RUNNING), ("desk_costs", ExperimentState.STOPPED)):
        if not steps_of(settings, name):  # another module's day may have begun it
            desk.experiment(settings, name, state)
    frame = bars(desk.DAYS, desk.NAMES).query("datetime < @desk.DAYS[-1]").reset_index(drop=True)
    frame.loc[:RESTATED, "close"] *= 1.3
    blocked = write_vintage(settings, frame, None, {"source": "s", "received": len(frame), "quarantined": 0})
    diff_vintages(settings, vintage.data_version, blocked.data_version)
    raise_alert(settings, kind="vintage_blocked", subject=blocked.data_version, message=f"it ends earlier {EVIL}")
    yield Day(vintage, blocked.data_version, CHAMPION)
    (settings.data_dir / "current.json").unlink()
    shutil.rmtree(settings.reports_dir / "performance")
    for episode in open_episodes(settings):
        resolve(settings, episode.key, "the tests")


def _report_drift(settings: Settings, number: int) -> None:
    """A report of one of the last days, in the state database and on disk."""
    day = desk.DAYS[number - 4].date()
    desk.drift(settings, CHAMPION, beyond=number, day=day)
    folder = settings.reports_dir / "drift" / f"{day}-v{CHAMPION}-0a1b2c3d"
    names = ["score", EVIL, "VSUMD60", "KMID"]
    far = [0.4, 0.9, 0.5 + number, 0.1]
    write_json(folder / "report.json", {"date": str(day), "model_version": CHAMPION, **DRIFT})
    shares = [float("nan"), 0.2, 0.1, 0.05]
    pd.DataFrame({"column": names, "exceedance": far, "importance_share": shares}).to_parquet(folder / "drift.parquet")


DRIFT = {
    **{"verdict": "drift", "n_alert": 1, "n_warn": 1, "columns": 4, "beyond": [], "psi_max": 0.1, "score_psi": 0.0},
    **{"training_key": f"k{CHAMPION}", "data_version": "d", "current_days": 20, "current_rows": 100},
    **{"importance_beyond": 0.1, "importance_unknown": 0, "scores_beyond": False, "importance_by": "training"},
}


def _keep_performance(settings: Settings) -> None:
    days = [
        {"date": str(day.date()), "names": 5, "ic": 0.01, "rank_ic": 0.01 * number, "hit_rate": 0.5, "top_return": None}
        for number, day in enumerate(desk.DAYS[:10])
    ]
    figures = {"model_version": CHAMPION, "arm": "champion", "mature_days": 10, "last_mature_day": days[-1]["date"]}
    figures |= {"rank_ic_mean": 0.045, "rank_ic_lower": None, "rank_ic_upper": None, "hit_rate": 0.5}
    path = performance_path(settings, str(desk.LAST), "0" * 16)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, {"performance": [figures], DAYS: [days]})


def _answer(settings: Settings) -> None:
    """Answers of the scoring service about the newest day."""
    table = PredictionScores(digest="desk", instruments='["S000"]', scores=np.array([0.5]).tobytes())
    about = {"writer": "desk", "training_key": f"k{CHAMPION}", "slot": "blue", "arm": "champion", "scores": "desk"}
    about |= {"date": desk.LAST, "data_version": "d", "feature_version": "f", "chosen": None}
    rows = [
        Prediction(
            **about,
            sequence=number,
            at=now(),
            request_id=f"desk{number}",
            key_name=EVIL[:60],
            model_version=CHAMPION,
            instruments=1,
            missing=0,
            latency_ms=float(number),
        )
        for number in range(1, 5)
    ]
    record_predictions(settings, rows, [table])
