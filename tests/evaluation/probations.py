"""A new champion's probation, simulated: how often it is rolled back, by the product's own looks.

Each market day one more label exists, and the monitor runs, as often as it likes: a run at which no look is due, or at
which it was taken, does nothing. The daily difference of the two models' rank ICs is an AR(1) around minus the loss.
Its standard deviation is `KIN` as that of two models of 500 names whose ranks have a correlation of 0.9, `STRANGERS` as
that of two whose ranks have one of 0.5, since the rank IC of N names varies by 1 / sqrt(N).
"""

from functools import cache

import numpy as np
import pandas as pd
from scipy.signal import lfilter

from mlops_tasks.config import DeploymentSettings
from mlops_tasks.evaluation.significance import cosine_mean
from mlops_tasks.evaluation.worse import LookPlan, judge

KIN, STRANGERS = 0.02, 0.045
WARM_UP = 100
LIMITS = DeploymentSettings()


@cache
def market_days(count: int) -> pd.DatetimeIndex:
    """So many of them."""
    return pd.bdate_range("2024-01-01", periods=count)


def drawn(rho: float, loss: float, deviation: float, seed: int, days: int) -> pd.Series:
    """Daily rank IC of the new champion minus that of the one before, by datetime."""
    shocks = np.random.default_rng(seed).normal(size=days + WARM_UP)
    own = lfilter([np.sqrt(1 - rho**2)], [1.0, -rho], shocks)[WARM_UP:]
    return pd.Series(deviation * own - loss, market_days(days))


def rolled_back_after(difference: pd.Series, limits: DeploymentSettings = LIMITS) -> int | None:
    """Mature days after which the champion is rolled back; None: it stands its probation."""
    plan, done = LookPlan.of(limits), 0
    for mature in range(1, len(difference) + 1):
        if plan.due(mature) > done:
            done = plan.due(mature)
            if judge(difference.iloc[:mature], plan, done).worse:
                return mature
    return None


def probations(rho: float, loss: float, deviation: float, count: int) -> list[int | None]:
    """What becomes of independent champions."""
    days = LIMITS.probation_days
    return [rolled_back_after(drawn(rho, loss, deviation, seed, days)) for seed in range(count)]


def errs_by_daily_looks(rho: float, seed: int) -> bool:
    """Whether a look at every mature day, each at the whole level, finds a champion worse that is exactly as good."""
    values, rules = drawn(rho, 0.0, KIN, seed, LIMITS.probation_days).to_numpy(), LIMITS.quality
    days = range(rules.first_look_days, LIMITS.probation_days + 1)
    return any(cosine_mean(-values[:count]).p_one_sided <= rules.alpha for count in days)
