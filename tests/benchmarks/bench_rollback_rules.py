"""A new champion's probation: how often a model that is no worse is rolled back, and one that is, by the looks as used.

`tests/evaluation/probations.py` says what is simulated. By AR(1) coefficient of the daily differences: `p_false` is the
probability that a model exactly as good as the one before is rolled back at any look of its probation; `p_found` that
one worse by 0.02 of mean daily rank IC is, where the daily differences have a standard deviation of 0.02 (two models
that are much alike), `p_found_strangers` where they have one of 0.045; `days` is the mean of the days until
then. The peer is a look at every mature day from the first look on, each at the whole level: a threshold on noise.
"""

import time
from typing import Any

import numpy as np

FALSE_COUNT, FOUND_COUNT, DAILY_COUNT = 4000, 1000, 200
LOSS = 0.02
RHOS = (0.0, 0.3, 0.7)


def run() -> dict[str, Any]:
    """All cells."""
    from tests.evaluation.probations import KIN, STRANGERS, errs_by_daily_looks, probations

    started = time.perf_counter()

    def share(loss: float, deviation: float, count: int) -> tuple[dict[str, float], dict[str, float | None]]:
        found = {f"{rho:g}": probations(rho, loss, deviation, count) for rho in RHOS}
        shares = {rho: round(float(np.mean([day is not None for day in days])), 4) for rho, days in found.items()}
        known = {rho: [day for day in days if day is not None] for rho, days in found.items()}
        return shares, {rho: round(float(np.mean(days)), 1) if days else None for rho, days in known.items()}

    false, _ = share(0.0, KIN, FALSE_COUNT)
    found, days = share(LOSS, KIN, FOUND_COUNT)
    strangers, _ = share(LOSS, STRANGERS, FOUND_COUNT)
    every_day = {
        f"{rho:g}": float(np.mean([errs_by_daily_looks(rho, seed) for seed in range(DAILY_COUNT)])) for rho in RHOS
    }
    ours, peer = max(false.values()), max(every_day.values())
    return {
        "name": "rollback_rules",
        "ours": ours,
        "peer": peer,
        "unit": "largest p_false",
        "ratio": round(peer / max(ours, 1 / FALSE_COUNT), 2),
        "p_false": false,
        "p_found": found,
        "p_found_strangers": strangers,
        "days": days,
        "p_false_every_day": every_day,
        "seconds": round(time.perf_counter() - started, 1),
    }
