"""The newest day's scores for an honest client while another, with a valid token too, does its worst.

The service runs as `make up` starts it, on 500 instruments x 400 days of Alpha158. The hostile client sends large and
nested bodies, dates that are not in memory, headers and bodies that do not end, hundreds of connections, and what is no
number. `ours`: p99 of the honest client's requests meanwhile, `peer`: of the same requests in quiet; `peak_mb`: memory
of the service with its reader. SOAK_S of the environment says how long it takes (60). With WORKERS=2 or more one of
them is killed amid the attack, and the honest client asks again, as it does when it is busy.
"""

import os
import tempfile
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pandas as pd

from mlops_tasks.config import Settings, StackSettings
from mlops_tasks.registry.approvals import approve_model
from tests.benchmarks.soak import ask_newest_day, peak_memory, running_service, under_attack, worker_killed
from tests.operation import free_ports, make_champion, publish_vintage, register_model
from tests.registry.trainings import DAYS, Spec

INSTRUMENTS = [f"S{number:04d}" for number in range(500)]
PERIODS = 400


def run() -> dict[str, Any]:
    """Quiet, then the attack."""
    seconds, workers = float(os.environ.get("SOAK_S", "60")), int(os.environ.get("WORKERS", "1"))
    with tempfile.TemporaryDirectory() as name:
        settings = Settings(home=Path(name), stack=StackSettings(scoring_port=free_ports(1)[0]))
        days = make_operation(settings)
        os.environ |= {
            "MLOPS_HOME": name,
            "MLOPS_SCORING_TOKEN": "token-of-the-soak",
            "MLOPS_STACK__SCORING_PORT": str(settings.stack.scoring_port),
            "MLOPS_SERVING__WORKERS": str(workers),
        }
        environ = dict(os.environ)
        with running_service(settings, environ) as service, peak_memory(service.pid) as peak:
            quiet = ask_newest_day(settings, seconds / 3)
            with worker_killed(service.pid, seconds / 2) if workers > 1 else nullcontext():
                attacked, counts = under_attack(settings, environ, seconds, days)
    return {
        "name": "scoring_soak",
        "ours": round(attacked.p99_ms, 2),
        "peer": round(quiet.p99_ms, 2),
        "unit": "ms",
        "workers": workers,
        "ratio": round(quiet.p99_ms / attacked.p99_ms, 3),
        "p50_ms": round(attacked.p50_ms, 2),
        "quiet_p50_ms": round(quiet.p50_ms, 2),
        "peak_mb": round(peak[0]),
        "requests": len(attacked.seconds),
        "failed": len(attacked.failed),
        "hostile": counts,
    }


def make_operation(settings: Settings) -> list[str]:
    """A vintage with features and a champion; its trading days from the third month on."""
    days = pd.bdate_range(DAYS[0], periods=PERIODS)
    (settings.home / "mlflow").mkdir()
    vintage, feature_version = publish_vintage(settings, days, INSTRUMENTS)
    version = register_model(settings, Spec(), vintage, feature_version)
    approve_model(settings, version, reason="the model of the soak")
    make_champion(settings, version)
    return [str(day.date()) for day in days[60:-1]]
